"""Every forward with the stock client: it works where the target allows it, and is refused by name where not."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from asyncssh.constants import MSG_REQUEST_SUCCESS
from asyncssh.packet import String, UInt32

from tests.ssh.openssh import X_CLIENT, KeyAgent, OpenSSH, answering, listens, reverse, reversed_by, x_server
from tests.ssh.world import Site, running, target
from tests.stack.opa import Opa
from tests.stack.process import free_port
from tests.waiting import until


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("s")


async def at_port(port: int, data: bytes = b"stressed") -> bytes:
    return await reversed_by(*await asyncio.open_connection("127.0.0.1", port), data)


def allowing(**allow: Any) -> dict[str, Any]:
    return {"open": target(allow=allow, session={"max_channels": 200})}


# -- listeners -------------------------------------------------------------------------------------------------------


async def test_a_remote_forward_of_a_chosen_port_tells_it_and_relays(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    places = [{"host": "localhost", "port": 0}]
    async with running(opa_server, tmp_path, targets=allowing(listen=places)) as site, answering() as answer:
        async with OpenSSH(site, short).started("cat", options=("-R", f"0:127.0.0.1:{answer}")) as client:
            said = await client.says("Allocated port")
            port = int(said.split()[2])
            data = os.urandom(6 * 2**20)
            assert await at_port(port, data) == data[::-1]
            assert await asyncio.gather(*(at_port(port) for _ in range(30))) == [b"desserts"] * 30
        await site.nothing_left()
        assert not listens(port)
    [decided] = [r for r in site.audit("request") if r["input"]["request"]["kind"] == "tcpip-forward"]
    assert decided["input"]["request"] == {"kind": "tcpip-forward", "host": "localhost", "port": 0}
    [listener] = site.audit("listener")
    assert (listener["kind"], listener["port"], listener["outcome"]) == ("tcpip-forward", port, "ok")
    arrivals = site.audit("arrival")
    assert {(r["kind"], r["host"], r["port"], r["originator_host"]) for r in arrivals} == {
        ("forwarded-tcpip", "localhost", port, "127.0.0.1")
    }
    [relay] = site.audit("relay")
    counted = [channel for channel in relay["channels"] if channel["kind"] == "forwarded-tcpip"]
    assert len(counted) == len(arrivals) == 31
    assert max((channel["bytes_in"], channel["bytes_out"]) for channel in counted) == (len(data), len(data))


async def test_a_cancelled_forward_listens_no_more_and_what_is_open_goes_on(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    port = free_port()
    places = [{"host": "localhost", "port": port}]
    forward = ("-R", f"{port}:127.0.0.1:")
    async with running(opa_server, tmp_path, targets=allowing(listen=places)) as site, answering() as answer:
        ssh = OpenSSH(site, short)
        async with ssh.master("-R", f"{port}:127.0.0.1:{answer}") as master:
            await until(lambda: listens(port), 30)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: [r for r in site.audit("arrival") if r["outcome"] == "ok"][-1:], 30)
            status, said = await master.tell("cancel", forward[0], f"{forward[1]}{answer}")
            assert status == 0, said
            await until(lambda: not listens(port), 30)
            assert await reversed_by(reader, writer, b"stressed") == b"desserts"
            # And again: what was cancelled is free.
            assert (await master.tell("forward", forward[0], f"{forward[1]}{answer}"))[0] == 0
            assert await at_port(port) == b"desserts"
        await site.nothing_left()
    [gone] = site.gone("listener")
    assert (gone["kind"], gone["port"], gone["outcome"]) == ("tcpip-forward", port, "ok")
    kinds = [r["input"]["request"]["kind"] for r in site.audit("request")]
    assert kinds == ["tcpip-forward", "cancel-tcpip-forward", "tcpip-forward"]  # and no channel was opened at all


async def test_sockets_at_both_ends(opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]) -> None:
    (inside := short / "in").mkdir()
    sockets = {"connect": [f"{inside}/*"], "listen": [f"{inside}/*"]}
    async with running(opa_server, tmp_path, targets=allowing(sockets=sockets)) as site:
        async with await asyncio.start_unix_server(reverse, inside / "there"):
            options = ("-L", f"{short}/here:{inside}/there", "-R", f"{inside}/back:{inside}/there")
            async with OpenSSH(site, short).started("echo up; cat", options=options) as client:
                await client.says("up")
                await until(lambda: (inside / "back").exists(), 30)
                for path in (short / "here", inside / "back"):
                    answer = await reversed_by(*await asyncio.open_unix_connection(path), b"stressed")
                    assert answer == b"desserts"
        await site.nothing_left()
        assert not (inside / "back").exists()
    kinds = {r["input"]["request"]["kind"]: r["outcome"] for r in site.audit("request")}
    assert kinds["direct-streamlocal@openssh.com"] == kinds["streamlocal-forward@openssh.com"] == "allow"
    [arrival] = site.audit("arrival")
    assert arrival["path"] == f"{inside}/back"


async def test_a_link_cannot_make_an_allowed_socket_another(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    (inside := short / "in").mkdir()
    sockets = {"connect": [f"{inside}/**"], "listen": [f"{inside}/**"]}
    async with running(opa_server, tmp_path, targets=allowing(sockets=sockets)) as site:
        server = await asyncio.start_unix_server(reverse, short / "forbidden")
        async with server:
            (inside / "link").symlink_to(short / "forbidden")
            (inside / "folder").symlink_to(short)
            options = (
                "-L", f"{short}/1:{inside}/link", "-L", f"{short}/2:{inside}/folder/forbidden",
                "-R", f"{inside}/folder/new:{short}/x",
            )  # fmt: skip
            async with OpenSSH(site, short).started("echo up; cat", options=options) as client:
                await client.says("up")
                for name in ("1", "2"):
                    assert await reversed_by(*await asyncio.open_unix_connection(short / name), b"") == b""
                await client.says("connect failed: too many levels of symbolic links")
                await client.says("remote port forwarding failed")
                assert not (short / "new").exists()


# -- ways back to the client -----------------------------------------------------------------------------------------


async def test_the_key_agent_answers_inside_where_the_target_allows_it(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    async with running(opa_server, tmp_path, targets=allowing(agent=True)) as site:
        with KeyAgent(short) as env:
            ssh = OpenSSH(site, short)
            status, out, err = await ssh.run("ssh-add -l; stat -c %a $SSH_AUTH_SOCK", options=("-A",), env=env)
            assert status == 0, err
            assert "(ED25519)" in out
            assert out.splitlines()[-1] == "600"
            # And not where it was not asked for, in the same connection too.
            _, out, _ = await ssh.run("echo ${SSH_AUTH_SOCK-none}", env=env)
            assert out == "none\n"
        await site.nothing_left()
    [arrival] = site.audit("arrival")
    assert arrival["kind"] == "auth-agent@openssh.com"
    assert [r["outcome"] for r in site.audit("listener")] == ["ok"]


async def test_x11_reaches_the_display_with_the_cookie_and_only_with_it(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    telemetry = {"exporter": "file", "file": tmp_path / "traces.jsonl"}
    async with running(opa_server, tmp_path, targets=allowing(x11=True), telemetry=telemetry) as site:
        async with x_server() as (display, seen):
            env = {**os.environ, "DISPLAY": display}
            options = ("-X", "-o", "XAuthLocation=/nonexistent")
            ssh = OpenSSH(site, short)
            status, out, err = await ssh.run(
                f"{X_CLIENT}\ntail -c 16 $XAUTHORITY | od -An -tx1", options=options, env=env
            )
            assert status == 0, err
            hello, cookie = out.split("\n", 1)
            assert hello == "hello"
            [introduced] = seen
            assert introduced[12:30] == b"MIT-MAGIC-COOKIE-1"
            inside = cookie.replace(" ", "").strip()
            assert len(inside) == 32
            assert introduced[32:].hex() != inside  # the client's own goes to the display, an invented one came to us
            status, out, err = await ssh.run(f"WRONG=1\n{X_CLIENT}", options=options, env=env)
            assert "wrong authentication" in err
            assert len(seen) == 1
        await site.nothing_left()
    everywhere = caplog.text + (site.directory / "state" / "audit.jsonl").read_text()
    everywhere += (tmp_path / "traces.jsonl").read_text()
    assert inside not in everywhere.lower()
    assert bytes.fromhex(inside).decode("latin-1") not in everywhere
    facts = [r["input"]["request"] for r in site.audit("request") if r["input"]["request"]["kind"] == "x11-req"]
    assert facts[0] == {
        "kind": "x11-req", "single_connection": False, "auth_protocol": "MIT-MAGIC-COOKIE-1", "screen": 0,
    }  # fmt: skip
    assert {r["kind"] for r in site.audit("arrival")} == {"x11"}


# -- forwards from the client ----------------------------------------------------------------------------------------


async def socks(port: int, destination: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"\5\1\0" + b"\5\1\0\1" + socket.inet_aton("127.0.0.1") + destination.to_bytes(2, "big"))
        assert await reader.readexactly(2) == b"\5\0"
        assert (await reader.readexactly(10))[1] == 0
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def test_a_dynamic_forward_carries_many_at_once_and_a_closed_port_is_connect_failed(
    opa_server: Opa, tmp_path: Path, short: Path, unexpected: list[Any]
) -> None:
    closed, dynamic, local = free_port(), free_port(), free_port()
    async with answering() as answer:
        forwards = [{"host": "127.0.0.1", "port": port} for port in (answer, closed)]
        targets = allowing(forwards=forwards)
        async with running(opa_server, tmp_path, targets=targets) as site:
            options = ("-D", str(dynamic), "-L", f"{local}:127.0.0.1:{answer}")
            async with OpenSSH(site, short).started("echo up; cat", options=options) as client:
                await client.says("up")

                async def one(number: int) -> bool:
                    data = os.urandom(20_000)
                    ends = (
                        await socks(dynamic, answer)
                        if number % 2
                        else await asyncio.open_connection("127.0.0.1", local)
                    )
                    return await reversed_by(*ends, data) == data[::-1]

                assert all(await asyncio.gather(*(one(number) for number in range(120))))
                for port, words in ((closed, "connect failed"), (1, "administratively prohibited")):
                    with pytest.raises(asyncio.IncompleteReadError):
                        await socks(dynamic, port)
                    await client.says(words)
                client.type("still here\n")
                await client.says("still here")


# -- what the target does not allow ----------------------------------------------------------------------------------


async def test_what_is_refused_is_refused_by_name_and_the_session_goes_on(
    site: Site, short: Path, tmp_path: Path
) -> None:
    port = free_port()
    options = (
        "-tt", "-R", "0:127.0.0.1:9", "-R", f"{short}/back:127.0.0.1:9", "-L", f"{short}/here:{short}/there",
        "-L", f"{port}:127.0.0.1:9", "-X", "-o", "XAuthLocation=/nonexistent", "-A",
    )  # fmt: skip
    with KeyAgent(short) as agent:
        env = {**agent, "DISPLAY": "127.0.0.1:77"}
        command = "echo up; read line; echo got:$line; echo ${DISPLAY-none} ${SSH_AUTH_SOCK-none}; read line"
        async with OpenSSH(site, short).started(command, options=options, env=env) as client:
            await client.says("up")
            for words in ("remote port forwarding failed", "X11 forwarding request failed"):
                await client.says(words)
            # A terminal is told why, where SSH itself has no room for it.
            for code in ("remote_forward_refused", "unix_socket_refused", "x11_refused", "agent_refused"):
                await client.says(code)
            for family, address in ((socket.AF_UNIX, f"{short}/here"), (socket.AF_INET, ("127.0.0.1", port))):
                with socket.socket(family) as refused:
                    refused.connect(address)
                    assert await asyncio.to_thread(refused.recv, 1) == b""
            await until(lambda: client.seen.count("administratively prohibited") == 2, 30)
            client.type("on\n")
            await client.says("got:on")
            await client.says("none none")
    assert not (short / "back").exists()
    denied = {r["input"]["request"]["kind"] for r in site.audit("request") if r["outcome"] == "deny"}
    assert denied == {
        "tcpip-forward", "streamlocal-forward@openssh.com", "direct-streamlocal@openssh.com", "direct-tcpip", "x11-req",
        "auth-agent-req@openssh.com",
    }  # fmt: skip
    assert not site.audit("listener")


async def test_a_port_of_a_way_out_is_nobodys_to_listen_at_nor_to_cancel(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    port = free_port()
    places = [{"host": host, "port": port} for host in ("127.1.0.1", "localhost", "db")]
    async with answering() as answer:
        way = {"host": "db", "port": port, "address": {"host": "127.0.0.1", "port": answer}}
        targets = {"open": target(allow={"listen": places}, network={"egress": [way]})}
        async with running(opa_server, tmp_path, targets=targets) as site, site.connect() as connection:
            for host in ("127.1.0.1", "localhost", "db"):
                assert not await asked(connection, b"tcpip-forward", host, port)
            assert {r["reasons"][0]["code"] for r in site.audit("listener")} == {"listener_is_a_way_out"}
            for host in ("127.1.0.1", "db"):
                assert not await asked(connection, b"cancel-tcpip-forward", host, port)
            ran = await connection.run(
                f'{sys.executable} -c \'import socket as s; c = s.create_connection(("127.1.0.1", {port}));'
                ' c.send(b"stressed"); c.shutdown(1); print(c.recv(99))\''
            )
            assert ran.stdout == "b'desserts'\n", ran.stderr


async def asked(connection: Any, name: bytes, host: str, port: int) -> bool:
    kind, _ = await connection._make_global_request(name, String(host), UInt32(port))
    return bool(kind == MSG_REQUEST_SUCCESS)
