"""PaddleSeg's users type `python tools/train.py --config ...`; it is `medseg train`."""

import sys

from medseg_paddle.cli import main

main(["train", *sys.argv[1:]])
