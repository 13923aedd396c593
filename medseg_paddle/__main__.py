"""`python -m medseg_paddle` is `medseg`."""

from medseg_paddle.cli import main

if __name__ == "__main__":
    main()
