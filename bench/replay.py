"""How fast decisions on record are asked again: a log of very many, by the gateway's own recorder, and the command."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from opentelemetry.trace import NoOpTracer

from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.errors import Denied
from gateway.model import Identity
from gateway.policy import Policy, Subject
from gateway.policy.contract import Connection
from gateway.policy.opa import Opa as Client
from gateway.proofs import Attempt, Key
from gateway.sections import SecretRef
from gateway.settings import PolicySettings
from tests.e2e.world import TARGET, grant_of
from tests.stack import example
from tests.stack.opa import POLICIES, Opa, opa

PEOPLE = 40
GOAL_SECONDS = 60.0
REQUESTS: tuple[dict[str, Any], ...] = (
    {"kind": "session"}, {"kind": "pty-req", "term": "xterm", "columns": 80, "rows": 24},
    {"kind": "env", "name": "LANG", "value": "C.UTF-8"}, {"kind": "shell"}, {"kind": "exec", "command": "psql"},
    {"kind": "subsystem", "name": "sftp"}, {"kind": "x11-req", "auth_protocol": "MIT-MAGIC-COOKIE-1", "screen": 0},
)  # fmt: skip
MADE_UP = ("seq", "hash", "previous", "time", "event")
AT_ONCE = 2000


def replay(stand: Stand, count: int) -> tuple[list[Row], dict[str, Samples]]:
    """`count` decisions: what one connection decides, of forty people, over and over, under ids of their own."""
    directory = stand.directory / "replay"
    directory.mkdir()
    with opa(directory / "opa") as server:
        key = _fill(server, stand)
        asyncio.run(_decided(server, directory / "few.jsonl", key))
    asyncio.run(_many(directory / "few.jsonl", directory / "many.jsonl", count))
    began = time.perf_counter()
    cpu = os.times()
    ran = subprocess.run(
        [sys.executable, "-m", "gateway", "policy", "replay", "--against", POLICIES, "--log", directory / "many.jsonl",
         "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, used = time.perf_counter() - began, os.times()
    found = json.loads(ran.stdout)
    if found["same"] != count:
        raise AssertionError(f"{found['same']} of {count} decisions came out the same")
    spent = used.children_user + used.children_system - cpu.children_user - cpu.children_system
    samples = Samples()
    samples.add(seconds)
    goal, holds = ("at most 60 s", seconds <= GOAL_SECONDS) if count >= 100_000 else ("", None)
    words = f"{seconds:.1f} s, {spent:.1f} s of processor, {spent / count * 1000:.2f} ms each"
    return [Row(f"{count} decisions replayed", words, goal, holds)], {"replay": samples}


def _fill(server: Opa, stand: Stand) -> Key:
    import asyncssh

    from gateway.ssh.keys import PublicKey

    line = example.ssh_key(stand.site.directory)
    server.put(f"targets/{TARGET}", stand.site.target())
    for number in range(PEOPLE):
        server.put(f"people/person{number}", {"keys": [line], "groups": ["oncall"]})
        server.put(f"grants/person{number}", {f"INC-{number}": grant_of()} if number % 8 else {})
    return PublicKey(asyncssh.import_public_key(line)).facts()


async def _decided(server: Opa, file: Path, key: Key) -> None:
    """One connection of each, by the gateway's own client and recorder; every eighth has no grant."""
    settings = PolicySettings(url=server.url, token=SecretRef(file=server.token_files["gateway"]))
    async with AuditLog.open(file) as audit, Client.open(settings) as client:
        policy = Policy(client, "bench")
        for number in range(PEOPLE):
            person = f"person{number}"
            journal = Journal(audit, NoOpTracer(), session=f"s{number}")
            stranger = Subject(Connection(id=f"s{number}", client_address="127.0.0.1", client_port=1), person)
            attempt = Attempt(method="publickey", proven=True, key=key)
            await policy.authenticate(journal, stranger, attempt, ())
            known = Subject(stranger.connection, person, Identity(person=person, groups=("oncall",)), (attempt,))
            configured = await policy.configure(journal, known, {"kind": "session"})
            if configured.permit is not None:
                for request in REQUESTS:
                    await _asked(policy, journal, known, configured.permit, request)


async def _asked(policy: Policy, journal: Journal, known: Subject, permit: Any, request: Mapping[str, Any]) -> None:
    try:
        await policy.authorize(journal, known, permit, request)
    except Denied:
        return


async def _many(few: Path, many: Path, count: int) -> None:
    """The same decisions again and again, each under an id of its own, in a log of their own."""
    records = [json.loads(line) for line in few.read_text().splitlines()]
    documents = {record["digest"]: record["value"] for record in records if record["event"] == "data"}
    decisions = [record for record in records if "decision" in record]
    async with AuditLog.open(many) as audit:
        for first in range(0, count, AT_ONCE):
            numbers = range(first, min(count, first + AT_ONCE))
            await asyncio.gather(*(_again(audit, decisions[n % len(decisions)], n, documents) for n in numbers))


async def _again(audit: AuditLog, decision: Mapping[str, Any], number: int, documents: Mapping[str, Any]) -> None:
    facts = {name: fact for name, fact in decision.items() if name not in MADE_UP}
    facts["decision_id"] = f"{facts['decision_id']}-{number}"
    await audit.record(decision["event"], facts, {digest: documents[digest] for digest in _named(decision)})


def _named(decision: Mapping[str, Any]) -> Iterator[str]:
    return (digest for digest in decision["basis"].values() if digest is not None)
