"""One evaluation as OPA tells it, event by event: bounded in time, memory and length, whatever the policies do.

A trace grows with every entry that a rule looks at, so it is taken on few entries: of each long collection those that
the question names, those that mention what it names, and then the first, as long as the answer stays the same.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.embedded.tools import OPA, find_or_build
from gateway.studies.sources import Policies

FEW = (8, 3, 32, 128)
"""Entries of each collection that are kept, in turn, until the answer is the same and not too long to be told."""
SECONDS = 45.0
TRACE_BYTES = 48 * 2**20
"""Of a trace, without the spaces that OPA sets it out with, which are four fifths of it."""
TOLD_BYTES = 512 * 2**20
MEMORY_BYTES = 3 * 2**29
NO_TRACE = "the evaluation is too long to be followed, or fails on fewer entries: rules and conditions are not told"


@dataclass(frozen=True, slots=True)
class Trace:
    """Events, as `opa eval --explain full` has them, of an evaluation on `data`."""

    events: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any]
    notes: tuple[str, ...] = ()


async def traced(
    policies: Policies, data: Mapping[str, Any], decision: str, question: Mapping[str, Any], answer: Any
) -> Trace:
    """The trace of an evaluation that comes to `answer`, or to one with the same codes.

    Without events, and with a note that says so, where it is too long.  Raises ToolUnavailable.
    """
    binary = await asyncio.to_thread(find_or_build, OPA)
    words = set(_words(question))
    near: Trace | None = None
    with tempfile.TemporaryDirectory(prefix="doorward-") as place:
        folder = Path(place)
        await asyncio.to_thread(_write, folder, policies, question)
        too_many = FEW[-1] + 1
        for most in FEW:
            if most >= too_many:
                continue
            few, left_out = shortened(data, words, most)
            await asyncio.to_thread((folder / "data.json").write_text, json.dumps(few))
            told = await _run(binary, folder, decision)
            if told is None:
                too_many = most
                continue
            notes = (f"followed on at most {most} entries of each collection: {left_out} left out",) if left_out else ()
            found = Trace(_renamed(told.get("explanation", []), list(policies.files)), few, notes)
            if not left_out or _result(told) == answer:
                return found
            if near is None and codes(_result(told)) == codes(answer):
                near = found
    return near or Trace((), data, (NO_TRACE,))


def shortened(tree: Mapping[str, Any], words: set[str], most: int) -> tuple[dict[str, Any], int]:
    """The tree with at most `most` entries of each collection, and how many were left out.

    Collections are lists, and the documents of a root by their names; the fields of a document are none.
    """
    left_out = 0

    def cut(value: Any, names: int) -> Any:
        nonlocal left_out
        if isinstance(value, Mapping):
            kept = list(value)
            if names > 0 and len(value) > most:
                kept = _chosen(value.items(), words, most)
                left_out += len(value) - len(kept)
            return {key: cut(value[key], names - 1) for key in kept}
        if isinstance(value, list):
            places = _chosen(enumerate(value), words, most) if len(value) > most else range(len(value))
            left_out += len(value) - len(places)
            return [cut(value[place], 0) for place in places]
        return value

    return {root: cut(document, _NAMES.get(root, 1)) for root, document in tree.items()}, left_out


_NAMES = {"grants": 2, "reviews": 2, "joins": 2, "approvals": 3, "door": 0}
"""How many names lead to a document of the root, where it is not one."""


def _chosen(entries: Iterable[tuple[Any, Any]], words: set[str], most: int) -> list[Any]:
    """Keys of the entries that matter most, in their order: named by the question, else mentioning what is."""
    ranked = sorted((_rank(key, value, words), place, key) for place, (key, value) in enumerate(entries))
    return [key for _, _, key in sorted(ranked[:most], key=lambda found: found[1])]


def _rank(key: Any, value: Any, words: set[str]) -> int:
    if key in words:
        return 0
    return 1 if any(word in words for word in _words(value)) else 2


def _words(value: Any) -> Iterator[str]:
    """Every string in it, and the parts of `person+target`."""
    match value:
        case str():
            yield value
            if "+" in value[:300]:
                yield from value[:300].split("+")
        case Mapping():
            for inner in value.values():
                yield from _words(inner)
        case list() | tuple():
            for inner in value:
                yield from _words(inner)


def codes(answer: Any) -> list[str]:
    """The reason codes of an answer, and of the verdicts in it."""
    if not isinstance(answer, Mapping):
        return []
    reasons = answer.get("reasons")
    found = [str(reason.get("code")) for reason in reasons or () if isinstance(reason, Mapping)]
    sessions = answer.get("sessions")
    inner = sessions.values() if isinstance(sessions, Mapping) else ()
    return found + [code for verdict in inner for code in codes(verdict)]


def _write(folder: Path, policies: Policies, question: Mapping[str, Any]) -> None:
    (folder / "p").mkdir()
    for number, content in enumerate(policies.files.values()):
        (folder / "p" / f"{number}.rego").write_bytes(content)
    (folder / "input.json").write_text(json.dumps(question))


async def _run(binary: Path, folder: Path, decision: str) -> dict[str, Any] | None:
    """What `opa eval` says; None where it takes too long, or says too much."""
    process = await asyncio.create_subprocess_exec(
        str(binary), "eval", "--explain", "full", "--format", "json", "--strict-builtin-errors", "--disable-indexing",
        "--timeout", f"{SECONDS:g}s", "--data", "p", "--data", "data.json", "--input", "input.json",
        f"data.{decision.replace('/', '.')}", cwd=folder, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        # It dies of it in place of the machine.  Of its address space Go reserves far more than it uses.
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        async with asyncio.timeout(SECONDS):
            told = await _bounded(process)
            if told is not None and await process.wait() == 0:
                found: dict[str, Any] = json.loads(told)
                return found
        return None
    except (TimeoutError, ProcessLookupError, ValueError):
        return None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _bounded(process: asyncio.subprocess.Process) -> bytes | None:
    assert process.stdout is not None
    kept, rest, length = bytearray(), b"", 0
    while chunk := await process.stdout.read(2**20):
        length += len(chunk)
        lines, newline, rest = (rest + chunk).rpartition(b"\n")
        kept += _MARGIN.sub(b"\n", lines + newline)
        if len(kept) > TRACE_BYTES or len(rest) > TRACE_BYTES or length > TOLD_BYTES:
            return None
    return bytes(kept + rest)


_MARGIN = re.compile(rb"\n +")


def _result(told: Mapping[str, Any]) -> Any:
    try:
        return told["result"][0]["expressions"][0]["value"]
    except (KeyError, IndexError, TypeError):
        return None


def _renamed(events: Sequence[dict[str, Any]], names: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """With the names that the reader knows each file by."""
    for event in events:
        location = event.get("Location") or {}
        stem = Path(location.get("file", "")).stem
        location["file"] = names[int(stem)] if stem.isdigit() and int(stem) < len(names) else ""
    return events
