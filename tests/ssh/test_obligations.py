"""Obligations at the door, with the stock client and a real OPA: kept, or refused with their own code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.masks import HIDDEN, WITHHELD
from gateway.ssh.sftp.packets import Attributes, Kind, Status, packet, string
from tests.e2e.world import Terminal
from tests.ssh.files import Files, Wire, serving
from tests.ssh.obliging import codes, obliging, on_disk, ssh
from tests.ssh.test_desk import at_terminal
from tests.ssh.world import ALICE, Site, running, target
from tests.stack.opa import Opa
from tests.waiting import until

TRACED: dict[str, Any] = {"telemetry": {"exporter": "file"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opa]:
    with obliging(tmp_path_factory.mktemp("obliging")) as started:
        yield started


@pytest.fixture
def more(server: Opa) -> Iterator[Opa]:
    server.put("more", {})
    yield server
    server.put("more", {})


@pytest.fixture
async def site(more: Opa, tmp_path: Path, unexpected: list[Any]) -> AsyncIterator[Site]:
    async with running(more, tmp_path, **TRACED) as started:
        yield started
        await started.nothing_left()


# -- what cannot be kept is a deny -----------------------------------------------------------------------------------

UNKEPT: list[tuple[str, str, dict[str, Any], str]] = [
    ("unknown", "permit", {"kind": "dance"}, "policy_malformed"),
    ("malformed", "permit", {"kind": "mask"}, "policy_malformed"),
    ("misplaced", "permit", {"kind": "judge_sftp"}, "policy_malformed"),
    ("no recorder", "permit", {"kind": "record", "what": ["terminal"], "required": True}, "recording_unavailable"),
    ("no such hook", "permit", {"kind": "notify", "hook": "nobody"}, "hook_unknown"),
    ("to nobody", "permit", {"kind": "four_eyes", "approvers": "x", "seconds": 9, "hook": "nobody"}, "hook_unknown"),
    ("broken mask", "permit", {"kind": "mask", "patterns": ["("]}, "pattern_broken"),
    ("mask of nothing", "permit", {"kind": "mask", "patterns": ["x*"]}, "pattern_broken"),
    ("broken pattern", "permit", {"kind": "reason", "pattern": "("}, "pattern_broken"),
    ("unknown", "exec", {"kind": "dance"}, "policy_malformed"),
    ("malformed", "exec", {"kind": "record", "what": []}, "policy_malformed"),
    ("misplaced", "exec", {"kind": "four_eyes", "approvers": "x", "seconds": 9}, "policy_malformed"),
    ("files of a command", "exec", {"kind": "read_only_sftp"}, "policy_malformed"),
    ("no recorder", "exec", {"kind": "record", "what": ["terminal"], "required": True}, "recording_unavailable"),
    ("no such hook", "exec", {"kind": "notify", "hook": "nobody"}, "hook_unknown"),
    ("broken mask", "exec", {"kind": "mask", "patterns": ["("]}, "pattern_broken"),
]  # fmt: skip


@pytest.mark.parametrize(("note", "place", "obligation", "code"), UNKEPT, ids=[f"{n} ({p})" for n, p, *_ in UNKEPT])
async def test_a_condition_that_cannot_be_kept_is_a_refusal_with_its_code(
    site: Site, note: str, place: str, obligation: dict[str, Any], code: str
) -> None:
    site.opa.put("more", {place: [obligation]})

    told = await ssh(site, "echo", "ran")

    assert (told.returncode, told.stdout) == (254, "")
    assert f"doorward: {code}: " in told.stderr
    assert code in codes(site, "config" if place == "permit" else "request")
    assert not (place == "permit" and site.audit("workspace")), "nothing is started"


async def test_two_of_a_kind_are_a_refusal_and_two_masks_are_two(site: Site) -> None:
    site.opa.put("more", {"permit": [{"kind": "read_only_sftp"}] * 2})
    assert "policy_malformed" in (await ssh(site, "true")).stderr
    site.opa.put("more", {"permit": [{"kind": "mask", "patterns": ["one"]}, {"kind": "mask", "patterns": ["two"]}]})
    assert (await ssh(site, "echo one two three")).stdout == "one two three\n"
    await site.nothing_left()
    assert site.audit("relay")[-1]["channels"][0]["command"] == f"echo {HIDDEN} {HIDDEN} three"


# -- record ----------------------------------------------------------------------------------------------------------


async def test_what_should_be_recorded_and_need_not_is_told_as_not_recorded(site: Site) -> None:
    site.opa.put("more", {"permit": [{"kind": "record", "what": ["terminal"]}]})

    def play(terminal: Terminal) -> int:
        terminal.wait_for("not recorded, though policy wishes it of: terminal")
        terminal.type("exit 3\n")
        return terminal.wait_end()

    assert await at_terminal(site, ALICE, play) == 3
    [config] = site.audit("config")
    assert config["answer"]["permit"]["obligations"] == [{"kind": "record", "what": ["terminal"]}]


# -- mask ------------------------------------------------------------------------------------------------------------

SECRET = "s3-of-orders"


async def test_a_mask_of_the_session_hides_what_it_names_wherever_it_would_stand(site: Site) -> None:
    mask = {"kind": "mask", "patterns": [r"s3-[a-z-]+"], "env": ["LC_TOKEN"]}
    site.opa.put("more", {"permit": [mask]})

    told = await ssh(site, f"echo {SECRET} $LC_TOKEN", options=["-o", "SetEnv=LC_TOKEN=another"])

    assert told.stdout == f"{SECRET} another\n", "what runs sees all"
    await site.nothing_left()
    await until(lambda: '"name": "connection"' in on_disk(site), 60)  # the last span of all
    assert SECRET not in on_disk(site)
    assert "another" not in on_disk(site)
    requests = {record["input"]["request"]["kind"]: record["input"]["request"] for record in site.audit("request")}
    assert requests["exec"]["command"] == f"echo {HIDDEN} $LC_TOKEN"
    assert requests["env"]["value"] == HIDDEN
    assert site.audit("relay")[0]["channels"][0]["command"] == f"echo {HIDDEN} $LC_TOKEN"


async def test_a_mask_of_a_request_holds_for_its_own_record_and_from_then_on(site: Site) -> None:
    """The decision itself sees all: a rule on the clear text takes effect."""
    site.opa.put("more", {"exec": [{"kind": "mask", "patterns": [r"s3-[a-z-]+"]}]})

    assert (await ssh(site, f"echo {SECRET}")).stdout == f"{SECRET}\n"
    await site.nothing_left()
    await until(lambda: '"name": "connection"' in on_disk(site), 60)

    assert SECRET not in on_disk(site)
    await until(lambda: SECRET in site.opa.decision_log.read_text())  # which is OPA's to mask (docs/obligations.md)


async def test_where_the_mask_is_broken_what_was_asked_is_on_no_record(site: Site) -> None:
    site.opa.put("more", {"exec": [{"kind": "mask", "patterns": ["("]}]})

    assert (await ssh(site, f"echo {SECRET}")).returncode == 254
    await site.nothing_left()

    assert SECRET not in on_disk(site)
    [asked] = [r["input"]["request"] for r in site.audit("request") if r["input"]["request"]["kind"] == "exec"]
    assert asked == {"kind": "exec", "command": WITHHELD}


async def test_names_of_files_are_masked_too(more: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    more.put("more", {"permit": [{"kind": "mask", "patterns": [r"s3-[a-z-]+"]}]})
    for judged in (True, False):
        async with serving(more, tmp_path / str(judged), judged=judged, **TRACED) as files:
            (files.open / SECRET).write_bytes(b"x")
            status, _, err = await files.sftp(f"get {SECRET} {tmp_path}/down", f"-rename {SECRET} {files.see}/{SECRET}")
            assert status == 0, err
            operations = await files.all_operations()
            assert any(entry["path"].endswith(f"/{HIDDEN}") for entry in operations)
            assert SECRET not in on_disk(files.site)


# -- read_only_sftp --------------------------------------------------------------------------------------------------

ATTRIBUTES = Attributes(mode=0o600).encoded()
FLAGS = {"read": 1, "write": 2, "append": 4, "create": 8, "truncate": 16, "exclusive": 32}


def opening(*flags: str) -> tuple[Kind, tuple[bytes, ...]]:
    bits = sum(FLAGS[flag] for flag in flags)
    return Kind.OPEN, (string(b"note"), bits.to_bytes(4, "big"), Attributes().encoded())


def extended(name: str, *fields: bytes) -> tuple[Kind, tuple[bytes, ...]]:
    return Kind.EXTENDED, (string(name.encode()), *fields)


NOTE, OTHER = string(b"note"), string(b"other")
WRITES: list[tuple[str, tuple[Kind, tuple[bytes, ...]]]] = [
    ("open to write", opening("write")),
    ("open to read and write", opening("read", "write")),
    ("open to append", opening("read", "append")),
    ("open to create", opening("read", "create")),
    ("open to truncate", opening("read", "truncate")),
    ("open to create alone", opening("create", "exclusive")),
    ("remove", (Kind.REMOVE, (NOTE,))),
    ("rename", (Kind.RENAME, (NOTE, OTHER))),
    ("posix-rename", extended("posix-rename@openssh.com", NOTE, OTHER)),
    ("hardlink", extended("hardlink@openssh.com", NOTE, OTHER)),
    ("symlink", (Kind.SYMLINK, (NOTE, OTHER))),
    ("mkdir", (Kind.MKDIR, (OTHER, ATTRIBUTES))),
    ("rmdir", (Kind.RMDIR, (OTHER,))),
    ("setstat", (Kind.SETSTAT, (NOTE, ATTRIBUTES))),
    ("lsetstat", extended("lsetstat@openssh.com", NOTE, ATTRIBUTES)),
]
HELD: list[tuple[str, Any]] = [
    ("fsetstat", lambda handle: (Kind.FSETSTAT, (string(handle), ATTRIBUTES))),
    ("write", lambda handle: (Kind.WRITE, (string(handle), bytes(8), string(b"x")))),
    ("fsync", lambda handle: extended("fsync@openssh.com", string(handle))),
]
READS: list[tuple[str, tuple[Kind, tuple[bytes, ...]]]] = [
    ("open to read", opening("read")),
    ("opendir", (Kind.OPENDIR, (string(b"."),))),
    ("stat", (Kind.STAT, (NOTE,))),
    ("lstat", (Kind.LSTAT, (NOTE,))),
    ("realpath", (Kind.REALPATH, (NOTE,))),
    ("statvfs", extended("statvfs@openssh.com", NOTE)),
    ("limits", extended("limits@openssh.com")),
    ("expand-path", extended("expand-path@openssh.com", NOTE)),
]


@pytest.fixture(params=["judged", "whole"])
async def read_only(request: Any, more: Opa, tmp_path: Path, unexpected: list[Any]) -> AsyncIterator[Files]:
    """Rego's rules would let everything be written here; where there are none, nobody would ask."""
    more.put("more", {"permit": [{"kind": "read_only_sftp"}]})
    async with serving(more, tmp_path, judged=request.param == "judged") as files:
        yield files


