"""The decisions on record, in their order, with what each stood on: the log as a study reads it.

    with opened(log) as decisions:
        for found in decisions:                          # Recorded, or the Fault where a record should be
            documents = decisions.documents.tree(found.basis)

    decision, documents = find(log, decision_id)         # one of them

Nothing that cannot be read is passed over: it comes as a Fault, in its place, and what follows is read on, as
`doorward audit verify` does.  Whether the log was forged is for that command: hashes are not looked at here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.audit.chain import parse
from gateway.audit.segments import UNREADABLE, files
from gateway.studies.documents import Documents, Missing
from gateway.studies.errors import StudyError
from gateway.telemetry import Step

_DATA = b'"event":"data"'
_DECISION = b'"decision":'

Wanted = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no record of the chain, or does not follow the one before."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision, as it is on record."""

    place: str
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Empty where policy gave no answer: the refusal names it, the record does not."""
        return _text(self.record, "decision_id")

    @property
    def time(self) -> str:
        """RFC 3339, UTC: it sorts as text."""
        return _text(self.record, "time")

    @property
    def decision(self) -> str:
        """Its path under `data`."""
        return str(self.record["decision"])

    @property
    def kind(self) -> str:
        """As people call it: authn, config, authz, live, admission, admin."""
        _, _, name = self.decision.partition("/")
        package, _, rule = name.partition("/")
        return package if rule == "decision" else rule

    @property
    def outcome(self) -> str:
        return _text(self.record, "outcome")

    @property
    def question(self) -> Mapping[str, Any]:
        found = self.record.get("input")
        return found if isinstance(found, dict) else {}

    @property
    def answer(self) -> Mapping[str, Any] | None:
        """As the gateway read it, without what is as by default; None where there was none."""
        found = self.record.get("answer")
        return found if isinstance(found, dict) else None

    @property
    def basis(self) -> Mapping[str, str | None]:
        return self.record.get("basis") or {}

    @property
    def omitted(self) -> tuple[str, ...]:
        """Documents that it may have read, and that were too long for the record."""
        return tuple(self.record.get("basis_omitted") or ())

    @property
    def reasons(self) -> tuple[str, ...]:
        """The codes, policy's own or the gateway's."""
        told = (self.answer or {}).get("reasons") or self.record.get("reasons") or ()
        return tuple(str(reason.get("code", "")) for reason in told if isinstance(reason, dict))

    @property
    def person(self) -> str:
        """Whom it is about; at the grants door and the admin API the client that asked."""
        if self.kind in ("admission", "admin"):
            return _text(self.record, "client") or _text(self.question, "client", "name")
        typed = _text(self.question, "login", "user").partition("+")[0]
        return _text(self.record, "person") or _text(self.question, "identity", "person") or typed

    @property
    def target(self) -> str:
        """What it is about, as far as it is known; at the grants door the path."""
        if self.kind == "admission":
            path = self.question.get("path")
            return "/".join(map(str, path)) if isinstance(path, list) else ""
        return (
            _text(self.record, "target")
            or _text(self.answer or {}, "permit", "target")
            or _text(self.question, "permit", "target")
            or (_text(self.question, "request", "target") if self.kind == "config" else "")
            or _text(self.question, "login", "user").partition("+")[2].partition("+")[0]
        )

    @property
    def request(self) -> str:
        """The kind of what was asked for, never the words."""
        if self.kind == "admission":
            return _text(self.question, "verb")
        if self.kind == "admin":
            return _text(self.question, "action")
        if self.kind == "authn":
            return _text(self.question, "attempt", "method")
        kind, operation = _text(self.question, "request", "kind"), _text(self.question, "request", "operation")
        return f"{kind} {operation}" if kind == "sftp" and operation else kind


class DecisionLog:
    """An open log.  It can be gone through more than once."""

    def __init__(self, log: Path, since: datetime | None, documents: Documents) -> None:
        self.documents = documents
        """Those of the part that was gone through."""
        self._log = log
        self._since = since

    def __iter__(self) -> Iterator[Recorded | Fault]:
        """Raises StudyError where a file cannot be read."""
        return self.some(lambda _: True)

    def some(self, wanted: Wanted, *, with_documents: bool = True) -> Iterator[Recorded | Fault]:
        """The decisions whose lines are wanted; the others are not parsed, so what is wrong with them is not seen."""
        before: int | None = None
        for place, line in _lines(self._log, self._since):
            if isinstance(line, str):
                yield Fault(place, line)
                before = None
                continue
            if _is_whole(line) and not self._is_looked_at(line, wanted, with_documents):
                before = None
                continue
            record = parse(line)
            if isinstance(record, str):
                yield Fault(place, record)
                before = None
                continue
            if before is not None and record["seq"] != before + 1:
                yield Fault(place, f"record {record['seq']} follows record {before}: some were removed or reordered")
            before = int(record["seq"])
            if record.get("event") == Step.DATA:
                if not self._keeps(record):
                    yield Fault(place, f"record {record['seq']} was changed: the document is not what its digest says")
            elif "decision" in record:
                yield _decision(place, record)

    def lines(self) -> Iterator[bytes]:
        """Lines that look like decisions, unread: for a count."""
        return (line for _, line in _lines(self._log, self._since) if isinstance(line, bytes) and _DECISION in line)

    def _is_looked_at(self, line: bytes, wanted: Wanted, with_documents: bool) -> bool:
        if _DATA in line and (with_documents or _DECISION in line):  # what is quoted in a decision may look like one
            return True
        return wanted(line)

    def _keeps(self, record: Mapping[str, Any]) -> bool:
        return "value" in record and self.documents.keep(_text(record, "digest"), record["value"])


@contextmanager
def opened(log: Path, since: datetime | None = None) -> Iterator[DecisionLog]:
    """The decisions of the log, over all its files; with `since` files that were closed before are left out."""
    with tempfile.TemporaryFile(prefix="doorward-") as spool:
        yield DecisionLog(log, since, Documents(spool))


def find(log: Path, decision_id: str) -> tuple[Recorded, dict[str, Any]]:
    """The decision and the base documents that it stood on.

    Raises StudyError where there is none, or a document is not on record: what it stood on would be a guess.
    """
    needle = decision_id.encode()
    with opened(log) as decisions:
        for found in decisions.some(lambda line: needle in line):
            if isinstance(found, Recorded) and found.id == decision_id:
                return found, _documents(decisions, found)
    raise StudyError(
        f"no decision {decision_id!r} is on record in {log}",
        remedy="`doorward policy log` lists them with their ids; the log of another gateway is named with --log.",
    )


def _documents(decisions: DecisionLog, found: Recorded) -> dict[str, Any]:
    try:
        return decisions.documents.tree(found.basis)
    except Missing as missing:
        raise StudyError(
            f"the decision {found.id} stood on a document that is not on record: {missing.args[0]}",
            remedy="`doorward audit verify` says what was removed; name the folder that has all files of the log.",
        ) from None


def _lines(log: Path, since: datetime | None) -> Iterator[tuple[str, bytes | str]]:
    """Every line with its place, and in place of those that cannot be had the reason."""
    try:
        for path, lines in files(log, since=since):
            number = 0
            try:
                for number, line in enumerate(lines, start=1):
                    yield f"{path.name}, line {number}", line
            except UNREADABLE:
                yield f"{path.name}, line {number + 1}", "the file was cut short or changed, and cannot be unpacked"
    except OSError as error:
        raise StudyError(
            f"the log {log} cannot be read: {error.strerror or error}",
            remedy="Name the audit log (audit.jsonl) with --log, or the settings with --config.",
        ) from error


def _is_whole(line: bytes) -> bool:
    return line.startswith(b"{") and line.endswith(b"}\n")


def _decision(place: str, record: Mapping[str, Any]) -> Recorded | Fault:
    found = Recorded(place, record)
    basis, omitted = record.get("basis", {}), record.get("basis_omitted", [])
    if not isinstance(record["decision"], str) or not found.time or not found.question:
        return Fault(place, f"record {record['seq']} is a decision without its name, its time or its question")
    if not isinstance(basis, dict) or not all(isinstance(one, str | None) for one in basis.values()):
        return Fault(place, f"record {record['seq']} has a basis that is none")
    if not isinstance(omitted, list) or not all(isinstance(one, str) for one in omitted):
        return Fault(place, f"record {record['seq']} names no documents as omitted")
    return found


def _text(record: Mapping[str, Any], *path: str) -> str:
    found: Any = record
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""
