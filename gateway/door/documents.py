"""Documents behind the grants door: each change is judged by policy, stored in OPA, and put on record.

One writer at a time for a person, in this gateway: what a change is judged by is what it replaces.  OPA knows no
condition but "only if new", so between two gateways on one OPA that alone is free of races (docs/grants.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.audit.journal import Journal
from gateway.concurrency import each
from gateway.door.etags import NONE, Conditions, etag
from gateway.door.http import Refused
from gateway.door.patch import transaction
from gateway.door.paths import Path, is_document, whose
from gateway.errors import PolicyUnavailable
from gateway.live import Live
from gateway.policy import Policy
from gateway.policy.contract import AdmissionAnswer, Automation
from gateway.policy.opa import Opa
from gateway.telemetry import Step

AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Intent:
    """What a client wants to become of one document: `apply` makes the new value of the old, None is none.

    `index` is the operation of a patch that it stands for.
    """

    path: Path
    verb: str
    apply: Callable[[Any], Any]
    index: int | None = None


@dataclass(slots=True)
class _Change:
    intent: Intent
    old: Any
    new: Any = None
    verb: str = ""
    fault: Refused | None = None
    """Why there is no new value.  Told only to who may write there."""
    value: Any = None
    """What is stored: policy's word."""

    @property
    def is_unsaid(self) -> bool:
        return self.value is None and self.verb != "DELETE"

    @property
    def is_news(self) -> bool:
        return self.is_unsaid or bool(self.value != self.old)

    @property
    def name(self) -> str:
        return "/".join(self.intent.path)


class Documents:
    """Reads and writes them for a client that is known."""

    def __init__(self, policy: Policy, opa: Opa, live: Live) -> None:
        self._policy = policy
        self._opa = opa
        self._live = live
        self._writing = [asyncio.Lock() for _ in range(64)]
        """By hash of root and name: a client cannot make it grow with names it makes up."""

    async def read(self, journal: Journal, client: Automation, path: Path, verb: str = "GET") -> Any:
        """What is stored at `path`, or None.  Raises Refused."""
        answer = await self._policy.admit(journal, client, verb, path, None, None)
        if not answer.allow:
            raise _refusal(answer, "/".join(path))
        return await self._opa.read(*path)

    async def change(
        self,
        journal: Journal,
        client: Automation,
        intents: Sequence[Intent],
        conditions: Conditions = NONE,
        *,
        dry_run: bool = False,
    ) -> list[str]:
        """All of it or nothing; the ETag of each document that is stored then, "" for one that is not.

        With `dry_run` it is judged, and the judgements recorded, and nothing is stored.  Raises Refused with everything
        that is wrong with any of it.  Whoever stands on what was changed has been judged again when this returns.
        """
        async with self._turns(intent.path for intent in intents):
            changes = await each(self._read, intents, at_once=AT_ONCE)
            answers = await each(lambda change: self._judge(journal, client, change), changes, at_once=AT_ONCE)
            _refuse(changes, answers)
            for change, answer in zip(changes, answers, strict=True):
                change.value = answer.value
            if dry_run:
                for change in changes:
                    _hold(conditions, change)
                return ["" for _ in changes]
            try:
                await self._store(journal, changes, conditions)
            finally:
                # Also when only the record of the write failed: the decision is on record, and OPA has the change.
                await self._judge_again(changes)
        return ["" if change.value is None else etag(change.value) for change in changes]

    async def _read(self, intent: Intent) -> _Change:
        old = await self._opa.read(*intent.path) if is_document(intent.path) else None
        change = _Change(intent, old)
        try:
            change.new = intent.apply(old)
        except Refused as refused:
            change.fault = refused
        is_removed = change.new is None and change.fault is None
        change.verb = "DELETE" if is_removed and intent.verb == "PATCH" else intent.verb
        return change

    async def _judge(self, journal: Journal, client: Automation, change: _Change) -> AdmissionAnswer:
        return await self._policy.admit(journal, client, change.verb, change.intent.path, change.old, change.new)

    async def _store(self, journal: Journal, changes: Sequence[_Change], conditions: Conditions) -> None:
        news = [change for change in changes if change.is_news]
        for change in changes:
            try:
                _hold(conditions, change)
            except Refused:
                await _record(journal, change, "conflict")
                raise
        for change in changes:
            if not change.is_news:
                await _record(journal, change, "unchanged")
        match news:
            case []:
                return
            case [change]:
                async with journal.step(Step.GRANT, **_facts(change)):
                    await self._write(change, conditions)
            case _:
                await self._write_all(journal, news)

    async def _write(self, change: _Change, conditions: Conditions) -> None:
        _all_said([change])
        if change.value is None:
            await self._opa.remove(*change.intent.path)
        elif conditions.only_new:
            if not await self._opa.create(*change.intent.path, value=change.value):
                raise _exists(conditions)
        else:
            await self._opa.write(*change.intent.path, value=change.value)

    async def _write_all(self, journal: Journal, news: Sequence[_Change]) -> None:
        [root] = {change.intent.path[0] for change in news}
        async with journal.step(Step.GRANT, verb="PATCH", path=root, documents=len(news)):
            _all_said(news)
            changed = [(change.intent.path, change.value) for change in news]
            await self._opa.patch(root, operations=transaction(changed))
        await each(lambda change: _record(journal, change, "ok"), news, at_once=len(news))

    async def _judge_again(self, changes: Sequence[_Change]) -> None:
        persons = {whose(change.intent.path) for change in changes}
        await self._live.reevaluate(persons.pop() if len(persons) == 1 else None)

    @asynccontextmanager
    async def _turns(self, paths: Iterable[Path]) -> AsyncIterator[None]:
        """Wait for the turn of each.  In one order for everybody, so that nobody waits for who waits for them."""
        async with AsyncExitStack() as stack:
            for number in sorted({hash(path[:2]) % len(self._writing) for path in paths}):
                await stack.enter_async_context(self._writing[number])
            yield


