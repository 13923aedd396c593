"""What a run says it was made with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import medseg_paddle
from medseg_paddle.steps.provenance import git_state


def test_a_checkout_names_its_own_commit(monkeypatch):
    monkeypatch.setenv("MEDSEG_REVISION", "of-another-image")
    if not (Path(medseg_paddle.__file__).parents[1] / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the tests do not run in a git checkout")
    state = git_state()
    assert len(state["commit"]) == 40


def test_without_a_checkout_the_image_s_commit_counts(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # no git, as in the image
    monkeypatch.setenv("MEDSEG_REVISION", "0123abc")
    assert git_state() == {"commit": "0123abc", "changed": False}
    monkeypatch.setenv("MEDSEG_REVISION", "unknown")
    assert git_state() is None
