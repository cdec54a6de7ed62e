"""A judgement that restricts: what it drops ends and is refused, whatever is under way, and the rest goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.constants import MSG_CHANNEL_CLOSE, MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS
from asyncssh.packet import String

from gateway.obliged import TellingPolicy
from gateway.ssh import listeners
from gateway.ssh.raw import RawChannel
from gateway.ssh.relay import Lane
from gateway.ssh.sftp.packets import Attributes, Kind, Packet, Reader, Status, packet, string
from tests.ssh.files import Wire, serving
from tests.ssh.openssh import KeyAgent, OpenSSH, answering, listens, reversed_by
from tests.ssh.test_forwards import at_port
from tests.ssh.test_hostile_agent import echo
from tests.ssh.test_listener_races import global_request
from tests.ssh.test_sftp_hostile import HELLO, speaking, then
from tests.ssh.world import HostileBackend, Site, running, target
from tests.stack.opa import Opa, opa
from tests.stack.process import free_port
from tests.waiting import until

SECONDS = 30
PLACE = {"host": "localhost", "port": 0}


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


@asynccontextmanager
async def open_site(
    server: Opa, directory: Path, *, grace: float = 30, **allow: Any
) -> AsyncIterator[tuple[Site, int]]:
    """A gateway whose one target forwards to a port that answers, and that port."""
    async with answering() as answer:
        allow = {"forwards": [{"host": "127.0.0.1", "port": answer}], "listen": [PLACE], **allow}
        its = target(allow=allow, session={"max_channels": 100, "policy_grace_seconds": grace})
        async with running(server, directory, targets={"open": its}) as site:
            yield site, answer
            await site.nothing_left()


@asynccontextmanager
async def connected(
    server: Opa, directory: Path, *, grace: float = 30, **allow: Any
) -> AsyncIterator[tuple[Site, int, asyncssh.SSHClientConnection, Any]]:
    """The same, with Alice's connection and a program on it that has to go on whatever else is closed."""
    async with (
        open_site(server, directory, grace=grace, **allow) as (site, answer),
        site.connect() as connection,
        connection.create_process("cat") as beside,
    ):
        await echo(beside)
        yield site, answer, connection, beside


async def restrict(site: Site, *words: str, at: str = "open") -> None:
    """As a security engineer does; the gateway has judged by it when this returns."""
    site.opa.put(f"targets/{at}/restrict", {"drop": list(words), "reason": "INC-77 is looked into."})
    await site.gateway.live.reevaluate()


async def lift(site: Site, at: str = "open") -> None:
    site.opa.delete(f"targets/{at}/restrict")
    await site.gateway.live.reevaluate()


def verdicts(site: Site) -> list[tuple[str, dict[str, int]]]:
    return [(record["outcome"], record.get("dropped", {})) for record in site.audit("live")]


def denied(site: Site) -> list[tuple[str, str]]:
    refusals = [record for record in site.audit("request") if record["outcome"] == "deny"]
    return [(record["input"]["request"]["kind"], record["reasons"][0]["code"]) for record in refusals]


async def ended(reader: Any) -> bool:
    """Whether nothing comes any more."""
    try:
        return not await asyncio.wait_for(reader.read(), SECONDS)
    except ConnectionError:
        return True


# -- stock clients -----------------------------------------------------------------------------------------------------


