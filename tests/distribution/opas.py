"""OPA as the example configurations of backends/opa/ run it; only what names this machine is set beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.stack.opa import Opa, is_ready, role_tokens
from tests.stack.process import Processes, free_port, wait_until
from tests.stack.tools import OPA, find_or_build

EXAMPLES = Path(__file__).parents[2] / "backends" / "opa"
COPY = "copy.yaml"
POLL_SECONDS = 1


def prepared(directory: Path) -> Path:
    """Tokens for each role, and the folder of their hashes, which is to be published."""
    directory.mkdir(parents=True, exist_ok=True)
    role_tokens(directory)
    return directory / "opa-tokens"


def start(
    processes: Processes,
    example: str,
    public_key: Path,
    url: str,
    sets: Mapping[str, str | int] | None = None,
    env: Mapping[str, str] | None = None,
    port: int = 0,
) -> Opa:
    """Start, and wait until its bundles are active."""
    directory = processes.directory
    address = f"127.0.0.1:{port or free_port()}"
    here = {
        "persistence_directory": directory / "bundles",
        **({} if example == COPY else {"storage.disk.directory": directory / "data"}),
        **{
            f"bundles.{name}.polling.{end}_delay_seconds": POLL_SECONDS
            for name in ("policies", "tokens")
            for end in ("min", "max")
        },
        **(sets or {}),
    }
    running = processes.start(
        "opa",
        [
            find_or_build(OPA), "run", "--server", "--addr", address, "--skip-version-check", "--log-format", "json",
            "--authentication=token", "--authorization=basic", "--config-file", EXAMPLES / example,
            "--set-file", f"keys.doorward.key={public_key}",
            *[word for name, value in here.items() for word in ("--set", f"{name}={value}")],
        ],
        env={"BUNDLE_URL": url, **(env or {})},
    )  # fmt: skip
    started = Opa(f"http://{address}", role_tokens(directory), directory, Path(running.log), running)
    wait_until(lambda: is_ready(started), running, seconds=60)
    return started


@contextmanager
def published_opa(
    directory: Path,
    example: str,
    public_key: Path,
    url: str,
    sets: Mapping[str, str | int] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Opa]:
    processes = Processes(directory)
    try:
        yield start(processes, example, public_key, url, sets, env)
    finally:
        processes.end()
