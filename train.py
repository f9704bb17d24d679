"""Train an Atari agent: ``python train.py --game Pong``."""

import sys

from hsa2c.commands.entry import enter

if __name__ == "__main__":
    sys.exit(enter("train.py", "hsa2c.commands.train"))
