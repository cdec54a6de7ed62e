"""Webhooks that policy has told: signed, tried a bounded number of times, and every outcome on record.

    POST url   {"schema": 1, "event", "delivery", "time", "gateway", "session", "person", ..., "facts": {...}}
    doorward-delivery: the same id on every attempt, so that a receiver can tell a repetition
    doorward-timestamp: seconds since 1970, of this attempt
    doorward-signature: sha256=<HMAC-SHA256 of "timestamp.body" under the hook's secret, in hexadecimal>

Any 2xx is a delivery.  A message holds what the record would: what is masked there is masked here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from gateway.audit.journal import Journal
from gateway.authn.fetch import Site, open_client
from gateway.concurrency import background
from gateway.errors import AuditUnavailable, DoorwardError, VerifierUnavailable
from gateway.settings_hooks import HookSettings
from gateway.telemetry import Step

log = logging.getLogger(__name__)

MAX_PENDING = 1000
WORKERS = 4
DRAIN_SECONDS = 3.0
AGAIN = frozenset({408, 425, 429})
"""Statuses below 500 that say: later."""


class HookUnavailable(DoorwardError):
    """A message that had to be delivered was not."""

    code = "hook_unavailable"
    remedy = "Nothing is wrong with your grant. Tell the platform team; try again when the webhook answers."


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell, in the session that it is about."""

    journal: Journal
    event: str
    delivery: str
    body: bytes

    @property
    def facts(self) -> dict[str, str]:
        return {"about": self.event, "delivery": self.delivery}


class Hook:
    """One webhook, and what waits to be told to it."""

    def __init__(self, name: str, settings: HookSettings, site: Site, secret: SecretStr) -> None:
        self.name = name
        self._settings = settings
        self._site = site
        self._secret = secret
        self._pending: asyncio.Queue[Message] = asyncio.Queue(MAX_PENDING)

    async def deliver(self, message: Message, *, required: bool) -> None:
        """Deliver it now.  Raises HookUnavailable, or AuditUnavailable."""
        async with message.journal.step(Step.NOTIFY, hook=self.name, required=required, **message.facts) as step:
            for attempt in range(1, self._settings.attempts + 1):
                step.note(attempts=attempt)
                status, why = await self._try(message)
                step.note(status=status) if status else step.note(failure=why)
                if 200 <= status < 300:
                    return
                if 0 < status < 500 and status not in AGAIN:
                    break
                if attempt < self._settings.attempts:
                    await asyncio.sleep(2 ** (attempt - 1))
            raise HookUnavailable(f"the webhook {self.name} could not be told")

    async def later(self, message: Message) -> None:
        """Have it delivered beside everything else.  What is too much is dropped, and that is on record."""
        try:
            self._pending.put_nowait(message)
        except asyncio.QueueFull:
            await message.journal.record(Step.NOTIFY, "dropped", hook=self.name, **message.facts)

    async def work(self) -> None:
        """Deliver what waits, for ever."""
        while True:
            message = await self._pending.get()
            try:
                await self.deliver(message, required=False)
            except (HookUnavailable, AuditUnavailable) as error:
                log.warning("hook_failed", extra={"hook": self.name, "code": error.reasons[0].code})
            finally:
                self._pending.task_done()

    async def drained(self) -> None:
        """Give what waits a moment, and put on record what then was not told."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._pending.join()
        except TimeoutError:
            log.warning("hook_undelivered", extra={"hook": self.name, "messages": self._pending.qsize()})
        while not self._pending.empty():
            message = self._pending.get_nowait()
            await message.journal.record(Step.NOTIFY, "undelivered", hook=self.name, **message.facts)

    async def _try(self, message: Message) -> tuple[int, str]:
        now = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "doorward-delivery": message.delivery,
            "doorward-timestamp": now,
            "doorward-signature": f"sha256={signature(self._secret, now, message.body)}",
        }
        try:
            answer = await self._site.ask("POST", self._settings.url, content=message.body, headers=headers)
        except VerifierUnavailable as error:
            return 0, error.reasons[0].message
        return answer.status, ""


def signature(secret: SecretStr, timestamp: str, body: bytes) -> str:
    return hmac.new(secret.get_secret_value().encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Hooks:
    """The webhooks that the settings name."""

    def __init__(self, hooks: Mapping[str, Hook], instance: str) -> None:
        self._hooks = hooks
        self._instance = instance
        self.names = frozenset(hooks)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Mapping[str, HookSettings], instance: str) -> AsyncIterator[Hooks]:
        """Raises SettingsError."""
        async with AsyncExitStack() as stack:
            hooks = {}
            for name, one in settings.items():
                http = open_client(
                    f"hooks.{name}", ca_file=one.ca_file, certificate=one.client_certificate, key=one.client_key
                )
                await stack.enter_async_context(http)
                site = Site(f"the webhook {name}", http, one.timeout_seconds)
                hooks[name] = hook = Hook(name, one, site, one.secret.read())
                for _ in range(WORKERS):
                    await stack.enter_async_context(background(hook.work()))
                stack.push_async_callback(hook.drained)
            yield cls(hooks, instance)

    async def tell(
        self, journal: Journal, event: str, facts: Mapping[str, Any], hooks: Iterable[tuple[str, bool]]
    ) -> None:
        """Tell each of `hooks` (name, and whether nothing goes on before it is delivered), the required ones first.

        Raises HookUnavailable where a required one was not told, and AuditUnavailable.
        """
        for name, required in sorted(hooks, key=lambda hook: not hook[1]):
            message = self._message(journal, event, facts)
            if required:
                await self._hooks[name].deliver(message, required=True)
            else:
                await self._hooks[name].later(message)

    def _message(self, journal: Journal, event: str, facts: Mapping[str, Any]) -> Message:
        delivery = str(uuid.uuid4())
        body = {
            "schema": 1,
            "event": event,
            "delivery": delivery,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "gateway": self._instance,
            "trace_id": journal.trace_id,
            **journal.ids,
            "facts": journal.masks.facts(facts),
        }
        return Message(journal, event, delivery, json.dumps(body, ensure_ascii=False).encode())