async def test_every_operation_that_writes_is_refused_row_by_row_and_none_that_reads(read_only: Files) -> None:
    async with Wire.opened(read_only) as wire:

        async def answer(number: int, asked: tuple[Kind, tuple[bytes, ...]]) -> Any:
            wire.send(packet(asked[0], number, *asked[1]))
            return await wire.receive()

        for number, (note, asked) in enumerate(WRITES):
            found = await answer(number, asked)
            assert (found.kind, found.body[:4]) == (Kind.STATUS, Status.PERMISSION_DENIED.to_bytes(4, "big")), note
            assert b"sftp_read_only" in found.body, note
        handle = (await answer(100, opening("read"))).body[4:]
        for number, (note, held) in enumerate(HELD, 200):
            found = await answer(number, held(handle))
            assert b"sftp_read_only" in found.body, note
        for number, (note, asked) in enumerate(READS, 300):
            found = await answer(number, asked)
            assert found.kind is not Kind.STATUS, note
    refused = [entry for entry in await read_only.all_operations() if entry["outcome"] == "refused"]
    assert len(refused) == len(WRITES) + len(HELD)
    assert {entry["reason"] for entry in refused} == {"sftp_read_only"}
    assert (read_only.open / "note").read_bytes() == b"a note\n"
    assert [path.name for path in read_only.open.iterdir()] == ["note"]


