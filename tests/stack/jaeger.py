"""A trace collector: receives OTLP over HTTP and gRPC, answers queries."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.stack import IN_THE_CLEAR
from tests.stack.process import Processes, Running, free_port, wait_until
from tests.stack.tools import JAEGER, find_or_build


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A running collector."""

    otlp_http: str
    otlp_grpc: str
    query: str
    """Also the web page."""
    process: Running

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace that have arrived, in Jaeger's JSON; empty when none has."""
        answer = httpx.get(f"{self.query}/api/traces/{trace_id}", timeout=10, verify=IN_THE_CLEAR)
        if answer.status_code == 404:
            return []
        return [span for trace in answer.raise_for_status().json()["data"] for span in trace["spans"]]


@contextmanager
def jaeger(directory: Path) -> Iterator[Jaeger]:
    """Jaeger all-in-one, in memory."""
    processes = Processes(directory)
    try:
        yield start_jaeger(processes)
    finally:
        processes.end()


def start_jaeger(processes: Processes) -> Jaeger:
    http, grpc, query, admin = (f"127.0.0.1:{free_port()}" for _ in range(4))
    unused = ("collector.grpc-server", "collector.http-server", "query.grpc-server")
    options = {
        "collector.otlp.http": http, "collector.otlp.grpc": grpc, "query.http-server": query, "admin.http": admin,
        **{name: f"127.0.0.1:{free_port()}" for name in unused},
    }  # fmt: skip
    running = processes.start(
        "jaeger",
        [find_or_build(JAEGER), *(f"--{name}.host-port={address}" for name, address in options.items())],
        stop_signal=signal.SIGKILL,  # it holds nothing, and takes 10 s over SIGTERM
    )
    wait_until(lambda: _is_ready(f"http://{admin}/"), running)
    return Jaeger(f"http://{http}", f"http://{grpc}", f"http://{query}", running)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, verify=IN_THE_CLEAR).status_code == 200
    except httpx.TransportError:
        return False
