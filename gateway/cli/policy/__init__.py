"""`doorward policy ...`: the security engineer's tools.  One module for each subcommand; what they tell is found in
`gateway/studies/`.

Exit status, for CI: 0 fine, 1 the command found what it looks for, 2 it could not be asked (settings, files, options).
"""

from __future__ import annotations

import argparse


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from gateway.cli.policy import access, build, check, explain, log, replay, simulate

    policy = commands.add_parser("policy", help="what the policies say, and why; without connecting")
    actions = policy.add_subparsers(required=True, metavar="COMMAND")
    for module in (check, access, simulate, explain, replay, log, build):
        module.add_to(actions)
