"""`python tools/predict.py ...` is `medseg predict ...`."""

import sys

from medseg_paddle.cli import main

main(["predict", *sys.argv[1:]])
