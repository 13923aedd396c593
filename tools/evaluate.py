"""`python tools/evaluate.py ...` is `medseg evaluate ...`."""

import sys

from medseg_paddle.cli import main

main(["evaluate", *sys.argv[1:]])
