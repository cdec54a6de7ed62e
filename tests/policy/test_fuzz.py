"""Damaged questions on damaged data: every decision stays defined and inside its contract, and none allows too much.

A real OPA answers, with `strict-builtin-errors` as the gateway asks it.  What may be allowed is judged by rules written
here a second time, in Python, from the description of a grant.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.embedded.tools import find_or_build
from gateway.policy.contract import Decision
from tests.policy.doors import may_be_asked_for_more, may_enter
from tests.policy.schemas import ANSWERS, POLICIES
from tests.policy.world import data, question
from tests.stack import IN_THE_CLEAR
from tests.stack.process import Processes, free_port, wait_until

WORLDS = 25
ROUNDS = 15
JUNK: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e300, 10**30, "", "x", "..", "a\nb", "[", "é" * 600, [], {}, [1], {"a": 1},
    ["x", None], "9999-99-99T00:00:00Z", "2030-02-30T00:00:00Z", "2030-01-31T12:00:00Z", "2030-01-31", "alice+reports",
    "ssh-rsa AAAA", "env", "exec", "direct-tcpip", "subsystem", "x11-req", "orders-db", "alice", "bob", "INC-1",
]  # fmt: skip
KINDS = [
    "session",
    "pty-req",
    "env",
    "shell",
    "exec",
    "subsystem",
    "direct-tcpip",
    "x11-req",
    "zz",
    "tcpip-forward",
    "sftp",
]
FACTS: list[dict[str, Any]] = [
    {}, {"name": "LANG", "value": "x"}, {"name": "sftp"}, {"command": "ls"}, {"host": "orders-db", "port": 5432},
    {"operation": "open", "path": "/srv/reports/x", "read": True, "write": False, "flags": ["read"]},
    {"operation": "rename", "path": "/srv/reports/inbox/a", "to": "/srv/reports/inbox/b"},
]  # fmt: skip


@pytest.fixture(scope="module")
def bare_opa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The product's decisions over data in memory, which takes any JSON at all, and nobody at its door."""
    directory: Path = tmp_path_factory.mktemp("fuzz")
    processes = Processes(directory)
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [
        find_or_build(), "run", "--server", "--skip-version-check", "--addr", address, "--log-level", "error",
        *sorted((POLICIES / "gateway").rglob("*.rego")),
    ]  # fmt: skip
    running = processes.start("opa", command)
    with httpx.Client(base_url=f"http://{address}", timeout=30, verify=IN_THE_CLEAR) as client:

        def is_ready() -> bool:
            try:
                return client.get("/health").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait_until(is_ready, running)
            yield client
        finally:
            processes.end()


class Damager:
    """Damages JSON, the same way for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def damaged(self, value: Any, times: int) -> Any:
        value = copy.deepcopy(value)
        for _ in range(times):
            path = self.random.choice(list(_paths(value)))
            if path:
                self._strike(value, path)
        return value

    def _strike(self, value: Any, path: tuple[Any, ...]) -> None:
        for step in path[:-1]:
            value = value[step]
        dice = self.random.random()
        if dice < 0.3:
            del value[path[-1]]
        elif dice < 0.9 or isinstance(value, list):
            value[path[-1]] = self.junk()
        else:
            value[self.random.choice(["zz", "", "ends_at", "a.b"])] = self.junk()

    def junk(self) -> Any:
        return copy.deepcopy(self.random.choice(JUNK))

    def world(self) -> dict[str, Any]:
        return {
            root: self.damaged(value, self.random.randint(0, 3)) if self.random.random() < 0.95 else self.junk()
            for root, value in data().items()
        }

    def question(self, name: str) -> Any:
        asked = question(name)
        if name == "authz":
            asked["request"] = {"kind": self.random.choice(KINDS), **self.random.choice(FACTS)}
        if name == "authn":
            asked |= self.random.choice(attempts(asked))
        if name == "live":
            asked["sessions"] = [dict(asked["sessions"][0], id=f"s-{number}") for number in range(3)]
        return self.damaged(asked, self.random.randint(0, 3))


def attempts(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Ways to come in, each of which opens as it is: damaged, none may open that should not."""
    key = asked["attempt"]
    world = data()
    dora = {**key, "key": {**key["key"], "public_key": " ".join(world["people"]["dora"]["keys"][0].split()[:2])}}
    certificate = {
        "key_id": "dora@laptop", "serial": 14, "principals": ["ops-dora"], "valid_after": 1896090000,
        "valid_before": 1896099000, "critical_options": {"source-address": "192.0.2.0/24,2001:db8::/32"},
        "extensions": {"permit-pty": ""},
        "ca": {**key["key"], "public_key": " ".join(world["authorities"]["corp"]["public_key"].split()[:2])},
    }  # fmt: skip
    bare = {**key, "key": None}
    code = {**bare, "method": "keyboard-interactive", "verified": True, "verified_by": "totp"}
    word = {**bare, "method": "password", "verified": True, "verified_by": "vault_password"}
    claims = {"provider": "corp", "preferred_username": "bob"}
    return [
        {},
        {"attempt": {**key, "proven": False}},
        {"attempt": {**key, "certificate": certificate, "key": dora["key"]}, "login": {"user": "dora"}},
        {"attempt": code, "proofs": [dora], "login": {"user": "dora"}},
        {"attempt": code, "proofs": [word], "login": {"user": "bob"}},
        {"attempt": {**code, "verified_by": "oidc", "claims": claims}, "login": {"user": "bob"}},
        {"attempt": {**key, "key": dora["key"], "verified": True, "verified_by": "key_list"}, "login": {"user": "bob"}},
        {"attempt": {**bare, "method": "none", "proven": False}, "login": {"user": "root"}},
    ]


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in children:
        yield from _paths(child, (*at, step))


