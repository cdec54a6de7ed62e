"""`doorward policy build` and `verify-bundle`: policies as OPA takes them from a server, signed."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from gateway import assets
from gateway.cli import FAILED, add_json, show, tell
from gateway.cli.policy.sources import told_apart
from gateway.errors import DoorwardError
from gateway.studies.bundle_keys import public_key, signing_key
from gateway.studies.bundle_sources import BundleRefused
from gateway.studies.bundles import Bundle, Signature, build, verify
from gateway.studies.errors import StudyError
from gateway.studies.revisions import revision_of

NAME = "doorward"
"""The key's id and the scope where none is said, as in the example configurations of backends/opa/."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _add_build(commands)
    check = commands.add_parser(
        "verify-bundle", help="who signed a bundle, and what it would own; exit 1 if it must not"
    )
    check.add_argument("file", type=Path)
    check.add_argument("--public-key", type=Path, metavar="FILE", required=True, help="PEM, as in OPA's configuration")
    check.add_argument("--scope", default=NAME, help="default: %(default)s")
    add_json(check)
    check.set_defaults(command=told_apart(_verify))


def _add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    make = commands.add_parser(
        "build", help="a bundle that OPA loads, tried and signed; exit 1 if it must not be built"
    )
    make.add_argument(
        "--policies", type=Path, metavar="DIR", help="with its .manifest; default: those that came with us"
    )
    make.add_argument("--revision", metavar="NAME", help="on every record of a decision; default: the commit")
    make.add_argument("--output", type=Path, metavar="FILE", default=Path("bundle.tar.gz"), help="default: %(default)s")
    make.add_argument("--sign", action="store_true", help="with --key")
    make.add_argument("--key", metavar="REF", help="private key in PEM, P-256 or RSA: file:PATH or env:NAME")
    make.add_argument("--key-id", default=NAME, help="`signing.keyid` in OPA's configuration; default: %(default)s")
    make.add_argument("--scope", default=NAME, help="`signing.scope` there; default: %(default)s")
    add_json(make)
    make.set_defaults(command=told_apart(_build))


def _build(parsed: argparse.Namespace) -> int:
    if parsed.sign != bool(parsed.key):
        raise StudyError("--sign and --key belong together", remedy="Name both, or neither for a bundle to look at.")
    folder: Path = parsed.policies or assets.folder("policies")
    signature = Signature(signing_key(parsed.key), parsed.key_id, parsed.scope) if parsed.sign else None
    try:
        made = build(folder, parsed.output, parsed.revision or revision_of(folder), signature)
    except BundleRefused as error:
        return _refused(error)
    show(parsed, asdict(made), _told(made))
    return 0


def _verify(parsed: argparse.Namespace) -> int:
    try:
        found = verify(parsed.file, public_key(parsed.public_key), parsed.scope)
    except BundleRefused as error:
        return _refused(error)
    show(parsed, asdict(found), _told(found))
    return 0


def _refused(error: DoorwardError) -> int:
    tell(error)
    return FAILED


def _told(bundle: Bundle) -> str:
    signed = f"signed, and verified with {bundle.public_key}" if bundle.signed else "NOT signed"
    return "\n".join(
        (
            f"{bundle.file}: revision {bundle.revision}, {signed}",
            f"  owns     {', '.join(bundle.roots)}",
            f"  content  {bundle.content}",
            f"  sha256   {bundle.sha256}",
        )
    )
