"""`python tools/prepare.py ...` is `medseg prepare ...`."""

import sys

from medseg_paddle.cli import main

main(["prepare", *sys.argv[1:]])
