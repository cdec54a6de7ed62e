"""docker-compose.opa.yaml on images that need no registry: one Debian root that holds every part's program."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded.tools import build_agent, cache
from tests.stack import StackError
from tests.stack.docker import Docker
from tests.stack.images import debian_root
from tests.stack.process import free_port
from tests.stack.tools import COMPOSE, JAEGER, OPA, VAULT, find_or_build

TOP = Path(__file__).parents[2]
FILE = TOP / "docker-compose.opa.yaml"
SECRETS = TOP / "backends" / "docker" / "compose" / "secrets.sh"
HERE = Path(__file__).parent / "standin"
PACKAGES = ["ca-certificates", "postgresql", "python3"]
SITE = "opt/site"
NOT_NEEDED = ("mypy", "mypyc", "pip", "pixeltable", "pytest", "_pytest", "ruff", "setuptools", "coverage", "kubernetes")
IMAGES = ("OPA_IMAGE", "POSTGRES_IMAGE", "VAULT_IMAGE", "COLLECTOR_IMAGE", "GATEWAY_IMAGE")


@dataclass(frozen=True, slots=True)
class Composed:
    """The file's services, up and healthy."""

    opa: str
    ssh_port: int
    secrets: Path
    environment: Mapping[str, str]

    def compose(self, *words: str) -> str:
        """Run `docker compose WORDS`; what it printed.  Raises StackError."""
        files = ["--file", str(FILE), "--file", str(HERE / "override.yaml")]
        command = [str(find_or_build(COMPOSE)), *files, *words]
        ran = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=300
        )
        if ran.returncode != 0:
            raise StackError(f"compose {words[0]}: {ran.stderr.strip()[-3000:]}")
        return ran.stdout


@contextmanager
def composed(engine: Docker, directory: Path) -> Iterator[Composed]:
    """Bring the file's services up on `engine`; take them down with all their data."""
    secrets = directory / "secrets"
    subprocess.run(["sh", SECRETS, secrets], check=True, capture_output=True)
    environment, opa_port, ssh_port = _environment(engine, directory, secrets)
    started = Composed(f"http://127.0.0.1:{opa_port}", ssh_port, secrets, environment)
    try:
        try:
            started.compose("up", "--detach", "--wait", "--no-build", "--pull", "never")
        except StackError as error:
            raise StackError(f"{error}\n{started.compose('logs', '--tail', '15')}") from error
        yield started
    finally:
        started.compose("down", "--volumes", "--timeout", "3")


def _environment(engine: Docker, directory: Path, secrets: Path) -> tuple[dict[str, str], int, int]:
    socket = engine.host.removeprefix("unix://")
    if socket == engine.host:
        raise StackError("the compose test mounts the engine's socket, so the engine must be on this machine")
    tar = standin_root()
    image = engine.import_image(tar, f"doorward-standin:{tar.stem.rpartition('-')[2]}")
    opa_port, ssh_port = free_port(), free_port()
    environment = {
        **dict.fromkeys(IMAGES, image),
        "DOCKER_HOST": engine.host, "DOCKER_CONFIG": str(directory), "DOCKER_SOCKET": socket,
        "DOCKER_GID": str(Path(socket).stat().st_gid), "COMPOSE_PROJECT_NAME": f"doorward-{os.getpid()}",
        "SECRETS_DIR": str(secrets), "STANDIN": str(HERE),
        "OPA_PORT": str(opa_port), "SSH_ADDRESS": f"127.0.0.1:{ssh_port}", "DOOR_PORT": str(free_port()),
    }  # fmt: skip
    return environment, opa_port, ssh_port


def standin_root() -> Path:
    """The root as a tar in the cache, named by what went into it."""
    if sys.version_info[:2] != (3, 11):
        raise StackError("the stand-in image lends this Python's packages to Debian 12's 3.11")
    base = debian_root("standin-base", PACKAGES)
    files = dict(_files())
    facts = [[name, path.stat().st_size, path.stat().st_mtime_ns] for name, path in sorted(files.items())]
    digest = hashlib.sha256(json.dumps([base.name, facts]).encode()).hexdigest()[:16]
    tar = cache() / "images" / f"standin-{digest}.tar"
    if not tar.exists():
        for old in tar.parent.glob("standin-????????????????.tar"):
            old.unlink()
        partial = tar.with_suffix(f".{os.getpid()}.new")
        shutil.copyfile(base, partial)
        with tarfile.open(partial, "a") as target:
            for name, path in files.items():
                target.add(path, name, filter=_as_root)
        partial.rename(tar)
    return tar


def _files() -> Iterable[tuple[str, Path]]:
    """Name in the image, and where it is here."""
    yield "opa", find_or_build(OPA)
    yield "usr/local/bin/vault", find_or_build(VAULT)
    yield "otelcol", find_or_build(JAEGER)
    yield (
        "opt/doorward/gateway/_assets/agent/doorward-agent-linux-amd64",
        build_agent(TOP / "backends" / "agent"),
    )
    for folder in ("gateway", "policies", "secrets", "backends/docker"):
        yield from _tree(TOP / folder, f"opt/doorward/{folder}")
    packages = Path(sysconfig.get_paths()["platlib"])
    for entry in packages.iterdir():
        if not entry.name.startswith(NOT_NEEDED):
            yield from _tree(entry, f"{SITE}/{entry.name}")


def _tree(path: Path, name: str) -> Iterable[tuple[str, Path]]:
    if path.is_file():
        yield name, path
        return
    for file in path.rglob("*"):
        if file.is_file() and file.suffix != ".pyc" and "_assets" not in file.parts:
            yield f"{name}/{file.relative_to(path)}", file


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.mode |= 0o444
    return entry
