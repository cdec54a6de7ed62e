"""What the commands do to a running gateway, with and without `--json`, and their exit statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.audit.log import AuditLog
from gateway.audit.rotation import Keeping
from gateway.audit.segments import closed
from tests.authn.octocat import CLIENT as GITHUB_CLIENT
from tests.authn.octocat import Github
from tests.authn.provider import StandIn
from tests.cli.commands import doorward, written
from tests.door.engineer import connected, granted
from tests.door.running import TOKEN, Running, settings_tree
from tests.policy.world import ALICE, ORDERS, data, grant
from tests.stack.opa import Opa
from tests.stack.process import free_port, write_secret


@pytest.fixture
async def door(opa_server: Opa, tmp_path: Path) -> AsyncIterator[Running]:
    async with granted(tmp_path, opa_server) as opened:
        yield opened


# -- sessions -------------------------------------------------------------------------------------------------------


async def test_sessions_are_listed_judged_again_and_ended(door: Running) -> None:
    async with connected(door) as connection:
        process = await connection.create_process("echo up; cat")
        assert await process.stdout.readline() == "up\n"
        told, shown, judged = await asyncio.gather(
            doorward("sessions", "--config", door.file),
            doorward("sessions", "--json", "--config", door.file),
            doorward("sessions", "reevaluate", "--json", "--config", door.file),
        )
        [session] = shown.json
        ended = await doorward("sessions", "end", session["id"], "--config", door.file)
        result = await process.wait()

    assert (session["person"], session["target"], session["grant"]) == (ALICE, ORDERS, "INC-1")
    assert told.out.splitlines()[0].split() == ["SESSION", "PERSON", "TARGET", "GRANT", "UNTIL", "IDLE", "BACKEND"]
    assert session["id"] in told.out.splitlines()[1]
    assert judged.json == {"judged": 1}
    assert (ended.status, ended.out) == (0, f"ended {session['id']}\n")
    assert result.exit_status == 254
    assert "ended_by_operator" in str(result.stderr)


async def test_nobody_inside_is_no_error_and_an_unknown_session_is(door: Running) -> None:
    told, shown, ended = await asyncio.gather(
        doorward("sessions", "--config", door.file),
        doorward("sessions", "--json", "--config", door.file),
        doorward("sessions", "end", "0123456789abcdef", "--config", door.file),
    )

    assert (told.status, told.out) == (0, "no live sessions\n")
    assert (shown.status, shown.json) == (0, [])
    assert ended.status == 1
    assert "no live session 0123456789abcdef" in ended.err
    assert "`doorward sessions` lists those that live" in ended.err


async def test_without_a_gateway_the_remedy_is_to_start_one(tmp_path: Path) -> None:
    ran = await doorward("sessions", "--config", written(tmp_path, {"state_dir": str(tmp_path / "state")}))

    assert ran.status == 1
    assert "no gateway answers" in ran.err
    assert "doorward serve" in ran.err


# -- grants ---------------------------------------------------------------------------------------------------------


async def test_a_grant_is_added_listed_and_removed(door: Running) -> None:
    words: list[str | Path] = [
        "--reason",
        "orders are stuck",
        "--approved-by",
        "erin",
        "--minutes",
        "5",
        "--config",
        door.file,
    ]
    added = await doorward("grants", "add", "bob", ORDERS, "--id", "INC-5", *words)
    told, shown, everyone = await asyncio.gather(
        doorward("grants", "list", "bob", "--config", door.file),
        doorward("grants", "list", "bob", "--json", "--config", door.file),
        doorward("grants", "list", "--json", "--config", door.file),
    )
    removed = await doorward("grants", "remove", "bob", "INC-5", "--config", door.file)
    after = await doorward("grants", "list", "bob", "--config", door.file)

    assert added.status == 0
    assert "doorward grants remove bob INC-5" in added.out
    assert told.out.splitlines()[1].startswith("bob     INC-5  orders-db")
    assert [row["value"]["requested_by"] for row in shown.json] == ["ticketing"]
    assert [row["person"] for row in everyone.json] == ["alice", "bob"]
    assert (removed.status, removed.out) == (0, "removed: bob INC-5\n")
    assert after.out == "no grants\n"


async def test_a_grant_that_is_not_there_is_not_said_to_be_removed(door: Running) -> None:
    """Else one whose name was mistyped would be taken for access that has ended."""
    ran = await doorward("grants", "remove", "bob", "INC-404", "--config", door.file)

    assert (ran.status, ran.out) == (1, "")
    assert "doorward: unknown_grant: bob has no grant INC-404" in ran.err
    assert "doorward grants list bob" in ran.err


async def test_an_added_grant_gets_an_id_and_can_be_told_as_json(door: Running) -> None:
    words: list[str | Path] = ["--reason", "x", "--approved-by", "erin", "--json", "--config", door.file]
    added = await doorward("grants", "add", "bob", ORDERS, *words)

    assert added.json["id"].startswith("cli-")
    assert [record["path"] for record in door.records("grant")][-1] == f"grants/bob/{added.json['id']}"


async def test_a_refused_grant_says_the_field_and_what_to_do(door: Running) -> None:
    words: list[str | Path] = ["--reason", "x", "--minutes", "999999", "--approved-by", "bob", "--config", door.file]
    ran = await doorward("grants", "add", "bob", "no-such", *words)

    assert (ran.status, ran.out) == (1, "")
    assert "target: target names no target that exists." in ran.err
    assert "approved_by: Nobody approves a grant of their own." in ran.err
    assert "what to do:" in ran.err


async def test_the_token_is_the_only_clients_or_the_one_that_is_named(door: Running, tmp_path: Path) -> None:
    wrong = write_secret(tmp_path / "wrong.token", "wrong")
    right = write_secret(tmp_path / "right.token", TOKEN)
    words: list[str | Path] = ["grants", "add", "bob", ORDERS, "--reason", "x", "--approved-by", "erin"]
    words += ["--config", door.file]
    by_file, by_variable, both = await asyncio.gather(
        doorward(*words, "--token-file", wrong),
        doorward(*words, env={"DOORWARD_TOKEN_FILE": str(wrong)}),
        doorward(*words, "--token-file", right, env={"DOORWARD_TOKEN_FILE": str(wrong)}),
    )

    assert [ran.status for ran in (by_file, by_variable, both)] == [1, 1, 0]
    assert "no client has this token" in by_file.err


async def test_a_door_that_is_not_there_or_no_door_is_told(door: Running, tmp_path: Path) -> None:
    words: list[str | Path] = ["grants", "remove", "bob", "INC-404"]
    doorless = written(tmp_path / "state", {"state_dir": str(tmp_path)})
    closed, none, other = await asyncio.gather(
        doorward(*words, "--config", door.file, "--door", f"http://127.0.0.1:{free_port()}"),
        doorward(*words, "--config", doorless),
        doorward(*words, "--config", door.file, "--door", "ftp://127.0.0.1"),
    )

    unread = await doorward(*words, "--config", door.file, "--ca-file", doorless)

    assert [ran.status for ran in (closed, none, other, unread)] == [1, 1, 1, 1]
    assert f"--ca-file: {doorless}: " in unread.err
    assert "door.listen" in closed.err
    assert "cannot be reached" in closed.err
    assert "has no grants door" in none.err
    assert "cannot be reached" in other.err


async def test_an_address_that_speaks_no_json_is_told(door: Running) -> None:
    from aiohttp import web

    from tests.policy.servers import serving

    async def page(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>it works</html>", content_type="text/html")

    async with serving(page) as url:
        ran = await doorward("grants", "remove", "bob", "INC-404", "--config", door.file, "--door", url)
    assert ran.status == 1
    assert "is it the right address?" in ran.err


async def test_control_characters_in_a_grant_are_not_obeyed_by_the_terminal(door: Running) -> None:
    await door.put("bob/INC-6", grant(reason="\x1b[2J\x1b]0;owned\x07 stuck"))
    told, shown = await asyncio.gather(
        doorward("grants", "list", "bob", "--config", door.file),
        doorward("grants", "list", "bob", "--json", "--config", door.file),
    )

    assert "?[2J?]0;owned? stuck" in told.out
    assert not any(ord(char) < 32 for char in told.out.replace("\n", ""))
    assert shown.json[0]["value"]["reason"] == "\x1b[2J\x1b]0;owned\x07 stuck"


# -- audit ----------------------------------------------------------------------------------------------------------


async def test_audit_verify_goes_through_all_files(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    async with AuditLog.open(log, Keeping(rotate_bytes=1)) as audit:
        for number in range(3):
            await audit.record("step", {"number": number})
    whole = await doorward("audit", "verify", log)
    gone = closed(log)[0].path
    gone.unlink()
    told, shown = await asyncio.gather(doorward("audit", "verify", log), doorward("audit", "verify", log, "--json"))

    assert (whole.status, whole.out.strip()) == (0, f"{log}: 5 records in 3 files, whole")
    assert told.status == shown.status == 1
    assert f"records 1 to 1 are missing before {closed(log)[0].path.name}" in told.out
    assert (shown.json["files"], shown.json["records"]) == (2, 4)
    assert gone.name in shown.json["faults"][0]

    damaged = closed(log)[0].path
    damaged.write_bytes(damaged.read_bytes().replace(gone.name.encode(), rb"\u001b[2J"))
    told = await doorward("audit", "verify", log)
    assert "the last of them were in ?[2J" in told.out, "no terminal obeys what was written into a log"


async def test_audit_verify_finds_a_changed_record(door: Running, tmp_path: Path) -> None:
    log = door.settings.audit_file
    copy = tmp_path / "copy.jsonl"
    copy.write_text(log.read_text().replace("orders are stuck", "orders are fine", 1))
    copy.with_name("copy.jsonl.head").write_text(log.with_name("audit.jsonl.head").read_text())
    whole, told, shown, missing = await asyncio.gather(
        doorward("audit", "verify", "--config", door.file),
        doorward("audit", "verify", copy),
        doorward("audit", "verify", copy, "--json"),
        doorward("audit", "verify", tmp_path / "missing"),
    )

    assert whole.status == 0
    assert "records, whole" in whole.out
    assert told.status == shown.status == 1
    assert "was changed" in told.out
    assert any("was changed" in fault for fault in shown.json["faults"])
    assert missing.status == 1
    assert "cannot be read" in missing.err


# -- check ----------------------------------------------------------------------------------------------------------


def findings(ran: Any) -> dict[str, dict[str, Any]]:
    return {finding["what"]: finding for finding in ran.json}


def failing(ran: Any) -> set[str]:
    return {what for what, finding in findings(ran).items() if not finding["ok"]}


async def test_check_is_content_when_everything_is_there(door: Running, opa_server: Opa) -> None:
    for target in (ORDERS, "reports"):
        opa_server.delete(f"targets/{target}")
    opa_server.put("grants", {})
    told, shown = await asyncio.gather(
        doorward("check", "--config", door.file), doorward("check", "--json", "--config", door.file)
    )

    assert (told.status, shown.status) == (0, 0)
    assert all(line.startswith("ok  ") for line in told.out.splitlines())
    assert {"settings", "host keys", "audit log", "OPA", "policy gateway/authz/live"} <= findings(shown).keys()


async def test_check_reports_malformed_grants_and_targets_without_a_backend(door: Running, opa_server: Opa) -> None:
    opa_server.put("grants/alice/INC-7", {"target": 7}, role="automation")
    told, shown = await asyncio.gather(
        doorward("check", "--config", door.file), doorward("check", "--json", "--config", door.file)
    )

    assert told.status == 1
    assert "1 grants are malformed and have no effect: alice/INC-7" in told.out
    assert failing(shown) == {"policy gateway/grants/malformed", f"target {ORDERS}", "target reports"}
    assert "[backends.process]" in findings(shown)[f"target {ORDERS}"]["remedy"]
    assert told.out.count("what to do:") == 3


async def test_check_names_what_is_wrong_with_a_target_by_field(door: Running, opa_server: Opa) -> None:
    """As policy says, and not only what a workspace is made of: from such an entry nobody gets a permit."""
    given = [{"name": "a", "issuer": "vault", "role": "r", "ttl_seconds": 60,
              "deliver": {"kind": "postgres", "host": "db", "port": 5432, "dbname": "x"}}]  # fmt: skip
    service = {"namespace": "shop", "selector": {"app": "payments-api"}, "share_processes": True}
    opa_server.put(f"targets/{ORDERS}", {**data()["targets"][ORDERS], "credentials": given, "pod": {"beside": service}})
    shown = await doorward("check", "--json", "--config", door.file)

    says = findings(shown)[f"target {ORDERS}"]["says"]
    assert "credentials: beside a service there is no place" in says
    assert "pod.beside.container: needed by share_processes" in says
    assert shown.status == 1


async def test_check_names_each_part_that_is_missing_and_its_remedy(opa_server: Opa, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    no_opa = settings_tree(tmp_path, opa_server, policy={"url": nowhere})
    wrong_token = settings_tree(
        tmp_path, opa_server, policy={"token": {"file": str(write_secret(tmp_path / "wrong", "wrong"))}}
    )
    no_vault = settings_tree(
        tmp_path, opa_server,
        credentials={"vault": {"url": nowhere, "token": {"file": str(tmp_path / "wrong")}}},
    )  # fmt: skip
    no_docker = settings_tree(tmp_path, opa_server, backends={"docker": {"url": f"unix://{tmp_path}/none.sock"}})
    no_key = settings_tree(tmp_path, opa_server, ssh={"host_keys": [str(tmp_path / "none.key")]})
    no_log = settings_tree(tmp_path, opa_server, audit={"file": str(tmp_path)})
    no_folder = settings_tree(tmp_path, opa_server, state_dir=str(write_secret(tmp_path / "file", "") / "state"))
    no_ca = settings_tree(tmp_path, opa_server, policy={"url": "https://127.0.0.1:1", "ca_file": str(tmp_path / "ca")})
    cases = {"OPA": no_opa, "OPA ": wrong_token, "issuer": no_vault, "backend": no_docker, "host keys": no_key}
    cases |= {"audit log": no_log, "OPA  ": no_ca, "state folder": no_folder}
    files = []
    for number, settings in enumerate(cases.values()):
        (tmp_path / str(number)).mkdir()
        files.append(written(tmp_path / str(number), settings))
    opa_server.put("grants", {})
    ran = await asyncio.gather(*(doorward("check", "--json", "--config", file) for file in files))

    for part, result in zip(cases, ran, strict=True):
        failed = [
            found for what, found in findings(result).items() if what.startswith(part.strip()) and not found["ok"]
        ]
        assert result.status == 1, part
        assert failed, (part, result.out)
        assert all(found["says"] and found["remedy"] for found in failed), failed
        assert findings(result)["settings"]["ok"], "the parts that are there are still looked at"
    assert failing(ran[0]) == {"OPA"}, "that OPA is down is said once"


async def test_check_has_identity_providers_begin_a_login(opa_server: Opa, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with StandIn().open() as oidc, Github().open() as github:
        github.is_enabled = False
        authn = {
            "oidc": {
                "corp": {"issuer": oidc.url, "client_id": "doorward"},
                "down": {"issuer": nowhere, "client_id": "doorward"},
            },
            "github": {"hub": {"client_id": GITHUB_CLIENT, "url": github.url, "api_url": github.url}},
        }
        file = written(tmp_path, settings_tree(tmp_path, opa_server, authn=authn))
        found = findings(await doorward("check", "--json", "--config", file))

    assert found["identity provider corp"]["says"] == f"sends people to {oidc.url}/activate"
    assert not found["identity provider down"]["ok"]
    assert not found["identity provider hub"]["ok"]
    assert oidc.count("/token") == 0

    authn["oidc"]["corp"]["ca_file"] = str(tmp_path / "none.pem")
    file = written(tmp_path, settings_tree(tmp_path, opa_server, authn=authn))
    found = findings(await doorward("check", "--json", "--config", file))
    assert "authn.oidc.corp.ca_file" in found["identity providers"]["says"]


async def test_a_host_key_that_is_configured_is_shown_by_its_fingerprint(opa_server: Opa, tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "host.key")
    settings = settings_tree(tmp_path, opa_server, ssh={"host_keys": [str(tmp_path / "host.key")]})
    ran = await doorward("check", "--json", "--config", written(tmp_path, settings))

    assert findings(ran)["host keys"]["says"] == key.get_fingerprint()


async def test_check_reports_what_nobody_can_log_in_by(door: Running, opa_server: Opa) -> None:
    opa_server.put("door", {"chain": [["publickey", "totp"]], "verify": {"totp": {"kind": "totp", "source": "local"}}})
    try:
        told = await doorward("check", "--config", door.file)
    finally:
        opa_server.put("door", {})

    assert told.status == 1
    assert "door: totp is verified by totp, which this gateway has not set up" in told.out
