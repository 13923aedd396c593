"""Files of weights are read, and what else a pickle can hold is not run."""

from __future__ import annotations

import collections
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg_paddle.errors import ModelError
from medseg_paddle.io.plain_pickle import load_plain


class Nested:
    """A tensor within a container, as `paddle.save` writes it: a tuple of a name and an array."""

    def __reduce__(self) -> Any:
        return tuple, (("linear_0.w_0", np.ones(2, np.float32)),)


class Code:
    """What an attacker puts among the weights."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        function, *arguments = self._call
        return function, tuple(arguments)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numbers_in_their_containers_come_back(tmp_path: Path, protocol: int) -> None:
    held = collections.OrderedDict(
        weights=np.arange(6, dtype=np.float32).reshape(2, 3),
        half=np.array([1.5, np.inf], np.float16),
        number=np.float64(0.1),
        nested={"rate": [1, 2.5, None, True, "text", b"bytes"], "tuple": (1, -(2**70))},
        tensor=Nested(),
        python=random.getstate(),
        generator=np.random.get_state(),  # noqa: NPY002  (as the generators in a checkpoint)
    )
    (tmp_path / "file").write_bytes(pickle.dumps(held, protocol=protocol))
    found = load_plain(tmp_path / "file")
    assert list(found) == list(held)
    for name in ("weights", "half"):
        np.testing.assert_array_equal(found[name], held[name])
        assert found[name].dtype == held[name].dtype
    for name in ("number", "nested", "python"):
        assert found[name] == held[name]
    assert found["tensor"][0] == "linear_0.w_0"
    np.testing.assert_array_equal(found["generator"][1], held["generator"][1])


@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch %s"),
        (eval, "open('%s', 'w')"),
        (getattr, "text", "upper"),
        (np.load, "%s"),
        (pickle.loads, b"N."),
    ],
)
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, call: tuple[Any, ...]) -> None:
    mark, file = tmp_path / "mark", tmp_path / "model.pdparams"
    function, *arguments = call
    arguments = [one.replace("%s", str(mark)) if isinstance(one, str) else one for one in arguments]
    file.write_bytes(pickle.dumps({"weight": np.zeros(2), "more": Code(function, *arguments)}))
    with pytest.raises(ModelError, match=r"model\.pdparams is not loaded: it holds more than numbers \(.*\)"):
        load_plain(file)
    assert not mark.exists()