def _at(value: Any, *path: Any) -> Any:
    """The value at `path`, or None where there is none."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _items(value: Any) -> list[Any]:
    """What Rego's `some x in value` walks."""
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None and "T" in text else None


def holds(world: dict[str, Any], person: Any, grant_id: Any, target: Any, now_ns: Any) -> bool:
    """Whether the person has this grant, well-formed, for this target, at this moment."""
    entry, held = _at(world, "people", person), _at(world, "grants", person, grant_id)
    if not isinstance(entry, dict) or entry.get("disabled", False) is not False:
        return False
    if not isinstance(held, dict) or held.get("target") != target or not isinstance(now_ns, int | float):
        return False
    return well_formed(world, held) and _moment_ns(held["starts_at"]) <= now_ns < _moment_ns(held["ends_at"])


def well_formed(world: dict[str, Any], held: dict[str, Any]) -> bool:
    required = ["target", "starts_at", "ends_at", "reason", "approved_by"]
    optional = [field for field in ("ticket", "requested_by", "requested_at") if field in held]
    texts = [held.get(field) for field in required + optional]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return False
    start, end = _moment(held["starts_at"]), _moment(held["ends_at"])
    return (
        start is not None
        and end is not None
        and start < end
        and isinstance(_at(world, "targets", held["target"]), dict)
    )


def _moment_ns(text: str) -> float:
    moment = _moment(text)
    assert moment is not None
    return moment.timestamp() * 1e9


def allowed_too_much(name: str, world: dict[str, Any], asked: Any, answer: dict[str, Any]) -> bool:
    """Whether the answer lets in what the description of a grant does not."""
    now = _at(asked, "now_ns")
    match name:
        case "authn":
            if answer["outcome"] == "accept":
                return not may_enter(world, asked, answer)
            counts = (
                answer["outcome"] == "continue" and "verify" not in answer and _at(asked, "attempt", "proven") is True
            )
            return counts and not may_be_asked_for_more(world, asked)
        case "config":
            permit = answer["permit"] or {}
            who = _at(asked, "identity", "person")
            return answer["allow"] and not holds(world, who, permit["grant"], permit["target"], now)
        case "authz":
            who = _at(asked, "identity", "person")
            grant, target = _at(asked, "permit", "grant"), _at(asked, "permit", "target")
            return answer["allow"] and not holds(world, who, grant, target, now)
        case "live":
            facts = {session["id"]: session for session in _sessions(asked)}
            kept = [id for id, judgement in answer["sessions"].items() if judgement["verdict"] != "end"]
            # A number as an id is answered as its text, which no session of ours has.
            return not all(_stands(world, facts[id], now) for id in kept if id in facts)
        case "admin":
            actions = _at(world, "automations", _at(asked, "client", "name"), "actions")
            return answer["allow"] and _at(asked, "action") not in _items(actions)
        case _:
            stored = answer["value"]
            return answer["allow"] and stored is not None and not well_formed(world, stored)


def _stands(world: dict[str, Any], session: dict[str, Any], now: Any) -> bool:
    return holds(world, session.get("person"), session.get("grant"), session.get("target"), now)


def _sessions(asked: Any) -> list[dict[str, Any]]:
    found = _items(_at(asked, "sessions"))
    return [session for session in found if isinstance(session, dict) and isinstance(session.get("id"), str)]


def decide(opa: httpx.Client, path: str, asked: Any) -> Any:
    answer = opa.post(f"/v1/data/{path}", params={"strict-builtin-errors": "true"}, json={"input": asked})
    assert answer.status_code == 200, (answer.text, asked)
    return answer.json()


