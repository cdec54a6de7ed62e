"""The story of one session, on real parts, with the stock OpenSSH client."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from tests.conftest import OpenDoor
from tests.e2e.world import ALICE, TARGET, Door, Site, in_seconds, in_time, until
from tests.stack import example
from tests.stack.opa import opa

PSQL = "psql -qAt -c"


def test_without_a_grant_the_engineer_is_told_why_and_what_to_do(door: Door) -> None:
    def told() -> float:
        """Authentication and refusal together."""
        started = time.monotonic()
        refused = door.ssh("true")
        took = time.monotonic() - started
        said = refused.stderr.decode()
        assert refused.returncode == 254
        assert refused.stdout == b""
        assert "no_grant" in said
        assert "#orders-oncall" in said or "ask" in said.lower()
        assert re.search(r"decision [0-9a-f-]{36}, session [0-9a-f]{16}", said)
        assert "Traceback" not in said
        return took

    in_time(1.5, told)


def test_with_a_grant_psql_works_without_an_argument_and_cannot_write(door: Door, site: Site) -> None:
    door.grant()

    answer = door.ssh(f"{PSQL} 'select count(*) from orders'")
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert int(answer.stdout) > 0

    refused = door.ssh(f"{PSQL} 'delete from orders'")
    assert refused.returncode == 1
    assert b"ERROR" in refused.stderr

    readonly = door.ssh("touch /etc/x")
    assert readonly.returncode == 1
    assert b"Read-only file system" in readonly.stderr
    site.nothing_left()


def test_the_password_is_nowhere_but_in_the_tmpfs(open_door: OpenDoor, site: Site) -> None:
    """Nor is a token of Vault's, OPA's or the door's anywhere, however much the gateway says."""
    with open_door(log_level="debug") as door:
        door.grant()
        with door.terminal("sed -n 's/^password=/the password: /p' $PGSERVICEFILE; echo ended; sleep 300") as terminal:
            [password] = re.findall("the password: (.*)\r", terminal.wait_for("ended"))
            secrets = {
                "password": password,
                "Vault's token": site.vault.gateway_token_file.read_text().strip(),
                "OPA's token": site.opa.token_files["gateway"].read_text().strip(),
                "the door's token": example.door_token(site.directory).read_text(),
            }
            assert all(len(secret) > 15 for secret in secrets.values())

            [container] = site.containers()
            with site.docker.client() as client:
                inspected = client.get(f"/containers/{container}/json").text
                processes = client.get(f"/containers/{container}/top").text
            environment = door.ssh("env; cat /proc/self/environ").stdout.decode("utf-8", "replace")
        trace = door.audit("lease")[0]["trace_id"]
        until(lambda: any(span["operationName"] == "lease" for span in site.jaeger.trace(trace)))
        places = {
            "docker inspect": inspected,
            "docker top": processes,
            "environment": environment,
            "gateway log": door.log.read_text(),
            "audit log": (door.directory / "state" / "audit.jsonl").read_text(),
            "OPA's decision log": site.opa.decision_log.read_text(),
            "trace": json.dumps(site.jaeger.trace(trace)),
        }
    assert [(what, name) for what, secret in secrets.items() for name, text in places.items() if secret in text] == []


def test_a_terminal_sees_one_line_of_notice_and_a_script_none(door: Door) -> None:
    door.grant()
    with door.terminal() as terminal:
        terminal.wait_for("$ ")
        seen = terminal.wait_for("not recorded")  # on stderr, which the client may well write after the prompt
        [notice] = [line for line in seen.splitlines() if "doorward: grant" in line]
        assert all(word in notice for word in ("INC-1", TARGET, "until", "not recorded"))
        terminal.type("exit 3\n")
        assert terminal.wait_end() == 3

    quiet = door.ssh("echo out; echo err >&2")
    assert (quiet.stdout, quiet.stderr) == (b"out\n", b"err\n")


def test_the_container_is_hardened(door: Door, site: Site) -> None:
    door.grant()
    with door.terminal() as terminal:
        terminal.wait_for("$ ")
        [container] = site.containers()
        with site.docker.client() as client:
            found: dict[str, Any] = client.get(f"/containers/{container}/json").json()
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] in (None, [])
    assert host["NetworkMode"] == "none"
    assert host["PidsLimit"] == 256
    assert host["Memory"] == 512 * 2**20
    assert host["NanoCpus"] == 10**9
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert any(option.startswith("seccomp=") for option in host["SecurityOpt"])
    assert not found["Config"]["User"].startswith("0")
    assert found["Image"].startswith("sha256:")


