"""`python -m tests.stack up|down|status [--dir DIR]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.embedded.tools import ToolUnavailable, cache
from tests.stack import StackError
from tests.stack.demo import down, status, up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stack", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument(
        "--dir", type=Path, default=cache() / "stack", help="everything it writes (default: %(default)s)"
    )
    arguments = parser.parse_args()
    directory: Path = arguments.dir.absolute()
    try:
        match arguments.command:
            case "up":
                up(directory)
            case "down":
                down(directory)
            case _:
                return status(directory)
    except (StackError, ToolUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