async def test_forwards_end_at_once_and_the_shell_and_files_beside_them_go_on(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    """One connection for all, as editors do it: a shell, a forward each way, files."""
    local = free_port()
    async with open_site(opa_server, tmp_path) as (site, answer):
        options = ("-L", f"{local}:127.0.0.1:{answer}")
        async with OpenSSH(site, short).master(*options) as master:
            _, said = await master.tell("forward", "-R", f"0:127.0.0.1:{answer}")
            remote = int(said.split()[-1])
            shell = OpenSSH(site, short)
            async with shell.started("cat", options=("-S", str(short / "mux"), "-tt")) as terminal:
                terminal.type("up\n")
                await terminal.says("up")
                ways = [await asyncio.open_connection("127.0.0.1", port) for port in (local, remote)]
                await until(lambda: len(arrived(site)) == 1)
                for _, writer in ways:
                    writer.write(b"half a word")
                assert await at_port(local) == await at_port(remote) == b"desserts"

                await restrict(site, "forwards")
                assert [await ended(reader) for reader, _ in ways] == [True, True]
                for _, writer in ways:
                    writer.close()
                await until(lambda: not listens(remote))
                assert await at_refused(local)
                await master.client.says("administratively prohibited: restricted: Closed here for now: forwards.")
                assert (await master.tell("forward", "-R", "0:127.0.0.1:9"))[0] != 0
                await terminal.says("doorward: Closed here for now: forwards. INC-77 is looked into.")
                terminal.type("still here\n")
                await terminal.says("still here")
                assert (await master.run("echo on"))[1] == "on\n"

                await lift(site)
                await terminal.says("nothing is closed here any more")
                assert await at_port(local) == b"desserts"
                assert (await master.tell("forward", "-R", "0:127.0.0.1:9"))[0] == 0
        ended_there = {"direct-tcpip": 1, "tcpip-forward": 2}  # a channel each way, and the listener
        assert verdicts(site)[-2:] == [("restrict", ended_there), ("keep", {})]  # a first keep, if there was time
        assert denied(site) == [("direct-tcpip", "restricted"), ("tcpip-forward", "restricted")]
        assert [gone["port"] for gone in site.gone("listener")] == [remote]


def arrived(site: Site) -> list[Any]:
    return [record for record in site.audit("arrival") if record["outcome"] == "ok"]


async def at_refused(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await ended(reader)
    finally:
        writer.close()


async def test_a_transfer_ends_in_the_middle_and_says_why(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with serving(opa_server, tmp_path, judged=True, allow={"exec": True}) as files:
        with (files.open / "large").open("wb") as large:
            large.truncate(2**30)
        loading = asyncio.ensure_future(files.sftp(f"get large {tmp_path}/loaded"))
        await until(lambda: (tmp_path / "loaded").exists() and (tmp_path / "loaded").stat().st_size, SECONDS)
        async with files.site.connect() as beside:
            await restrict(files.site, "sftp", at="files")
            status, _, said = await loading
            assert status != 0
            assert "doorward: restricted: Closed here for now: sftp. INC-77 is looked into." in said
            assert (tmp_path / "loaded").stat().st_size < 2**30
            assert (await beside.run("echo on")).stdout == "on\n"
            status, _, said = await files.sftp("ls")
            assert status != 0
            assert "restricted" in said
            await lift(files.site, at="files")
            assert (await files.sftp("ls"))[0] == 0
    dropped = [found for outcome, found in verdicts(files.site) if outcome == "restrict" and found]
    assert dropped[0] == {"sftp": 1}  # the second client's may be ended by a sweep while policy is asked about it
    lanes = [lane for relay in files.site.audit("relay") for lane in relay["channels"]]
    late = [entry for lane in lanes for entry in lane.get("files", {}).get("late", [])]
    assert [entry["operation"] for entry in files.operations() + late if entry["outcome"] == "cut"] == ["close"]


async def test_the_way_back_to_the_key_agent_ends_and_the_shell_goes_on(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    async with open_site(opa_server, tmp_path, agent=True) as (site, _):
        with KeyAgent(short) as env:
            async with OpenSSH(site, short).started("sh", options=("-A",), env=env) as client:
                client.type("ssh-add -l; echo first $?\n")
                await client.says("first 0")
                await restrict(site, "auth-agent-req@openssh.com")
                client.type("ssh-add -l; echo second $?\n")
                await client.says("second 1")
                await lift(site)
                client.type("ssh-add -l; echo third $?\n")
                await client.says("third 1")  # it was for that program, which has lost it
                async with OpenSSH(site, short).started("ssh-add -l", options=("-A",), env=env) as another:
                    assert (await another.end())[0] == 0
    assert ("restrict", {"auth-agent-req@openssh.com": 1}) in verdicts(site)


async def test_a_session_that_begins_restricted_is_told_so(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    async with open_site(opa_server, tmp_path) as (site, answer):
        site.opa.put("targets/open/restrict", {"drop": ["forwards"], "reason": "INC-77 is looked into."})
        local = free_port()
        options = ("-tt", "-L", f"{local}:127.0.0.1:{answer}")
        async with OpenSSH(site, short).started("cat", options=options) as client:
            await client.says("Closed here for now: forwards.")
            assert await at_refused(local)
            await client.says("administratively prohibited: restricted")
            client.type("here\n")
            await client.says("here")
    assert [outcome for outcome, _ in verdicts(site)] == ["restrict"]


# -- what is under way -------------------------------------------------------------------------------------------------


class Gate:
    """Holds whoever passes until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def passing(self) -> None:
        self.reached.set()
        await asyncio.wait_for(self.opened.wait(), SECONDS)

    def after(self, function: Callable[..., Any], when: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
        """`function`, whose result is kept back."""

        async def held(*args: Any) -> Any:
            result = await function(*args)
            if when(*args):
                await self.passing()
            return result

        return held


@asynccontextmanager
async def meanwhile(site: Site, gate: Gate, *words: str, lifted: bool = False) -> AsyncIterator[None]:
    """What the body begins is held half-way until the judgement came."""

    async def judged() -> None:
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        await restrict(site, *words)
        if lifted:
            await lift(site)
        gate.opened.set()

    judging = asyncio.ensure_future(judged())
    try:
        yield
    finally:
        await judging


@pytest.mark.parametrize("where", ["judged", "dialled"])
async def test_a_forward_that_is_being_opened_does_not_slip_through(
    where: str, opa_server: Opa, tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with connected(opa_server, tmp_path) as (site, answer, connection, beside):
        if where == "judged":
            asked = gate.after(TellingPolicy.authorize, lambda *args: args[-1]["kind"] == "direct-tcpip")
            monkeypatch.setattr(TellingPolicy, "authorize", asked)
        else:
            monkeypatch.setattr(Lane, "open_far", gate.after(Lane.open_far, lambda *args: args[2] != "session"))
        async with meanwhile(site, gate, "direct-tcpip"):
            with pytest.raises(asyncssh.ChannelOpenError, match="restricted: Closed here for now"):
                await connection.open_connection("127.0.0.1", answer)
        monkeypatch.undo()
        await echo(beside)
        await lift(site)
        assert await reversed_by(*await connection.open_connection("127.0.0.1", answer), b"on") == b"no"  # type: ignore[arg-type]


@pytest.mark.parametrize("chosen", [True, False])
@pytest.mark.parametrize("lifted", [True, False])
async def test_a_listener_that_is_being_made_does_not_stay(
    chosen: bool, lifted: bool, opa_server: Opa, tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    gate = Gate()
    places = [{"host": "localhost", "port": 0 if chosen else port}]
    async with connected(opa_server, tmp_path, listen=places) as (site, _, connection, beside):
        monkeypatch.setattr(listeners, "_ask", gate.after(listeners._ask))
        async with meanwhile(site, gate, "tcpip-forward", lifted=lifted):
            kind, made = await global_request(connection, "tcpip-forward", 0 if chosen else port)
        monkeypatch.undo()
        if chosen and lifted:
            assert kind == MSG_REQUEST_SUCCESS  # nobody had a place yet, and it may be again
            assert listens(made)
        else:
            assert kind == MSG_REQUEST_FAILURE
            await until(lambda: not listens(port))
        if not lifted:
            await lift(site)
        assert (await global_request(connection, "tcpip-forward", 0 if chosen else port))[0] == MSG_REQUEST_SUCCESS
        await echo(beside)


async def test_a_way_back_that_is_being_made_does_not_stay(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "auth-agent-req@openssh.com"
    gate = Gate()
    async with connected(opa_server, tmp_path, agent=True) as (site, _, connection, beside):
        channel: Any = asyncssh.channel.SSHTCPChannel(connection, connection._loop, None, "strict", 2**21, 32768)
        await channel._open(b"session")
        monkeypatch.setattr(RawChannel, "request", gate.after(RawChannel.request, lambda *args: args[1] == kind))
        async with meanwhile(site, gate, kind):
            assert await channel._make_request(kind.encode()) is False
        monkeypatch.undo()
        [entry] = site.gateway.live._entries.values()
        client: Any = entry.client
        assert list(client.listeners._ledger) == []
        assert await channel._make_request(b"exec", String("true")) is True
        await echo(beside)


@pytest.mark.parametrize("where", ["judged", "opened"])
async def test_a_file_service_that_is_being_started_does_not_slip_through(
    where: str, opa_server: Opa, tmp_path: Path, unexpected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with connected(opa_server, tmp_path) as (site, _, connection, beside):
        if where == "judged":
            asked = gate.after(TellingPolicy.authorize, lambda *args: args[-1]["kind"] == "subsystem")
            monkeypatch.setattr(TellingPolicy, "authorize", asked)
        else:
            monkeypatch.setattr(Lane, "open_far", gate.after(Lane.open_far))
        async with meanwhile(site, gate, "sftp"):
            process: Any = await connection.create_process(subsystem="sftp", encoding=None)
            exit_status, told = await Wire(process).ended()
        assert exit_status == 254
        assert b"restricted: Closed here for now: sftp." in told
        await echo(beside)


# -- hostile -----------------------------------------------------------------------------------------------------------


async def test_requests_that_wait_are_answered_with_the_reason(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """Of a workspace that answers nothing: whoever waits for it does not wait for ever."""
    backend = HostileBackend(speaking(then(lambda _: b"")))
    its = target("hostile", allow={"sftp": {"read": ["/**"], "write": []}})
    async with running(opa_server, tmp_path, backend, targets={"open": its}) as site, site.connect() as connection:
        process: Any = await connection.create_process(subsystem="sftp", encoding=None)
        wire = Wire(process)
        wire.send(HELLO)
        assert (await wire.receive()).kind is Kind.VERSION
        for number in (7, 8):
            wire.send(packet(Kind.OPEN, number, string(b"/tmp/x"), (1).to_bytes(4, "big"), Attributes().encoded()))
        await until(lambda: len([one for one in site.audit("request") if one["outcome"] == "allow"]) >= 4)
        await restrict(site, "sftp")
        assert [answer(await wire.receive()) for _ in range(2)] == [
            (number, Status.PERMISSION_DENIED, True) for number in (7, 8)
        ]
        assert (await wire.ended())[0] == 254


def answer(received: Packet) -> tuple[int, int, bool]:
    """A status: of which request, which, and whether it says why."""
    assert received.kind is Kind.STATUS
    reader = Reader(received.body)
    return received.id, reader.uint32(), b"restricted: Closed here for now" in received.body


async def test_a_client_that_goes_on_sending_on_what_was_closed_reaches_nobody(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            heard.append(data)
        heard.append(b"the end")
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        forwards = [{"host": "127.0.0.1", "port": port}]
        async with connected(opa_server, tmp_path, forwards=forwards) as (site, _, connection, beside):
            _, writer = await connection.open_connection("127.0.0.1", port)
            channel: Any = writer.channel
            # A CLOSE is neither answered nor believed.
            channel._packet_handlers = {**channel._packet_handlers, MSG_CHANNEL_CLOSE: lambda *_: None}
            writer.write(b"before")
            await until(lambda: heard == [b"before"])
            await restrict(site, "forwards")
            await until(lambda: heard == [b"before", b"the end"])
            for _ in range(50):
                writer.write(b"after" * 1000)
                await echo(beside)
            assert heard == [b"before", b"the end"]
            connection.abort()
    [relay] = site.audit("relay")
    assert [lane["bytes_in"] for lane in relay["channels"] if lane["kind"] == "direct-tcpip"] == [len(b"before")]


# -- no verdict --------------------------------------------------------------------------------------------------------


async def test_a_restriction_outlives_an_opa_that_does_not_answer_and_ends_with_the_grace(
    tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    with opa(tmp_path / "own-opa") as server:
        async with (
            connected(server, tmp_path, grace=3) as (site, answer, connection, beside),
            OpenSSH(site, short).started("cat", options=("-tt",)) as client,
        ):
            client.type("up\n")
            await client.says("up")
            await restrict(site, "forwards")
            server.process.end()
            with pytest.raises(asyncssh.ChannelOpenError, match="restricted: Closed here for now"):
                await connection.open_connection("127.0.0.1", answer)
            await echo(beside)
            status, out, err = await client.end()
            assert status == 254
            assert "doorward: policy_unreachable: " in out + err
            await asyncio.wait_for(connection.wait_closed(), SECONDS)
    ends = [record["reasons"][0]["code"] for record in site.audit("relay")]
    assert ends == ["policy_unreachable"] * 2
