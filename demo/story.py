"""The story, step by step: said, done, checked, timed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from demo.places import Place
from tests.e2e.world import Terminal, grant_of, until

GRANT = "INC-1"


@dataclass(frozen=True)
class Step:
    """One sentence of the story, and whether it held."""

    says: str
    holds: bool
    seconds: float


class Narrator:
    """Tells each step as it happens."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def step(self, says: str, happens: Callable[[], str]) -> None:
        """`happens` returns what was seen; a failed assertion or a timeout is a step that does not hold."""
        started = time.monotonic()
        try:
            seen, holds = happens(), True
        except (AssertionError, subprocess.SubprocessError, httpx.HTTPError) as error:
            seen, holds = f"{type(error).__name__}: {error}", False
        step = Step(says, holds, time.monotonic() - started)
        self.steps.append(step)
        print(f"\n{'ok  ' if holds else 'FAIL'} {step.seconds:5.2f} s  {says}")
        for line in seen.strip().splitlines()[:8]:
            print(f"             | {line}")
        sys.stdout.flush()


def tell(place: Place) -> list[Step]:
    """The whole story at `place`; its steps."""
    print(f"The story of one session, on {place.what}.")
    narrator = Narrator()
    _ask(place, "DELETE", "DEMO-1")  # `make run` gives one to begin with
    narrator.step("no grant: ssh is refused, with the reason and what to do", lambda: _refused(place))
    narrator.step("a grant without an end is refused by field", lambda: _bad_grant(place))
    narrator.step("ticketing writes a grant at the grants door", lambda: _granted(place))
    narrator.step("psql works with no argument", lambda: _psql(place))
    narrator.step("writing to the database fails", lambda: _fails(place, "psql -c 'delete from orders'", "ERROR"))
    narrator.step("writing to the root file system fails", lambda: _fails(place, "touch /etc/x", "Read-only"))
    narrator.step("bytes, exit status and stderr pass unharmed", lambda: _faithful(place))
    narrator.step("at exit nothing is left", lambda: _nothing_left(place, 2))
    narrator.step(
        "the grant is deleted: the session and its database connection end within 2 s", lambda: _killed(place)
    )
    narrator.step("SIGKILL of the client leaves nothing", lambda: _client_killed(place))
    narrator.step("the audit log is whole, and finds a changed record", lambda: _audited(place))
    return narrator.steps


def _ask(place: Place, method: str, grant: str, value: object = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {place.token.read_text()}"}
    return httpx.request(method, f"{place.grants}/{grant}", json=value, headers=headers, timeout=10)


def _ssh(place: Place, command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*place.ssh, command], input=stdin, capture_output=True, timeout=20, check=False)


def _refused(place: Place) -> str:
    ran = _ssh(place, "true")
    said = ran.stderr.decode()
    assert ran.returncode == 254, f"exit status {ran.returncode}: {said}"
    assert "doorward: no_grant:" in said, said
    assert "what to do:" in said, said
    return said


def _bad_grant(place: Place) -> str:
    grant = {key: value for key, value in grant_of().items() if key != "ends_at"}
    answer = _ask(place, "PUT", GRANT, grant)
    assert answer.status_code == 400, answer.text
    assert "ends_at" in answer.text
    return answer.text


def _granted(place: Place) -> str:
    answer = _ask(place, "PUT", GRANT, grant_of())
    assert answer.status_code == 204, answer.text
    return f"PUT {place.grants}/{GRANT}: 204"


def _psql(place: Place) -> str:
    ran = _ssh(place, "psql -c 'select * from orders limit 3'")
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()


def _fails(place: Place, command: str, sign: str) -> str:
    ran = _ssh(place, command)
    assert ran.returncode != 0, "it worked"
    assert sign in ran.stderr.decode(), ran.stderr.decode()
    return ran.stderr.decode()


def _faithful(place: Place) -> str:
    data = bytes(range(256)) * 4096
    ran = _ssh(place, "cat; echo err >&2; exit 42", data)
    assert (ran.stdout, ran.stderr, ran.returncode) == (data, b"err\n", 42)
    return "1 MiB of every byte there and back, stderr apart, exit status 42"


def _nothing_left(place: Place, seconds: float) -> str:
    until(lambda: not place.roles() and not place.workspaces(), seconds)
    return "no workspace, no database role"


def _holding(place: Place) -> list[str]:
    return [*place.ssh[:1], "-tt", *place.ssh[1:], "psql -qAt -c 'select current_user' -c 'select pg_sleep(300)'"]


def _killed(place: Place) -> str:
    with Terminal.running(_holding(place)) as terminal:
        role = str(until(lambda: (place.roles() or [""])[0]))
        terminal.wait_for(role)
        started = time.monotonic()
        assert _ask(place, "DELETE", GRANT).status_code == 204
        status = terminal.wait_end(5)
        told = time.monotonic() - started
        _nothing_left(place, 2)
        gone = time.monotonic() - started
    assert status == 254, f"exit status {status}"
    assert "doorward: grant_deleted:" in terminal.seen, terminal.seen
    assert gone < 2, f"it took {gone:.1f} s"
    reason = next(line for line in terminal.seen.splitlines() if "grant_deleted" in line)
    return f"{reason}\ntold after {told:.2f} s, workspace and role gone after {gone:.2f} s"


def _client_killed(place: Place) -> str:
    _granted(place)
    with Terminal.running(_holding(place)) as terminal:
        role = str(until(lambda: (place.roles() or [""])[0]))
        terminal.wait_for(role)
        terminal.process.kill()
        return _nothing_left(place, 3)


def _audited(place: Place) -> str:
    verify = [sys.executable, "-m", "gateway", "audit", "verify"]
    whole = subprocess.run([*verify, str(place.audit)], capture_output=True, text=True, timeout=60, check=False)
    assert whole.returncode == 0, whole.stdout
    forged = Path(f"{place.audit}.forged")
    forged.write_text(place.audit.read_text().replace("alice", "mallory", 1))
    found = subprocess.run([*verify, str(forged)], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert "was changed" in found.stdout
    return whole.stdout + found.stdout
