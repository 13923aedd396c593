"""How quick a core multiplies matrices, where processes or clocks are not as usual."""

from __future__ import annotations

import sys

import pytest

from medseg_paddle.core.matrix_product import core_speed, time_of_one
from medseg_paddle.errors import SetupError


def test_the_quickest_counts_and_of_a_clock_that_moves_in_steps_the_mean() -> None:
    assert time_of_one([0.009, 0.007, 0.03]) == 0.007
    assert time_of_one([0.0, 0.01, 0.01, 0.0, 0.01]) == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("program", "words"), [("/nowhere/python", "No such file"), ("/bin/false", "exit code 1")]
)
def test_a_process_that_cannot_be_had_is_said(
    program: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(SetupError, match=f"could not be measured .*{words}"):
        core_speed()