async def test_stock_sftp_and_scp_read_and_are_told_why_they_cannot_write(read_only: Files, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(b"new")
    status, _, err = await read_only.sftp(f"get note {tmp_path}/down", "ls -l", f"put {tmp_path}/up note")
    assert (status, "sftp_read_only: files can only be read here" in err) == (1, True), err
    assert (tmp_path / "down").read_bytes() == b"a note\n"
    status, _, err = await read_only.run("scp", f"{tmp_path}/up", f"{ALICE}@127.0.0.1:note")
    assert (status, "sftp_read_only" in err) == (1, True), err
    status, _, _ = await read_only.run("scp", f"{ALICE}@127.0.0.1:note", f"{tmp_path}/copy")
    assert (status, (tmp_path / "copy").read_bytes()) == (0, b"a note\n")
    for command in ("mkdir x", "rename note other", "rm note", "chmod 600 note", "symlink note l"):
        status, _, err = await read_only.sftp(command)
        assert (status, "sftp_read_only" in err) == (1, True), command
    assert [path.name for path in read_only.open.iterdir()] == ["note"]


async def test_one_channel_can_be_obliged_by_the_request_and_by_the_targets_own_data(
    more: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    its = target(oblige={"requests": {"subsystem": {"read_only_sftp": True}}})
    async with running(more, tmp_path, targets={"files": its}) as site:
        async with site.connect() as connection, connection.start_sftp_client() as client:
            with pytest.raises(asyncssh.SFTPPermissionDenied, match="sftp_read_only"):
                await client.mkdir("x")
        await site.nothing_left()


async def test_files_under_a_forced_command_cannot_be_kept_from_writing_so_they_are_refused(
    more: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    its = target(force_command="cat", oblige={"read_only_sftp": True})
    async with running(more, tmp_path, targets={"files": its}) as site:
        told = await ssh(site, "sftp", options=["-s"])
        assert (told.returncode, "policy_malformed" in told.stderr) == (254, True), told.stderr
        assert (await ssh(site, "true")).returncode == 0, "other requests are not about files"
        await site.nothing_left()
