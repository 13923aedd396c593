"""Settings of the processor's libraries, made before Paddle is loaded."""

from __future__ import annotations

import os

import pytest

from medseg_paddle.core.cores import available_cores
from medseg_paddle.engine import cpu


@pytest.mark.parametrize(
    ("limit", "threads"), [("", "6"), ("4", "4"), ("64", "6"), ("0", "1"), ("many", "6")]
)
def test_no_more_threads_are_promised_than_openmp_grants(
    limit: str, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_THREAD_LIMIT": limit})
    cpu.apply_defaults(6)
    assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == threads


@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("2,1", 2), ("", None), ("0", None), ("all", None)])
def test_the_threads_are_those_the_environment_says_or_one_per_core(
    said: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert cpu.maths_threads() == (threads or available_cores())
