"""Files both ways with stock clients, with rules for files and without, and what is put on record."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.ssh.sftp.handles import MAX_HANDLES
from gateway.ssh.sftp.ledger import MAX_LOOKS, Ledger
from gateway.ssh.sftp.packets import Attributes, Kind, Packet, Reader, Status, packet, string
from tests.ssh.files import Files, Wire, serving
from tests.ssh.world import ALICE, resident, running, target
from tests.stack.opa import Opa
from tests.waiting import until

MEGABYTE = 2**20


@pytest.fixture(params=["whole", "judged"])
async def files(
    request: pytest.FixtureRequest, opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> AsyncIterator[Files]:
    async with serving(opa_server, tmp_path, judged=request.param == "judged") as started:
        yield started


async def test_openssh_sftp_does_all_of_its_work(files: Files, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(50 * MEGABYTE + 17)
    (tmp_path / "up").write_bytes(data)
    half = len(data) // 2
    (tmp_path / "half").write_bytes(data[:half])
    (files.open / "half").write_bytes(data[:half])
    (tmp_path / "half-up").write_bytes(data)
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "leaf").write_bytes(b"leaf")
    (tmp_path / "tree").chmod(0o750)
    status, out, err = await files.sftp(
        "pwd",
        f"put {tmp_path}/up a", "rename a b", "chmod 640 b", "ln b hard", "symlink b c", "mkdir d", "ls -l",
        f"get c {tmp_path}/down",
        f"reget hard {tmp_path}/half",
        f"reput {tmp_path}/half-up half",
        f"put -rp {tmp_path}/tree .", f"get -r tree {tmp_path}/back",
        "ls *ar*", "df", "rm c", "rm hard", "cd d", "pwd", "-cd /nowhere", "cd ..", "rmdir d",
    )  # fmt: skip
    assert status == 0, err
    assert (tmp_path / "down").read_bytes() == data
    assert (tmp_path / "half").read_bytes() == data
    assert (files.open / "half").read_bytes() == data
    assert (tmp_path / "back" / "sub" / "leaf").read_bytes() == b"leaf"
    assert (files.open / "tree").stat().st_mode & 0o777 == 0o750
    assert (files.open / "b").stat().st_mode & 0o777 == 0o640
    lines = out.splitlines()
    assert f"Remote working directory: {files.open}" in lines
    assert f"Remote working directory: {files.open}/d" in lines
    [listed] = [line for line in lines if line.startswith("-rw-r-----") and line.endswith(" b")]
    assert listed.split()[1] == "2"
    assert f" {len(data)} " in listed
    assert any(line.startswith("l") and line.endswith(" c") for line in lines)
    assert any(line.split() == ["hard"] for line in lines)  # by its glob
    assert sorted(path.name for path in files.open.iterdir()) == ["b", "half", "note", "tree"]


async def test_scp_both_ways_by_sftp_and_of_old_by_exec(files: Files, tmp_path: Path) -> None:
    data = os.urandom(3 * MEGABYTE)
    (tmp_path / "up").write_bytes(data)
    there = f"{ALICE}@127.0.0.1:"
    assert (await files.run("scp", "-q", "-p", str(tmp_path / "up"), f"{there}copy"))[0] == 0
    assert (await files.run("scp", "-q", f"{there}{files.open}/copy", str(tmp_path / "down")))[0] == 0
    assert (await files.run("scp", "-q", f"{there}~/copy", str(tmp_path / "down2")))[0] == 0
    assert (tmp_path / "down").read_bytes() == (tmp_path / "down2").read_bytes() == data
    # The old protocol is a command, and judged as one.
    status, _, told = await files.run("scp", "-O", "-q", str(tmp_path / "up"), f"{there}old")
    assert status != 0
    assert "exec_refused" in told
    assert not (files.open / "old").exists()


async def test_what_happened_is_on_record_with_its_bytes_while_the_session_lives(files: Files) -> None:
    async with files.client() as client:
        async with client.open("x", "wb") as file:
            await file.write(b"12345")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await client.stat("nothing")
        await until(lambda: any(one["operation"] == "stat" for one in files.operations()))
        left = await client.open("note", "rb")
        assert len(await left.read()) == 7
    by_name = {(one["operation"], Path(one["path"]).name): one for one in files.operations()}
    assert by_name["open", "x"]["flags"] == "write,create,truncate"
    assert by_name["close", "x"]["bytes_written"] == 5
    assert by_name["stat", "nothing"]["outcome"] == "no_such_file"
    entries = await files.all_operations()
    [channel] = files.site.audit("relay")[-1]["channels"]
    assert (channel["files"]["bytes_read"], channel["files"]["bytes_written"]) == (7, 5)
    assert [one["bytes_read"] for one in entries if one["outcome"] == "cut"] == [7]  # it was never closed


def test_looks_are_listed_up_to_a_bound_and_counted_beyond() -> None:
    ledger = Ledger()
    for number in range(MAX_LOOKS + 50):
        ledger.note("stat", "ok", looks=True, path=f"/{number}")
        if ledger.is_due:
            ledger.written(ledger.take())
    ledger.note("remove", "ok", path="/x")
    assert ledger.backlog == 1
    assert ledger.record() == {
        "operations": {"stat": MAX_LOOKS + 50, "remove": 1}, "refused": 0, "bytes_read": 0, "bytes_written": 0,
        "unlisted": {"stat": 50}, "late": [{"operation": "remove", "outcome": "ok", "path": "/x"}],
    }  # fmt: skip


def test_what_could_not_be_written_is_kept_in_its_order() -> None:
    ledger = Ledger()
    ledger.note("mkdir", "ok", path="/a")
    taken = ledger.take()
    ledger.note("mkdir", "ok", path="/b")
    assert ledger.backlog == 2
    ledger.written(taken, failed=True)
    assert [entry["path"] for entry in ledger.record()["late"]] == ["/a", "/b"]


def opening(number: int, name: bytes, flags: int) -> bytes:
    return packet(Kind.OPEN, number, string(name), flags.to_bytes(4, "big"), Attributes().encoded())


def code(received: Packet) -> Status:
    assert received.kind is Kind.STATUS
    return Status(Reader(received.body).uint32())


async def test_requests_sent_ahead_are_done_in_their_order(files: Files) -> None:
    async with Wire.opened(files) as wire:
        made = [b"/".join([b"d"] * depth) for depth in range(1, 21)]
        wire.send(
            *[packet(Kind.MKDIR, number, string(name), Attributes().encoded()) for number, name in enumerate(made)],
            opening(100, made[-1] + b"/f", 0b1010),
            *[packet(Kind.STAT, 1000 + number, string(made[-1] + b"/f")) for number in range(500)],
            packet(Kind.REMOVE, 200, string(made[-1] + b"/f")),
            *[packet(Kind.RMDIR, 300 + number, string(name)) for number, name in enumerate(reversed(made))],
        )
        answers = [await wire.receive() for _ in range(20 + 1 + 500 + 1 + 20)]
    assert [answer.id for answer in answers] == [*range(20), 100, *range(1000, 1500), 200, *range(300, 320)]
    assert {answer.kind for answer in answers if answer.id == 100} == {Kind.HANDLE}
    assert {answer.kind for answer in answers if answer.id >= 1000} == {Kind.ATTRS}
    assert {code(answer) for answer in answers if answer.kind is Kind.STATUS} == {Status.OK}
    assert not (files.open / "d").exists()


async def test_what_is_asked_of_one_open_file_keeps_its_order(files: Files) -> None:
    """A truncation that has to be judged, and writes behind it that do not."""
    async with Wire.opened(files) as wire:
        wire.send(opening(1, b"f", 0b11011))
        handle = Reader((await wire.receive()).body).string()
        for number in range(20):
            wire.send(
                packet(Kind.WRITE, 2, string(handle), (0).to_bytes(8, "big"), string(b"long content")),
                packet(Kind.FSETSTAT, 3, string(handle), Attributes(size=0).encoded()),
                packet(Kind.WRITE, 4, string(handle), (0).to_bytes(8, "big"), string(b"%02d" % number)),
                packet(Kind.READ, 5, string(handle), (0).to_bytes(8, "big"), (100).to_bytes(4, "big")),
            )
            answers = [await wire.receive() for _ in range(4)]
            assert [answer.id for answer in answers] == [2, 3, 4, 5]
            assert Reader(answers[-1].body).string() == b"%02d" % number
        wire.send(
            packet(Kind.FSETSTAT, 6, string(handle), Attributes(mode=0o600).encoded()),
            packet(Kind.CLOSE, 7, string(handle)),
        )
        assert [code(await wire.receive()) for _ in range(2)] == [Status.OK, Status.OK]
        wire.send(packet(Kind.READ, 8, string(handle), (0).to_bytes(8, "big"), (1).to_bytes(4, "big")))
        assert code(await wire.receive()) is Status.FAILURE


async def test_handles_are_bounded_and_come_back(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> None:
    async with serving(opa_server, tmp_path, judged=False) as files, Wire.opened(files) as wire:
        count = MAX_HANDLES + 20
        wire.send(*[opening(number, b"note", 1) for number in range(count)])
        answers = [await wire.receive() for _ in range(count)]
        handles = [Reader(answer.body).string() for answer in answers if answer.kind is Kind.HANDLE]
        assert 200 < len(handles) <= MAX_HANDLES
        assert {code(answer) for answer in answers if answer.kind is Kind.STATUS} == {Status.FAILURE}
        wire.send(*[packet(Kind.CLOSE, number, string(handle)) for number, handle in enumerate(handles)])
        assert {code(await wire.receive()) for _ in handles} == {Status.OK}
        wire.send(opening(1, b"note", 1))
        assert (await wire.receive()).kind is Kind.HANDLE


async def test_an_unknown_extension_is_refused_by_name_and_the_channel_goes_on(files: Files) -> None:
    async with Wire.opened(files) as wire:
        for name in (b"users-groups-by-id@openssh.com", b"copy-data", b"resolve@doorward", b"", b"x" * 3000):
            wire.send(packet(Kind.EXTENDED, 7, string(name), b"whatever"))
            answer = await wire.receive()
            assert (answer.id, code(answer)) == (7, Status.OP_UNSUPPORTED)
        wire.send(packet(Kind.STAT, 8, string(b"note")))
        assert (await wire.receive()).kind is Kind.ATTRS
    refused = [one["name"] for one in await files.all_operations() if one["operation"] == "extension"]
    assert refused[:3] == ["users-groups-by-id@openssh.com", "copy-data", "resolve@doorward"]


async def still(measure: Callable[[], int]) -> None:
    """Return when it has not changed for a while: whoever could act has."""
    seen: list[int] = []

    def unchanged() -> bool:
        seen.append(measure())
        return len(seen) > 60 and len(set(seen[-60:])) == 1

    await until(unchanged)


async def test_a_client_that_does_not_read_costs_a_bounded_amount(files: Files) -> None:
    """Answers of the gateway's own among them: it stops taking what it could not answer."""
    (files.open / "big").write_bytes(bytes(MEGABYTE))
    before = resident()
    async with Wire.opened(files) as wire:
        wire.send(opening(1, b"big", 1))
        handle = Reader((await wire.receive()).body).string()
        wire.process.channel.pause_reading()
        asked = 4000
        for number in range(asked):
            wire.send(
                packet(Kind.READ, number, string(handle), (0).to_bytes(8, "big"), (32768).to_bytes(4, "big")),
                packet(Kind.EXTENDED, number, string(b"no-such-thing-" + b"x" * 100)),
            )
        await still(wire.process.channel.get_write_buffer_size)
        assert resident() - before < 60 * MEGABYTE  # 125 MB were asked for
        wire.process.channel.resume_reading()
        answers = [await wire.receive() for _ in range(2 * asked)]
    assert sum(answer.kind is Kind.DATA for answer in answers) == asked


