"""The asyncssh client of tests/clients: one task, told as JSON on the command line; what came of it as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import asyncssh


async def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    result: dict[str, Any] = {}
    async with asyncssh.connect(
        "127.0.0.1", asked["port"], username=asked["user"], client_keys=[asked["key"]],
        known_hosts=None, config=[], agent_path=None,
    ) as connection:  # fmt: skip
        key = connection.get_server_host_key()
        assert key is not None
        result["algorithms"] = ["not told", key.get_algorithm(), connection.get_extra_info("recv_cipher")]
        tasks = {"login": login, "exec": execute, "transfer": transfer, "forward": forward}
        await tasks[asked["task"]](connection, asked, result)
    print(json.dumps(result))


async def login(connection: asyncssh.SSHClientConnection, _asked: dict[str, Any], result: dict[str, Any]) -> None:
    process = await connection.create_process(term_type="xterm", term_size=(97, 31), encoding=None)
    process.stdin.write(b"stty size; exit 7\n")
    ended = await process.wait()
    result["stdout"], result["status"] = _hex(ended.stdout), ended.exit_status


async def execute(connection: asyncssh.SSHClientConnection, asked: dict[str, Any], result: dict[str, Any]) -> None:
    ended = await connection.run(asked["command"], input=bytes.fromhex(asked["stdin"]), encoding=None)
    result["stdout"], result["stderr"] = _hex(ended.stdout), _hex(ended.stderr)
    result["status"] = ended.exit_status


async def transfer(connection: asyncssh.SSHClientConnection, asked: dict[str, Any], _result: dict[str, Any]) -> None:
    async with connection.start_sftp_client() as sftp:
        await sftp.put(asked["put"], asked["there"])
        await sftp.get(asked["there"], asked["get"])


async def forward(connection: asyncssh.SSHClientConnection, asked: dict[str, Any], result: dict[str, Any]) -> None:
    reader, writer = await connection.open_connection(asked["host"], asked["hostPort"])
    writer.write(bytes.fromhex(asked["send"]))
    result["answer"] = (await reader.readexactly(1)).hex()
    writer.close()


def _hex(data: bytes | str | None) -> str:
    assert isinstance(data, bytes)
    return data.hex()


if __name__ == "__main__":
    asyncio.run(main())
