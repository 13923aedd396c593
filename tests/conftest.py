"""What several tests work on: small data sets of bright discs and balls, and the real public data where it is."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg_paddle.config import Recipe, load_recipe
from medseg_paddle.core.cores import available_cores
from medseg_paddle.engine.startup import start_paddle

# Before any test imports Paddle: the same settings as the program's own. Processes that test side by side share
# the cores: with a thread of each on every core, threads wait for those that are not running.
start_paddle(max(1, available_cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data sets that lie beside a developer's checkout."""
    folder = Path(os.environ.get("MEDSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the public test data is not beside the checkout ({folder.name}); set MEDSEG_TEST_DATA")
    return folder


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """The superuser may read and write everywhere; for this test it is nobody."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def write_discs(root: Path, *, train: int = 6, val: int = 3, test: int = 2, size: int = 48) -> Path:
    """A data set with PaddleSeg's lists: noisy pictures, each with one brighter disc as class 1."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    rows, columns = np.mgrid[:size, :size]
    for split, count in (("train", train), ("val", val), ("test", test)):
        lines = []
        for number in range(count):
            centre = rng.integers(size // 4, 3 * size // 4, 2)
            disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (size // 6) ** 2
            picture = np.clip(80 + 90 * disc + rng.normal(0, 20, (size, size)), 0, 255).astype(np.uint8)
            name = f"{split}{number}.png"
            Image.fromarray(np.stack([picture] * 3, axis=-1)).save(root / "images" / name)
            Image.fromarray(disc.astype(np.uint8)).save(root / "labels" / name)
            lines.append(f"images/{name} labels/{name}")
        (root / f"{split}_list.txt").write_text("\n".join(lines) + "\n")
    return root


RECIPE = """\
name: discs
labels: [background, disc]
batch_size: 2
iters: 12
save_interval: 6
log_iters: 2
overlays: 1
model_graph: false
device: cpu
train_dataset:
  type: OpticDiscSeg
  dataset_root: {root}
  transforms:
    - type: RandomAffinePatch
      size: [32, 32]
      flip_horizontal: 0.5
    - type: Normalize
  mode: train
val_dataset:
  type: OpticDiscSeg
  dataset_root: {root}
  transforms:
    - type: Normalize
  mode: val
optimizer:
  type: AdamW
lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
loss:
  types:
    - type: CrossEntropyLoss
  coef: [1]
model:
  type: SimpleUNet
  width: 4
"""


def write_balls(root: Path) -> Path:
    """A data set of whole volumes: noise with a brighter ball as class 1; slices of 2 mm, stored in several ways."""
    import nibabel as nib

    rng = np.random.default_rng(0)
    source = root / "source"
    source.mkdir(parents=True)
    for number in range(6):
        shape = (
            20 + number % 3,
            18,
            10,
        )  # i, j, k of NIfTI: to the patient's right or left, back or front, head
        far = np.indices(shape) - rng.integers((7, 7, 4), (13, 11, 6))[:, None, None, None]
        ball = ((far * np.array([1, 1, 2])[:, None, None, None]) ** 2).sum(axis=0) < 25
        image = (rng.integers(1, 60, shape) + 90 * ball).astype(np.int16)
        affine = np.diag([-1.0 if number % 2 else 1.0, -1.0, 2.0, 1.0])
        name = f"{'train' if number < 4 else 'val'}{number}"
        for what, array in (("image", image), ("label", ball.astype(np.uint8))):
            nib.save(nib.Nifti1Image(array, affine), source / f"{name}_{what}.nii.gz")
    prepare_balls(root)
    return root / "balls"


def prepare_balls(root: Path) -> None:
    """Make the data set of :func:`write_balls` from its source, also where it is there."""
    from medseg_paddle.config.prepare import PrepareSpec
    from medseg_paddle.core import LabelSet
    from medseg_paddle.steps.dataset import write_dataset

    spec = PrepareSpec.model_validate(
        {
            "reader": "volumes",
            "volumes": "whole",
            "key": r"(train\d|val\d)",
            "sets": [
                {"split": split, "images": f"{split}*_image.nii.gz", "labels": f"{split}*_label.nii.gz"}
                for split in ("train", "val")
            ],
        }
    )
    write_dataset(
        spec,
        source=root / "source",
        destination=root / "balls",
        labels=LabelSet.from_names(("background", "ball")),
        name="balls",
        workers=1,
        overwrite=True,
    )


VOLUME_RECIPE = """\
name: balls
labels: [background, ball]
batch_size: 2
iters: 6
save_interval: 3
log_iters: 1
overlays: 1
model_graph: false
device: cpu
train_dataset:
  type: Manifest
  dataset_root: {root}
  img_channels: 1
  mode: train
  transforms:
    - {{type: VolumePreprocessing, spacing: [2, 1, 1], normalization: {{type: ZScore}}}}
    - {{type: RandomVolumePatch, size: [8, 16, 16], mirror: [2]}}
    - {{type: RandomVolumeIntensity}}
val_dataset:
  type: Manifest
  dataset_root: {root}
  img_channels: 1
  mode: val
  transforms:
    - {{type: VolumePreprocessing, spacing: [2, 1, 1], normalization: {{type: ZScore}}}}
optimizer:
  type: AdamW
lr_scheduler:
  type: PolynomialDecay
  learning_rate: 0.01
loss:
  types:
    - type: CrossEntropyLoss
  coef: [1]
model:
  type: UNet3D
  width: 4
  depth: 2
"""


@pytest.fixture
def balls(tmp_path: Path) -> Path:
    """Folder of a small data set of whole volumes: four to learn from, two to validate on."""
    return write_balls(tmp_path)


@pytest.fixture
def ball_recipe_file(tmp_path: Path, balls: Path) -> Path:
    """A recipe that trains on :func:`balls` in seconds."""
    path = tmp_path / "balls.yml"
    path.write_text(VOLUME_RECIPE.format(root=balls))
    return path


@pytest.fixture
def ball_recipe(ball_recipe_file: Path) -> Recipe:
    """See :func:`ball_recipe_file`."""
    return load_recipe(ball_recipe_file)


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two finished trainings, ``first`` and ``second``, on a small data set."""
    from medseg_paddle.steps.train import train

    folder = tmp_path_factory.mktemp("runs")
    recipe = tmp_path_factory.mktemp("recipe") / "discs.yml"
    recipe.write_text(RECIPE.format(root=write_discs(recipe.parent / "discs")))
    for name, rate in (("first", 0.01), ("second", 0.003)):
        overrides = [f"lr_scheduler.learning_rate={rate}", "iters=40", "save_interval=20"]
        train(recipe, output=folder / name, overrides=overrides)
    return folder


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished training with a moving average and the checkpoints iter_3 and iter_6; to be copied."""
    from medseg_paddle.steps.train import train

    folder = tmp_path_factory.mktemp("short")
    recipe = folder / "discs.yml"
    recipe.write_text(RECIPE.format(root=write_discs(folder / "discs")))
    train(recipe, output=folder / "run", overrides=["iters=6", "save_interval=3", "use_ema=true"])
    return folder / "run"


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """Folder of a small data set with PaddleSeg's lists."""
    return write_discs(tmp_path / "discs")


@pytest.fixture
def disc_recipe_file(tmp_path: Path, discs: Path) -> Path:
    """A recipe that trains on :func:`discs` in seconds."""
    path = tmp_path / "discs.yml"
    path.write_text(RECIPE.format(root=discs))
    return path


@pytest.fixture(scope="session")
def kept_disc_recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Text of a recipe as :func:`disc_recipe_file`, whose data set stays, for tests that leave it as it is."""
    return RECIPE.format(root=write_discs(tmp_path_factory.mktemp("kept") / "discs"))


@pytest.fixture
def disc_recipe(disc_recipe_file: Path) -> Recipe:
    """See :func:`disc_recipe_file`."""
    return load_recipe(disc_recipe_file)


class Pace:
    """Lets the next trainings wait for images, or never, whatever else the machine does.

    Where loading is slow, a batch is begun when it is asked for, and takes twice as long as the iteration before it
    computed. Where it is not, an iteration ends when the next batch was handed on, and takes `longer`, in seconds.
    """

    def __init__(self, *, slow_loading: bool, longer: float) -> None:
        self._slow, self._longer = slow_loading, longer
        self._changed = threading.Condition()
        self._asked, self._loaded, self._over = 0, 0, False
        self._asked_at = self._loaded_at = time.monotonic()

    def loads(self, iteration: int) -> None:
        """In the loader, before a batch is loaded."""
        with self._changed:
            self._changed.wait_for(lambda: not self._slow or self._asked >= iteration or self._over)
            computed = self._asked_at - self._loaded_at
        if self._slow and not self._over:
            time.sleep(2 * max(0.0, computed))

    def has_loaded(self, iteration: int) -> None:
        """In the loader, when a batch is loaded."""
        with self._changed:
            self._loaded, self._loaded_at = iteration, time.monotonic()
            self._changed.notify_all()

    def asks(self, iteration: int, stopping: Callable[[int], None]) -> None:
        """In the training, before an iteration; `stopping` raises where there is none."""
        try:
            stopping(iteration)
        except BaseException:
            self._over = True
            raise
        finally:
            with self._changed:
                self._asked, self._asked_at = iteration, time.monotonic()
                self._changed.notify_all()

    def has_computed(self, iteration: int, last: int) -> None:
        """In the training, at the end of an iteration."""
        if not self._slow:
            with self._changed:  # whoever has loaded the batch after the next one has handed on the next one
                self._changed.wait_for(lambda: self._loaded >= min(iteration + 2, last))
            time.sleep(self._longer)


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """See :class:`Pace`; for trainings without processes that load images."""
    from medseg_paddle.engine import training
    from medseg_paddle.engine.data import TrainingStream

    batch, run_train = TrainingStream.batch, training.run_train
    paces: list[Pace] = []

    def loading(stream: Any, positions: Sequence[int], *rest: Any) -> Any:
        iteration, now = positions[0] // len(positions) + 1, paces[-1]
        now.loads(iteration)
        loaded = batch(stream, positions, *rest)
        now.has_loaded(iteration)
        return loaded

    def training_at_pace(*words: Any, hooks: Any, iters: int, **options: Any) -> bool:
        now = paces[-1]

        def step(iteration: int) -> None:
            hooks.after_step(iteration)
            now.has_computed(iteration, iters)

        def before(iteration: int) -> None:
            now.asks(iteration, hooks.before_iteration)

        paced = replace(hooks, before_iteration=before, after_step=step)
        return run_train(*words, hooks=paced, iters=iters, **options)

    monkeypatch.setattr(TrainingStream, "batch", loading)
    monkeypatch.setattr(training, "run_train", training_at_pace)

    def set_pace(*, slow_loading: bool, longer: float = 0) -> None:
        paces.append(Pace(slow_loading=slow_loading, longer=longer))

    return set_pace


@dataclass(frozen=True)
class Page:
    """What a browser showed of the dashboard's curves."""

    drawn: frozenset[str]  # a curve's name is painted on its canvas, not written in the page
    coloured_pixels: int  # of canvases: curves in colour, not only grey axes and white
    text: str
    asked: frozenset[str]  # every address that the page loaded from


_NOTE_DRAWN_TEXT = """
var drawnText = [];
const fillText = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
    drawnText.push(String(text));
    return fillText.call(this, text, ...where);
};
"""

_COLOURED_PIXELS = """
let coloured = 0;
for (const canvas of document.querySelectorAll('canvas')) {
    if (!canvas.width || !canvas.height) continue;
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < pixels.length; i += 4) {
        const [r, g, b, a] = pixels.slice(i, i + 4);
        if (a > 0 && Math.max(r, g, b) - Math.min(r, g, b) > 60) coloured += 1;
    }
}
return coloured;
"""


@pytest.fixture
def dashboard_page(tmp_path) -> Callable[..., Page]:
    """Look at a page of curves in headless Chromium, once it has drawn them."""
    chromium, driver = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
    if not (chromium.exists() and driver.exists()):
        pytest.skip("Debian's chromium and chromium-driver are not installed (.ci/run installs them)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--window-size=1400,900",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})

    def look(url: str) -> Page:
        browser = webdriver.Chrome(options=options, service=Service(str(driver)))
        try:
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _NOTE_DRAWN_TEXT})
            browser.get(url)
            WebDriverWait(browser, 90).until(lambda b: "Train/loss" in b.execute_script("return drawnText"))
            WebDriverWait(browser, 60).until(lambda b: b.execute_script(_COLOURED_PIXELS) > 200)
            events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
            return Page(
                frozenset(browser.execute_script("return drawnText")),
                browser.execute_script(_COLOURED_PIXELS),
                browser.find_element(By.TAG_NAME, "body").text,
                frozenset(
                    e["params"]["request"]["url"]
                    for e in events
                    if e["method"] == "Network.requestWillBeSent"
                ),
            )
        finally:
            browser.quit()

    return look