async def test_a_client_that_does_not_read_is_not_answered_without_end(opa_server: Opa, tmp_path: Path) -> None:
    """By the gateway itself, which nobody slows down: it stops taking what it could not answer."""
    async with serving(opa_server, tmp_path, judged=True) as files, Wire.opened(files) as wire:
        wire.process.channel.pause_reading()
        unknown = packet(Kind.EXTENDED, 1, string(b"x" * 128), bytes(300))
        wire.send(unknown * (12 * MEGABYTE // len(unknown)))
        await still(wire.process.channel.get_write_buffer_size)
        assert wire.process.channel.get_write_buffer_size() > 2 * MEGABYTE  # of 12: what both windows hold is gone
        wire.process.channel.resume_reading()
        for _ in range(5000):
            assert code(await wire.receive()) is Status.OP_UNSUPPORTED


async def test_a_session_that_ends_in_the_middle_of_a_transfer_notes_it(files: Files) -> None:
    async with Wire.opened(files) as wire:
        wire.send(opening(1, b"f", 0b11010))
        handle = Reader((await wire.receive()).body).string()
        wire.send(packet(Kind.WRITE, 2, string(handle), (0).to_bytes(8, "big"), string(b"abc")))
        assert code(await wire.receive()) is Status.OK
        files.site.opa.delete(f"grants/{ALICE}/g1")
        status, told = await wire.ended()
    assert status == 254
    assert b"grant_deleted" in told
    cut = [one["bytes_written"] for one in await files.all_operations() if one["outcome"] == "cut"]
    assert cut == [3]  # once, whichever record it is in


async def test_rules_that_a_forced_command_could_not_keep_are_no_way_in(opa_server: Opa, tmp_path: Path) -> None:
    allow = {"sftp": {"read": ["/**"], "write": []}}
    its = target(force_command="touch ran; cat", home=str(tmp_path), allow=allow)
    async with running(opa_server, tmp_path, targets={"forced": its}) as site, site.connect() as connection:
        process: Any = await connection.create_process(subsystem="sftp", encoding=None)
        done = await process.wait()
        assert done.exit_status == 254
        assert b"policy_malformed" in bytes(done.stderr)
    assert not (tmp_path / "ran").exists()