def test_deleting_the_grant_ends_the_session_and_cuts_the_open_database_connection(door: Door, site: Site) -> None:
    def gone() -> float:
        door.grant()
        with door.terminal(f"{PSQL} 'select current_user' -c 'select pg_sleep(300)'") as terminal:
            role = until(lambda: (site.roles() or [""])[0])
            until(lambda: site.backends_of(role) == 1)
            deleted = time.monotonic()
            door.revoke()
            status = terminal.wait_end()
            site.nothing_left()
            took = time.monotonic() - deleted
        assert status == 254
        assert "doorward: grant_deleted:" in terminal.seen
        assert site.backends_of(role) == 0
        return took

    in_time(2, gone)
    ended = [record for record in door.audit("live") if record["outcome"] == "end"]
    assert ended[0]["grant"] == "INC-1"


def test_a_grant_deleted_straight_at_opa_ends_the_session_by_the_sweep(door: Door, site: Site) -> None:
    def told() -> float:
        door.grant()
        with door.terminal("sleep 300") as terminal:
            until(site.containers)
            terminal.wait_for("doorward: grant")
            deleted = time.monotonic()
            site.opa.delete("grants/alice/INC-1", role="automation")
            assert terminal.wait_end() == 254
            took = time.monotonic() - deleted
        site.nothing_left()
        return took

    in_time(2, told)


def test_only_the_session_that_stood_on_the_grant_ends(door: Door, site: Site) -> None:
    door.grant("INC-1")
    with door.terminal("echo first; sleep 300") as first:
        first.wait_for("first")
        door.grant("INC-2", ends_at=in_seconds(7000))
        with door.terminal("echo second; sleep 300") as second:
            second.wait_for("second")
            door.revoke("INC-1")
            assert first.wait_end() == 254
            assert [session["grant"] for session in door.sessions()] == ["INC-2"]
            assert second.process.poll() is None
    site.nothing_left()


def test_the_grants_own_end_is_warned_of_and_ends_the_session(open_door: OpenDoor, site: Site) -> None:
    with open_door() as door:
        door.grant(ends_at=in_seconds(4))
        with door.terminal("sleep 300") as terminal:
            terminal.wait_for("the grant ends in")
            assert terminal.wait_end(8) == 254
        assert "grant_ended" in terminal.seen
        site.nothing_left()


def test_the_longest_duration_and_idleness_end_sessions_after_a_warning(open_door: OpenDoor, site: Site) -> None:
    session = site.target()["session"]
    with open_door(target=site.target(session={**session, "max_seconds": 3, "warn_seconds": 1})) as door:
        door.grant()
        with door.terminal("sleep 300") as terminal:
            terminal.wait_for("the session's longest duration in 1 s")
            assert terminal.wait_end(6) == 254
        assert "doorward: max_duration:" in terminal.seen
    with open_door(target=site.target(session={**session, "idle_seconds": 2, "warn_seconds": 1})) as door:
        door.grant()
        with door.terminal() as terminal:
            terminal.wait_for("$ ")
            terminal.wait_for("idle session ends in 1 s")
            assert terminal.wait_end(6) == 254
        assert "doorward: idle:" in terminal.seen
    site.nothing_left()


def test_one_trace_tells_the_whole_story_and_the_audit_names_it(
    open_door: OpenDoor, site: Site, tmp_path: Path
) -> None:
    with opa(tmp_path / "opa", otlp_grpc=site.jaeger.otlp_grpc) as server:
        example.load(server, {TARGET: site.target()}, {ALICE: example.ssh_key(site.directory)})
        token = {"file": str(server.token_files["gateway"])}
        with open_door(policy={"url": server.url, "token": token}) as door:
            door.grant()
            inside = door.ssh("echo $TRACEPARENT").stdout.decode().strip()
            site.nothing_left()
            trace = inside.split("-")[1]
            story = [record for record in door.audit() if record["trace_id"] == trace]
            spans = until(lambda: _arrived(site, trace))  # OPA sends its own every 5 s
    assert {record["event"] for record in story} >= {"accept", "authn", "config", "lease", "workspace", "relay", "gone"}
    assert {record["session"] for record in story} == {story[0]["session"]}
    names = {span["operationName"] for span in spans}
    assert names >= {"connection", "authn", "config", "lease", "workspace", "agent", "request", "relay", "gone"}
    assert len([span for span in spans if not span["references"]]) == 1


def _arrived(site: Site, trace: str) -> list[dict[str, Any]]:
    """The spans of `trace`, once its root and OPA's are there."""
    found = site.jaeger.trace(trace)
    names = {span["operationName"] for span in found}
    return found if "connection" in names and any("v1/data" in name for name in names) else []


def test_the_audit_log_verifies_and_every_decision_has_its_ids(door: Door) -> None:
    door.grant()
    assert door.ssh("true").returncode == 0
    until(lambda: [record for record in door.audit("gone") if record["of"] == "connection"])

    assert door.doorward("audit", "verify").returncode == 0
    decisions = [record for record in door.audit() if "decision" in record]
    assert {record["decision"] for record in decisions} >= {
        "gateway/authn/decision", "gateway/config/decision", "gateway/authz/decision", "gateway/admission/decision",
    }  # fmt: skip
    assert all(record["decision_id"] and record["opa_decision_id"] and record["input"] for record in decisions)
