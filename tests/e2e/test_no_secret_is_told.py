"""A whole gateway with embedded parts that logs all it can: no secret is where it does not belong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.standalone import PERSON
from tests.e2e.world import Terminal, until
from tests.reading import records
from tests.stack import IN_THE_CLEAR
from tests.stack.require import require

PLACES_OF_SECRETS = ("*.token", "*.header", "*.dsn", "*.password", PERSON, "ssh_host_ed25519_key")
WRONG = "a-token-that-nobody-has-0123456789"
STREAMS = "gateway's output"
INSIDE = (
    "export PAGER=cat; "
    "sed -n 's/^password=/the password: /p' $PGSERVICEFILE; psql -qAt -c 'select count(*) from orders'; "
    "exec psql -c 'select pg_sleep(300)'"
)
SEED = slice(216, 256)
"""Of the body of an unencrypted Ed25519 key in OpenSSH's format: most of the private part, within one line."""


@pytest.fixture
def state() -> Iterator[Path]:
    """A short path: sockets have 108 bytes for theirs."""
    with tempfile.TemporaryDirectory(prefix="dw-") as folder:
        yield Path(folder)


@pytest.fixture
def log(state: Path, tmp_path: Path) -> Iterator[Path]:
    """What the gateway says of itself, at its most talkative."""
    require("bwrap")
    file = tmp_path / "log"
    with file.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "run", "--listen", "127.0.0.1:0", "--state", str(state)],
            stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, "DOORWARD_LOG_LEVEL": "debug"},
        )  # fmt: skip
    try:
        until(lambda: "ready on" in file.read_text() or process.poll() is not None, 120)
        yield file
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert "Traceback" not in file.read_text()


def test_no_secret_is_in_logs_records_traces_files_arguments_or_environments(log: Path, state: Path) -> None:
    port = int(re.findall(r"ready on \S+:(\d+)", log.read_text())[0])
    door = f"http://127.0.0.1:{(state / 'door.port').read_text()}/v1/data/grants/{PERSON}"
    [command] = re.findall(r"^  (curl -X DELETE .*?)\n\n", log.read_text(), re.M | re.S)
    told = httpx.get(door, headers={"authorization": f"Bearer {WRONG}"}, verify=IN_THE_CLEAR)
    with Terminal.running(_ssh(state, port, INSIDE)) as terminal:
        shown = terminal.wait_for("\n4\r")
        secrets = _secrets(state, re.findall("the password: (.*)\r", shown)[0])
        places = {**_files(state, log), **_processes(state)}
        subprocess.run(["bash", "-c", command], check=True)
        terminal.wait_for("grant_deleted")
    until(lambda: records(state / "audit.jsonl", "gone"))
    places |= _files(state, log)

    assert told.status_code == 401
    assert not [what for what, secret in secrets.items() if secret in command.encode()]
    assert {"audit.jsonl", "traces.jsonl", "opa/opa.log", "postgres/postgres.log", "doorward.toml"} <= places.keys()
    assert any("psql" in name for name in places), "the workspace's own processes are looked at"
    assert [(what, place) for what, secret in secrets.items() for place, text in places.items() if secret in text] == []


def _ssh(state: Path, port: int, command: str) -> list[str]:
    options = ["-F", "none", "-o", f"UserKnownHostsFile={state}/known_hosts", "-o", "IdentityAgent=none"]
    return ["ssh", "-tt", *options, "-i", str(state / PERSON), "-p", str(port), f"{PERSON}@127.0.0.1", command]


def _secrets(state: Path, password: str) -> dict[str, bytes]:
    """What must not be told, by what it is."""
    found = {"the session's password": password, "a wrong token": WRONG}
    for file in state.rglob("*.token"):
        found[file.name] = file.read_text()
    for file in state.rglob("*.dsn"):
        found[file.name] = urlsplit(file.read_text()).password or ""
    for name in (PERSON, "ssh_host_ed25519_key"):
        found[name] = "".join((state / name).read_text().splitlines()[1:-1])[SEED]
    assert len(found) >= 10
    assert all(len(secret) >= 20 for secret in found.values()), found.keys()
    return {what: secret.encode() for what, secret in found.items()}


def _files(state: Path, log: Path) -> dict[str, bytes]:
    """All that lies in the state folder, but for the secrets' own files; and what the gateway said."""
    every = [Path(folder, name) for folder, _, names in os.walk(state) for name in names]
    files = [file for file in every if file.is_file() and not any(map(file.match, PLACES_OF_SECRETS))]
    return {STREAMS: log.read_bytes(), **{str(file.relative_to(state)): _read(file) for file in files}}


def _processes(state: Path) -> dict[str, bytes]:
    """Arguments and environment of the gateway and of everything below it, the workspace's programs among them."""
    rows = [line.split(maxsplit=2) for line in _ps().splitlines()]
    found = {pid for pid, _, words in rows if str(state) in words and "gateway run" in words}
    assert found
    while more := {pid for pid, parent, _ in rows if parent in found and pid not in found}:
        found |= more
    looked: dict[str, bytes] = {}
    for pid, _, words in rows:
        if pid in found:
            for kind in ("cmdline", "environ"):
                looked[f"{kind} of {words}"] = looked.get(f"{kind} of {words}", b"") + _read(
                    Path(f"/proc/{pid}/{kind}")
                )
    return looked


def _ps() -> str:
    return subprocess.run(["ps", "-eww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # a process of another user's, or what has just gone
        return b""
