"""Failed logins give nothing away: the same words, after the same work, whoever was claimed; and what all read before.

Not milliseconds are compared but what they come from: the messages on the wire, the questions to policy, the records.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, String

from tests.ssh.openssh import OpenSSH
from tests.ssh.test_hostile_client import before_authentication
from tests.ssh.visitors import Person, comes_in, door, is_refused
from tests.ssh.world import ALICE, BOB, Site, running
from tests.stack.opa import Opa
from tests.waiting import SECONDS, until

NOBODY, DISABLED = "zoe", "carol"
BANNER = "Production. Authorised use only,\nand everything is recorded."
FAILURE, SUCCESS, PK_OK = 51, 52, 60


class Recorder:
    """Notes every answer of the authentication protocol, whole."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    def process_packet(self, number: int, _sequence: int, packet: Any) -> bool:
        self.heard.put_nowait((number, packet.get_full_payload()))
        return True

    def log_received_packet(self, *_: Any) -> None:
        return

    def cancel(self) -> None:
        return


async def conversation(site: Site, login: str, key: asyncssh.SSHKey) -> list[tuple[int, bytes]]:
    """`none`, then the key offered, then signed, by a client that does not listen; all that it is told."""
    connection: Any = await before_authentication(site, "somebody")
    recorder = connection._auth = Recorder()
    connection.process_packet = recorder.process_packet
    head = String(login) + String("ssh-connection")
    blob = String("ssh-ed25519") + String(key.public_data)
    told: list[tuple[int, bytes]] = []

    async def say(payload: bytes) -> None:
        connection.send_packet(50, payload)
        async with asyncio.timeout(SECONDS):
            told.append(await recorder.heard.get())

    await say(head + String("none"))
    await say(head + String("publickey") + Boolean(False) + blob)
    signed = head + String("publickey") + Boolean(True) + blob
    signature = key.sign(String(connection._session_id) + bytes([50]) + signed, b"ssh-ed25519")
    await say(signed + String(signature))
    connection._auth = None
    connection.abort()
    await connection.wait_closed()
    return told


def work(site: Site) -> list[tuple[str, str, tuple[str, ...]]]:
    """What was recorded of the latest connection: events, outcomes, reasons; and nothing of who it was.

    A document that is new to the log is a line more, once, in the same write: whoever was there before has it already.
    """
    latest = site.audit("accept")[-1]["session"]
    return [
        (one["event"], one["outcome"], tuple(reason["code"] for reason in one.get("answer", {}).get("reasons", [])))
        for one in site.audit()
        if one.get("session") == latest and one["event"] != "data"
    ]


async def asked(site: Site) -> int:
    """How often OPA was asked about the latest connection, by its own log."""
    latest = site.audit("accept")[-1]["session"]

    def decisions() -> int:
        lines = [line for line in site.opa.decision_log.read_text().splitlines() if latest in line]
        return sum(json.loads(line).get("msg") == "Decision Log" for line in lines)

    known = len([one for one in site.audit() if one.get("session") == latest and "decision_id" in one])
    await until(lambda: decisions() >= known)
    return decisions()


async def test_unknown_disabled_and_wrong_keys_are_told_the_same_after_the_same_work(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    carol = asyncssh.generate_private_key("ssh-ed25519")
    async with running(opa_server, tmp_path) as site:
        public = carol.export_public_key().decode().strip()
        site.opa.put(f"people/{DISABLED}", {"keys": [public], "groups": [], "disabled": True})
        site.opa.put("door", {"banner": BANNER})
        try:
            seen = {}
            for what, login, key in (
                ("unknown person", NOBODY, stranger),
                ("unknown person with a known key", NOBODY, site.keys[ALICE]),
                ("wrong key", ALICE, stranger),
                ("another's key", ALICE, site.keys[BOB]),
                ("disabled person", DISABLED, carol),
                ("unknown target", f"{NOBODY}+nowhere", stranger),
                ("wrong key, with a target", f"{ALICE}+plain", stranger),
                ("not a login", "alice+", stranger),
            ):
                told = await conversation(site, login, key)
                await until(lambda: work(site)[-1][0] == "gone")
                seen[what] = (told, work(site), await asked(site))
        finally:
            site.opa.put("door", {})
            site.opa.delete(f"people/{DISABLED}")

    expected = seen["unknown person"]
    assert [number for number, _ in expected[0]] == [FAILURE, FAILURE, FAILURE]
    assert expected[2] == 4, "none twice, offered, signed"
    for what, found in seen.items():
        assert found == expected, what


async def test_without_a_grant_the_way_in_is_the_same_until_it_has_succeeded(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with running(opa_server, tmp_path) as site:
        told = {}
        for what in ("with a grant", "without"):
            if what == "without":
                site.opa.delete(f"grants/{ALICE}/g1")
            told[what] = await conversation(site, ALICE, site.keys[ALICE])
            await until(lambda: work(site)[-1][0] == "gone")
            told[what].append((await asked(site), json.dumps(work(site)).encode()))
        async with site.connect() as connection:
            ran = await connection.run("echo in")
            assert "no_grant" in str(ran.stderr)

    assert [number for number, _ in told["without"]][:3] == [FAILURE, PK_OK, SUCCESS]
    assert told["without"] == told["with a grant"]


# -- the banner ------------------------------------------------------------------------------------------------------


async def test_the_banner_is_read_once_before_anything_is_asked_and_by_the_refused_too(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    rules = {
        "chain": [["publickey", "totp"]],
        "verify": {"totp": {"kind": "totp", "source": "local", "prompt": "Code: "}},
    }
    async with door(opa_server, tmp_path, {**rules, "banner": BANNER + "\x1b[2J"}) as site:
        person, refused = Person("492816"), Person("000000")
        assert await comes_in(site, person, client_keys=[site.keys[ALICE]]) == "in"
        await is_refused(site, refused, client_keys=[site.keys[ALICE]])

    assert person.banners == refused.banners
    [banner] = person.banners
    assert banner.startswith(BANNER)
    assert banner.endswith("\n")
    assert "\x1b" not in banner


async def test_the_stock_client_shows_the_banner(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    async with door(opa_server, tmp_path, {"banner": BANNER}) as site:
        status, out, err = await OpenSSH(site, tmp_path).run("echo in")
    assert (status, out) == (0, "in\n")
    assert BANNER in err.replace("\r\n", "\n")


async def test_a_policy_that_does_not_answer_shows_no_banner_and_lets_nobody_in(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with running(opa_server, tmp_path, policy={"url": "http://127.0.0.1:1"}) as site:
        person = Person()
        with pytest.raises(asyncssh.DisconnectError):
            await comes_in(site, person, client_keys=[site.keys[ALICE]])
    assert not any("Authorised" in text for text in person.banners)
