"""Whom Doorward is measured beside: OpenSSH's sshd alone, sshd with docker, and the bare server of `bare.py`.

All answer the same stock `ssh` with the same key and cipher, and start the same image on the same engine.
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.clients import wait_end
from tests.e2e.world import ALICE, until
from tests.stack import StackError, example
from tests.stack.docker import Docker
from tests.stack.process import Processes, Running, free_port, wait_until

CIPHER = "aes128-gcm@openssh.com"
"""The same for everyone, and the fastest there is: OpenSSH's default would slow asyncssh down more than OpenSSH."""

EXCHANGE = "curve25519-sha256"
"""The same for everyone: sshd would agree on one with sntrup761, which asyncssh does not have, and pay for it."""

RUN = 'docker run --rm -i --network none --log-driver none {image} sh -c "$SSH_ORIGINAL_COMMAND"'
EXEC = 'docker exec -i {container} sh -c "$SSH_ORIGINAL_COMMAND"'


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to measure."""

    name: str
    title: str
    port: int
    login: str
    directory: Path
    """Of the whole run: the client's key is there, and the known hosts."""
    stock: bool = False
    """Whether client and server agree on a cipher by themselves, as they do for people."""

    def as_negotiated(self) -> Peer:
        return replace(self, name=f"{self.name}, as negotiated", title=f"{self.title}, as negotiated", stock=True)

    def ssh(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        return [
            "ssh", "-F", "none", "-i", str(self.directory / ALICE), "-p", str(self.port), *options,
            *([] if self.stock else ["-o", f"Ciphers={CIPHER}", "-o", f"KexAlgorithms={EXCHANGE}"]),
            "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no",
            "-o", f"UserKnownHostsFile={self.directory}/known_hosts", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
            f"{self.login}@127.0.0.1", *words,
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peers:
    plain: Peer
    run: Peer
    bare: Peer
    exec: Peer
    container: str
    """What `exec` runs in."""


@contextmanager
def peers(directory: Path, engine: Docker, image: str) -> Iterator[Peers]:
    """All of them, while the context lasts."""
    authorized = directory / "authorized_keys"
    authorized.write_text(example.ssh_key(directory) + "\n")
    host_key = example.ssh_key(directory, "peers-host-key")
    assert host_key
    with ExitStack() as stack:
        processes = Processes(directory / "peers")
        stack.callback(processes.end)
        container = stack.enter_context(_standing_container(engine, image))

        def openssh(name: str, title: str, command: str = "") -> Peer:
            port = _sshd(processes, name, directory, engine, command)
            return Peer(name, title, port, getpass.getuser(), directory)

        yield Peers(
            plain=openssh("sshd", "OpenSSH, no container"),
            run=openssh("sshd+run", "OpenSSH, docker run", RUN.format(image=image)),
            exec=openssh("sshd+exec", "OpenSSH, docker exec", EXEC.format(container=container)),
            bare=Peer("bare", "bare asyncssh+aiodocker", _bare(processes, directory, engine, image), ALICE, directory),
            container=container,
        )


@contextmanager
def _standing_container(engine: Docker, image: str) -> Iterator[str]:
    docker = ["docker", "--host", engine.host]
    command = [*docker, "run", "--detach", "--rm", "--network", "none", image, "sleep", "1000000"]
    container = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield container
    finally:
        subprocess.run([*docker, "rm", "--force", container], check=True, capture_output=True)


def _sshd(processes: Processes, name: str, directory: Path, engine: Docker, command: str) -> int:
    """A daemon of our own on loopback; its port."""
    binary = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise StackError("missing: sshd (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation folder, missing without an init
    port = free_port()
    lines = [
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {directory}/peers-host-key",
        f"AuthorizedKeysFile {directory}/authorized_keys",
        "PidFile none", "UsePAM no", "StrictModes no", "PermitRootLogin prohibit-password", "UseDNS no",
        "PasswordAuthentication no", f"SetEnv DOCKER_HOST={engine.host} PATH={shlex.quote(os.environ['PATH'])}",
        *([f"ForceCommand {command}"] if command else []),
    ]  # fmt: skip
    config = processes.directory / f"{name}.conf"
    config.write_text("\n".join(lines) + "\n")
    running = processes.start(name, [binary, "-D", "-e", "-f", config])
    wait_until(lambda: "Server listening" in Path(running.log).read_text(), running)
    return port


def _bare(processes: Processes, directory: Path, engine: Docker, image: str) -> int:
    words = [engine.host, image, str(directory / "peers-host-key"), str(directory / "authorized_keys")]
    running = processes.start("bare", [sys.executable, "-m", "bench.bare", *words])
    wait_until(lambda: "ready on" in Path(running.log).read_text(), running)
    return int(Path(running.log).read_text().rpartition(" ")[2])


@contextmanager
def master(peer: Peer, socket: Path) -> Iterator[list[str]]:
    """An open connection with one program in it; yields the client options that go through it."""
    options = ["-S", str(socket), "-o", "ControlMaster=yes"]
    opened = subprocess.Popen(
        peer.ssh("echo ready; cat", options=options), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert opened.stdin is not None
    assert opened.stdout is not None
    try:
        if opened.stdout.readline() != b"ready\n":
            raise StackError(f"{peer.name}: no connection could be opened")
        until(socket.exists)
        # The proxy command makes a fall-back to a connection of its own fail instead of passing unnoticed.
        yield ["-S", str(socket), "-o", "ControlMaster=no", "-o", "ProxyCommand=false"]
    finally:
        opened.stdin.close()
        wait_end(opened)
        opened.stdout.close()


__all__ = ["Peer", "Peers", "Running", "master", "peers"]
