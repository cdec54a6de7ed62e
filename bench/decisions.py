"""How fast policy decides with very many grants, asked through the gateway's own client and kept as it keeps them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from opentelemetry.trace import NoOpTracer

from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from gateway.audit.journal import Journal
from gateway.audit.log import AuditLog
from gateway.model import Identity, Permit
from gateway.policy import Policy, Subject
from gateway.policy.contract import Connection, LiveSession
from gateway.policy.opa import Answer
from gateway.policy.opa import Opa as Client
from gateway.proofs import Attempt, Key
from gateway.sections import SecretRef
from gateway.settings import PolicySettings
from gateway.standalone import AUTOMATION, AUTOMATION_RIGHTS
from tests.e2e.world import TARGET, grant_of
from tests.stack import example
from tests.stack.opa import Opa, opa

LIVE = 100
BATCH = 100
GRANTS_EACH = 10
REQUEST = {"kind": "exec", "command": "true"}


def decisions(stand: Stand, people: int, rounds: int) -> tuple[list[Row], dict[str, Samples]]:
    """An OPA of its own on disk, ten grants for each of `people`."""
    with opa(stand.directory / "many") as server:
        began = time.perf_counter()
        fill(server, stand, people)
        loaded = time.perf_counter() - began
        samples = asyncio.run(_measure(server, stand.directory, people, rounds))
    count = f"{people * GRANTS_EACH:,} grants of {people:,} people".replace(",", " ")
    return [
        Row("grants loaded into OPA on disk", f"{count} in {loaded:.0f} s"),
        *(Row(f"decision {name}", _words(found)) for name, found in samples.items()),
    ], samples


def _words(found: Samples) -> str:
    p50, p99 = found.median * 1000, found.percentile(99) * 1000
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (n={len(found.values)})"


def person_of(number: int) -> str:
    return f"person{number}"


def fill(server: Opa, stand: Stand, people: int) -> None:
    """The person asked about has the key that is offered, and one grant that holds; all other grants are elsewhere."""
    key = example.ssh_key(stand.site.directory)
    server.put(f"targets/{TARGET}", stand.site.target())
    server.put("grants", {})
    server.put(f"automations/{AUTOMATION}", AUTOMATION_RIGHTS)
    with server.client() as client:
        for first in range(0, people, BATCH):
            numbers = range(first, min(people, first + BATCH))
            for document, value in (("people", _account(key)), ("grants", _grants())):
                patch = [{"op": "add", "path": f"/{person_of(number)}", "value": value} for number in numbers]
                if document == "people" and first == 0:
                    server.put("people", {})
                client.patch(f"/v1/data/{document}", json=patch, timeout=60).raise_for_status()


def _account(key: str) -> dict[str, Any]:
    return {"keys": [key], "groups": ["oncall"]}


def _grants() -> dict[str, Any]:
    elsewhere = {f"INC-{number}": grant_of(target=f"other-{number}") for number in range(1, GRANTS_EACH)}
    return {"INC-0": grant_of(), **elsewhere}


class _Clocked(Client):
    """The gateway's client, with a stopwatch round each question."""

    seconds = 0.0

    async def query(self, path: str, question: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        began = time.perf_counter()
        answer = await super().query(path, question, headers)
        self.seconds = time.perf_counter() - began
        return answer


@asynccontextmanager
async def _asking(server: Opa, directory: Path) -> AsyncIterator[tuple[_Clocked, Policy, Journal]]:
    settings = PolicySettings(url=server.url, token=SecretRef(file=server.token_files["gateway"]))
    async with (
        AuditLog.open(directory / "decisions.jsonl") as audit,
        _Clocked.open(settings) as client,
    ):
        assert isinstance(client, _Clocked)
        yield client, Policy(client, "bench"), Journal(audit, NoOpTracer(), session="bench")


async def _measure(server: Opa, directory: Path, people: int, rounds: int) -> dict[str, Samples]:
    """Each kind in turn, each time about another person."""
    logging.getLogger("gateway").setLevel(logging.ERROR)
    samples: dict[str, Samples] = {}
    key = _key(directory)
    async with _asking(server, directory) as (client, policy, journal):
        for turn in range(rounds + 3):
            person = person_of(turn * 7919 % people)
            for name, ask in _questions(policy, journal, person, key, people):
                began = time.perf_counter()
                await ask()
                whole = time.perf_counter() - began
                if turn >= 3:
                    samples.setdefault(name, Samples()).add(client.seconds)
                    samples.setdefault(f"{name}, parsed and on record", Samples()).add(whole)
    return {name: found for name, found in samples.items() if not name.startswith("live") or "record" not in name}


def _questions(
    policy: Policy, journal: Journal, person: str, key: Key, people: int
) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
    subject = Subject(Connection(id="bench", client_address="127.0.0.1", client_port=1), person)
    known = Subject(subject.connection, person, Identity(person=person, groups=("oncall",)))
    permits: list[Permit] = []

    async def configure() -> None:
        permits.append((await policy.configure(journal, known, REQUEST)).granted())

    return [
        ("authn", lambda: policy.authenticate(journal, subject, Attempt(method="publickey", proven=True, key=key), ())),
        ("config", configure),
        ("authz", lambda: policy.authorize(journal, known, permits[0], REQUEST)),
        (f"live, {LIVE} sessions at once", lambda: policy.judge(journal, _live(permits[0], people))),
    ]


def _live(permit: Permit, people: int) -> list[LiveSession]:
    expires = permit.expires_at.isoformat().replace("+00:00", "Z")
    return [
        LiveSession(
            id=f"session{number}",
            person=person_of(number * 101 % people),
            grant="INC-0",
            target=TARGET,
            started_at=grant_of()["starts_at"],
            expires_at=expires,
            idle_seconds=1.0,
        )
        for number in range(LIVE)
    ]


def _key(directory: Path) -> Key:
    import asyncssh

    from gateway.ssh.keys import PublicKey

    return PublicKey(asyncssh.read_public_key(directory / "alice.pub")).facts()
