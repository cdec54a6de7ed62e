"""What this machine must have, and how it gets it: Debian packages as root, else a sentence that names them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from tests.stack import StackError
from tests.stack.docker import existing_docker
from tests.stack.images import BUSYBOX

PACKAGES: Mapping[str, str] = {"mmdebstrap": "mmdebstrap", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
SLAPD = "/usr/sbin/slapd"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
ENGINE_PACKAGES: Mapping[str, str] = {"dockerd": "docker.io", "iptables": "iptables"}
PODMAN_PACKAGES: Mapping[str, str] = {"podman": "podman", "/usr/bin/conmon": "conmon", "/usr/sbin/runc": "runc"}
CLUSTER_PACKAGES: Mapping[str, str] = {
    "/usr/bin/containerd": "containerd",
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "ip": "iproute2",
    "iptables": "iptables",
    "openssl": "openssl",
}


def missing_packages() -> list[str]:
    """Debian packages whose programs the stack needs and does not find.  (PostgreSQL: a wheel stands in for it.)"""
    wanted = {**PACKAGES, **CLUSTER_PACKAGES, **({} if existing_docker() else ENGINE_PACKAGES)}
    packages = {package for program, package in wanted.items() if shutil.which(program) is None}
    if not any(path.exists() for path in BUSYBOX):
        packages.add("busybox-static")
    return sorted(packages)


def install_packages() -> None:
    """Install what is missing.  Raises StackError naming the packages where that cannot be."""
    packages = missing_packages()
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise StackError(f"missing: {' '.join(packages)}. As root on Debian: apt-get install {' '.join(packages)}")
    print(f"installing {' '.join(packages)} ...", file=sys.stderr, flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        ran = subprocess.run(["apt-get", "-qq", *command], env=env, capture_output=True, text=True)
        if ran.returncode != 0:
            raise StackError(f"apt-get {command[0]}: {ran.stderr[-1000:].strip()}")


def obstacle(part: str) -> str:
    """Why this machine cannot have `part`: one of the names below, or of a program.  Empty if it can."""
    match part:
        case "docker":
            if existing_docker() or (os.geteuid() == 0 and shutil.which("dockerd")):
                return ""
            return "no Docker engine answers, and starting one needs root and the package docker.io"
        case "images":
            if os.geteuid() == 0 and shutil.which("mmdebstrap"):
                return ""
            return "building images needs root and the package mmdebstrap"
        case "kubernetes":
            lacking = sorted(
                {package for program, package in CLUSTER_PACKAGES.items() if shutil.which(program) is None}
            )
            if os.geteuid() != 0 or lacking:
                return f"a Kubernetes node needs root and the packages {' '.join(CLUSTER_PACKAGES.values())}"
            if not os.path.isdir("/sys/fs/cgroup/pids"):
                return "the node of tests/stack/cluster is set up for cgroup v1, and this machine has v2"
            return ""
        case "podman":
            if os.geteuid() != 0 or any(shutil.which(program) is None for program in PODMAN_PACKAGES):
                return f"Podman needs root and the packages {' '.join(PODMAN_PACKAGES.values())}"
            return ""
        case "keycloak":
            missing = [program for program in ("mvn", "java") if shutil.which(program) is None]
            return f"Keycloak needs {' and '.join(missing)}: packages maven, openjdk-17-jre-headless" if missing else ""
        case "slapd":
            return "" if os.access(SLAPD, os.X_OK) else "the Debian package slapd is not installed"
        case "root":
            return "" if os.geteuid() == 0 else "only root can do it"
        case "sshd":
            return "" if SSHD else "the Debian package openssh-server is not installed"
        case program:
            return "" if shutil.which(program) else f"the program {program} is not on the PATH"
