from __future__ import annotations

import pytest

from medseg_paddle.config.duration import seconds
from medseg_paddle.errors import RecipeError


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ("45m", 2700),
        ("1h30m", 5400),
        ("90s", 90),
        ("2700", 2700),
        (2700, 2700),
        (0.5, 0.5),
        ("1h", 3600),
        ("1h2m3s", 3723),
        (" 1.5H ", 5400),
        ("90m", 5400),
        ("2d", 172800),
        ("1d12h", 129600),
    ],
)
def test_lengths_of_time(length: str | float, expected: float) -> None:
    assert seconds(length, "--max-time") == expected


@pytest.mark.parametrize(
    "length", ["", "m", "45 m", "30m1h", "1h1d", "-5", "0", "0m", 0, -1.0, "nan", "inf", "1e3", float("inf")]
)
def test_what_is_no_length_of_time_is_refused(length: str | float) -> None:
    with pytest.raises(RecipeError, match="--max-time is") as caught:
        seconds(length, "--max-time")
    assert "1h30m" in caught.value.hint
