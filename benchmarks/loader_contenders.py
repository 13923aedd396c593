"""A contender's process: loads augmented images in one framework when told to.

Started by loader.py with a JSON job as its argument; reads numbers of batches from standard input, and answers
each with a JSON line. All do the same to the same images: turn, scale and flip in one warp, reflected at the
border; contrast about the mean and brightness, clipped; normalise; planes.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rounds import MARK

SIZE = 512
ROTATION, SCALE, BRIGHTNESS, CONTRAST = 15, (0.8, 1.25), 0.1, 0.2
_LOOKED_AT = 24  # images whose statistics must agree
_TIMED = 60  # images for the time of each step

Steps = dict[str, Callable[[], Any]]


class Torch:
    """PyTorch's DataLoader with OpenCV, as a tutorial has it; decoded each time, or once before all processes."""

    def __init__(self, job: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
        import torch

        torch.set_num_threads(1)
        self.version = f"PyTorch {torch.__version__}"
        self._torch, self._job = torch, job
        self._dataset = _torch_dataset(torch, pairs, keep=job["cached"])

    def batches(self) -> Iterator[Any]:
        data = self._torch.utils.data
        workers, batch = self._job["workers"], self._job["batch"]
        # With replacement: the end of a short pass would make all processes wait.
        sampler = data.RandomSampler(self._dataset, replacement=True, num_samples=10**9)
        loader = data.DataLoader(
            self._dataset,
            batch_size=batch,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=2 if workers else None,
            worker_init_fn=_one_thread,
        )
        yield from loader

    def numpy(self, batch: Any) -> tuple[Any, Any]:
        image, label = batch
        return image.numpy(), label.numpy()

    def steps(self) -> Steps:
        dataset, torch = self._dataset, self._torch
        image, label = dataset.read(0)
        warped, its_label = dataset.moved(image, label)
        changed = dataset.changed(warped)
        sample = dataset.tensors(changed, its_label)
        collate = torch.utils.data.default_collate
        batch = [sample] * (self._job["batch"] or 1)
        return {
            "decode": lambda: dataset.decoded(0),
            "geometry": lambda: dataset.moved(image, label),
            "intensity": lambda: dataset.changed(warped),
            "normalise, planes": lambda: dataset.tensors(changed.copy(), its_label),
            "collate (a batch)": lambda: collate(batch),
        }

    def transport(self) -> Iterator[Any]:
        sample = self._dataset[0]

        class Ready(self._torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
            def __len__(self) -> int:
                return 10**9

            def __getitem__(self, _: int) -> Any:
                return sample

        return iter(self._torch.utils.data.DataLoader(Ready(), batch_size=self._job["batch"], num_workers=1))


def _torch_dataset(torch: Any, pairs: list[tuple[str, str]], *, keep: bool) -> Any:
    class Images(torch.utils.data.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kept = [self.decoded(n) for n in range(len(pairs))] if keep else None

        def __len__(self) -> int:
            return len(pairs)

        def decoded(self, index: int) -> tuple[Any, Any]:
            image, label = pairs[index]
            picture = cv2.cvtColor(cv2.imread(image, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            return picture, cv2.imread(label, cv2.IMREAD_GRAYSCALE)

        def read(self, index: int) -> tuple[Any, Any]:
            return self.kept[index] if self.kept is not None else self.decoded(index)

        def moved(self, image: Any, label: Any) -> tuple[Any, Any]:
            rows, columns = label.shape
            scale = math.exp(random.uniform(math.log(SCALE[0]), math.log(SCALE[1])))
            matrix = cv2.getRotationMatrix2D(
                ((columns - 1) / 2, (rows - 1) / 2), random.uniform(-ROTATION, ROTATION), scale
            )
            matrix[:, 2] += [(SIZE - columns) / 2, (SIZE - rows) / 2]
            border = {"borderMode": cv2.BORDER_REFLECT_101}
            image = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, **border)
            label = cv2.warpAffine(label, matrix, (SIZE, SIZE), flags=cv2.INTER_NEAREST, **border)
            for axis in (0, 1):
                if random.random() < 0.5:
                    image, label = cv2.flip(image, axis), cv2.flip(label, axis)
            return image, label

        def changed(self, image: Any) -> Any:
            result = image.astype(np.float32)
            result /= 255
            mean = result.mean()
            result -= mean
            result *= math.exp(random.uniform(-math.log1p(CONTRAST), math.log1p(CONTRAST)))
            result += mean + random.uniform(-BRIGHTNESS, BRIGHTNESS)
            return np.clip(result, 0, 1, out=result)

        def tensors(self, image: Any, label: Any) -> tuple[Any, Any]:
            image -= 0.5
            image /= 0.5
            planes = np.ascontiguousarray(image.transpose(2, 0, 1))
            return torch.from_numpy(planes), torch.from_numpy(label).long()

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, label = self.moved(*self.read(index))
            return self.tensors(self.changed(image), label)

    return Images()


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)


class PaddleSeg:
    """Paddle's DataLoader with PaddleSeg's data set and transforms, in endless passes."""

    def __init__(self, job: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
        _start_paddle()
        import paddle
        import paddleseg
        from paddleseg import transforms as T
        from paddleseg.datasets import Dataset

        self.version = f"PaddleSeg {paddleseg.__version__}"
        self._paddle, self._job = paddle, job
        listed = Path(job["folder"]) / "paddleseg.txt"
        listed.write_text("".join(f"{image}\t{label}\n" for image, label in pairs))
        steps = [
            T.RandomAffine((SIZE, SIZE), 0, ROTATION, *SCALE),
            T.RandomHorizontalFlip(0.5),
            T.RandomVerticalFlip(0.5),
            T.RandomDistort(BRIGHTNESS, 1, CONTRAST, 1, saturation_prob=0, hue_prob=0),
            T.Normalize(),
        ]
        self._dataset = Dataset("train", "/", steps, 2, train_path=str(listed), separator="\t")

    def batches(self) -> Iterator[Any]:
        count, batch = len(self._dataset), self._job["batch"] or 1
        rng = np.random.default_rng(0)

        class Endless(self._paddle.io.BatchSampler):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                pass

            def __iter__(self) -> Iterator[list[int]]:
                while True:
                    yield rng.integers(0, count, batch).tolist()

            def __len__(self) -> int:
                return 10**9

        yield from self._paddle.io.DataLoader(
            self._dataset, batch_sampler=Endless(), num_workers=self._job["workers"], return_list=True
        )

    def numpy(self, batch: Any) -> tuple[Any, Any]:
        return batch["img"].numpy(), batch["label"].numpy()

    def steps(self) -> Steps:
        return {}

    def transport(self) -> Iterator[Any]:
        return iter(())


class Ours:
    """Our own loader."""

    def __init__(self, job: dict[str, Any], pairs: list[tuple[str, str]]) -> None:
        _start_paddle()
        from medseg_paddle import __version__
        from medseg_paddle.config import load_recipe
        from medseg_paddle.engine import data, loading
        from medseg_paddle.io.cases import load_cases
        from medseg_paddle.io.decoded import DecodedImages

        self.version = f"medseg-paddle {__version__}"
        self._job, self._loading = job, loading
        folder = Path(job["folder"])
        (folder / "ours.txt").write_text("".join(f"{image}\t{label}\n" for image, label in pairs))
        recipe_file = folder / f"ours-{os.getpid()}.yml"  # JSON is YAML
        recipe_file.write_text(json.dumps(_recipe(folder, job)))
        recipe = load_recipe(recipe_file)
        cases = load_cases(recipe.train_dataset)
        self._decoded = DecodedImages(2**30 if job["cached"] else 0)
        found = data.survey(cases, recipe, decoded=self._decoded)
        self._recipe, self._data, self._cases = recipe, data, cases
        self._stream = data.TrainingStream(cases, recipe, self._decoded)
        self._room = data.batch_bytes(recipe, found)

    def batches(self) -> Iterator[Any]:
        yield from self._loaded(self._stream, self._job["workers"])

    def _loaded(self, stream: Any, workers: int) -> Iterator[Any]:
        size = self._job["batch"] or 1
        orders = (list(range(n * size, n * size + size)) for n in itertools.count())
        with self._loading.loaded(stream, orders, num_workers=workers, batch_bytes=self._room) as served:
            yield from served

    def numpy(self, batch: Any) -> tuple[Any, Any]:
        return batch["img"].numpy(), batch["label"].numpy()

    def steps(self) -> Steps:
        from medseg_paddle.io.images import read_image, read_label

        case = self._cases[0]
        key, (warp, change) = (case.image, case.label), (step for _, step in self._stream._transform._steps)
        image, label, _ = self._decoded.get(key) or (
            read_image(*key[:1], 3).astype(np.uint8),
            read_label(key[1]),
            0,
        )
        rng = np.random.default_rng(0)
        warped, its_label = warp(image, label, rng)
        changed, _ = change(warped, its_label, rng)
        batch = self._stream.batch([0])
        return {
            "decode": lambda: (read_image(case.image, 3), read_label(case.label)),
            "from the cache": lambda: [part.copy() for part in self._decoded.get(key) or ()],
            "geometry": lambda: warp(image, label, rng),
            "intensity": lambda: change(warped, its_label, rng),
            "normalise, planes": lambda: (
                self._stream._transform.write(changed, batch["img"][0]),
                np.copyto(batch["label"][0], its_label),
            ),
        }

    def transport(self) -> Iterator[Any]:
        size, label = self._job["batch"] or 1, self._data.label_dtype(255)

        class Ready:
            def batch(self, _: Any, allocate: Any) -> Any:
                return {
                    "img": allocate("img", (size, 3, SIZE, SIZE), np.float32),
                    "label": allocate("label", (size, SIZE, SIZE), label),
                }

        return self._loaded(Ready(), 1)


def _start_paddle() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ["OMP_NUM_THREADS"] = "1"
    from medseg_paddle.engine.startup import start_paddle

    start_paddle()


def _recipe(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    patch = {
        "type": "RandomAffinePatch",
        "size": [SIZE, SIZE],
        "rotation": ROTATION,
        "scale": SCALE,
        "flip_horizontal": 0.5,
        "flip_vertical": 0.5,
    }
    intensity = {"type": "RandomIntensity", "brightness": BRIGHTNESS, "contrast": CONTRAST}
    return {
        "name": "benchmark",
        "batch_size": job["batch"] or 1,
        "iters": 1,
        "labels": ["background", "object"],
        "train_dataset": {
            "type": "Dataset",
            "dataset_root": str(folder),
            "num_classes": 2,
            "train_path": str(folder / "ours.txt"),
            "separator": "\t",
            "transforms": [patch, intensity, {"type": "Normalize"}],
        },
        "model": {"type": "UNet", "num_classes": 2},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
        "optimizer": {"type": "SGD"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.01},
    }


def milliseconds(function: Callable[[], Any], clock: Callable[[], float] = time.thread_time) -> float:
    """Median time of a call in milliseconds; of this thread on its core, unless another clock is given."""
    times = []
    for _ in range(_TIMED):
        start = clock()
        function()
        times.append(clock() - start)
    return float(np.median(times)) * 1e3


def seconds_used(process: int) -> float:
    """Processor time of a process and of those that it started and that still run."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if str(process) in (stat.parent.name, fields[1]):
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def looked_at(contender: Any, batches: Iterator[Any], size: int) -> dict[str, float]:
    """What the images of all contenders must have in common."""
    images, labels = zip(
        *(contender.numpy(next(batches)) for _ in range(-(-_LOOKED_AT // size))), strict=True
    )
    picture, label = np.concatenate(images, axis=None), np.concatenate(labels, axis=None)
    return {
        "mean": float(picture.mean()),
        "deviation": float(picture.std()),
        "foreground": float((label == 1).mean()),
        "values": picture.size,
    }


def main() -> None:
    """Answer the parent's orders."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    job = json.loads(sys.argv[1])
    random.seed(1)
    pairs = [tuple(pair) for pair in job["pairs"]]
    kind = {"PyTorch": Torch, "PaddleSeg": PaddleSeg, "medseg-paddle": Ours}[job["kind"]]
    contender = kind(job, pairs)
    size = job["batch"] or 1
    if job["steps"]:
        cv2.setNumThreads(0)
        reply = {"version": contender.version}
        reply["steps"] = {name: milliseconds(step) for name, step in contender.steps().items()}
        ready = contender.transport()
        if next(ready, None) is not None:
            for _ in range(5):
                next(ready)
            reply["steps"]["transport (a batch)"] = milliseconds(lambda: next(ready), time.perf_counter)
        print(MARK + json.dumps(reply), file=answers, flush=True)
        sys.stdin.readline()
        return
    batches = contender.batches()
    reply = {"version": contender.version, **looked_at(contender, batches, size)}
    # Loaded while others had their turn: two by each process, two in Paddle's queue, two in its buffer, and more.
    ahead = 2 * job["workers"] + 6
    while True:
        print(MARK + json.dumps(reply), file=answers, flush=True)
        order = sys.stdin.readline()
        if not order:
            os._exit(0)
        for _ in range(ahead):
            next(batches)
        used, start = seconds_used(os.getpid()), time.perf_counter()
        for _ in range(int(order)):
            next(batches)
        reply = {"seconds": time.perf_counter() - start, "used": seconds_used(os.getpid()) - used}


if __name__ == "__main__":
    main()
