"""What a permit means in Docker's words: the container's configuration, so that the hardening reads in one go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.backends import CREDENTIALS_DIR, Order, hosts
from gateway.backends.docker.agent import AGENT_DIR, AGENT_NAME
from gateway.backends.docker.engine import Image
from gateway.model import Holder, Limits

INSTANCE_LABEL = "doorward.instance"
SESSION_LABEL = "doorward.session"
CREDENTIALS_BYTES = 2**20
SHM_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Site:
    """What all containers of one gateway on one engine share."""

    instance: str
    seccomp: str | None
    """What the engine takes for a profile: its JSON, or on Podman its path; absent: the engine's own default."""
    runtime: str | None
    is_podman: bool = False


def container(
    order: Order, image: Image, agent_volume: str, site: Site, line: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The body of the engine's create call.  `line` is the mount of a socket that the agent dials."""
    user = order.spec.user
    return {
        "Image": image.id,
        "Entrypoint": [f"{AGENT_DIR}/{AGENT_NAME}"],
        "Cmd": ["dial", line["Target"]] if line else [],
        "Env": [f"{name}={value}" for name, value in order.environment().items()],
        "Labels": {**order.holder.labels(), INSTANCE_LABEL: site.instance},
        "Hostname": order.holder.target[:63],  # Linux takes no more than 64 bytes
        "User": f"{user.uid}:{user.gid}",
        "WorkingDir": "/",
        "OpenStdin": True,
        "StdinOnce": True,  # the attached client's end is the agent's EOF
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host(order, image, agent_volume, site, line),
    }


def bound_name(holder: Holder) -> str:
    """The name of a container that was nobody's: of all that an engine says of one, this alone can still be changed.

    The session's id as it is; the other words are cut, and without what Docker allows in no name.
    """
    words = [re.sub(r"[^a-zA-Z0-9_.-]", "_", word)[:40] for word in (holder.person, holder.grant, holder.target)]
    return ".".join([f"doorward-{holder.session}", *words])


def is_bound(shown: Mapping[str, Any], order: Order) -> bool:
    """Whether the engine shows a container that runs, has this order's name, and is still held to its limits."""
    state, host = shown["State"], shown["HostConfig"]
    limits = _limits(order.spec.limits)
    return (
        shown["Name"] == f"/{bound_name(order.holder)}"
        and state["Running"]
        and not state["Paused"]
        and {name: host[name] for name in limits} == limits
    )


def _limits(limits: Limits) -> dict[str, int]:
    return {
        "PidsLimit": limits.pids,
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # of memory and swap together, so: no swap
        "NanoCpus": round(limits.cpus * 1e9),
    }


def _host(order: Order, image: Image, agent_volume: str, site: Site, line: dict[str, Any] | None) -> dict[str, Any]:
    limits = order.spec.limits
    agent = {"Type": "volume", "Source": agent_volume, "Target": AGENT_DIR, "ReadOnly": True}
    host: dict[str, Any] = {
        "AutoRemove": True,
        "ReadonlyRootfs": order.spec.read_only,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", *([f"seccomp={site.seccomp}"] if site.seccomp else [])],
        **_limits(limits),
        "Mounts": [{**agent, "VolumeOptions": {"NoCopy": True}}, *([line] if line else [])],
        "Tmpfs": _tmpfs(order, image, site),
        "ShmSize": min(SHM_BYTES, limits.tmpfs_bytes),
        "NetworkMode": "none",
        "ExtraHosts": [f"{name}:{address}" for name, address in hosts(order.spec).items()],
        "IpcMode": "private",
        "LogConfig": {"Type": "none", "Config": {}},  # it would keep the ciphertext, and cost four fifths of the speed
    }
    if site.runtime:
        host["Runtime"] = site.runtime
    return host


def _tmpfs(order: Order, image: Image, site: Site) -> dict[str, str]:
    spec = order.spec
    size = f"size={spec.limits.tmpfs_bytes},nosuid,nodev"
    own = f"uid={spec.user.uid},gid={spec.user.gid},mode=0700"
    if site.is_podman:  # its word for the container's user; and it would copy what the image has there
        own = "U,mode=0700,notmpcopyup"
    return {
        # A volume that the image declares would be a writable place on the host's disk without a limit.
        **dict.fromkeys(image.volumes, f"{size},noexec,{own}"),
        # runc before 1.2 lets the mode of a directory in the image win over the one asked for here.  So /tmp is the
        # user's, to be writable in any case; and /run/doorward is 0700 only where the image has it so, or not at all.
        "/tmp": f"{size},exec,{own.replace('0700', '1777')}",  # noqa: S108 - the workspace's own
        spec.home: f"{size},exec,{own}",  # editors that work remotely run what they put there
        CREDENTIALS_DIR: f"size={CREDENTIALS_BYTES},nosuid,nodev,noexec,{own}",
    }
