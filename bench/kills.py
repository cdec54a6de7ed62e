"""From a grant's deletion to the end of the session that stood on it, as the engineer's ssh sees it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import httpx

from bench.clients import wait_end
from bench.samples import Samples
from bench.stand import Stand
from bench.table import Row
from tests.e2e.world import ALICE
from tests.stack import StackError, example

GRANT = "INC-1"
GOAL_SECONDS = 2.0
ENDED = 254
DOOR, OPA = "at the grants door", "straight at OPA (sweep)"


def kills(stand: Stand, each: int) -> tuple[list[Row], dict[str, Samples]]:
    """Both ways in turn.  The clock starts before the deletion is sent."""
    samples = {DOOR: Samples(), OPA: Samples()}
    token = example.door_token(stand.site.directory).read_text()
    door = httpx.Client(
        base_url=f"http://127.0.0.1:{stand.door.grants_port}", headers={"authorization": f"Bearer {token}"}
    )
    with door, stand.site.opa.client() as opa:
        for _ in range(each):
            for way, client in ((DOOR, door), (OPA, opa)):
                samples[way].add(_killed(stand, _deletion(client)))
    stand.door.grant()
    return [_row(way, found) for way, found in samples.items()], samples


def _deletion(client: httpx.Client) -> Callable[[], None]:
    def delete() -> None:
        client.delete(f"/v1/data/grants/{ALICE}/{GRANT}").raise_for_status()

    return delete


def _killed(stand: Stand, delete: Callable[[], None]) -> float:
    stand.door.grant(GRANT)
    command = stand.doorward.ssh("echo ready; exec sleep 1000")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        if client.stdout.readline() != b"ready\n":
            raise StackError(f"no session: {client.stderr.read().decode()}")
        began = time.perf_counter()
        delete()
        status = wait_end(client)
        seconds = time.perf_counter() - began
        said = client.stderr.read().decode()
        if status != ENDED:
            raise StackError(f"the session ended with status {status}: {said}")
    stand.settle()
    return seconds


def _row(way: str, found: Samples) -> Row:
    p99 = found.percentile(99)
    value = f"p50 {found.median:.2f} s, p99 {p99:.2f} s, max {max(found.values):.2f} s (n={len(found.values)})"
    return Row(f"grant deleted {way} to ssh's end", value, f"p99 <= {GOAL_SECONDS:g} s", p99 <= GOAL_SECONDS)
