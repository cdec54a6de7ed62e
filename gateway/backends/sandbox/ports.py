"""Ways out at ports below 1024, inside a sandbox that has no capability: what a container engine does for its own.

The kernel lets whoever administers a network namespace say from which port on nobody needs a capability.  Only a
gateway that runs as root does: bubblewrap closes the user namespace that owns it behind itself.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess

from gateway.model import WorkspaceSpec

log = logging.getLogger(__name__)

PRIVILEGED = 1024
SETTING = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
SECONDS = 5


def needs_low_ports(spec: WorkspaceSpec) -> bool:
    return os.geteuid() == 0 and any(egress.port < PRIVILEGED for egress in spec.network.egress)


def open_low_ports(pid: int) -> None:
    """Let every account listen at any port in the network namespace of `pid`.  Blocks.

    What cannot be opened is said here, and told to the engineer when the agent cannot listen there.
    """
    nsenter = shutil.which("nsenter")
    if nsenter is None:
        log.error("sandbox_low_ports", extra={"error": "nsenter (the package util-linux) is not installed"})
        return
    # Which namespace /proc/sys/net is about follows who opens it, so it takes a process that has gone there.
    command = [nsenter, f"--net=/proc/{pid}/ns/net", "--", "sh", "-c", f"echo 0 > {SETTING}"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        log.exception("sandbox_low_ports")
        return
    if ran.returncode != 0:
        log.error("sandbox_low_ports", extra={"error": ran.stderr.strip()})
