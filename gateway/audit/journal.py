"""One connection's record: every step is one span and one audit record, under the same ids.

`Journal.step` is how the story, the policy and the relay say what they do.  The record is on the disk before the step
counts as done; the span is best effort.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from gateway.audit.basis import NOTHING, Basis
from gateway.audit.log import AuditLog
from gateway.errors import AuditUnavailable, DoorwardError
from gateway.masks import Masks, withholding
from gateway.telemetry import Step, trace_id, traceparent

log = logging.getLogger(__name__)
T = TypeVar("T")


class StepRecord:
    """A step being made: facts added with `note` are in its record and on its span."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.facts: dict[str, Any] = {}
        self.basis: Basis = NOTHING
        """What the decision that the step is stood on."""
        self.withheld = False
        """Whether what was asked is kept from the record: what to hide in it could not be found out."""

    def note(self, **facts: Any) -> None:
        self.facts.update(facts)

    @property
    def traceparent(self) -> str:
        return traceparent(self._span)


class Journal:
    """Spans and records that carry one set of ids (session, person, grant, ...)."""

    def __init__(self, audit: AuditLog, tracer: trace.Tracer, **ids: str) -> None:
        self._audit = audit
        self._tracer = tracer
        self._ids = ids
        self._root: Span = trace.INVALID_SPAN
        self.masks = Masks()
        """What is hidden in every record and span from the moment that it is added here, in steps under way too."""

    @contextmanager
    def rooted(self, name: Step) -> Iterator[None]:
        """The span that all steps inside are children of: the whole connection, or one request at the grants door."""
        with self._tracer.start_as_current_span(name, context=Context(), attributes=self._attributes()) as span:
            self._root = span
            yield

    def bind(self, **ids: str) -> None:
        """Ids learned on the way: the person, the grant, the target."""
        self._ids.update(ids)
        self._root.set_attributes(self._attributes())

    @property
    def ids(self) -> Mapping[str, str]:
        """What is on every record."""
        return dict(self._ids)

    @property
    def trace_id(self) -> str:
        return trace_id(self._root)

    @property
    def traceparent(self) -> str:
        return traceparent(self._root)

    async def record(self, event: Step, outcome: str, **facts: Any) -> None:
        """One audit record without a span of its own.  Raises AuditUnavailable."""
        await self._record(event, outcome, self.masks.facts(facts))

    async def _record(self, event: Step, outcome: str, facts: Mapping[str, Any], basis: Basis = NOTHING) -> None:
        """Here alone a record is put together.  The documents of `basis`, which it names, are on the disk before it."""
        whole = {**self._ids, "trace_id": self.trace_id, "outcome": outcome, **facts, **basis.facts()}
        await self._audit.record(event, whole, basis.documents)

    @asynccontextmanager
    async def step(self, name: Step, **facts: Any) -> AsyncIterator[StepRecord]:
        """A span round the body and one record after it.

        A body that fails is recorded with its reason codes and its error raised; a record that cannot be written fails
        the step with AuditUnavailable.
        """
        with self._span(name) as span:
            step = StepRecord(span)
            step.note(**facts)
            started = time.perf_counter()
            outcome = "ok"
            try:
                yield step
            except DoorwardError as error:
                outcome = "failed"
                step.note(reasons=[reason.model_dump(exclude_defaults=True) for reason in error.reasons])
                span.set_status(Status(StatusCode.ERROR, error.reasons[0].code))
                raise
            except BaseException as error:
                outcome = "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
                raise
            finally:
                step.facts.setdefault("milliseconds", round((time.perf_counter() - started) * 1000, 1))
                facts = self._tellable(step)
                span.set_attributes(_flat(facts))
                await self._record(name, facts.pop("outcome", outcome), facts, step.basis)

    @asynccontextmanager
    async def held(self, name: Step, manager: AbstractAsyncContextManager[T], **facts: Any) -> AsyncIterator[T]:
        """`manager`, with its entering recorded as step `name` and its leaving as `gone`.

        What was entered is left, also when its entering could not be recorded; and left is left, recorded or not.
        """

        async def let_go(*_: object) -> None:
            try:
                async with self.step(Step.GONE, of=name, **facts):
                    await manager.__aexit__(None, None, None)
            except AuditUnavailable:
                log.error("gone_unrecorded", extra={"of": name, **self._ids})

        async with AsyncExitStack() as stack:
            async with self.step(name, **facts) as step:
                value = await manager.__aenter__()
                stack.push_async_exit(let_go)
                step.note(**described(value))
            yield value

    def _tellable(self, step: StepRecord) -> dict[str, Any]:
        facts = self.masks.facts(step.facts)
        return withholding(facts) if step.withheld else facts

    @contextmanager
    def _span(self, name: Step) -> Iterator[Span]:
        current = trace.get_current_span()
        parent = current if trace_id(current) == self.trace_id else self._root
        with self._tracer.start_as_current_span(
            name, context=trace.set_span_in_context(parent), record_exception=False, attributes=self._attributes()
        ) as span:
            yield span

    def _attributes(self) -> dict[str, str]:
        return {f"doorward.{name}": value for name, value in self._ids.items()}


def described(value: object) -> dict[str, Any]:
    """What a held thing says of itself: leases describe themselves, a workspace has the runtime's id."""
    describe = getattr(value, "describe", None)
    if describe is not None:
        return dict(describe())
    return {"id": value.id} if hasattr(value, "id") else {}


def _flat(facts: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """Facts that fit a span attribute; nested ones stay in the audit record, where they can be found by the ids."""
    return {f"doorward.{key}": value for key, value in facts.items() if isinstance(value, str | int | float | bool)}
