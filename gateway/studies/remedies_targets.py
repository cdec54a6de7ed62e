"""Candidates where it is the target that does not take it: what it allows, and what its entry says wrongly.

Each changes the target for everybody who reaches it, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

from gateway.studies.engine import Change
from gateway.studies.proofs import mapping
from gateway.studies.remedies import Case, Remedy, Step, applied, at

FOR_ALL = "It is then so for everybody who reaches {target}."
LIMITING = {
    "require", "approval", "oblige", "restrict", "recording", "break_glass", "labels", "max_sessions", "sessions",
}  # fmt: skip
"""What narrows a target: with a fault in it, it may mean more than a guess of ours."""
_MISSING = re.compile(r"^(.*?): (\S+) is required$")
_UNKNOWN = re.compile(r"^(.*?): Additional property (\S+) is not allowed$")
_WRONG = re.compile(r"^([\w.-]+): .+$")


def allowing(*path: str) -> Remedy:
    """`true` at this place in the target's `allow`."""

    def remedy(case: Case) -> Iterator[Step]:
        yield _allow(case, path, True, f"{'.'.join(path)}")

    return remedy


def listing(*path: str, what: str, keys: tuple[str, ...] = ()) -> Remedy:
    """What is asked for, one entry more in this list of the target's `allow`."""

    def remedy(case: Case) -> Iterator[Step]:
        entry: Any = {key: case.get("request", key) for key in keys} if keys else case.get("request", what)
        listed = case.of("targets", case.named, "allow", *path)
        shown = ":".join(str(entry[key]) for key in keys) if keys else entry
        if entry and None not in (entry.values() if keys else ()):
            yield _allow(case, path, [*(listed if isinstance(listed, list) else ()), entry], f"{what} {shown}")

    return remedy


def _allow(case: Case, path: tuple[str, ...], value: Any, shown: str) -> Step:
    return Step(
        f"let {case.named} allow {shown}",
        (Change(("targets", case.named, "allow", *path), value),),
        note=FOR_ALL.format(target=case.named),
    )


def subsystem(case: Case) -> Iterator[Step]:
    if case.get("request", "kind") == "sftp" or case.get("request", "name") == "sftp":
        yield _allow(case, ("sftp",), True, "sftp")


def socket(case: Case) -> Iterator[Step]:
    kind = str(case.get("request", "kind"))
    list_of = "listen" if "forward" in kind else "connect"
    if not kind.startswith("cancel-"):
        yield from listing("sockets", list_of, what="path")(case)


def listener(case: Case) -> Iterator[Step]:
    if case.get("request", "kind") == "tcpip-forward":
        yield from listing("listen", what="listening at", keys=("host", "port"))(case)


def files(case: Case) -> Iterator[Step]:
    """The path that was asked for and nothing else; of a rename, all that is below its folders."""
    path, to = case.get("request", "path"), case.get("request", "to")
    operation = case.get("request", "operation")
    if not isinstance(path, str):
        return
    if operation == "rename" and isinstance(to, str):
        both = sorted({f"{PurePosixPath(place).parent}/**".replace("//", "/") for place in (path, to)})
        yield _places(case, {"read": both, "write": both})
    elif operation == "hardlink" and isinstance(to, str):
        yield _places(case, {"read": [path], "write": [path, to]})
    else:
        yield _places(case, {"read": [path]})
        yield _places(case, {"write": [path]})
        yield _places(case, {"read": [path], "write": [path]})


def _places(case: Case, more: Mapping[str, list[str]]) -> Step:
    rules = mapping(case.of("targets", case.named, "allow", "sftp"))
    new = {what: [*rules.get(what, ()), *places] for what, places in more.items()}
    shown = "; ".join(f"{what} {', '.join(places)}" for what, places in more.items())
    return Step(
        f"let {case.named} allow to {shown}",
        (Change(("targets", case.named, "allow", "sftp"), {**rules, **new}),),
        note=FOR_ALL.format(target=case.named),
    )


def mend(case: Case) -> Iterator[Step]:
    """All faults of the entry at once: a key spelt rightly, and what is missing or wrong as another target has it."""
    targets = {case.named} if case.named else {case.target_of(grant) for grant in case.grants.values()}
    for target in sorted(targets):
        entry = case.of("targets", target)
        others = [mapping(other) for name, other in sorted(mapping(case.of("targets")).items()) if name != target]
        if not isinstance(entry, Mapping):
            continue
        mended: dict[str, Any] | None = dict(entry)
        done: list[str] = []
        # What is spelt wrongly is missing as well, under its right name.
        for problem in sorted(case.problems, key=lambda text: _UNKNOWN.match(text) is None):
            if mended is not None:
                mended = _mended(mended, problem, others, done)
        if mended is not None and done:
            yield Step(
                f"mend the entry of {target}: {'; '.join(done)}",
                (Change(("targets", target), mended),),
                note="What is taken from another target is a guess: look at it.",
            )


def _mended(
    entry: dict[str, Any], problem: str, others: list[Mapping[str, Any]], done: list[str]
) -> dict[str, Any] | None:
    """The entry without this fault; None where we do not know how, or should not."""
    if found := _UNKNOWN.match(problem):
        path, known = _path(found[1]), {key for other in others for key in mapping(at(other, _path(found[1])))}
        near = get_close_matches(found[2], sorted((known | (LIMITING if not path else set())) - entry.keys()), n=1)
        if not near:
            return None
        done.append(f"{found[2]} is spelt {near[0]}")
        value = at(entry, (*path, found[2]))
        return applied(entry, [Change((*path, found[2]), remove=True), Change((*path, near[0]), value)])
    found = _MISSING.match(problem)
    if found and at(entry, (*_path(found[1]), found[2])) is not None:
        return entry
    wrong = None if found else _WRONG.match(problem)
    path = (*_path(found[1]), found[2]) if found else tuple(wrong[1].split(".")) if wrong else ()
    if not path or path[0] in LIMITING:
        return None
    for other in others:
        if (value := at(other, path)) is not None:
            done.append(f"{'.'.join(path)} as another target has it")
            return applied(entry, [Change(path, value)])
    return None


def _path(field: str) -> tuple[str, ...]:
    return () if field == "(Root)" else tuple(field.split("."))
