"""Clients that mean harm: slow ones, many, and requests that two readers would read differently."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest

from tests.door.running import TOKEN, Running
from tests.door.test_grants import INC, stored
from tests.policy.world import grant
from tests.stack.opa import Opa
from tests.waiting import SECONDS, eventually, until

HEAD = f"Host: door\r\nAuthorization: Bearer {TOKEN}\r\n"
PUT = f"PUT /v1/data/grants/{INC} HTTP/1.1\r\n{HEAD}"
SMUGGLED = f"PUT /v1/data/grants/alice/SMUGGLED HTTP/1.1\r\n{HEAD}Content-Length: 2\r\n\r\n{{}}"


@asynccontextmanager
async def connected(door: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    assert door.gateway.door is not None
    reader, writer = await asyncio.open_connection(*door.gateway.door)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def said(door: Running, request: bytes) -> bytes:
    """Everything that comes back until the door closes."""
    async with connected(door) as (reader, writer), asyncio.timeout(SECONDS):
        writer.write(request)
        answer = b""
        with suppress(ConnectionResetError):
            while chunk := await reader.read(65536):
                answer += chunk
        return answer


AMBIGUOUS: dict[str, str] = {
    "length and chunks": f"{PUT}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "chunks and length": f"{PUT}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "two lengths": f"{PUT}Content-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
    "a list of lengths": f"{PUT}Content-Length: 0, {len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
    "a signed length": f"{PUT}Content-Length: +0\r\n\r\n{SMUGGLED}",
    "a length before a colon": f"{PUT}Content-Length : 0\r\n\r\n{SMUGGLED}",
    "odd chunks": f"{PUT}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "chunks, then something else": f"{PUT}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "a folded header": f"{PUT}X: y\r\n Content-Length: 0\r\n\r\n{SMUGGLED}",
    "a chunk of a strange size": f"{PUT}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{SMUGGLED}",
    "a NUL in a header": f"{PUT}X: a\0b\r\nContent-Length: 0\r\n\r\n{SMUGGLED}",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
async def test_a_request_of_two_meanings_is_none(door: Running, world: Opa, case: str) -> None:
    answer = await said(door, AMBIGUOUS[case].encode())

    assert b" 204 " not in answer
    assert [record for record in door.records("admission") if "SMUGGLED" in record["input"]["path"]] == []
    assert stored(world, "alice/SMUGGLED") is None


async def test_a_token_is_for_one_request_of_a_connection(door: Running) -> None:
    """What follows on the same connection has to bring its own."""
    first = f"GET /v1/data/grants/{INC} HTTP/1.1\r\n{HEAD}\r\n"
    second = f"DELETE /v1/data/grants/{INC} HTTP/1.1\r\nHost: door\r\nConnection: close\r\n\r\n"
    answer = await said(door, (first + second).encode())

    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"HTTP/1.1 401") == 1


async def test_a_name_that_is_there_twice_is_refused(door: Running, world: Opa) -> None:
    text = json.dumps(grant()).replace('"approved_by": "erin"', '"approved_by": "erin", "approved_by": "alice"')
    answer = await door.http.put(f"/v1/data/grants/{INC}", content=text)

    assert answer.status_code == 400
    assert "approved_by" in answer.json()["message"]
    assert stored(world) is None


@pytest.mark.parametrize("name", ["älice", "alice\u200b", "ａlice", "alice%00", "ALICE", "alice."])
async def test_a_name_that_looks_like_a_persons_is_not_theirs(door: Running, world: Opa, name: str) -> None:
    answer = await door.http.put(f"/v1/data/grants/{name}/INC-1", json=grant())

    assert answer.status_code == 400, answer.text
    assert stored(world) is None


async def test_whoever_sends_slowly_is_let_go_and_the_others_are_served(
    door: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.door.guard.HEAD_SECONDS", 0.5)
    monkeypatch.setattr("gateway.door.http.BODY_SECONDS", 0.5)
    slow = [b"", b"GET /v1/da", PUT.encode(), f"{PUT}Content-Length: 9\r\n\r\n{{".encode()]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(door)) for _ in range(40)]
        for number, (_, writer) in enumerate(connections):
            writer.write(slow[number % len(slow)])
        assert (await door.put(INC, grant())).status_code == 204, "while they dawdle"
        for reader, _ in connections:
            end = await asyncio.wait_for(_rest(reader), 60)
            assert end == b"" or b" 408 " in end


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        answer = await reader.readuntil(b"}")
    except asyncio.IncompleteReadError as error:
        answer = error.partial
    except ConnectionResetError:
        answer = b""
    return answer


async def test_one_address_does_not_have_all_connections(door: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.door.guard.CONNECTIONS_OF_ONE", 5)
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(connected(door)) for _ in range(12)]
        ends = [asyncio.ensure_future(_rest(reader)) for reader, _ in held]
        await until(lambda: sum(end.done() for end in ends) >= 7)
        await asyncio.wait(ends, timeout=0.2)
        assert [end.result() for end in ends if end.done()] == [b""] * 7

    async def is_let_in() -> bool:
        try:
            return (await door.http.get(f"/v1/data/grants/{INC}")).status_code == 200
        except httpx.TransportError:  # those that left are not gone yet
            return False

    assert await eventually(is_let_in), "there is room again"


async def test_a_body_that_never_ends_is_cut(door: Running) -> None:
    async with connected(door) as (reader, writer):
        writer.write(f"{PUT}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
        with suppress(ConnectionError):
            for _ in range(64):
                writer.write(chunk)
                await asyncio.wait_for(writer.drain(), 20)
        answer = await asyncio.wait_for(_rest(reader), 60)
        assert answer == b"" or b" 413 " in answer
    assert door.records("admission") == []
