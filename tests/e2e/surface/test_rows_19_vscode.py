"""Row 19, as an editor does it: VS Code's Remote-SSH, imitated with the stock client.

What the extension does, with the `ssh` on the person's machine and what stands in their ssh_config:

1. It runs `ssh -T -D PORT host bash` (or `sh`) and writes a script to its stdin.  The script prints marks that tell the
   extension how far it is, finds no server in ~/.vscode-server, and waits for one.
2. The server comes over stdin too (or by scp) and is unpacked at home.
3. The script starts it; it listens on a port of its own loopback, and the script prints that port.  This `ssh` stays
   for as long as the window is open: it holds the server and the dynamic forward.
4. The window talks to the server through the SOCKS port, over several connections at once, and every terminal, file
   and extension goes through them.
5. Another window, or a reconnection, runs `ssh` once more.  With a ControlMaster it finds the same workspace, and the
   server that is there; without, it gets a workspace and a server of its own.

The server here is one shell script that answers HTTP: nothing of VS Code's is downloaded.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.surface.ground import INSIDE, Ground, connect
from tests.e2e.world import until
from tests.stack.process import free_port

INSTALL = """{{
echo "mark: start"
mkdir -p ~/.vscode-server/bin
head -c {size} > ~/.vscode-server/bin/server.tar
tar -xf ~/.vscode-server/bin/server.tar -C ~/.vscode-server/bin
echo "mark: installed $(cat ~/.vscode-server/bin/version)"
}}
"""  # in braces, so that all of it is read before what comes after it on stdin
START = f"""
echo "$$" > ~/.vscode-server/pid
busybox httpd -f -p 127.0.0.1:{INSIDE} -h ~/.vscode-server/bin < /dev/null > /dev/null 2>&1 &
until busybox nc 127.0.0.1 {INSIDE} < /dev/null; do sleep 0.05; done
echo "mark: listeningOn=={INSIDE}=="
while read line; do echo "mark: $line"; done
"""


@contextmanager
def window(ground: Ground, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ssh -T ... bash`, spoken to over its stdin until it is closed."""
    command = ground.ssh_command("bash", options=("-T", *options), login="alice+alone")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.communicate(timeout=20)


def say(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes], mark: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().decode().strip() == f"mark: {mark}"


def fetch(socks: int, path: str) -> bytes:
    """One request through the dynamic forward: SOCKS 5, by address."""
    with connect(socks) as there:
        there.sendall(b"\x05\x01\x00\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + struct.pack(">H", INSIDE))
        answers = b""
        while len(answers) < 12:
            answers += there.recv(12 - len(answers)) or pytest.fail("the proxy hung up")
        assert answers[:4] == b"\x05\x00\x05\x00"
        there.sendall(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: there.recv(65536), b"")).partition(b"\r\n\r\n")[2]


@pytest.mark.row(19)
def test_an_editor_installs_its_server_and_works_through_it(ground: Ground, tmp_path: Path) -> None:
    content = os.urandom(5 * 2**20)
    (tmp_path / "version").write_text("1.0\n")
    (tmp_path / "big").write_bytes(content)
    packed = subprocess.run(
        ["tar", "-cf", "-", "-C", str(tmp_path), "version", "big"], capture_output=True, check=True
    ).stdout
    socks = free_port()
    control = f"/tmp/dw-code-{os.getpid()}"
    with window(ground, "-D", str(socks), "-M", "-S", control) as first:
        say(first, INSTALL.format(size=len(packed)).encode())
        hear(first, "start")
        say(first, packed)
        hear(first, "installed 1.0")
        say(first, START.encode())
        hear(first, f"listeningOn=={INSIDE}==")
        with ThreadPoolExecutor(6) as threads:
            assert set(threads.map(lambda _: fetch(socks, "big"), range(6))) == {content}
        say(first, b"still alive\n")
        hear(first, "still alive")

        # A second window: the same workspace by the same connection.
        with window(ground, "-S", control, "-o", "ControlMaster=auto") as second:
            say(second, b"echo mark: $(cat ~/.vscode-server/pid)\n")
            assert second.stdout is not None
            assert second.stdout.readline().split()[1].isdigit()
        uploaded = subprocess.run(
            ["ssh", "-F", "none", "-S", control, "alice+alone@127.0.0.1", "cat > ~/file && wc -c < ~/file"],
            input=content, capture_output=True, timeout=30, check=True,
        )  # fmt: skip
        assert int(uploaded.stdout) == len(content)
        assert len(ground.workspaces("alone")) == 1
        until(lambda: fetch(socks, "version") == b"1.0\n")
    ground.nothing_left()
