"""The page of findings: whole in one file, safe with any name, and readable on a phone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg_paddle.steps.check import check


@pytest.fixture
def page(blobs, tmp_path) -> Path:
    blobs.write_label("P01_1", np.roll(blobs.label("P01_1"), 5, 1))
    blobs.write_label("P02_1", blobs.label("P02_1") * 0)
    blobs.write_label("P03_1", blobs.label("P03_1")[:-1])
    evil = blobs.lists / "images" / "<b>&'.png"
    shutil.copy(blobs.lists / "images/P04_1.png", evil)
    with (blobs.lists / "test_list.txt").open("a") as listing:
        listing.write("images/<b>&'.png labels/P04_1.png\n")
    (blobs.lists / "val_list.txt").write_text("images/<script>x</script>.png labels/P05_1.png\n")
    path = tmp_path / "page.html"
    check(blobs.lists, page=path)
    return path


def test_it_is_whole_and_reaches_for_nothing(page):
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert "<script" not in text
    assert "http" not in re.sub(r'src="data:[^"]*"', "", text).replace("http-equiv", "")


def test_names_are_escaped(page):
    text = page.read_text()
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text
    assert "&lt;script&gt;" in text


def test_suspects_are_shown_with_their_outlines(page):
    text = page.read_text()
    article = text[text.index("mask-shifted") :]
    article = article[: article.index("</article>")]
    assert article.count("<img") == 1
    assert "px right" in article
    assert str(page.parent) not in text


def test_without_suspects_there_is_a_sample(clean_blobs, tmp_path):
    check(clean_blobs.lists, page=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "Nothing wrong found" in text
    assert text.count("<img") == 6


def test_nothing_is_wider_than_the_screen_of_a_computer_or_a_phone(page, tmp_path):
    chromium, driver = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
    if not (chromium.exists() and driver.exists()):
        pytest.skip("Debian's chromium and chromium-driver are not installed (.ci/run installs them)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    browser = webdriver.Chrome(options=options, service=Service(str(driver)))
    try:
        browser.get(page.as_uri())
        for width in (1280, 390):
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        broken = "return [...document.images].filter(i => i.complete && !i.naturalWidth).length"
        assert browser.execute_script(broken) == 0
    finally:
        browser.quit()
