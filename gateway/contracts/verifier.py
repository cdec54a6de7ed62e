"""What every verifier must do.

A verifier's tests inherit `VerifierContract` and bring these fixtures:

    verifier   the Verifier
    right      a function that makes an attempt that is proven, as often as it is called
    wrong      the same person with another proof
    unknown    somebody whom nobody knows, with a proof like the wrong one
    outage     takes away for good what the verifier asks; None where it asks nothing
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.authn import Evidence, Prompt, Verified, Verifier
from gateway.errors import VerifierUnavailable
from gateway.proofs import Key

IN_TIME = 20.0
"""The settings' few seconds, and what a busy machine may add."""


@dataclass(frozen=True)
class Try:
    """One attempt; `secrets` are what must not be seen anywhere."""

    verification: Any
    evidence: Evidence
    secrets: Sequence[str] = field(default=(), repr=False)


MakeTry = Callable[[], Try]
Outage = Callable[[], Awaitable[None]] | None


def with_password(verification: Any, password: str, **changes: Any) -> Try:
    return Try(verification, evidence(password=SecretStr(password), **changes), (password,))


def with_key(verification: Any, public_key: str) -> Try:
    key = Key(type=public_key.split()[0], fingerprint="SHA256:x", public_key=public_key)
    return Try(verification, evidence(key=key))


def with_answer(verification: Any, answer: str) -> Try:
    """Over keyboard-interactive."""

    async def ask(_instruction: str, prompts: Sequence[Prompt]) -> Sequence[SecretStr]:
        return [SecretStr(answer) for _ in prompts]

    return Try(verification, evidence(ask=ask), (answer,))


def evidence(**what: Any) -> Evidence:
    known = {"login": "alice+orders-db", "connection_id": "s-1", "client_address": "192.0.2.7", "client_port": 4711}
    return Evidence(**{**known, "client_software": "SSH-2.0-OpenSSH_9.2", **what})


async def found(verifier: Verifier, attempt: Try) -> Verified:
    async with asyncio.timeout(IN_TIME):
        return await verifier.verify(attempt.verification, attempt.evidence)


async def refusal(verifier: Verifier, attempt: Try) -> VerifierUnavailable:
    with pytest.raises(VerifierUnavailable) as raised:
        await found(verifier, attempt)
    return raised.value


class VerifierContract:
    async def test_what_is_right_is_proven(self, verifier: Verifier, right: MakeTry) -> None:
        for _ in range(2):
            assert (await found(verifier, right())).proven is True

    async def test_what_is_wrong_is_an_answer_and_no_error(self, verifier: Verifier, wrong: MakeTry) -> None:
        assert (await found(verifier, wrong())).proven is False

    async def test_an_unknown_name_takes_the_same_path(
        self, verifier: Verifier, wrong: MakeTry, unknown: MakeTry
    ) -> None:
        known, nobody = await found(verifier, wrong()), await found(verifier, unknown())

        assert nobody.proven is False
        assert nobody.claims.keys() == known.claims.keys()

    async def test_many_at_once_are_told_apart(
        self, verifier: Verifier, right: MakeTry, wrong: MakeTry, unknown: MakeTry
    ) -> None:
        tries = [make() for make in (right, wrong, unknown)]
        answers = await asyncio.gather(*(found(verifier, one) for one in tries))

        assert [answer.proven for answer in answers] == [True, False, False]

    async def test_claims_are_facts_and_no_secrets(self, verifier: Verifier, right: MakeTry, wrong: MakeTry) -> None:
        for attempt in (right(), wrong()):
            answer = await found(verifier, attempt)
            assert_hidden(attempt, json.dumps(dict(answer.claims)) + repr(answer) + repr(attempt.evidence))

    async def test_nothing_that_was_typed_is_logged(
        self,
        verifier: Verifier,
        right: MakeTry,
        wrong: MakeTry,
        unknown: MakeTry,
        outage: Outage,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO)
        caplog.set_level(logging.DEBUG, "gateway")
        tries = [make() for make in (right, wrong, unknown)]
        for attempt in tries:
            await found(verifier, attempt)
        errors = ""
        if outage is not None:
            await outage()
            tries.append(right())
            error = await refusal(verifier, tries[-1])
            errors = "".join(traceback.format_exception(error)) + everything_in(error)
        for attempt in tries:
            assert_hidden(attempt, "".join(str(vars(record)) for record in caplog.records) + errors)

    async def test_what_is_gone_is_unavailable_in_time(
        self, verifier: Verifier, right: MakeTry, outage: Outage
    ) -> None:
        if outage is None:
            return
        await outage()
        began = time.monotonic()
        error = await refusal(verifier, right())

        assert time.monotonic() - began < IN_TIME
        assert error.reasons[0].code
        assert error.reasons[0].remedy

    @pytest.mark.parametrize("milliseconds", [0, 1, 3, 8, 20, 60])
    async def test_cancelled_at_any_moment_it_lets_go(
        self, verifier: Verifier, right: MakeTry, milliseconds: int
    ) -> None:
        attempt = right()
        verifying = asyncio.ensure_future(verifier.verify(attempt.verification, attempt.evidence))
        await asyncio.wait([verifying], timeout=milliseconds / 1000)
        verifying.cancel()
        await asyncio.wait([verifying], timeout=IN_TIME)

        assert verifying.done()
        assert verifying.cancelled() or verifying.result().proven
        assert (await found(verifier, right())).proven is True


def assert_hidden(attempt: Try, text: str) -> None:
    for secret in attempt.secrets:
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode() not in text


def everything_in(error: BaseException | None) -> str:
    """The error, its causes, and what their own attributes say."""
    said = ""
    while error is not None:
        said += f"{error!r} {vars(error)!r} "
        request = getattr(error, "_request", None)
        said += repr(vars(request)) if request is not None else ""
        error = error.__cause__ or error.__context__
    return said
