"""Let a trained agent play: ``python evaluate.py runs/NAME``."""

import sys

from hsa2c.commands.entry import enter

if __name__ == "__main__":
    sys.exit(enter("evaluate.py", "hsa2c.commands.evaluate"))
