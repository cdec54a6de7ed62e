"""Every way out: nothing is left running and the role is gone."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.conftest import OpenDoor
from tests.e2e.world import Door, Site, in_time, until

HOLD_DATABASE = "psql -qAt -c 'select 1' -c 'select pg_sleep(300)'"


def test_a_clean_exit_removes_everything_within_a_second(door: Door, site: Site) -> None:
    door.grant()

    def ending() -> float:
        assert door.ssh("true").returncode == 0
        return _cleared(site)

    in_time(1, ending)


def test_sigkill_of_the_client_removes_everything_at_once(door: Door, site: Site) -> None:
    door.grant()

    def killed() -> float:
        with door.terminal(HOLD_DATABASE) as terminal:
            role = _holding(site)
            terminal.process.kill()
            took = _cleared(site)
        assert site.backends_of(role) == 0
        return took

    in_time(2, killed)


def test_sigterm_of_the_gateway_lets_sessions_drain_then_ends_them_with_a_message(door: Door, site: Site) -> None:
    door.grant()
    with door.terminal(HOLD_DATABASE) as terminal:
        _holding(site)
        assert door.stop(signal.SIGTERM) == 0
        assert terminal.wait_end() == 254
        assert "this session ends in 1 s" in terminal.seen
        assert "doorward: gateway_shutdown:" in terminal.seen
    site.nothing_left(1)
    assert door.doorward("audit", "verify").returncode == 0


def test_sigkill_of_the_gateway_leaves_nothing_beyond_the_tokens_ttl(open_door: OpenDoor, site: Site) -> None:
    [credential] = site.target()["credentials"]
    ttl = 8
    with open_door(target=site.target(credentials=[{**credential, "ttl_seconds": ttl}])) as door:
        door.grant()
        with door.terminal(HOLD_DATABASE) as terminal:
            role = _holding(site)
            door.stop(signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: not site.containers(), ttl)
            assert terminal.wait_end() != 0
            until(lambda: not site.roles())
            assert time.monotonic() - killed < ttl + 5
    assert site.backends_of(role) == 0


def test_a_gateway_that_was_killed_starts_again_and_its_audit_log_is_whole(open_door: OpenDoor, site: Site) -> None:
    [credential] = site.target()["credentials"]
    with open_door(target=site.target(credentials=[{**credential, "ttl_seconds": 8}])) as door:
        door.grant()
        with door.terminal("echo up; sleep 300") as terminal:
            terminal.wait_for("up")
            door.stop(signal.SIGKILL)
        door.start_again()
        assert door.ssh("echo back").stdout == b"back\n"
        assert door.doorward("audit", "verify").returncode == 0
    site.nothing_left()


@pytest.mark.parametrize("moment", [0.05, 0.12, 0.2, 0.3, 0.45, 0.6])
def test_a_client_that_leaves_while_things_are_being_started_leaves_nothing(
    door: Door, site: Site, moment: float
) -> None:
    door.grant()
    process = subprocess.Popen(door.ssh_command("sleep 300"), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(moment)
    process.kill()
    process.wait()
    until(lambda: not door.sessions())
    site.nothing_left()


def test_the_reaper_removes_what_a_killed_gateway_could_not(open_door: OpenDoor, site: Site) -> None:
    with open_door() as door:
        leftover = _abandoned_container(door, site)
        door.stop()
        door.start_again()
        until(lambda: leftover not in site.containers())


def test_an_operator_ends_one_session(door: Door, site: Site) -> None:
    door.grant()
    with door.terminal("echo up; sleep 300") as terminal:
        terminal.wait_for("up")
        [session] = door.sessions()
        assert door.doorward("sessions", "end", session["id"]).returncode == 0
        assert terminal.wait_end() == 254
        assert "an operator ended this session" in terminal.seen
    assert (door.directory / "state" / "admin.sock").stat().st_mode & 0o777 == 0o600
    site.nothing_left()


def _cleared(site: Site) -> float:
    """How long it took (s) until nothing was left."""
    began = time.monotonic()
    site.nothing_left()
    return time.monotonic() - began


def _holding(site: Site) -> str:
    """The role whose open connection the session holds."""
    role: str = until(lambda: (site.roles() or [""])[0])
    until(lambda: site.backends_of(role) == 1)
    return role


def _abandoned_container(door: Door, site: Site) -> str:
    """A container as a gateway of this instance would have labelled it, that nobody holds."""
    instance = (door.directory / "state" / "instance-id").read_text().strip()
    body = {
        "Image": site.images.shonly,
        "Cmd": ["/bin/sh", "-c", "sleep 300"],
        "Labels": {"doorward.session": "0123456789abcdef", "doorward.instance": f"test-{instance}"},
        "HostConfig": {"NetworkMode": "none"},
    }
    with site.docker.client() as client:
        made = client.post("/containers/create", json=body).json()["Id"]
        client.post(f"/containers/{made}/start").raise_for_status()
    return str(made)
