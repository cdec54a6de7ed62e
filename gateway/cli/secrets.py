"""`doorward password hash` and `doorward totp enrol`: make lines for the gateway's own files of secrets."""

from __future__ import annotations

import argparse
import getpass
import sys

from asyncssh.saslprep import SASLPrepError, saslprep

from gateway.cli import add_json, show
from gateway.errors import SettingsError


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    password = commands.add_parser("password", help="make a line for authn.password_file")
    hashing = password.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "hash", help="hash a password, asked for twice at a terminal, else one line of stdin"
    )
    hashing.add_argument("name", help="the person, as policy names them to the verifier")
    hashing.set_defaults(command=_hash)
    totp = commands.add_parser("totp", help="make a line for authn.totp.secrets_file")
    enrolling = totp.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "enrol", help="a new secret for one-time codes; an authenticator program reads its otpauth:// address"
    )
    enrolling.add_argument("account", help="the account, as policy names it to the verifier")
    enrolling.add_argument(
        "--issuer", default="doorward", help="what the authenticator program shows (default doorward)"
    )
    enrolling.set_defaults(command=_enrol)
    for action in (hashing, enrolling):
        add_json(action)


def _hash(parsed: argparse.Namespace) -> int:
    from gateway.authn.argon2 import hashed, parse

    name = _one_line(parsed.name, "NAME", ":")
    line = f"{name}:{hashed(_typed())}"
    parse(line)
    show(parsed, {"line": line}, line)
    return 0


def _enrol(parsed: argparse.Namespace) -> int:
    from gateway.authn.totp import enrolled, parse

    account = _one_line(parsed.account, "ACCOUNT", ":")
    uri = enrolled(account, _one_line(parsed.issuer, "--issuer", ":"))
    line = f"{account} {uri}"
    parse(line)
    show(parsed, {"account": account, "uri": uri, "line": line}, line)
    return 0


def _one_line(text: str, what: str, without: str) -> str:
    if not text.strip() or text != text.strip() or not text.isprintable() or set(without) & set(text) or text[0] == "#":
        raise SettingsError(f"{what}: a name without {without!r}, spaces at its ends, or '#' at its start is needed")
    return text


def _typed() -> str:
    """The password, normalised as it will be when somebody types it into ssh (RFC 4252 section 8)."""
    if not sys.stdin.isatty():
        return _normalised(sys.stdin.readline().rstrip("\n"))
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise SettingsError("the two are not the same", remedy="Type it again.")
    return _normalised(first)


def _normalised(password: str) -> str:
    try:
        text = saslprep(password)
    except SASLPrepError as error:
        raise SettingsError(f"this cannot be a password in SSH: {error}", remedy="Choose another.") from None
    if not text:
        raise SettingsError("an empty password is none", remedy="Choose one.")
    return text
