"""The paramiko client of tests/clients: one task, told as JSON on the command line; what came of it as JSON."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import paramiko


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    result: dict[str, Any] = {}
    kex = Kex()
    logging.getLogger("paramiko.transport").addHandler(kex)
    logging.getLogger("paramiko.transport").setLevel(logging.DEBUG)
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1", asked["port"], asked["user"], key_filename=asked["key"], allow_agent=False, look_for_keys=False
        )
        transport = client.get_transport()
        result["algorithms"] = [kex.name, transport.host_key_type, transport.remote_cipher]
        {"login": login, "exec": execute, "transfer": transfer, "forward": forward}[asked["task"]](
            client, asked, result
        )
    print(json.dumps(result))


class Kex(logging.Handler):
    """The key exchange that was agreed on: paramiko tells its log alone."""

    name = "not told"

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Kex: "):
            self.name = record.getMessage().removeprefix("Kex: ")


def login(client: Any, _asked: dict[str, Any], result: dict[str, Any]) -> None:
    channel = client.invoke_shell("xterm", 97, 31)
    channel.sendall(b"stty size; exit 7\n")
    result["stdout"] = channel.makefile("rb").read().hex()
    result["status"] = channel.recv_exit_status()


def execute(client: Any, asked: dict[str, Any], result: dict[str, Any]) -> None:
    stdin, stdout, stderr = client.exec_command(asked["command"])
    stdin.write(bytes.fromhex(asked["stdin"]))
    stdin.channel.shutdown_write()
    result["stdout"], result["stderr"] = stdout.read().hex(), stderr.read().hex()
    result["status"] = stdout.channel.recv_exit_status()


def transfer(client: Any, asked: dict[str, Any], _result: dict[str, Any]) -> None:
    with client.open_sftp() as sftp:
        sftp.put(asked["put"], asked["there"])
        sftp.get(asked["there"], asked["get"])


def forward(client: Any, asked: dict[str, Any], result: dict[str, Any]) -> None:
    there = (asked["host"], asked["hostPort"])
    with client.get_transport().open_channel("direct-tcpip", there, ("127.0.0.1", 1)) as channel:
        channel.sendall(bytes.fromhex(asked["send"]))
        result["answer"] = channel.recv(1).hex()


if __name__ == "__main__":
    main()
