"""What a sandboxed workspace sees as its file system, as arguments of bubblewrap.

The root is a small tmpfs that is made read-only once everything is in place.  Of this machine it holds /usr and a
chosen part of /etc, or the top-level folders of a root folder; never /root, /home, /var, /run, /sys or a shadow file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from gateway.backends import CREDENTIALS_DIR, hosts
from gateway.errors import WorkspaceUnavailable
from gateway.model import WorkspaceSpec, WorkspaceUser

HOST = "host"
AGENT = "/run/doorward-agent"
SHARED_MEMORY_BYTES = 64 * 2**20
CREDENTIALS_BYTES = 2**20

_HOST_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_HOST_ETC = (
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "crypto-policies",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "mime.types",
    "pki/ca-trust",
    "pki/tls/certs",
    "postgresql-common",
    "profile",
    "profile.d",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "vim",
)
_OURS = frozenset({"dev", "etc", "home", "proc", "root", "run", "sys", "tmp"})


class Descriptors:
    """Contents handed to bubblewrap as open files, so that nothing is written to a disk.  Close when it has started."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def of(self, content: bytes) -> str:
        number = os.memfd_create("doorward")
        self.numbers.append(number)
        os.write(number, content)
        os.lseek(number, 0, os.SEEK_SET)
        return str(number)

    def opened(self, path: Path) -> str:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.numbers.append(number)
        return str(number)

    def close(self) -> None:
        while self.numbers:
            os.close(self.numbers.pop())


def filesystem(
    spec: WorkspaceSpec, root: Path | None, tools: Sequence[Path], agent: Path, descriptors: Descriptors
) -> list[str]:
    """Arguments that build the whole tree; `root` None is this machine's own."""
    return [
        *(_host_root() if root is None else _folder_root(root)),
        *_identity(spec, descriptors),
        *("--proc", "/proc", "--dev", "/dev"),
        *_tmpfs("/dev/shm", "1777", min(spec.limits.tmpfs_bytes, SHARED_MEMORY_BYTES)),  # noqa: S108 - inside
        *_tmpfs("/tmp", "1777", spec.limits.tmpfs_bytes),  # noqa: S108 - inside
        *_tmpfs(spec.home, "0700", spec.limits.tmpfs_bytes),
        *_tmpfs(CREDENTIALS_DIR, "0700", CREDENTIALS_BYTES),
        *_agent(agent, spec.user, descriptors),
        *(argument for tool in tools for argument in _read_only(tool, str(tool))),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    ]


def search_path(tools: Sequence[Path]) -> str:
    """PATH inside: the extra tools first."""
    folders = [str(tool / "bin" if (tool / "bin").is_dir() else tool) for tool in tools]
    return ":".join([*folders, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])


def require_reachable(path: Path, user: WorkspaceUser, what: str) -> None:
    """Raise WorkspaceUnavailable when the workspace's own account could not open `path`."""
    if not path.exists():
        raise WorkspaceUnavailable(f"{what} {path} does not exist", remedy="Correct the sandbox's settings.")
    if not reachable(path, user):
        raise WorkspaceUnavailable(
            f"{what} {path} cannot be read by the workspace's account (uid {user.uid})",
            remedy="Put it where every account may read it: each folder above it needs mode o+x.",
        )


def found_as(path: Path) -> str:
    """A mark of the very file or folder that is at `path` now; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}:{found.st_mtime_ns}"


def reachable(path: Path, user: WorkspaceUser) -> bool:
    """Whether the workspace's account may open `path`.  A gateway that is not root is that account on the outside."""
    if os.geteuid() != 0:
        return os.access(path, os.R_OK)
    resolved = path.resolve()
    return all(_open_to(folder, user, stat.S_IXOTH) for folder in resolved.parents) and _open_to(
        resolved, user, stat.S_IROTH
    )


def _open_to(path: Path, user: WorkspaceUser, bit: int) -> bool:
    found = path.stat()
    owners = bit << 6 if found.st_uid == user.uid else 0
    return bool(found.st_mode & (bit | owners))


def _host_root() -> list[str]:
    arguments: list[str] = []
    for name in _HOST_FOLDERS:
        arguments += _entry(Path("/") / name, f"/{name}")
    for name in _HOST_ETC:
        if (Path("/etc") / name).exists():
            arguments += _read_only(Path("/etc") / name, f"/etc/{name}")
    return arguments


def _folder_root(root: Path) -> list[str]:
    arguments: list[str] = []
    for entry in sorted(root.iterdir()):
        if entry.name not in _OURS:
            arguments += _entry(entry, f"/{entry.name}")
    etc = root / "etc"
    for entry in sorted(etc.iterdir()) if etc.is_dir() else ():
        # An account file of the image would name other accounts than the one that is there.
        if entry.name.rstrip("-") not in {"passwd", "group", "shadow", "gshadow", "hosts", "hostname", "resolv.conf"}:
            arguments += _entry(entry, f"/etc/{entry.name}")
    return arguments


def _entry(source: Path, destination: str) -> list[str]:
    if source.is_symlink():
        return ["--symlink", str(source.readlink()), destination]
    return _read_only(source, destination) if source.exists() else []


def _read_only(source: Path, destination: str) -> list[str]:
    return ["--ro-bind", str(source), destination]


def _tmpfs(path: str, mode: str, size: int) -> list[str]:
    return ["--size", str(size), "--perms", mode, "--tmpfs", path]


def _agent(agent: Path, user: WorkspaceUser, descriptors: Descriptors) -> list[str]:
    if reachable(agent, user):
        return _read_only(agent, AGENT)
    # Below a folder of root's own (a cache in /root) the workspace's account cannot go: give it the bytes.
    return ["--perms", "0555", "--ro-bind-data", descriptors.opened(agent), AGENT]


def _identity(spec: WorkspaceSpec, descriptors: Descriptors) -> list[str]:
    """The account files and /etc/hosts."""
    user = spec.user
    names = [f"{address} {name}" for name, address in hosts(spec).items()]
    shell = spec.shell or "/bin/sh"
    files = {
        "passwd": f"{user.name}:x:{user.uid}:{user.gid}::{spec.home}:{shell}\nnobody:x:65534:65534::/:/bin/false\n",
        "group": f"{user.name}:x:{user.gid}:\nnogroup:x:65534:\n",
        "hosts": "\n".join(["127.0.0.1 localhost", "::1 localhost ip6-localhost", *names, ""]),
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
        "resolv.conf": "",
    }
    arguments: list[str] = []
    for name, content in files.items():
        arguments += ["--perms", "0444", "--ro-bind-data", descriptors.of(content.encode()), f"/etc/{name}"]
    return arguments
