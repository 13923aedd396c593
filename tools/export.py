"""`python tools/export.py ...` is `medseg export ...`."""

import sys

from medseg_paddle.cli import main

main(["export", *sys.argv[1:]])
