"""DESIGN's table, by really stopping each part: an explained refusal in under 3 s, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import OpenDoor
from tests.e2e.world import ALICE, TARGET, Door, Site, in_time, until
from tests.stack import example
from tests.stack.docker import docker
from tests.stack.images import images
from tests.stack.opa import POLICIES, Opa, opa
from tests.stack.vault import Vault, vault

EXPLAINED_SECONDS = 3.0


def refused(door: Door, code: str, status: int = 254) -> None:
    """`ssh` is refused, explained by `code`, in time."""

    def told() -> float:
        started = time.monotonic()
        ran = door.ssh("true", options=("-o", "LogLevel=INFO"))  # ssh shows banners from INFO on, its default
        took = time.monotonic() - started
        said = ran.stderr.decode()
        assert ran.returncode == status, said
        assert f"doorward: {code}:" in said
        assert "what to do:" in said
        assert "Traceback" not in said
        return took

    in_time(EXPLAINED_SECONDS, told)


@contextmanager
def own_opa(site: Site, directory: Path, policies: Path | None = None) -> Iterator[Opa]:
    with opa(directory / "opa", policies=policies or POLICIES) as server:
        example.load(server, {TARGET: site.target()}, {ALICE: example.ssh_key(site.directory)})
        yield server


def policy_of(server: Opa) -> dict[str, object]:
    return {"url": server.url, "token": {"file": str(server.token_files["gateway"])}}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_opa_down_refuses_new_sessions_and_ends_running_ones_after_the_permits_grace(
    open_door: OpenDoor, site: Site, tmp_path: Path
) -> None:
    with own_opa(site, tmp_path) as server:
        session = {**site.target()["session"], "policy_grace_seconds": 4}
        server.put(f"targets/{TARGET}", site.target(session=session))
        with open_door(policy=policy_of(server)) as door:
            door.grant()
            with door.terminal("echo up; sleep 300") as terminal:
                terminal.wait_for("up")
                server.process.end()
                down = time.monotonic()
                refused(door, "policy_unreachable", 255)
                assert terminal.process.poll() is None, "within its grace it goes on"
                assert terminal.wait_end() == 254
                assert 3 < time.monotonic() - down < 10
            assert "doorward: policy_unreachable:" in terminal.seen
            site.nothing_left()


def test_opa_slow_refuses_new_sessions(open_door: OpenDoor, site: Site, tmp_path: Path) -> None:
    with own_opa(site, tmp_path) as server, open_door(policy=policy_of(server)) as door:
        door.grant()
        with stopped(server.process.pid):
            refused(door, "policy_timeout", 255)
        assert door.ssh("echo back").stdout == b"back\n"
    site.nothing_left()


NONSENSE = {
    "undefined": ("policy_undefined", "package gateway.config\n"),
    "malformed": ("policy_malformed", 'package gateway.config\ndecision := {"allow": true, "permit": {"grant": 7}}\n'),
    "not an object": ("policy_malformed", "package gateway.config\ndecision := true\n"),
    "two values": (
        "policy_failed", "package gateway.config\ndecision := x if some x in [{}, {\"allow\": true}]\n",
    ),
    "builtin error": (
        "policy_failed",
        'package gateway.config\ndecision := {"allow": false, "reasons": [time.parse_rfc3339_ns("x")]}\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NONSENSE)
def test_opa_answering_nonsense_refuses(open_door: OpenDoor, site: Site, tmp_path: Path, case: str) -> None:
    code, rego = NONSENSE[case]
    policies = tmp_path / "policies"
    for file in POLICIES.rglob("*.rego"):
        if file.parent.name != "config":
            target = policies / file.relative_to(POLICIES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.read_text())
    (policies / "config.rego").write_text(rego)
    with own_opa(site, tmp_path, policies) as server, open_door(policy=policy_of(server)) as door:
        refused(door, code)
        asked = door.audit("config")[0]
        assert asked["outcome"] == "failed"
        assert asked["input"]["login"] == {"user": ALICE}
    assert not site.containers()


@pytest.fixture
def own_vault(site: Site, tmp_path: Path) -> Iterator[Vault]:
    with vault(tmp_path / "vault", site.postgres) as server:
        yield server


def issuer_of(server: Vault) -> dict[str, object]:
    return {"vault": {"url": server.url, "token": {"file": str(server.gateway_token_file)}}}


def test_vault_sealed_down_or_slow_refuses(open_door: OpenDoor, site: Site, own_vault: Vault) -> None:
    with open_door(credentials=issuer_of(own_vault)) as door:
        door.grant()
        with stopped(own_vault.process.pid):
            refused(door, "vault_unreachable")
        own_vault.client().sys.seal()
        refused(door, "vault_sealed")
        own_vault.process.end()
        refused(door, "vault_unreachable")
    assert not site.containers()


def test_vault_stopping_leaves_a_running_session_until_its_lease_ends(
    open_door: OpenDoor, site: Site, own_vault: Vault
) -> None:
    [credential] = site.target()["credentials"]
    target = site.target(credentials=[{**credential, "ttl_seconds": 6}])
    with open_door(target=target, credentials=issuer_of(own_vault)) as door:
        door.grant()
        with door.terminal("echo up; sleep 300") as terminal:
            terminal.wait_for("up")
            own_vault.process.end()
            assert terminal.wait_end() == 254
        assert "doorward: credentials_lost:" in terminal.seen
        until(lambda: not site.containers())
    site.postgres.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename like 'v-%'; "
        + "".join(f'drop role "{role}";' for role in site.roles())
    )  # its Vault is gone for good, so nobody else will


def test_docker_down_refuses_and_a_running_session_ends_with_its_lease_revoked(
    open_door: OpenDoor, site: Site, tmp_path: Path
) -> None:
    from tests.stack.process import Processes

    with docker(Path(f"/tmp/dw-d{os.getpid()}")) as engine:
        if not engine.is_ours:
            pytest.skip("the machine's own engine is not ours to kill")
        target = site.target(image=images(engine).debug)
        with open_door(target=target, backends={"docker": {"url": engine.host}}) as door:
            door.grant()
            with door.terminal("echo up; sleep 300") as terminal:
                terminal.wait_for("up")
                [running] = Processes(Path(f"/tmp/dw-d{os.getpid()}")).running
                with stopped(running.pid):
                    refused(door, "workspace_unavailable")
                running.end()
                assert terminal.wait_end() != 0
                until(lambda: not site.roles())
            refused(door, "workspace_unavailable")
            until(lambda: not site.roles())


def test_an_audit_log_that_is_full_refuses_pauses_and_ends(open_door: OpenDoor, site: Site, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], check=True)
    try:
        file = small / "audit.jsonl"
        with open_door(audit={"file": str(file), "grace_seconds": 1}) as door:
            door.grant()
            with door.terminal("echo up; cat") as terminal:
                terminal.wait_for("up")
                (small / "filler").write_bytes(b"")
                _fill(small / "filler")
                refused(door, "audit_unavailable", 255)
                # Where a long record does not fit, a short one may still fill the file's last page: until none does.
                until(lambda: terminal.process.poll() is not None or door.ssh("true").returncode == 0)
                assert terminal.wait_end() == 254
            assert "doorward: audit_unavailable:" in terminal.seen
            site.nothing_left()
            (small / "filler").unlink()
            assert door.ssh("echo back").stdout == b"back\n"
            assert door.doorward("audit", "verify", str(file)).returncode == 0
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(bytes(4096))
            except OSError:
                return


def test_an_exporter_that_is_down_slows_and_breaks_nothing(open_door: OpenDoor, site: Site) -> None:
    for exporter in ("otlp_http", "otlp_grpc"):
        with open_door(telemetry={"exporter": exporter, "endpoint": "http://127.0.0.1:9"}) as door:
            door.grant()

            def served(door: Door = door) -> float:
                started = time.monotonic()
                assert door.ssh("echo fine").stdout == b"fine\n"
                return time.monotonic() - started

            in_time(3, served)
    site.nothing_left()


def test_otlp_over_grpc_arrives(open_door: OpenDoor, site: Site) -> None:
    with open_door(telemetry={"exporter": "otlp_grpc", "endpoint": site.jaeger.otlp_grpc}) as door:
        door.grant()
        trace = door.ssh("echo $TRACEPARENT").stdout.decode().split("-")[1]
        until(lambda: site.jaeger.trace(trace))
    site.nothing_left()
