"""`python -m tests.stack up|down|status|build [--dir DIR]`.

`build` makes every tool and image that the tests need, so that none is built inside a test and its time limit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gateway.assets import agent_binary
from gateway.embedded.tools import ToolUnavailable, cache
from tests.clients import had as clients
from tests.distribution import opal
from tests.stack import StackError, keycloak
from tests.stack.demo import down, status, up
from tests.stack.images import debug_root
from tests.stack.machine import obstacle
from tests.stack.tools import COMPOSE, HYPERKUBE, JAEGER, OPA, S3, VAULT, find_or_build


def build() -> None:
    """Raises ToolUnavailable or StackError."""
    for tool in (OPA, VAULT, JAEGER, COMPOSE, S3):
        find_or_build(tool)
    if not obstacle("kubernetes"):
        find_or_build(HYPERKUBE)
    agent_binary()
    if not obstacle("images"):
        debug_root()
    clients.prepare()
    opal.packages()
    if not obstacle("keycloak"):
        keycloak.find_or_make()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stack", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status", "build"))
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
            case "build":
                build()
            case _:
                return status(directory)
    except (StackError, ToolUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
