"""Let a trained agent play: ``python evaluate.py runs/NAME``."""

import sys

from hsa2c.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
