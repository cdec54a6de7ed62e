"""Who does not come in: strangers, the malformed, those who try two things at once, and under careless policies."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, String, UInt32

from gateway.authn import Evidence, Verified
from tests.fakes import Known
from tests.ssh.test_hostile_client import SOON, before_authentication
from tests.ssh.visitors import CODE, PASSWORD, VERIFY, Person, comes_in, door, is_refused, judged, request
from tests.ssh.world import ALICE, BOB, Site, running
from tests.stack.opa import POLICIES, Opa, opa
from tests.waiting import until


async def test_strangers_and_the_wrong_are_led_the_same_way(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    """Unknown, disabled, with another chain or with wrong proofs: the same questions and the same answers."""
    rules = {
        "methods": ["publickey", "password", "keyboard-interactive"],
        "chain": [["totp"], ["password"]],
        "verify": VERIFY,
    }
    async with door(opa_server, tmp_path, rules) as site:
        opa_server.put("people/carol", {"keys": [], "disabled": True})
        opa_server.put("people/dora", {"keys": [], "authn": {"chain": [["publickey"]]}})
        stranger = asyncssh.generate_private_key("ssh-ed25519")
        seen = {}
        for login in (ALICE, "zoe", "carol", "dora", "no/name", "zoe+plain"):
            before = len(site.audit())
            person = Person("000000", password="wrong")
            await is_refused(site, person, login, client_keys=[stranger])
            records = [r for r in site.audit()[before:] if r["event"] in ("authn", "verify")]
            told = [(r["event"], r["outcome"], (r.get("answer") or {}).get("methods")) for r in records]
            seen[login] = (told, person.asked, [said.partition("session")[0][:80] for said in person.banners])

        assert len({str(one) for one in seen.values()}) == 1, seen
        told, asked, _ = seen["zoe"]
        assert [event for event, *_ in told].count("verify") == 2
        assert asked == [("", "", (("Code: ", False),))]


async def test_a_method_that_is_not_open_is_not_even_verified(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    passwords = Known({ALICE: PASSWORD})
    rules = {"methods": ["publickey"], "chain": [["password"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules, verifiers={"argon2": passwords}) as site:
        connection = await before_authentication(site)
        for _ in range(30):
            connection.send_packet(50, request("password", Boolean(False) + String(PASSWORD)))
        await asyncio.wait_for(connection.wait_closed(), SOON)

        assert passwords.asked == []
        assert not site.audit("config")


async def test_proofs_do_not_count_for_another_name(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    codes = Known({ALICE: CODE, BOB: CODE})
    rules = {"chain": [["publickey", "totp"]], "verify": VERIFY, "methods": ["publickey", "keyboard-interactive"]}
    async with door(opa_server, tmp_path, rules, verifiers={"totp": codes}) as site:
        connection = await before_authentication(site)
        key = site.keys[ALICE]
        algorithm = key.get_algorithm().encode()
        fields = Boolean(True) + String(algorithm) + String(key.public_data)
        packet = request("publickey", fields)
        signature = key.sign(String(connection._session_id) + bytes([50]) + packet, algorithm)
        connection.send_packet(50, packet + String(signature))
        await until(lambda: [r for r in site.audit("authn") if r["outcome"] == "continue"])
        connection.send_packet(50, request("keyboard-interactive", String("") + String(""), login=BOB))
        await until(lambda: any(r["input"]["login"]["user"] == BOB for r in site.audit("authn")))
        last = site.audit("authn")[-1]["input"]
        assert last["proofs"] == []
        connection.abort()
        await until(lambda: len(site.gone("connection")) == 1)
        assert not site.audit("config")


async def test_a_password_with_a_change_of_it_is_refused(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    passwords = Known({ALICE: PASSWORD})
    rules = {"methods": ["password"], "chain": [["password"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules, verifiers={"argon2": passwords}) as site:
        connection = await before_authentication(site)
        connection.send_packet(50, request("password", Boolean(True) + String(PASSWORD) + String("new-one")))
        await until(lambda: ("password", False, "argon2", "reject") in judged(site))
        connection.abort()
        assert passwords.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b"", Boolean(False), Boolean(False) + b"\0\0\0\x09short", Boolean(False) + String("x") + b"more",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["password", "publickey", "keyboard-interactive"])
async def test_a_malformed_request_ends_the_connection(site: Site, method: str, body: bytes) -> None:
    connection = await before_authentication(site)
    connection.send_packet(50, request(method, body))
    await asyncio.wait_for(connection.wait_closed(), SOON)
    assert not site.audit("config")


async def test_answers_that_nobody_asked_for_end_the_connection(opa_server: Opa, tmp_path: Path) -> None:
    rules = {"methods": ["keyboard-interactive"], "chain": [["totp"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules) as site:
        connection = await before_authentication(site)
        connection.send_packet(61, UInt32(1) + String(CODE))
        await asyncio.wait_for(connection.wait_closed(), SOON)


async def test_another_request_ends_the_dialogue(opa_server: Opa, tmp_path: Path, unexpected: Any) -> None:
    codes = Known({ALICE: CODE})
    rules = {"methods": ["keyboard-interactive", "password"], "chain": [["totp"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules, verifiers={"totp": codes}) as site:
        connection = await before_authentication(site)
        connection.send_packet(50, request("keyboard-interactive", String("") + String("")))
        await until(lambda: codes.asked)
        connection.send_packet(50, request("password", Boolean(False) + String("x")))
        await until(lambda: codes.cancelled == 1)
        await until(lambda: ("password", False, "argon2", "reject") in judged(site))
        assert [r["outcome"] for r in site.audit("verify")][:1] == ["cancelled"]
        connection.abort()


async def test_a_verifier_that_does_not_answer_is_told_at_the_door(
    opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    passwords = Known({ALICE: PASSWORD})
    passwords.unavailable = True
    rules = {"methods": ["password"], "chain": [["password"]], "verify": VERIFY}
    async with door(opa_server, tmp_path, rules, verifiers={"argon2": passwords}) as site:
        person = Person(password=PASSWORD)
        with pytest.raises(asyncssh.DisconnectError, match="verifier_unavailable"):
            await comes_in(site, person)
        assert "doorward: verifier_unavailable: the verifier does not answer" in person.banners[0]
        opa_server.put("door/verify/password", {"kind": "webhook", "name": "old"})
        with pytest.raises(asyncssh.DisconnectError, match="not set up"):
            await comes_in(site, Person(password=PASSWORD))


async def test_whoever_signs_with_a_key_that_is_not_enough_is_told_so(
    opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    async with door(opa_server, tmp_path, {"require_hardware_key": True}) as site:
        person = Person()
        connection = await before_authentication(site)
        connection._owner = person
        key = site.keys[ALICE]
        algorithm = key.get_algorithm().encode()
        packet = request("publickey", Boolean(True) + String(algorithm) + String(key.public_data))
        signature = key.sign(String(connection._session_id) + bytes([50]) + packet, algorithm)
        connection.send_packet(50, packet + String(signature))
        await until(lambda: person.banners)
        assert "hardware_key_needed" in person.banners[0]
        connection.abort()


# -- policies that forget something ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ('{"outcome": "accept", "identity": {"person": "alice"}}', "accepts_unproven"),
        (
            '{"outcome": "continue", "methods": ["password"], "verify": {"kind": "argon2", "username": "alice"}}',
            "verification_loop",
        ),
        (
            '{"outcome": "continue", "verify": {"kind": "totp", "source": "local", "account": "alice"}}',
            "policy_malformed",
        ),
        ('{"outcome": "continue", "methods": ["hostbased"]}', "policy_malformed"),
        ('{"outcome": "accept"}', "policy_malformed"),
    ],
)
async def test_there_is_a_second_lock(parts_dir: Path, tmp_path: Path, answer: str, code: str) -> None:
    """A policy that accepts what was not proven, or asks without end, admits nobody and says so."""
    policies = tmp_path / "policies"
    shutil.copytree(POLICIES, policies)
    shutil.rmtree(policies / "gateway" / "authn")
    rule = f'default decision := {{"outcome": "continue", "methods": ["password"]}}\n\ndecision := {answer} if '
    careless = f'package gateway.authn\n\n{rule}input.attempt.method == "password"\n'
    (policies / "gateway" / "authn.rego").write_text(careless)
    (tmp_path / "opa").mkdir()
    with opa(tmp_path / "opa", policies=policies) as server:
        async with running(server, tmp_path, verifiers={"argon2": Known({})}) as site:
            person = Person(password="x")
            with pytest.raises(asyncssh.DisconnectError, match=code):
                await comes_in(site, person)
            assert f"doorward: {code}: " in person.banners[0]
            assert not site.audit("config")


async def test_an_opa_that_dies_during_a_dialogue_admits_nobody(parts_dir: Path, tmp_path: Path) -> None:
    rules = {"methods": ["keyboard-interactive"], "chain": [["totp"]], "verify": VERIFY}
    codes, hold = Known({ALICE: CODE}), asyncio.Event()
    (tmp_path / "opa").mkdir()
    with opa(tmp_path / "opa") as own:
        async with running(own, tmp_path, verifiers={"totp": codes}) as site:
            own.put("door", rules)
            person = Person(CODE, hold=hold)
            coming = asyncio.ensure_future(comes_in(site, person))
            await until(lambda: codes.asked)
            await asyncio.to_thread(own.process.end)
            hold.set()
            with pytest.raises(asyncssh.DisconnectError, match="policy_unreachable"):
                await coming
            assert "doorward: policy_unreachable:" in person.banners[0]
            assert not site.audit("config")


class Stubborn(Person):
    """Tries the same wrong password for ever."""

    def password_auth_requested(self) -> str:
        return "wrong"


async def test_who_guesses_wrong_pays_also_when_what_comes_next_cannot_be_verified(
    opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    """Else whoever knows how to make a verifier fail would guess for nothing."""

    class Frail(Known):
        async def verify(self, verification: Any, evidence: Evidence) -> Verified:
            self.unavailable = bool(self.asked)
            return await super().verify(verification, evidence)

    rules = {"methods": ["password"], "chain": [["password"]], "verify": VERIFY}
    penalties = {"exempt": [], "auth_fail_seconds": 100, "no_auth_seconds": 0, "min_seconds": 1}
    settings: dict[str, Any] = {"verifiers": {"argon2": Frail({ALICE: PASSWORD})}, "ssh": {"penalties": penalties}}
    async with door(opa_server, tmp_path, rules, **settings) as site:
        with pytest.raises(asyncssh.DisconnectError, match="verifier_unavailable"):
            await comes_in(site, Stubborn())
        await until(lambda: site.front()["connections"] == 0)

        with pytest.raises((asyncssh.Error, ConnectionError)):
            await comes_in(site, Person(password=PASSWORD))
        assert len(site.audit("accept")) == 1


async def test_wrong_passwords_are_counted_however_they_are_sent(
    opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    """One after the other or all at once: `max_auth_tries` failures, and what is given up for the next is bounded."""
    passwords = Known({ALICE: PASSWORD})
    rules = {"methods": ["password"], "chain": [["password"]], "verify": VERIFY}
    settings: dict[str, Any] = {"verifiers": {"argon2": passwords}, "ssh": {"max_auth_tries": 3}}
    async with door(opa_server, tmp_path, rules, **settings) as site:
        with pytest.raises(asyncssh.DisconnectError, match="Too many authentication failures"):
            await comes_in(site, Stubborn())
        assert len(passwords.asked) == 4  # the fourth is one too many

        wrong = request("password", Boolean(False) + String("wrong"))
        hasty = await before_authentication(site)
        for _ in range(50):
            hasty.send_packet(50, wrong)
        hasty.send_packet(50, request("password", Boolean(False) + String(PASSWORD)))
        await asyncio.wait_for(hasty.wait_closed(), SOON)
        await until(lambda: len(site.gone("connection")) == 2)
        assert len(passwords.asked) <= 4 + 12
        assert not site.audit("config")
