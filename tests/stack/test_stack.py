"""The parts do what the rest of the tests take for granted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hvac
import pytest

from tests.stack import demo, machine
from tests.stack.docker import Docker, docker
from tests.stack.images import Images, images
from tests.stack.jaeger import jaeger
from tests.stack.opa import opa
from tests.stack.postgres import Postgres, postgres
from tests.stack.process import Processes
from tests.stack.require import require
from tests.stack.vault import Vault, vault

SECCOMP = Path(__file__).parents[2] / "backends" / "docker" / "seccomp.json"
ISSUED = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"
GRANT = {"target": "t", "starts_at": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory, database: Postgres) -> Iterator[Vault]:
    with vault(tmp_path_factory.mktemp("vault"), database) as started:
        yield started


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    require("docker")
    with docker(tmp_path_factory.mktemp("docker")) as started:
        yield started


@pytest.fixture(scope="module")
def built(engine: Docker) -> Images:
    require("images")
    return images(engine)


def session_client(issuer: Vault, ttl: str) -> hvac.Client:
    gateway = issuer.client(issuer.gateway_token())
    return issuer.client(gateway.write("auth/token/create/doorward-session", ttl=ttl)["auth"]["client_token"])


def psql(database: Postgres, credentials: dict[str, str], *statements: str) -> subprocess.Popen[str]:
    command = [str(database.binaries / "psql"), "-XqAt", "-h", database.host, "-p", str(database.port)]
    command += ["-U", credentials["username"], "-d", database.database]
    words = [word for statement in statements for word in ("-c", statement)]
    env = {**os.environ, "PGPASSWORD": credentials["password"]}
    return subprocess.Popen([*command, *words], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def eventually(check: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def test_a_session_token_reads_the_orders_and_cannot_write_them(database: Postgres, issuer: Vault) -> None:
    credentials = session_client(issuer, "60s").read("database/creds/orders-readonly")["data"]
    with psql(database, credentials, "SELECT count(*) FROM orders") as reading:
        assert reading.communicate()[0].strip() == "4"
    writable = "SET default_transaction_read_only = off"
    with psql(
        database, credentials, writable, "INSERT INTO orders (customer, item, cents) VALUES ('a', 'b', 1)"
    ) as writing:
        assert "permission denied for table orders" in writing.communicate()[0]


def test_revoking_a_lease_ends_the_connection_that_stands_on_it(database: Postgres, issuer: Vault) -> None:
    answer = session_client(issuer, "60s").read("database/creds/orders-readonly")
    name = answer["data"]["username"]
    with psql(database, answer["data"], "SELECT pg_sleep(60)") as sleeping:
        open_sessions = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{name}' AND wait_event = 'PgSleep'"
        eventually(lambda: database.sql(open_sessions) == "1")
        gateway = issuer.client(issuer.gateway_token())
        gateway.write("sys/leases/revoke", lease_id=answer["lease_id"], sync=True)
        assert database.sql(f"SELECT count(*) FROM pg_roles WHERE rolname = '{name}'") == "0"
        assert "terminating connection due to administrator command" in sleeping.communicate(timeout=5)[0]


def test_a_session_token_that_nobody_renews_takes_its_roles_with_it(database: Postgres, issuer: Vault) -> None:
    eventually(lambda: database.sql(ISSUED) == "0" or bool(issuer.client().sys.revoke_prefix("database/creds")))
    session_client(issuer, "2s").read("database/creds/orders-readonly")
    assert database.sql(ISSUED) == "1"
    eventually(lambda: database.sql(ISSUED) == "0")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("database/creds/orders-readonly", None),
        ("sys/mounts", None),
        ("auth/token/create", {"policies": ["doorward-session"]}),
        ("auth/token/create", {"policies": ["root"]}),
        ("auth/token/create/doorward-session", {"policies": ["root"]}),
    ],
)
def test_the_gateways_token_can_neither_read_nor_widen(issuer: Vault, path: str, fields: dict[str, str] | None) -> None:
    client = issuer.client(issuer.gateway_token())
    with pytest.raises((hvac.exceptions.Forbidden, hvac.exceptions.InvalidRequest)):
        client.write_data(path, data=fields) if fields else client.read(path)


def test_opa_keeps_grants_over_a_kill_and_nobody_adds_a_token(tmp_path: Path) -> None:
    with opa(tmp_path) as first:
        first.put("grants/alice/one", GRANT, role="gateway")
        with first.client("admin") as client:
            assert client.put("/v1/data/tokens/x", json={"role": "admin"}).status_code == 400
        os.kill(first.process.pid, signal.SIGKILL)
    with opa(tmp_path) as second, second.client("gateway") as client:
        assert client.get("/v1/data/grants/alice/one").json()["result"] == GRANT


def test_a_collector_starts_and_knows_no_trace(tmp_path: Path) -> None:
    with jaeger(tmp_path) as started:
        assert started.trace("0" * 31 + "1") == []


def test_ending_spares_a_process_that_is_not_ours_any_more(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    running = processes.start("sleeper", ["sleep", "60"])
    stale = type(running)(running.name, running.pid, "another boot:1", running.log)
    stale.end()
    assert running.is_alive()
    Processes(tmp_path).end()
    assert not running.is_alive()


@pytest.mark.docker
def test_the_profile_allows_debugging_and_no_namespaces(engine: Docker, built: Images) -> None:
    script = "psql --version && ps ax >/dev/null && git --version && ! unshare -U true && ! mount -t tmpfs x /mnt"
    assert "psql (PostgreSQL)" in run_in(engine, built.debug, ["/bin/sh", "-c", f"{{ {script}; }} 2>&1"])


@pytest.mark.docker
def test_the_tiny_images_hold_what_they_say(engine: Docker, built: Images) -> None:
    assert run_in(engine, built.shonly, ["/bin/sh", "-c", "echo $((6*7))"]).strip() == "42"
    with pytest.raises(AssertionError, match="no such file"):
        run_in(engine, built.noshell, ["/bin/sh"])


def run_in(engine: Docker, image: str, command: list[str]) -> str:
    """Run under the profile, as hardened as a workspace; what it printed."""
    host = {
        "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={SECCOMP.read_text()}"],
    }  # fmt: skip
    body = {"Image": image, "Cmd": command, "Tty": True, "HostConfig": host, "Labels": {"doorward.session": "test"}}
    with engine.client() as client:
        container = client.post("/containers/create", json=body).raise_for_status().json()["Id"]
        try:
            started = client.post(f"/containers/{container}/start")
            assert started.status_code == 204, started.text
            status = client.post(f"/containers/{container}/wait").json()["StatusCode"]
            output = client.get(f"/containers/{container}/logs", params={"stdout": "true", "stderr": "true"}).text
            assert status == 0, output
            return output
        finally:
            client.delete(f"/containers/{container}", params={"force": "true"})


@pytest.mark.docker
@pytest.mark.slow
def test_up_is_idempotent_and_down_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("docker", "images")
    directory = tmp_path / "stack"
    demo.up(directory)
    pids = [running.pid for running in Processes(directory).running]
    demo.up(directory)
    assert "already up" in capsys.readouterr().out
    assert [running.pid for running in Processes(directory).running] == pids
    assert demo.status(directory) == 0
    data = (directory / "postgres-data").resolve()
    demo.down(directory)
    demo.down(directory)
    assert not directory.exists()
    assert not data.exists()
    assert str(directory) not in Path("/proc/self/mounts").read_text()
    assert all(str(directory) not in command_line(pid) for pid in pids)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_fresh_machine_is_given_every_package_that_a_part_may_lack() -> None:
    """`make test` must find nothing missing: a part that is not there is a failure in CI."""
    setup = (Path(__file__).parents[2] / "scripts" / "setup").read_text()
    [packages] = re.findall(r"^  test\) install ((?:.*\\\n)*.*)$", setup, flags=re.M)
    parts = (machine.PACKAGES, machine.ENGINE_PACKAGES, machine.CLUSTER_PACKAGES, machine.PODMAN_PACKAGES)
    wanted = {package for part in parts for package in part.values()}

    assert wanted <= {*packages.replace("\\", " ").split()}
