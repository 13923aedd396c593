"""Bundles that somebody made up, with checksums that are right: one error that says so, and no memory taken for it."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from volume_models import sealed, seen, volume_description

from medseg_paddle.bundle import Bundle
from medseg_paddle.description import Description, Parity
from medseg_paddle.errors import ModelError

PARITY = Parity(((1, 1, 4, 8, 8),), 1e-6, 0.0)


@pytest.fixture
def of_volumes(tmp_path: Path) -> Path:
    """A bundle of a 3-D model, but for its graph."""
    with Bundle.create(tmp_path / "b", volume_description(trained_on=seen())) as draft:
        for suffix in (".json", ".pdiparams"):
            draft.graph_prefix.with_suffix(suffix).write_bytes(b"x")
        draft.accept(PARITY, np.zeros((1, 4, 8, 8), np.float32), np.zeros((2, 4, 8, 8), np.float32))
    return tmp_path / "b"


def change(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = [int(word) if word.isdigit() else word for word in path.split(".")]
    for word in parents:
        content = content[word]
    content[last] = value


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("in_channels", (0, -1, True, "1", 1.5, 1e308)),
        ("neighbours", (-1, 33, 10**9, True, "1")),
        ("members", (0, -3)),
        ("files_per_case", (0, "1")),
        ("dimensions", (4, True, "3")),
        ("tolerance", ("x", -1, float("nan"), float("inf"), None)),
        ("name", (5, None)),
        ("labels.1.name", (5, None)),
        ("labels.1.color", ("abc", [1, 2], [999, 0, 0], [0, 0, "x"])),
        ("labels.1.index", (2, True)),
        ("plan.tile", ([10**9] * 3, [8, 8], [0, 8, 8], "abc")),
        ("plan.skip_below", ("x", float("nan"), [1])),
        ("plan.overlap", (1, float("nan"))),
        ("preprocessing", (None, [], ["x"], [{"type": "os.system"}])),
        ("preprocessing.0.spacing", ([0, 1, 1], [1e-9] * 3, [float("nan")] * 3)),
        ("trained_on", ({}, 5)),
        ("trained_on.units", ([], ["inches"], "HU")),
        ("trained_on.tilt", ("x", -1)),
        (
            "trained_on.spacing.0",
            ({"smallest": 5, "median": 1, "largest": 2}, {"smallest": "a", "median": 1}),
        ),
        ("trained_on.spacing.0.smallest", (0, float("nan"), -1)),
        (
            "window",
            ({"level": 0, "width": 0}, {"level": "x", "width": 1}, {"level": 0, "width": 1, "bits": 3}),
        ),
        ("parity", ({}, {"shapes": [], "max_difference": "x", "differing_pixels": 0})),
        ("recipe", (5, None)),
        ("versions", ({"a": 5},)),
        ("postprocessing", ({}, [5], [{"type": "exec"}])),
    ],
)
def test_what_makes_no_sense_is_refused_when_it_is_opened(
    of_volumes: Path, path: str, values: tuple[Any, ...]
) -> None:
    written = (of_volumes / "bundle.json").read_text()
    for value in values:
        content = json.loads(written)
        change(content, path, value)
        (of_volumes / "bundle.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=r"bundle\.json is not readable"):
            Bundle.open(sealed(of_volumes))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"version": ' + "9" * 5000 + "}", "[]", "", "\0"])
def test_text_that_is_no_description_is_refused(of_volumes: Path, text: str) -> None:
    (of_volumes / "bundle.json").write_text(text)
    with pytest.raises(ModelError, match=r"bundle\.json is not readable"):
        Bundle.open(sealed(of_volumes))


def huge() -> bytes:
    """An array's header that promises 4 TB."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (1, 10**4, 10**4, 10**4)}
    )
    return stream.getvalue() + b"\0" * 64


def array(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, np.zeros((1, 4, 8, 8), np.float32))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        lambda: pickle.dumps([1]),
        lambda: array(np.array([{"a": 1}], dtype=object)),
        lambda: array(np.array(["words"])),
        huge,
        archive,
        lambda: b"PK\3\4",
        lambda: b"",
    ],
    ids=["pickle", "objects", "words", "huge", "archive", "no archive", "empty"],
)
def test_a_sample_that_is_no_array_is_refused(of_volumes: Path, content: Callable[[], bytes]) -> None:
    (of_volumes / "sample/input.npy").write_bytes(content())
    bundle = Bundle.open(sealed(of_volumes))
    with pytest.raises(ModelError, match=r"input\.npy cannot be read"):
        bundle.sample()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("input", (3, 4, 8, 8)),
        ("input", (4, 8, 8)),
        ("input", (1, 0, 8, 8)),
        ("output", (3, 4, 8, 8)),
        ("output", (2, 4, 8, 9)),
    ],
)
def test_a_sample_of_another_model_is_refused(of_volumes: Path, name: str, shape: tuple[int, ...]) -> None:
    np.save(of_volumes / f"sample/{name}.npy", np.zeros(shape, np.float32))
    bundle = Bundle.open(sealed(of_volumes))
    with pytest.raises(ModelError, match="the sample of"):
        bundle.sample()


def test_words_of_a_later_program_are_passed_over(of_volumes: Path) -> None:
    content = json.loads((of_volumes / "bundle.json").read_text())
    content["labels"][1]["code"] = content["later"] = "x"
    (of_volumes / "bundle.json").write_text(json.dumps(content))
    found: Description = Bundle.open(sealed(of_volumes)).description
    assert found == volume_description(trained_on=seen())
