"""Which obligation may stand where, and that a malformed one is no obligation: tables."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.obligations import PERMIT, REQUESTS, Obligation, kinds_for, misfits
from gateway.policy.contract import AuthzAnswer

GRANT = {
    "target": "orders-db", "starts_at": "2030-01-31T12:00:00Z", "ends_at": "2030-01-31T12:30:00Z",
    "reason": "orders are stuck", "kind": "break_glass", "requested_at": "2030-01-31T12:00:00Z",
}  # fmt: skip
SOUND: dict[str, dict[str, Any]] = {
    "judge_sftp": {},
    "read_only_sftp": {},
    "reason": {"prompt": "Why?", "min_length": 10, "pattern": "INC-[0-9]+", "seconds": 60},
    "four_eyes": {"approvers": "erin", "seconds": 600},
    "break_glass": {"grant": GRANT},
    "notify": {"hook": "security", "required": True},
    "rate_limit": {"bytes_in_per_second": 4096},
    "record": {"what": ["terminal"]},
    "mask": {"patterns": ["x"], "env": ["*_TOKEN"]},
}
FAULTY: list[tuple[str, dict[str, Any]]] = [
    ("dance", {}),
    ("", {}),
    ("judge_sftp", {"also": 1}),
    ("read_only_sftp", {"path": "/"}),
    ("reason", {"min_length": 0}),
    ("reason", {"min_length": "3"}),
    ("reason", {"seconds": 0}),
    ("reason", {"min_lenght": 3}),
    ("four_eyes", {"approvers": "erin"}),
    ("four_eyes", {"approvers": "", "seconds": 5}),
    ("break_glass", {}),
    ("break_glass", {"grant": {**GRANT, "kind": "ordinary"}}),
    ("break_glass", {"grant": {**GRANT, "reason": ""}}),
    ("break_glass", {"grant": {**GRANT, "approved_by": "erin"}}),
    ("break_glass", {"grant": {key: value for key, value in GRANT.items() if key != "ends_at"}}),
    ("break_glass", {"grant": GRANT, "person": "bob"}),
    ("notify", {}),
    ("notify", {"hook": "https://elsewhere.example/"}),
    ("notify", {"hook": "security", "url": "https://elsewhere.example/"}),
    ("rate_limit", {}),
    ("rate_limit", {"bytes_in_per_second": 0}),
    ("rate_limit", {"operations_per_minute": 1.5}),
    ("record", {}),
    ("record", {"what": []}),
    ("mask", {}),
    ("mask", {"patterns": [], "env": []}),
    ("mask", {"patterns": ["x" * 201]}),
    ("mask", {"env": ["A B"]}),
]
READER = TypeAdapter[Any](Obligation)


def read(kind: str, fields: dict[str, Any]) -> Any:
    import json

    return READER.validate_json(json.dumps({"kind": kind, **fields}))


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_one_of_each_kind_is_read(kind: str) -> None:
    assert read(kind, SOUND[kind]).kind == kind


@pytest.mark.parametrize(("kind", "fields"), FAULTY)
def test_a_faulty_one_makes_the_answer_unusable(kind: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AuthzAnswer.model_validate({"allow": True, "obligations": ({"kind": kind, **fields},)})


def test_the_table_knows_every_kind_and_every_field_says_what_it_is_for() -> None:
    schema = AuthzAnswer.model_json_schema()["$defs"]
    kinds = {name: found["properties"]["kind"]["const"] for name, found in schema.items() if name != "Reason"}
    assert set(kinds.values()) == SOUND.keys()
    assert {"judge_sftp"} | PERMIT == SOUND.keys()
    for name in kinds:
        assert schema[name]["description"], name


CARRIES = {"rate_limit", "notify", "record", "mask"}


@pytest.mark.parametrize(
    ("request_facts", "forced", "kinds"),
    [
        ({"kind": "shell"}, False, CARRIES),
        ({"kind": "exec", "command": "x"}, True, CARRIES),
        ({"kind": "subsystem", "name": "sftp"}, False, CARRIES | {"judge_sftp", "read_only_sftp"}),
        ({"kind": "subsystem", "name": "sftp"}, True, CARRIES),
        ({"kind": "subsystem", "name": "netconf"}, False, CARRIES),
        ({"kind": "direct-tcpip"}, False, CARRIES),
        ({"kind": "tcpip-forward"}, False, {"notify", "mask"}),
        ({"kind": "auth-agent-req@openssh.com"}, False, {"notify", "mask"}),
        ({"kind": "env"}, False, {"mask"}),
        ({"kind": "session"}, False, {"mask"}),
        ({"kind": "sftp", "operation": "open"}, False, {"mask"}),
        ({"kind": "anything-else"}, False, {"mask"}),
    ],
)
def test_which_kinds_go_with_which_request(request_facts: dict[str, Any], forced: bool, kinds: set[str]) -> None:
    assert kinds_for(request_facts, forced=forced) == kinds


def test_no_request_can_oblige_to_what_comes_before_a_session() -> None:
    assert not any({"reason", "four_eyes", "break_glass"} & kinds for kinds in REQUESTS.values())


def test_of_two_of_a_kind_nobody_could_say_which_holds() -> None:
    several = [read(kind, fields) for kind, fields in SOUND.items() for _ in range(2)]

    assert set(misfits(several, SOUND)) == SOUND.keys() - {"notify", "mask"}
    assert misfits([read("reason", {})], {"mask"}) == ["reason"]
    assert misfits([read("reason", {})], PERMIT) == []
