"""``python -m tests.fuzz READER --inputs 10000 --seed 1``: mutated inputs for one reader, or for all of them."""

import argparse
import sys
from pathlib import Path

from tests.fuzz.harness import fuzz, reader_modules


def main(arguments=None):
    """Run the command; gives back 0 if nothing broke, else 1."""
    readers = reader_modules()
    p = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    p.add_argument("readers", nargs="*", metavar="READER", help=f"(all of {', '.join(readers)})")
    p.add_argument("--inputs", type=int, default=10_000, help="of each reader (10000)")
    p.add_argument("--seed", type=int, default=1, help="(1)")
    p.add_argument("--first", type=int, default=0, help="number of the first input; with --inputs 1 to repeat one (0)")
    p.add_argument("--keep", type=Path, metavar="FOLDER", help="write inputs that break a reader there")
    options = p.parse_args(arguments)
    for name in options.readers:
        if name not in readers:
            p.error(f"{name}: must be of {', '.join(readers)}")
    broken = False
    for name in options.readers or readers:
        outcome = fuzz(readers[name], name, inputs=options.inputs, seed=options.seed, first=options.first)
        print(f"{name}: {outcome.read} read, {outcome.refused} refused, {len(outcome.faults)} faults", flush=True)
        for fault in outcome.faults:
            broken = True
            print(f"  input {fault.number}: {fault.content[:200]!r}\n    {fault.what}".rstrip(), flush=True)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{name}-{options.seed}-{fault.number}").write_bytes(fault.content)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
