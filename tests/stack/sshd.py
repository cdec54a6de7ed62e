"""A real host to relay to: OpenSSH's own sshd on loopback, which lets in the account that the tests run as."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack import StackError
from tests.stack.machine import SSHD
from tests.stack.process import Processes, Running, free_port, wait_until

USER = getpass.getuser()
TAKEN = "AcceptEnv LANG LC_* GREETING FIXED TRACEPARENT SSH_ORIGINAL_COMMAND"
ACCOUNT = "debug"
"""Of a machine of its own, with a home and bash."""
UID = 10001
ESTABLISHED = "01"


@dataclass(frozen=True)
class Sshd:
    """A running daemon."""

    directory: Path
    port: int
    process: Running
    host_key: str
    """Its public key, as OpenSSH has it."""
    key: Path
    """A private key that is let in, for a gateway's settings."""

    @property
    def log(self) -> str:
        return Path(self.process.log).read_text(errors="replace")

    def connected(self) -> set[int]:
        """The far ports of connections that are open, by the kernel's list."""
        found = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if int(local.rpartition(":")[2], 16) == self.port and state == ESTABLISHED:
                found.add(int(remote.rpartition(":")[2], 16))
        return found

    def connected_by(self, public_key: str) -> set[int]:
        """Those of `connected` that were let in by this key, by its own log."""
        shown = fingerprint(public_key)
        accepted = re.findall(r"Accepted publickey .* port (\d+) ssh2: \S+ (SHA256:\S+)", self.log)
        owners = {int(port): key for port, key in accepted}  # a port's last one
        return {port for port in self.connected() if owners.get(port) == shown}

    def children(self) -> list[int]:
        """Its processes for connections: one of each, whether or not it is logged in to yet."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in found.split()]


@contextmanager
def sshd(
    directory: Path, *lines: str, user_authority: str = "", port: int = 0, within: Sequence[str] = ()
) -> Iterator[Sshd]:
    """`lines` of its configuration stand for the usual ones.  `user_authority`: whose certificates are let in.

    `within`: a command that runs it, instead of this machine as it is.
    """
    if SSHD is None:
        raise StackError("missing: sshd (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its privilege separation folder, missing without an init
    processes = Processes(directory)
    port = port or free_port()
    for name in ("host_key", "login_key"):
        make_key(directory / name)
    (directory / "authorized_keys").write_text((directory / "login_key.pub").read_text())
    (directory / "user_authority").write_text(f"{user_authority}\n")
    config = directory / "sshd.conf"
    usual = (
        f"ListenAddress 127.0.0.1:{port}", f"HostKey {directory}/host_key",
        f"AuthorizedKeysFile {directory}/authorized_keys", f"TrustedUserCAKeys {directory}/user_authority",
        "PidFile none", "UsePAM no", "StrictModes no", "PermitRootLogin prohibit-password", "UseDNS no", TAKEN,
        "PasswordAuthentication no", "Subsystem sftp internal-sftp", "LogLevel VERBOSE", "MaxStartups 100",
        "MaxSessions 100", "X11Forwarding yes", "X11UseLocalhost yes",
    )  # fmt: skip
    said = {line.split()[0] for line in lines}
    settings = [*lines, *(line for line in usual if line.split()[0] not in said)]
    config.write_text("".join(f"{line}\n" for line in settings))
    running = processes.start("sshd", [*within, SSHD, "-D", "-e", "-f", config])
    started = Sshd(directory, port, running, (directory / "host_key.pub").read_text().strip(), directory / "login_key")
    try:
        wait_until(lambda: "Server listening" in started.log, running)
        yield started
    finally:
        processes.end()


@contextmanager
def machine(directory: Path, *lines: str) -> Iterator[Sshd]:
    """A host apart: this machine's programs and network, with processes, /tmp and an ACCOUNT of its own.

    Needs root and bubblewrap.  `directory` must be readable for that account; whatever runs there ends with it.
    """
    home = directory / "home"
    home.mkdir()
    os.chown(home, UID, UID)
    accounts = {"passwd": f"{ACCOUNT}:x:{UID}:{UID}::/home/{ACCOUNT}:/bin/bash", "group": f"{ACCOUNT}:x:{UID}:"}
    binds = []
    for name, line in accounts.items():
        (directory / name).write_text(Path(f"/etc/{name}").read_text() + f"{line}\n")
        binds += ["--ro-bind", str(directory / name), f"/etc/{name}"]
    within = [
        "bwrap", "--dev-bind", "/", "/", "--proc", "/proc", "--unshare-pid", "--die-with-parent", "--cap-add", "ALL",
        "--perms", "1777", "--tmpfs", "/tmp", "--tmpfs", "/home", "--bind", str(home), f"/home/{ACCOUNT}",
        "--bind", str(directory), str(directory), *binds, "--",
    ]  # fmt: skip
    with sshd(directory, *lines, within=within) as started:
        yield started


def fingerprint(public_key: str) -> str:
    """As sshd logs it."""
    shown = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=public_key, capture_output=True, text=True, check=True
    ).stdout
    return shown.split()[1]


def make_key(path: Path) -> str:
    """A key pair at `path`, unless it is there; the public key's line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    public = path.with_suffix(".pub")
    if not path.exists():
        command: Sequence[str] = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True)
    return public.read_text().strip()
