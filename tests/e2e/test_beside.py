"""`ssh alice+payments-api@door` beside a running service: the real door, OPA, and a real cluster."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.kubernetes.spec import GRACE_SECONDS
from tests.e2e.surface.ground import SESSION, Place
from tests.e2e.world import ALICE, Door, until
from tests.stack import example
from tests.stack.cluster import NAMESPACE, Cluster
from tests.stack.cluster.files import POD_PIDS
from tests.stack.cluster.service import APP, LABELS, PORT, SHOP, USER, WORDS, Service, shop
from tests.stack.opa import opa

ALONE = f"{ALICE}+{APP}"
SHARING = f"{ALICE}+{APP}-processes"
BESIDE = {"namespace": SHOP, "selector": LABELS}
CURL = f"curl -s localhost:{PORT}"
OpenDoor = Callable[[], Any]


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    with shop(cluster) as there:
        yield there


@pytest.fixture(scope="module")
def place(parts_dir: Path, cluster: Cluster) -> Iterator[Place]:
    """An OPA that knows the service as two targets."""
    directory = parts_dir / "beside"
    directory.mkdir()
    with opa(directory / "opa") as server:
        server.put("grants", {})
        image = cluster.images.beside("full")
        targets = {
            APP: target(image, BESIDE),
            f"{APP}-processes": target(image, {**BESIDE, "container": "api", "share_processes": True}),
        }
        example.load(server, targets, {ALICE: example.ssh_key(directory)})
        yield Place(directory, server)


def target(image: str, beside: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": "Payments, beside the service itself",
        "backend": "kubernetes",
        "image": image,
        "pod": {"beside": beside},
        "network": {"egress": []},
        "env": {"LANG": "C.UTF-8"},
        "credentials": [],
        "session": SESSION,
        "max_grant_seconds": 8 * 3600,
        "ask": "#ask",
        "approvers": "the lead",
        "allow": {"shell": True, "exec": True, "sftp": True, "forwards": [{"host": "127.0.0.1", "port": PORT}]},
    }


@pytest.fixture
def opened(place: Place, cluster: Cluster, tmp_path: Path) -> OpenDoor:
    @contextmanager
    def opening() -> Iterator[Door]:
        door = Door(place, tmp_path, ALONE)
        door.start(
            {
                "state_dir": str(tmp_path / "state"),
                "instance": "beside",
                "ssh": {"listen": "127.0.0.1:0", "drain_seconds": 1, **example.OPEN},
                "policy": {"url": place.opa.url, "token": {"file": str(place.opa.token_files["gateway"])}},
                "door": {
                    "listen": "127.0.0.1:0",
                    "clients": {"ticketing": {"token": {"file": str(example.door_token(place.directory))}}},
                },
                "backends": {
                    "kubernetes": {
                        "kubeconfig": str(cluster.config_for("doorward-gateway", NAMESPACE)),
                        "namespace": NAMESPACE,
                        "agent_image": cluster.images.agent(),
                        "pod_pids_limit": POD_PIDS,
                        "enforces_network_policy": True,
                    }
                },
                "pools": {"kubernetes": {"size": 1}},
            }
        )
        for login in (ALONE, SHARING):
            name = login.partition("+")[2]
            door.grant(f"G-{name}", target=name)
        try:
            yield door
        finally:
            door.stop()
        assert "Traceback" not in door.log.read_text(), door.log.read_text()[-3000:]

    return opening


@pytest.fixture
def door(opened: OpenDoor) -> Iterator[Door]:
    with opened() as there:
        yield there


@pytest.fixture
def running(service: Service) -> Iterator[str]:
    """The service, which is as it was when a session is over."""
    with service.running() as pod:
        before = service.pod(pod)
        yield pod
        until(lambda: not service.guests(), 10)
        after = service.pod(pod)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert [one["restartCount"] for one in after["status"]["containerStatuses"]] == [0]
        assert {one["name"]: one["image"] for one in after["spec"]["containers"]} == {
            one["name"]: one["image"] for one in before["spec"]["containers"]
        }
        assert service.is_ready(pod)


def test_the_service_is_on_localhost_and_its_processes_are_its_own(door: Door, running: str, service: Service) -> None:
    ran = door.ssh(f"{CURL}; ps -e -o comm=; echo ${{API_KEY-unset}}")
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.decode().split("\n")
    assert (said[0], said[-2]) == (WORDS, "unset")
    assert "busybox" not in ran.stdout.decode()
    assert ran.stderr == b"", "a script's stderr is its own"
    [entered] = [one for one in door.audit("workspace") if one["outcome"] == "ok"]
    uid = service.pod(running)["metadata"]["uid"]
    assert (entered["pod"], entered["pod_uid"], entered["namespace"]) == (running, uid, SHOP)
    assert entered["id"] in {one["name"] for one in service.pod(running)["spec"]["ephemeralContainers"]}
    assert (entered["start"], entered["why"]) == ("cold", "not pooled")


def test_a_terminal_is_told_which_pod_it_is(door: Door, running: str, service: Service) -> None:
    with door.terminal() as terminal:
        uid = service.pod(running)["metadata"]["uid"]
        terminal.wait_for(f"doorward: beside the pod {running} of {SHOP} ({uid})")
        terminal.wait_for("grant G-")
        terminal.type(f"{CURL}; exit\n")
        terminal.wait_for(WORDS)
        assert terminal.wait_end(20) == 0


def test_with_processes_shared_the_service_is_seen_and_not_reached(door: Door, running: str) -> None:
    ran = door.ssh("ps -e -o uid=,comm=; cat /proc/1/environ; kill 1", login=SHARING)
    assert f"{USER} busybox" in " ".join(ran.stdout.decode().split())
    assert ran.stderr.count(b"ermitted") + ran.stderr.count(b"denied") == 2, ran.stderr
    assert b"of the service alone" not in ran.stdout


def test_a_forward_reaches_the_service_and_files_come_out(door: Door, running: str) -> None:
    ran = door.ssh(options=("-W", f"127.0.0.1:{PORT}"), stdin=b"GET / HTTP/1.0\r\n\r\n")
    assert WORDS.encode() in ran.stdout, ran.stderr
    assert door.ssh("tar -c /etc/hostname | wc -c").stdout.strip() == b"10240"


def test_two_engineers_at_once_are_separate(door: Door, running: str, service: Service) -> None:
    with door.terminal() as one, door.terminal() as two:
        for number, terminal in enumerate((one, two)):
            terminal.wait_for("grant G-")
            terminal.type(f"exec -a engineer-{number} sleep 300\n")
        until(lambda: len(service.guests()) == 2, 30)
        assert door.ssh("cat /proc/[0-9]*/cmdline").stdout.count(b"engineer-") == 0
        one.process.kill()
        until(lambda: len(service.guests()) == 1, 10)
        assert two.process.poll() is None


@pytest.mark.parametrize("login", [ALONE, SHARING], ids=["alone", "sharing"])
def test_sigkill_of_the_gateway_leaves_nothing(opened: OpenDoor, running: str, service: Service, login: str) -> None:
    with opened() as door:
        with door.terminal(
            "trap '' HUP TERM; setsid sh -c 'trap \"\" TERM HUP; sleep 300' & echo up; while :; do sleep 1; done",
            login=login,
        ) as terminal:
            terminal.wait_for("up", 30)
            [session] = [one["id"] for one in door.sessions()]
            assert len(service.processes(session)) >= 3
            door.stop(signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: not service.processes(session), 10)
            took = time.monotonic() - killed
            assert terminal.wait_end(10) == 255
        assert took < GRACE_SECONDS + 3
        until(lambda: not service.guests(), 10)
        door.start_again()
        assert door.ssh(CURL).stdout.decode().strip() == WORDS
        assert door.doorward("audit", "verify").returncode == 0


def test_a_pod_that_is_deleted_says_so_on_the_terminal(door: Door, service: Service) -> None:
    with service.running() as pod, door.terminal() as terminal:
        terminal.wait_for("grant G-")
        service.delete(pod)
        assert terminal.wait_end(20) == 254
        assert "workspace_gone: the pod that the workspace was beside is being deleted" in terminal.seen


def test_without_a_ready_pod_it_is_refused_in_a_sentence(door: Door, service: Service) -> None:
    ran = door.ssh(CURL)
    assert ran.returncode == 254
    assert f"there is no ready pod of {APP} in the namespace {SHOP} (app={APP})".encode() in ran.stderr
