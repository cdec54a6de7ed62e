"""The front: who may begin, what it costs to misbehave there, and how much an unknown client can make us hold."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import pytest
from asyncssh.packet import NameList, String, UInt32

from gateway.ssh.unproven import MAX_UNPROVEN_BYTES, MAX_UNPROVEN_PACKET
from tests.ssh.test_hostile_client import SOON, before_authentication
from tests.ssh.world import BOB, Site, resident, running
from tests.stack.opa import Opa
from tests.test_proxy_header import proxied, with_body
from tests.waiting import SECONDS, eventually, until

NOBODY_EXEMPT: dict[str, Any] = {"exempt": []}
ENDED = b""


@pytest.fixture
def opened(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> Callable[..., Any]:
    @asynccontextmanager
    async def opening(policy: dict[str, Any] | None = None, **ssh: Any) -> AsyncIterator[Site]:
        async with running(opa_server, tmp_path, ssh=ssh, policy=policy or {}) as site:
            try:
                yield site
            finally:
                await Stranger.all_leave()

    return opening


class Stranger:
    """A bare TCP connection to the door."""

    here: ClassVar[list[Stranger]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def comes(cls, site: Site, data: bytes = b"") -> Stranger:
        stranger = cls(*await asyncio.open_connection("127.0.0.1", site.port))
        stranger.writer.write(data)
        cls.here.append(stranger)
        return stranger

    @classmethod
    async def all_leave(cls) -> None:
        while cls.here:
            await cls.here.pop().leave()

    async def line(self) -> bytes:
        """What the door says first; nothing when it just hangs up."""
        async with asyncio.timeout(SOON):
            try:
                return await self.reader.readline()
            except ConnectionResetError:
                return ENDED

    async def rest(self) -> bytes:
        async with asyncio.timeout(SOON):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return ENDED

    async def leave(self) -> None:
        self.writer.transport.abort()
        await asyncio.wait([asyncio.ensure_future(self.writer.wait_closed())])


async def greeted(site: Site) -> Stranger:
    stranger = await Stranger.comes(site)
    assert (await stranger.line()).startswith(b"SSH-2.0-")
    return stranger


async def logs_in(site: Site) -> bool:
    async with site.connect() as connection:
        return (await asyncio.wait_for(connection.run("echo in"), SECONDS)).stdout == "in\n"


async def fails_to_log_in(site: Site) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        async with site.connect(client_keys=[asyncssh.generate_private_key("ssh-ed25519")]):
            pass


# -- admission -------------------------------------------------------------------------------------------------------


async def test_too_many_who_prove_nothing_keep_the_next_out_until_they_leave(opened: Any) -> None:
    async with opened(max_startups="3:100:3") as site, site.connect() as inside:
        held = [await greeted(site) for _ in range(3)]
        assert await (await Stranger.comes(site)).line() == b"Exceeded MaxStartups\r\n"
        assert (await inside.run("echo still")).stdout == "still\n"
        await held[0].leave()
        await until(lambda: site.front()["unauthenticated"] == 2)
        assert await logs_in(site)
        assert len(site.audit("accept")) == 5, "who was refused is not on record as a connection"


async def test_one_source_holds_a_bounded_share(opened: Any) -> None:
    async with opened(max_startups="10:30:100", max_startups_per_source=2, penalties=NOBODY_EXEMPT) as site:
        for _ in range(2):
            await greeted(site)
        assert await (await Stranger.comes(site)).line() == b"Exceeded MaxStartups\r\n"


async def test_one_person_holds_a_bounded_number_of_connections_and_is_told(opened: Any) -> None:
    async with opened(max_connections_per_person=2) as site, site.connect() as first, site.connect(BOB) as bob:
        async with site.connect() as second:
            assert (await second.run("echo in")).stdout == "in\n"
            async with site.connect() as third:
                ran = await third.run("echo in")
                assert (ran.exit_status, ran.stdout) == (254, "")
                assert "too_many_connections" in str(ran.stderr)
            assert (await first.run("echo in")).stdout == (await bob.run("echo in")).stdout == "in\n"
        assert await eventually(lambda: logs_in(site)), "a connection that is gone counts no more"


async def test_refusals_are_one_record_with_their_sum(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.refusals.SETTLE_SECONDS", 0.2)
    async with opened(max_startups="1:100:1") as site:
        await greeted(site)
        for _ in range(30):
            await (await Stranger.comes(site)).rest()
        [record] = await until(lambda: site.audit("refused"))
        await (await Stranger.comes(site)).rest()
    assert record["by_reason"] == {"max_startups": record["count"]}
    assert record["addresses"] == {"127.0.0.1": record["count"]}
    assert sum(one["count"] for one in site.audit("refused")) == 31
    assert len(site.audit("refused")) == 2, "and the rest at the end"


# -- penalties -------------------------------------------------------------------------------------------------------


async def test_who_fails_again_and_again_is_refused_before_a_word_of_ssh_and_let_in_later(opened: Any) -> None:
    penalties = {"exempt": [], "auth_fail_seconds": 1.5, "min_seconds": 3}
    async with opened(penalties=penalties) as site:
        await fails_to_log_in(site)
        assert await logs_in(site)
        await fails_to_log_in(site)
        await fails_to_log_in(site)
        before = len(site.audit("accept"))
        assert await (await Stranger.comes(site)).line() == b"Not allowed at this time\r\n"
        assert len(site.audit("accept")) == before
        for _ in range(100):
            if (await (await Stranger.comes(site)).line()).startswith(b"SSH-"):
                break
            await asyncio.sleep(0.05)
        assert await logs_in(site)


async def test_who_uses_up_the_grace_pays_for_it(opened: Any) -> None:
    penalties = {"exempt": [], "grace_exceeded_seconds": 20}
    async with opened(penalties=penalties, login_grace_seconds=0.3) as site:
        assert await (await greeted(site)).rest() == ENDED
        await until(lambda: site.front()["connections"] == 0)
        assert await (await Stranger.comes(site)).line() == b"Not allowed at this time\r\n"


async def test_a_packet_that_our_library_fails_on_is_paid_for_and_harms_nobody_else(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(penalties=NOBODY_EXEMPT) as site, site.connect() as inside:
        stranger = await Stranger.comes(site, b"SSH-2.0-\xff\xfe\r\n")  # decoded as ASCII
        await stranger.rest()
        await until(lambda: site.front()["connections"] == 1)
        assert await (await Stranger.comes(site)).line() == b"Not allowed at this time\r\n"
        assert (await inside.run("echo on")).stdout == "on\n"
    assert "connection_crashed" in caplog.text
    assert "Traceback" not in caplog.text


async def test_nobody_pays_for_a_policy_that_does_not_answer(opened: Any) -> None:
    penalties = {"exempt": [], "auth_fail_seconds": 100, "no_auth_seconds": 100}
    async with opened(penalties=penalties, policy={"url": "http://127.0.0.1:1"}) as site:
        for _ in range(5):
            with pytest.raises(asyncssh.DisconnectError) as told:
                async with site.connect():
                    pass
            assert "policy" in told.value.reason


# -- clocks ----------------------------------------------------------------------------------------------------------


async def test_who_is_authenticated_and_opens_nothing_is_hung_up_on(opened: Any) -> None:
    async with opened(channel_grace_seconds=0.5) as site, site.connect() as busy:
        process = await busy.create_process("cat")
        idle = await asyncssh.connect("127.0.0.1", site.port, **site.options())
        await asyncio.wait_for(idle.wait_closed(), SECONDS)
        process.stdin.write("still\n")
        assert await process.stdout.readline() == "still\n"


async def test_a_client_that_fell_silent_is_let_go_and_one_that_answers_is_not(opened: Any) -> None:
    async with opened(keepalive_seconds=0.2, keepalive_count=2) as site, site.connect() as awake:
        asleep = await asyncssh.connect("127.0.0.1", site.port, **site.options())
        await asleep.create_process("cat")
        assert asleep._transport is not None
        asleep._transport.pause_reading()
        await until(lambda: site.front()["connections"] == 1)
        assert (await awake.run("echo still")).stdout == "still\n"
        asleep.abort()


# -- what an unknown client can make us hold -------------------------------------------------------------------------


def kexinit() -> bytes:
    names = [[b"curve25519-sha256"], [b"ssh-ed25519"], *[[b"aes128-gcm@openssh.com"]] * 2, *[[b"none"]] * 4, [], []]
    return b"\x14" + bytes(16) + b"".join(map(NameList, names)) + bytes(5)


def clear(payload: bytes) -> bytes:
    """A packet before any key exchange."""
    padding = 16 - (5 + len(payload)) % 8
    return UInt32(1 + len(payload) + padding) + bytes([padding]) + payload + bytes(padding)


IGNORE = clear(b"\x02" + String(bytes(1000)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"SSH-2.0-x\r\n" + UInt32(MAX_UNPROVEN_PACKET + 1) + bytes(4), id="a packet that is too large"),
        pytest.param(b"SSH-2.0-x\r\n" + clear(kexinit()) + clear(kexinit()), id="two key exchanges"),
        pytest.param(b"SSH-2.0-x\r\n" + IGNORE * (MAX_UNPROVEN_BYTES // len(IGNORE) + 1), id="a flood of nothing"),
        pytest.param(b"x" * 10_000, id="a version without an end"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: door\r\n\r\n", id="another protocol"),
    ],
)
async def test_an_unknown_client_is_bounded_and_ended(opened: Any, data: bytes) -> None:
    async with opened() as site:
        stranger = await Stranger.comes(site, data)
        await stranger.rest()
        await until(lambda: site.front()["connections"] == 0)
        assert await logs_in(site)


async def test_an_unknown_client_exchanges_keys_once(opened: Any) -> None:
    async with opened() as site:
        connection: Any = await before_authentication(site)
        connection._send_kexinit()
        await asyncio.wait_for(connection.wait_closed(), SOON)
        async with site.connect() as known:
            known._send_kexinit()
            known._kexinit_sent = True
            assert (await known.run("echo in")).stdout == "in\n"


async def test_a_hundred_unknown_clients_hold_a_bounded_amount_together(opened: Any) -> None:
    async with opened() as site:
        assert await logs_in(site)
        before = resident()
        half = b"SSH-2.0-x\r\n" + UInt32(MAX_UNPROVEN_PACKET - 4) + bytes(MAX_UNPROVEN_PACKET - 100)
        held = [await Stranger.comes(site, half) for _ in range(100)]
        for stranger in held:
            await stranger.line()
        await until(lambda: site.front()["unauthenticated"] == 100)
        assert resident() - before < 100 * 2 * MAX_UNPROVEN_BYTES
        assert await logs_in(site)


# -- the PROXY protocol ----------------------------------------------------------------------------------------------

FAR = ("203.0.113.9", 40001)
PROXY: dict[str, Any] = {"proxy_from": ["127.0.0.0/8"]}


@asynccontextmanager
async def behind_a_balancer(site: Site, header: bytes, **options: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
    sock = socket.create_connection(("127.0.0.1", site.port))
    sock.sendall(header)
    sock.setblocking(False)
    async with asyncssh.connect(sock=sock, **site.options(**options)) as connection:
        yield connection


@pytest.mark.parametrize(
    ("peer", "local"), [(FAR, ("198.51.100.1", 2022)), (("2001:db8::9", 40001), ("2001:db8::1", 2022))]
)
async def test_the_address_that_a_balancer_names_is_the_clients_everywhere(opened: Any, peer: Any, local: Any) -> None:
    async with opened(**PROXY) as site:
        async with behind_a_balancer(site, proxied(peer, local)) as connection:
            said = (await connection.run("echo $SSH_CONNECTION; echo $SSH_CLIENT")).stdout
        assert said == f"{peer[0]} {peer[1]} {local[0]} {local[1]}\n{peer[0]} {peer[1]} {local[1]}\n"
        assert {(one["client_address"], one["client_port"]) for one in site.audit("accept")} == {peer}
        asked = [one["input"]["connection"] for one in site.audit("authn")]
        assert {(one["client_address"], one["client_port"]) for one in asked} == {peer}


async def test_a_listed_balancer_must_send_a_header(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.doorstep.HEADER_SECONDS", 0.5)
    async with opened(**PROXY) as site:
        for data in (b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n", proxied()[:20]):
            assert await (await Stranger.comes(site, data)).rest() == ENDED
        assert not site.audit("accept")
        assert site.front()["refused"] == {"proxy_header": 4}
        assert site.front()["connections"] == 0


async def test_a_header_from_anybody_else_is_not_believed(opened: Any) -> None:
    async with opened() as site:
        stranger = await Stranger.comes(site, proxied())
        assert (await stranger.line()).startswith(b"SSH-2.0-")
        await stranger.rest()
        assert [one["client_address"] for one in await until(lambda: site.audit("accept"))] == ["127.0.0.1"]


async def test_a_header_may_come_in_pieces_and_with_the_first_words_of_ssh(opened: Any) -> None:
    async with opened(**PROXY) as site:
        for cut in (1, 16, 27):
            stranger = await Stranger.comes(site, proxied()[:cut])
            await stranger.writer.drain()
            await asyncio.sleep(0)
            stranger.writer.write(proxied()[cut:] + b"SSH-2.0-x\r\n")
            assert (await stranger.line()).startswith(b"SSH-2.0-")
            async with asyncio.timeout(SECONDS):
                assert len(await stranger.reader.readexactly(6)) == 6  # its KEXINIT: it heard ours
            await stranger.leave()


async def test_a_balancers_check_is_its_own_connection(opened: Any) -> None:
    async with opened(**PROXY) as site:
        async with behind_a_balancer(site, with_body(b"", 0x20)) as connection:
            assert (await connection.run("echo on")).stdout == "on\n"
        assert {one["client_address"] for one in site.audit("accept")} == {"127.0.0.1"}


async def test_who_misbehaves_behind_a_balancer_pays_and_the_others_behind_it_do_not(opened: Any) -> None:
    async with opened(**PROXY, penalties={"exempt": [], "auth_fail_seconds": 20}) as site:
        wrong = [asyncssh.generate_private_key("ssh-ed25519")]
        with pytest.raises(asyncssh.PermissionDenied):
            async with behind_a_balancer(site, proxied(FAR), client_keys=wrong):
                pass
        await until(lambda: site.front()["connections"] == 0)
        assert await (await Stranger.comes(site, proxied(FAR))).line() == b"Not allowed at this time\r\n"
        async with behind_a_balancer(site, proxied(("203.0.113.10", 1))) as connection:
            assert (await connection.run("echo on")).stdout == "on\n"


async def test_connections_that_wait_for_their_header_are_bounded_too(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.doorstep.MAX_WAITING", 5)
    async with opened(**PROXY) as site:
        held = [await Stranger.comes(site) for _ in range(5)]
        assert await (await Stranger.comes(site)).rest() == ENDED
        held[0].writer.write(proxied())
        assert (await held[0].line()).startswith(b"SSH-2.0-")
