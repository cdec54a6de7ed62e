"""How each client is had: made once into the cache from pinned files of this folder; none is a part of the door."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.embedded.tools import build_program, cache, made_once, run_shown
from tests.stack.machine import obstacle

HERE = Path(__file__).parent
SOURCES = HERE / "python"
CLIENTS = ("asyncssh", "paramiko", "ssh2", "x/crypto/ssh")


def command(client: str) -> tuple[Sequence[str | Path], Mapping[str, str]]:
    """What starts a client, and the environment it starts in.  Raises ToolUnavailable."""
    match client:
        case "asyncssh":
            return [sys.executable, SOURCES / "asyncssh_client.py"], os.environ
        case "paramiko":
            return [sys.executable, SOURCES / "paramiko_client.py"], with_packages()
        case "ssh2":
            return ["node", node_client()], os.environ
        case _:
            return [go_client()], os.environ


def prepare() -> None:
    """Make all of them that this machine can have, so that none is made inside a test and its time limit."""
    with_packages()
    go_client()
    if not obstacle("npm"):
        node_client()


def with_packages() -> dict[str, str]:
    """An environment in which Python finds paramiko and Ansible."""
    lock = SOURCES / "requirements.txt"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]
    what = "fetching paramiko and ansible-core (30 MB, once)"

    def make(folder: Path) -> None:
        run_shown([*install, str(folder), "--require-hashes", "-r", str(lock)], what)

    folder = made_once(cache() / f"clients-py{version}-{_digest(lock)}", make)
    return {**os.environ, "PYTHONPATH": str(folder)}


def node_client() -> Path:
    files = [HERE / "node" / name for name in ("package.json", "package-lock.json", "client.js")]
    install = ["npm", "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error"]

    def make(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        run_shown(install, "fetching the npm package ssh2 (1 MB, once)", cwd=folder)

    return made_once(cache() / f"clients-node-{_digest(*files)}", make) / "client.js"


def go_client() -> Path:
    return build_program(HERE / "go", "clients-go", "client")


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