def decided_on(opa: httpx.Client, decision: Decision, asked: Any, basis: list[dict[str, Any]]) -> Any:
    """The decision where there is nothing in the world but its basis."""
    world: dict[str, Any] = {root: {} for root in data()}
    for entry in basis:
        *inner, last = entry["path"]
        place = world
        for step in inner:
            place = place.setdefault(step, {})
        assert "omitted" not in entry
        if "value" in entry:
            place[last] = entry["value"]
    withs = " ".join(f"with data.{root} as input.world.{root}" for root in world)
    question = f"answer = data.{decision.value.replace('/', '.')} with input as input.asked {withs}"
    said = opa.post("/v1/query", json={"query": question, "input": {"asked": asked, "world": world}})
    assert said.status_code == 200, said.text
    return said.json()["result"][0]["answer"]


@pytest.mark.parametrize("seed", [1, 7, 42, 99, 2030])
def test_damage_never_makes_a_decision_undefined_nor_allow_what_does_not_hold(
    bare_opa: httpx.Client, seed: int
) -> None:
    damager = Damager(seed)
    allowed = 0
    for number in range(WORLDS):
        world = data() if number == 0 else damager.world()
        for root, value in world.items():
            if bare_opa.put(f"/v1/data/{root}", json=value).is_error:  # a null is no document to OPA
                world[root] = {}
                bare_opa.put(f"/v1/data/{root}", json={}).raise_for_status()
        for name, (model, decision) in ANSWERS.items():
            for _ in range(ROUNDS):
                asked = damager.question(name)
                said = decide(bare_opa, decision, asked)
                evidence = json.dumps({"world": world, "asked": asked, "said": said})
                assert "result" in said, evidence
                model.model_validate_json(json.dumps(said["result"]))
                if decision.has_basis:
                    whole = decide(bare_opa, decision.asked_at, asked)["result"]
                    basis = whole.pop("basis")
                    assert whole == said["result"], evidence
                    assert decided_on(bare_opa, decision, asked, basis) == whole, (basis, evidence)
                assert not allowed_too_much(name, world, asked, said["result"]), evidence
                if name == "live":
                    assert {session["id"] for session in _sessions(asked)} <= said["result"]["sessions"].keys()
                allowed += said["result"].get("allow", said["result"].get("outcome") == "accept") is True
        for report in ("grants", "targets", "authn"):
            assert isinstance(decide(bare_opa, f"gateway/{report}/malformed", {}).get("result"), list)
    assert allowed > 20, "the damage is so great that nothing is tried"


def test_every_way_in_opens_and_every_single_damage_to_it_that_matters_shuts_it(bare_opa: httpx.Client) -> None:
    world, asked = data(), question("authn")
    for root, value in world.items():
        bare_opa.put(f"/v1/data/{root}", json=value).raise_for_status()
    opened, shut = 0, 0
    for way in attempts(asked):
        whole = {**asked, **way}
        said = decide(bare_opa, ANSWERS["authn"][1], whole)["result"]
        assert (said["outcome"], may_enter(world, whole, said)) == ("accept", True), (way, said)
        for path in _paths(whole):
            for junk in JUNK if path else ():
                broken = copy.deepcopy(whole)
                inner = broken
                for step in path[:-1]:
                    inner = inner[step]
                inner[path[-1]] = copy.deepcopy(junk)
                answer = decide(bare_opa, ANSWERS["authn"][1], broken)["result"]
                assert not allowed_too_much("authn", world, broken, answer), (path, junk, answer)
                opened, shut = opened + (answer["outcome"] == "accept"), shut + (answer["outcome"] != "accept")
    assert shut > 2000
    assert opened > 500


def test_every_single_damage_to_a_grant_takes_its_effect_away(bare_opa: httpx.Client) -> None:
    world, asked = data(), {name: question(name) for name in ("config", "authz", "live")}
    for root, value in world.items():
        bare_opa.put(f"/v1/data/{root}", json=value).raise_for_status()
    whole = world["grants"]["alice"]["INC-1"]
    assert _effect(bare_opa, asked) == (True, True, "keep")

    struck = 0
    for field in whole:
        for junk in [..., *JUNK]:
            broken = {key: value for key, value in whole.items() if key != field}
            if junk is not ...:
                broken[field] = junk
            if well_formed(world, broken):
                continue
            bare_opa.put("/v1/data/grants/alice/INC-1", json=broken).raise_for_status()
            assert _effect(bare_opa, asked) == (False, False, "end"), broken
            found = decide(bare_opa, "gateway/grants/malformed", {})["result"]
            assert [(entry["person"], entry["id"]) for entry in found] == [("alice", "INC-1")], broken
            struck += 1
    assert struck > 100


def _effect(opa: httpx.Client, asked: dict[str, Any]) -> tuple[bool, bool, str]:
    answers = {name: decide(opa, ANSWERS[name][1], asked[name])["result"] for name in asked}
    return answers["config"]["allow"], answers["authz"]["allow"], answers["live"]["sessions"]["s-1"]["verdict"]
