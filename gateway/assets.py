"""Files that come with us: in a wheel under `gateway/_assets`, in a checkout where they are written."""

from __future__ import annotations

import platform
from pathlib import Path

from gateway.errors import SettingsError, WorkspaceUnavailable

PACKAGE = Path(__file__).parent
SHIPPED = PACKAGE / "_assets"
CHECKOUT = PACKAGE.parent

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def folder(name: str) -> Path:
    """A folder of ours: `policies`, `secrets`, `backends/docker`, ...  Raises SettingsError when there is none."""
    for root in (SHIPPED, CHECKOUT):
        if (root / name).is_dir():
            return root / name
    raise SettingsError(f"the folder {name!r} did not come with this installation", remedy="Install Doorward again.")


def seccomp_profile() -> Path:
    return folder("backends/docker") / "seccomp.json"


def agent_binary() -> Path:
    """The agent for this machine's architecture: shipped in the wheel, else built once from the checkout's source.

    Raises WorkspaceUnavailable when there is neither.
    """
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    shipped = SHIPPED / "agent" / f"doorward-agent-linux-{architecture}"
    if shipped.is_file():
        return shipped
    source = CHECKOUT / "backends" / "agent"
    if not (source / "go.mod").is_file():
        raise WorkspaceUnavailable(
            f"no agent for {architecture} came with this installation",
            remedy="Build backends/agent and name the binary in backends.<backend>.agent.",
        )
    from gateway.embedded.tools import build_agent

    return build_agent(source)
