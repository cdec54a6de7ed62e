"""`python -m demo [--stack real]`.  Exit status 0 only if every step holds."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from demo.places import embedded, real
from demo.story import tell


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--stack", choices=("embedded", "real"), default="embedded")
    chosen = parser.parse_args().stack
    told = real if chosen == "real" else embedded
    with tempfile.TemporaryDirectory(prefix="dw-demo-") as directory, told(Path(directory)) as place:
        steps = tell(place)
    failed = [step for step in steps if not step.holds]
    print(f"\n{len(steps) - len(failed)} of {len(steps)} steps hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
