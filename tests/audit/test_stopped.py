"""A rotation that stops at any of its steps, by SIGKILL or by a disk that fails: the log opens again, and is whole."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.chain import verify
from gateway.audit.segments import closed, records
from gateway.errors import AuditUnavailable
from tests.audit.stopping import EVERY_TIME, KEEPING, RECORDS, Log, before_each_step, story

ROOT = Path(__file__).parents[2]


def killed(directory: Path, kind: str) -> list[Path]:
    """The folders of a story that was killed before each of its steps; of the last, one that came to its end."""
    subprocess.run([sys.executable, "-m", "tests.audit.stopping", directory, kind], cwd=ROOT, check=True, timeout=120)
    folders = sorted(directory.iterdir())
    assert len(folders) > 30, "every step of two rotations"
    return folders


def numbers(path: Path) -> list[int]:
    return [record["number"] for record in records(path) if record["event"] == "step"]


def promised(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "promised").read_text().split()]


def go_on(path: Path, kind: str) -> None:
    log = Log(path, KEEPING[kind])
    log.record(100)
    log.close()


def test_a_kill_at_any_step_loses_nothing_that_was_promised(tmp_path: Path) -> None:
    for folder in killed(tmp_path, "keep"):
        path = folder / "audit.jsonl"
        go_on(path, "keep")
        found = numbers(path)
        on_disk = found[:-1]

        assert list(verify(path)) == [], folder
        assert found[-1] == 100
        assert on_disk == list(range(len(on_disk)))
        assert len(on_disk) - len(promised(folder)) in (0, 1), "what was not promised yet may be there"
        assert {file.stat().st_mode & 0o777 for file in folder.glob("audit*")} == {0o600}


def test_a_kill_at_any_step_of_removing_and_packing_leaves_a_chain_that_is_proven(tmp_path: Path) -> None:
    for folder in killed(tmp_path, "drop"):
        path = folder / "audit.jsonl"
        go_on(path, "drop")
        found = numbers(path)
        on_disk = found[:-1]

        assert list(verify(path)) == [], folder
        assert found[-1] == 100
        if on_disk:
            assert on_disk == list(range(on_disk[0], on_disk[-1] + 1))
        assert [segment.is_packed for segment in closed(path)] in ([], [True]), folder
        assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "until_there_is_room"])
def test_a_disk_that_fails_at_any_step_fails_records_whole(tmp_path: Path, lasting: bool) -> None:
    for step in range(1000):
        path = tmp_path / f"{step:03d}" / "audit.jsonl"
        path.parent.mkdir()
        left = step
        is_full = True

        def fail(_name: str, _args: tuple[Any, ...]) -> None:
            nonlocal left
            left -= 1
            if is_full and (left < 0 if lasting else left == -1):  # noqa: B023
                raise OSError(errno.ENOSPC, "no room")

        log = Log(path, EVERY_TIME)
        kept = []
        with before_each_step(fail):
            for number in range(RECORDS):
                try:
                    log.record(number)
                except (OSError, AuditUnavailable):
                    continue
                kept.append(number)
            is_full = False
            log.record(100)
        log.close()

        assert numbers(path) == [*kept, 100]
        assert list(verify(path)) == []
        go_on(path, "keep")
        assert list(verify(path)) == []
        if left >= 0:
            return
    raise AssertionError("it never comes to its end")


def test_a_story_without_a_stop_has_a_file_for_each_record(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    story(path, EVERY_TIME, lambda _: None)

    assert len(closed(path)) == RECORDS - 1
    assert list(verify(path)) == []
