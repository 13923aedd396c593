"""The public sets, as they are and dirtied: no false alarm about a shift, and the true ones found."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from medseg_paddle.steps.check import check

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ABOUT_SHIFTS = {"mask-shifted", "masks-shifted", "mask-turned"}


def codes(result):
    return {one.code for one in result.findings}


@pytest.mark.parametrize(
    ("folder", "config", "cases"),
    [
        ("drive", "unet_drive.yml", 40),
        ("isbi2012_membrane", "unet_isbi2012.yml", 30),
        ("lung_ct", "unet_lung_ct.yml", 4),
    ],
)
def test_sets_as_they_are_raise_no_alarm(real_data, folder, config, cases):
    result = check(real_data / folder, CONFIGS / config)
    assert sum(result.splits.values()) == cases
    assert not codes(result) & ABOUT_SHIFTS
    assert result.is_fit()


@pytest.mark.parametrize("times", [2, 3])
def test_a_set_enlarged_raises_no_alarm_either(real_data, tmp_path, times):
    """Its masks lie 0.6 px too high as they are; 1.2 and 1.8 px of the enlarged pictures, and as little of them."""
    source = real_data / "isbi2012_membrane" / "train"
    lines = []
    for image in sorted((source / "image").iterdir())[:8]:
        label = np.array(Image.open(source / "label" / image.name))
        for name, array, how in (
            (f"{image.stem}.png", np.array(Image.open(image)), cv2.INTER_CUBIC),
            (f"{image.stem}-m.png", (label == 0).astype(np.uint8), cv2.INTER_NEAREST_EXACT),
        ):
            Image.fromarray(cv2.resize(array, None, fx=times, fy=times, interpolation=how)).save(
                tmp_path / name
            )
        lines.append(f"{image.stem}.png {image.stem}-m.png")
    (tmp_path / "train_list.txt").write_text("\n".join(lines))
    result = check(tmp_path)
    assert result.set_shift.down == pytest.approx(-0.6 * times, abs=0.25 * times)
    assert not codes(result) & ABOUT_SHIFTS


@pytest.fixture
def discs(real_data, tmp_path):
    """40 of the optic-disc pairs, spread over the three lists."""
    source = real_data / "optic_disc_seg"
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder).mkdir()
    for split, step in (("train", 10), ("val", 10), ("test", 6)):
        lines = (source / f"{split}_list.txt").read_text().splitlines()[::step]
        (tmp_path / f"{split}_list.txt").write_text("\n".join(lines) + "\n")
        for name in (part for line in lines for part in line.split()):
            (tmp_path / name).symlink_to(source / name)
    return tmp_path


def labels_of(root):
    return sorted((root / "Annotations").glob("*.png"))


def rewrite(path, change):
    array = change(np.array(Image.open(path)))
    path.unlink()
    Image.fromarray(np.ascontiguousarray(array)).save(path)


def test_discs_as_they_are(discs):
    assert not codes(check(discs)) & ABOUT_SHIFTS


def test_all_discs_ten_pixels_off(discs):
    for path in labels_of(discs):
        rewrite(path, lambda mask: np.roll(mask, 10, 0))
    result = check(discs)
    assert "masks-shifted" in codes(result)
    assert result.set_shift.down == pytest.approx(10, abs=1.5)


def test_mirrored_discs(discs):
    """One small object may fit by chance anywhere, so only the clearest are flagged; but none that is right."""
    mirrored = {path.stem for path in labels_of(discs) if path.stem.startswith("N")}
    for name in mirrored:
        rewrite(discs / f"Annotations/{name}.png", lambda mask: mask[:, ::-1])
    flagged = {name for one in check(discs).findings if one.code == "mask-turned" for name in one.cases}
    flagged = {name.rpartition("/")[2] for name in flagged}
    assert flagged <= mirrored
    assert len(flagged) >= len(mirrored) / 3
