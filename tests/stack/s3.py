"""A real S3 API (versitygw) over a folder, and the stock `curl` that uploads to it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.stack import IN_THE_CLEAR
from tests.stack.process import Processes, free_port, wait_until
from tests.stack.tools import S3, find_or_build

REGION = "us-east-1"
KEY, SECRET = "bundle-writer", "an-example-of-a-key"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket, by its URL in path style."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client of AWS's takes its credentials from."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION}

    def upload(self, file: Path, name: str) -> None:
        self._curl(file.read_bytes(), "--upload-file", str(file), f"{self.url}/{name}")

    def make(self) -> None:
        self._curl(b"", "--request", "PUT", self.url)

    def _curl(self, content: bytes, *words: str) -> None:
        subprocess.run(
            ["curl", "--fail", "--silent", "--show-error", "--aws-sigv4", f"aws:amz:{REGION}:s3",
             "--header", f"x-amz-content-sha256: {hashlib.sha256(content).hexdigest()}",
             "--user", f"{KEY}:{SECRET}", *words],
            check=True, capture_output=True, timeout=30,
        )  # fmt: skip


@contextmanager
def bucket(directory: Path) -> Iterator[Bucket]:
    """An empty bucket on loopback."""
    processes = Processes(directory)
    (directory / "objects").mkdir(exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [
        find_or_build(S3),
        "--port",
        address,
        "--region",
        REGION,
        "posix",
        directory / "objects",
    ]
    running = processes.start("s3", command, env={"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET})
    try:
        wait_until(lambda: _answers(f"http://{address}"), running)
        found = Bucket(f"http://{address}/bundles")
        found.make()
        yield found
    finally:
        processes.end()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, verify=IN_THE_CLEAR).status_code in (200, 403)
    except httpx.TransportError:
        return False