def _facts(change: _Change) -> dict[str, Any]:
    facts: dict[str, Any] = {"verb": change.verb, "path": change.name, "old": change.old, "new": change.value}
    return facts if change.intent.index is None else {**facts, "index": change.intent.index}


async def _record(journal: Journal, change: _Change, outcome: str) -> None:
    await journal.record(Step.GRANT, outcome, **_facts(change))


def _all_said(changes: Sequence[_Change]) -> None:
    if any(change.is_unsaid for change in changes):
        raise PolicyUnavailable("the policy allowed the write but did not say what to store")


def _hold(conditions: Conditions, change: _Change) -> None:
    """Raises Refused where one does not hold."""
    if not conditions.holds_none_match(change.old):
        raise _exists(conditions)
    # A request said again has had its effect: RFC 9110 section 13.1.1 lets it succeed.
    if change.is_news and not conditions.holds_match(change.old):
        raise Refused(412, "precondition_failed", f"{change.name} is not what If-Match names: read it again")


def _exists(conditions: Conditions) -> Refused:
    if conditions.only_new:
        return Refused(304, "", "")  # as OPA says it, and without a body
    return Refused(412, "precondition_failed", "it is what If-None-Match names")


def _refuse(changes: Sequence[_Change], answers: Sequence[AdmissionAnswer]) -> None:
    """Raises what is wrong: what may not be, before what cannot be done."""
    refused = [_fault_of(change, answer) for change, answer in zip(changes, answers, strict=True)]
    found = [fault for fault in refused if fault is not None]
    if len(changes) == 1 and found:
        raise found[0]
    if found:
        worst = max(found, key=lambda fault: (fault.status == 403, -found.index(fault)))
        raise Refused(
            worst.status, str(worst.body["code"]), str(worst), [error for fault in found for error in fault.errors]
        )


def _fault_of(change: _Change, answer: AdmissionAnswer) -> Refused | None:
    is_about_the_fault = change.fault is not None and all(reason.code == "not_an_object" for reason in answer.reasons)
    if is_about_the_fault or (answer.allow and change.fault is not None):
        return change.fault
    return None if answer.allow else _refusal(answer, change.name, change.intent.index)


def _refusal(answer: AdmissionAnswer, name: str, index: int | None = None) -> Refused:
    said = "; ".join(
        f"{reason.field}: {reason.message}" if reason.field else reason.message for reason in answer.reasons
    )
    where = {} if index is None else {"index": index, "path": name}
    errors = [{**reason.model_dump(exclude_defaults=True), **where} for reason in answer.reasons]
    if any(reason.field or reason.code == "not_an_object" for reason in answer.reasons):
        return Refused(400, "invalid_parameter", said, errors)
    return Refused(403, "unauthorized", said or f"policy refused {name}", errors)


__all__ = ["Documents", "Intent"]
