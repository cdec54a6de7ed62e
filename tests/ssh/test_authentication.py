"""Who is at the door: each method and chain, with a real OPA and clients that say what a test wants said."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.fakes import Known, Listed
from tests.ssh.visitors import CODE, PASSWORD, VERIFY, Person, comes_in, door, is_refused, judged
from tests.ssh.world import ALICE, BOB, target
from tests.stack.opa import Opa
from tests.waiting import until


async def test_a_password_is_verified_as_policy_says(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    rules = {"methods": ["publickey", "password"], "chain": [["password"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules) as site:
        assert await comes_in(site, Person(password=PASSWORD)) == "in"

        assert judged(site) == [
            ("none", False, "", "continue"),
            ("password", False, "", "continue"),
            ("password", True, "argon2", "accept"),
        ]
        [verified] = site.audit("verify")
        assert (verified["outcome"], verified["verification"]["username"]) == ("verified", ALICE)
        await is_refused(site, Person(password="wrong"))
        assert judged(site)[-1] == ("password", False, "argon2", "reject")


async def test_a_dialogue_is_led_over_keyboard_interactive(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    rules = {"methods": ["keyboard-interactive"], "chain": [["totp"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules) as site:
        person = Person(CODE)
        assert await comes_in(site, person) == "in"

        assert person.asked == [("", "", (("Code: ", False),))]
        await is_refused(site, Person("000000"))
        assert site.audit("config")[0]["input"]["proofs"][0]["verified_by"] == "totp"
        assert site.audit("config")[0]["input"]["identity"]["via"] == ["totp"]


async def test_a_key_then_a_code(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    rules = {"chain": [["publickey", "totp"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules) as site:
        alice = [site.keys[ALICE]]
        assert await comes_in(site, Person(CODE), client_keys=alice) == "in"

        await is_refused(site, Person("000000"), client_keys=alice)
        await is_refused(site, Person(), client_keys=alice)
        await is_refused(site, Person(CODE))  # the code alone
        await is_refused(site, Person(CODE), client_keys=[site.keys[BOB]])
        assert all(record["input"]["identity"]["via"] == ["publickey", "totp"] for record in site.audit("config"))


async def test_answers_become_facts(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    rules = {"chain": [["publickey", "questions"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules) as site:
        person = Person("orders are stuck", "INC-7")
        assert await comes_in(site, person, client_keys=[site.keys[ALICE]]) == "in"

        [(_, instruction, prompts)] = person.asked
        assert (instruction, prompts) == ("Before you come in", (("Why? ", True), ("Ticket? ", True)))
        proof = site.audit("config")[0]["input"]["proofs"][1]
        assert proof["claims"] == {"why": "orders are stuck", "ticket": "INC-7"}


async def test_a_listed_key_is_looked_up_before_it_is_welcome(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(2)]
    listed = Listed(keys[1].get_fingerprint())
    rules = {"verify": {"publickey": {"kind": "key_list", "url": "https://keys.example/{person}.keys"}}}
    async with door(opa_server, tmp_path, rules, verifiers={"key_list": listed}) as site:
        assert await comes_in(site, Person(), client_keys=keys) == "in"

        assert {verification.url for verification in listed.asked} == {"https://keys.example/alice.keys"}
        await is_refused(site, Person(), client_keys=[keys[0]])


async def test_a_dialogue_ends_with_its_client(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    codes, hold = Known({ALICE: CODE}), asyncio.Event()
    rules = {"methods": ["keyboard-interactive"], "chain": [["totp"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules, verifiers={"totp": codes}) as site:
        coming = asyncio.ensure_future(comes_in(site, Person(CODE, hold=hold)))
        await until(lambda: codes.asked)
        coming.cancel()
        await until(lambda: codes.cancelled == 1)
        await asyncio.wait([coming])


async def test_a_target_can_require_more_than_the_door(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    targets = {"vault": target(require=[["publickey", "totp"], ["oidc"]])}
    async with door(opa_server, tmp_path, {"verify": VERIFY}, targets=targets) as site:
        alice = [site.keys[ALICE]]
        async with site.connect() as connection:  # she has no other grant, but could not be asked before it was known
            refused = await connection.run("echo in")
        assert "doorward: stronger_login_needed: vault needs more proof" in str(refused.stderr)
        assert "ssh alice+vault@door" in str(refused.stderr)

        assert await comes_in(site, Person(CODE), "alice+vault", client_keys=alice) == "in"
        await is_refused(site, Person("000000"), "alice+vault", client_keys=alice)


async def test_the_grace_is_over_also_for_a_dialogue(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    codes = Known({ALICE: CODE})
    rules = {"methods": ["keyboard-interactive"], "chain": [["totp"]], "verify": VERIFY}
    settings: dict[str, Any] = {"verifiers": {"totp": codes}, "ssh": {"login_grace_seconds": 1}}
    async with door(opa_server, tmp_path, rules, **settings) as site:
        with pytest.raises((asyncssh.Error, ConnectionError)):
            await comes_in(site, Person(CODE, hold=asyncio.Event()))
        await until(lambda: codes.cancelled == 1)
        await until(lambda: len(site.gone("connection")) == 1)


async def test_claims_are_bounded(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    talkative = Known({ALICE: PASSWORD}, claims={"groups": ["x" * 100] * 1000})
    rules = {"methods": ["password"], "chain": [["password"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules, verifiers={"argon2": talkative}) as site:
        with pytest.raises(asyncssh.DisconnectError, match="claims_too_large"):
            await comes_in(site, Person(password=PASSWORD))


async def test_what_was_typed_is_nowhere(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    """Right and wrong passwords, codes, and what was typed before the honeypot's permit: in no file and no log."""
    said: list[str] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage() + str(record.__dict__))

    handler = Catch(logging.DEBUG)
    root, old = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    secrets = [PASSWORD, "wrong-password-77", CODE, "913377", "trapped-secret-5"]
    rules = {
        "methods": ["publickey", "password", "keyboard-interactive"],
        "chain": [["password", "totp"]],
        "verify": VERIFY,
        "honeypots": {"trap": {"person": BOB, "logins": ["root"], "methods": ["password"]}},
    }
    try:
        async with door(opa_server, tmp_path, rules, telemetry={"exporter": "file"}) as site:
            asyncssh.set_log_level("DEBUG")
            await comes_in(site, Person(CODE, password=PASSWORD))
            await is_refused(site, Person("913377", password=PASSWORD))
            await is_refused(site, Person(password="wrong-password-77"))
            await comes_in(site, Person(password="trapped-secret-5"), "root")
            await site.nothing_left()
    finally:
        asyncssh.set_log_level("NOTSET")
        root.removeHandler(handler)
        root.setLevel(old)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept = {path.name: path.read_bytes() for path in files} | {"opa": _told_to_opa(opa_server)}
    # At the loudest that the settings offer.  The client is in this process too, and does not log what it types either.
    kept["logs"] = "\n".join(said).encode()
    assert {"traces.jsonl", "audit.jsonl"} <= kept.keys()
    assert b"keyboard-interactive" in kept["opa"]
    assert b"Auth for user" in kept["logs"]
    assert len(site.audit("config")) == 2
    # A code is six figures, which are in many a longer number too.
    found = {(name, secret) for name, text in kept.items() for secret in secrets if re.search(_alone(secret), text)}
    assert not found


def _alone(secret: str) -> bytes:
    return rf"(?<![0-9]){re.escape(secret)}(?![0-9])".encode()


def _told_to_opa(server: Opa) -> bytes:
    """Its log without its clocks, which count nanoseconds."""
    return re.sub(
        rb'"(metrics|req_body_size|resp_bytes|resp_duration)":(\{[^}]*\}|[0-9.]+),?',
        b"",
        server.decision_log.read_bytes(),
    )
