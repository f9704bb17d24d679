"""Train an Atari agent: ``python train.py --game Pong``."""

import sys

from hsa2c.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
