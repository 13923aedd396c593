"""What tests of several steps need."""

from __future__ import annotations

import pytest

from medseg_paddle.cli import main


@pytest.fixture
def run(capsys):
    """`medseg convert`: exit code, and what is said, which never is who the patient is (Doe, H4711)."""

    def run(*arguments) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["convert", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Doe" not in said.out + said.err
        assert "H4711" not in said.out + said.err
        return left.value.code, (said.out + said.err).replace("\n", " ")

    return run
