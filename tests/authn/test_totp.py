"""One-time codes: RFC 6238's own vectors, secrets of the gateway's own, and a real Vault."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import multiprocessing
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyotp
import pytest
from pydantic import SecretStr

from gateway.authn import used_codes
from gateway.authn.attempts import ACCOUNTS, Attempts
from gateway.authn.totp import TotpVerifier, enrolled, parse
from gateway.authn.used_codes import UsedCodes
from gateway.contracts.verifier import (
    MakeTry,
    Outage,
    Try,
    VerifierContract,
    evidence,
    found,
    refusal,
    with_answer,
)
from gateway.errors import VerifierUnavailable
from gateway.proofs import Totp
from gateway.settings_authn import TotpSettings
from tests.stack.process import write_secret

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
NOW = 1_700_000_010.0  # in the middle of a period


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def code(at: float, secret: str = SECRET) -> str:
    return pyotp.TOTP(secret).at(int(at))


def attempt(answer: str, account: str = "alice", source: str = "local") -> Try:
    return with_answer(Totp.model_validate({"kind": "totp", "source": source, "account": account}), answer)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def secrets_file(tmp_path: Path) -> Path:
    lines = [f"{name} otpauth://totp/doorward:{name}?secret={SECRET}&issuer=doorward" for name in ("alice", "bob")]
    return write_secret(tmp_path / "totp-secrets", "\n".join(["# who has a phone", "", *lines, ""]))


@asynccontextmanager
async def verifying(
    secrets_file: Path | None, clock: Callable[[], float], state: Path, **changes: Any
) -> AsyncIterator[TotpVerifier]:
    settings = TotpSettings.model_validate({"secrets_file": secrets_file, **changes})
    async with TotpVerifier.open(settings, None, state, clock) as verifier:
        yield verifier


@pytest.fixture
async def verifier(secrets_file: Path, clock: Clock, tmp_path: Path) -> AsyncIterator[TotpVerifier]:
    async with verifying(secrets_file, clock, tmp_path) as opened:
        yield opened


class TestLocal(VerifierContract):
    @pytest.fixture
    def right(self, clock: Clock) -> MakeTry:
        def make() -> Try:
            clock.now += 60
            return attempt(code(clock.now))

        return make

    @pytest.fixture
    def wrong(self) -> MakeTry:
        return lambda: attempt("000000")

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: attempt("000000", "mallory")

    @pytest.fixture
    def outage(self, secrets_file: Path) -> Outage:
        async def end() -> None:
            secrets_file.unlink()

        return end


# -- RFC 6238, appendix B ---------------------------------------------------------------------------------------------

TIMES = [59, 1111111109, 1111111111, 1234567890, 2000000000, 20000000000]
VECTORS = {
    "SHA1": (b"12345678901234567890", "94287082 07081804 14050471 89005924 69279037 65353130"),
    "SHA256": (b"12345678901234567890123456789012", "46119246 68084774 67062674 91819424 90698825 77737706"),
    "SHA512": (b"1234567890" * 6 + b"1234", "90693936 25091201 99943326 93441116 38618901 47863826"),
}


@pytest.mark.parametrize(
    ("algorithm", "at", "answer"),
    [
        (algorithm, at, answer)
        for algorithm, (_, answers) in VECTORS.items()
        for at, answer in zip(TIMES, answers.split(), strict=True)
    ],
)
async def test_the_vectors_of_rfc_6238(tmp_path: Path, clock: Clock, algorithm: str, at: int, answer: str) -> None:
    secret = base64.b32encode(VECTORS[algorithm][0]).decode().rstrip("=")
    uri = f"otpauth://totp/x:alice?secret={secret}&issuer=x&algorithm={algorithm}&digits=8&period=30"
    path = write_secret(tmp_path / "secrets", f"alice {uri}\n")
    clock.now = at
    async with verifying(path, clock, tmp_path) as verifier:
        assert not (await found(verifier, attempt(answer[2:]))).proven
        assert (await found(verifier, attempt(answer))).proven


# -- when a code is good ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "proven"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
async def test_a_clock_may_be_off_by_one_period(
    verifier: TotpVerifier, clock: Clock, seconds: int, proven: bool
) -> None:
    assert (await found(verifier, attempt(code(clock.now + seconds)))).proven is proven


@pytest.mark.parametrize("typed", [" {}", "{} ", "{:.3} {:.0}"])
async def test_spaces_do_not_matter(verifier: TotpVerifier, clock: Clock, typed: str) -> None:
    right = code(clock.now)
    text = f"{right[:3]} {right[3:]}" if "." in typed else typed.format(right)

    assert (await found(verifier, attempt(text))).proven


@pytest.mark.parametrize("typed", ["", "123", "１２３４５６", "12345a", "1" * 4000, "\0" * 6])
async def test_what_is_no_code_is_wrong_and_no_error(verifier: TotpVerifier, typed: str) -> None:
    assert not (await found(verifier, attempt(typed))).proven


# -- no code is good twice --------------------------------------------------------------------------------------------


async def test_no_code_is_good_twice(verifier: TotpVerifier, clock: Clock) -> None:
    assert (await found(verifier, attempt(code(clock.now)))).proven
    again = await found(verifier, attempt(code(clock.now)))

    assert not again.proven
    assert again.claims == {"source": "local", "used_before": True}


async def test_nor_is_an_older_one_that_was_not_used(verifier: TotpVerifier, clock: Clock) -> None:
    assert (await found(verifier, attempt(code(clock.now)))).proven
    assert not (await found(verifier, attempt(code(clock.now - 30)))).proven
    assert (await found(verifier, attempt(code(clock.now + 30)))).proven


async def test_a_code_of_one_account_is_another_one_s_to_use(verifier: TotpVerifier, clock: Clock) -> None:
    assert (await found(verifier, attempt(code(clock.now), "alice"))).proven
    assert (await found(verifier, attempt(code(clock.now), "bob"))).proven


async def test_of_many_at_once_one_is_proven(secrets_file: Path, clock: Clock, tmp_path: Path) -> None:
    async with verifying(secrets_file, clock, tmp_path, attempts=100) as verifier:
        answers = await asyncio.gather(*(found(verifier, attempt(code(clock.now))) for _ in range(30)))

    assert sum(answer.proven for answer in answers) == 1


async def test_a_restart_forgets_nothing(secrets_file: Path, clock: Clock, tmp_path: Path) -> None:
    for expected in (True, False):
        async with verifying(secrets_file, clock, tmp_path) as verifier:
            assert (await found(verifier, attempt(code(clock.now)))).proven is expected


def _claims(folder: Path, out: Any) -> None:
    used = UsedCodes(folder)
    out.put(sum(asyncio.run(used.claim("alice", counter, SecretStr("x"))) for counter in range(50)))


def test_two_processes_share_what_was_used(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    workers = [context.Process(target=_claims, args=(tmp_path / "totp", out)) for _ in range(2)]
    for worker in workers:
        worker.start()
    claimed = [out.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()

    assert sum(claimed) <= 50
    assert max(claimed) > 0


async def test_a_code_whose_period_is_not_known_is_remembered_itself(tmp_path: Path, clock: Clock) -> None:
    used = UsedCodes(tmp_path / "totp", clock)
    claims = [await used.claim("alice", None, SecretStr(text)) for text in ("123456", "123456", "654321")]
    clock.now += 3601
    claims.append(await used.claim("alice", None, SecretStr("123456")))

    assert claims == [True, False, True, True]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"counter": "1", "codes": {}}', '{"counter": 1, "codes": {"x": "y"}}', "\0"]
)
async def test_what_was_used_and_cannot_be_read_makes_every_code_wrong(
    verifier: TotpVerifier, clock: Clock, tmp_path: Path, text: str
) -> None:
    assert (await found(verifier, attempt(code(clock.now)))).proven
    [kept] = (tmp_path / "totp").iterdir()
    kept.write_text(text)
    clock.now += 60

    await refusal(verifier, attempt(code(clock.now)))


async def test_what_cannot_be_kept_is_not_taken(verifier: TotpVerifier, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "totp").write_text("a file where the folder should be")
    await refusal(verifier, attempt(code(clock.now)))
    with pytest.raises(VerifierUnavailable):
        await verifier.check()


async def test_a_state_folder_that_is_made_is_private(tmp_path: Path) -> None:
    await UsedCodes(tmp_path / "state" / "totp").check()

    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


async def test_a_lock_that_is_not_let_go_makes_nobody_wait_for_ever(
    verifier: TotpVerifier, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(used_codes, "LOCK_SECONDS", 0.1)
    (tmp_path / "totp").mkdir()
    folder = os.open(tmp_path / "totp", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        await refusal(verifier, attempt(code(clock.now)))
    finally:
        os.close(folder)
    assert (await found(verifier, attempt(code(clock.now)))).proven


async def test_what_is_kept_is_nobody_else_s_and_holds_no_secret(
    verifier: TotpVerifier, clock: Clock, tmp_path: Path
) -> None:
    assert (await found(verifier, attempt(code(clock.now)))).proven
    folder = tmp_path / "totp"
    [kept] = folder.iterdir()

    assert (folder.stat().st_mode & 0o777, kept.stat().st_mode & 0o777) == (0o700, 0o600)
    assert json.loads(kept.read_text()) == {"counter": int(clock.now) // 30, "codes": {}}


# -- guessing ---------------------------------------------------------------------------------------------------------


async def test_who_guesses_has_to_wait_and_the_right_code_does_not_help(
    secrets_file: Path, clock: Clock, tmp_path: Path
) -> None:
    async with verifying(secrets_file, clock, tmp_path, attempts=3) as verifier:
        for _ in range(3):
            assert not (await found(verifier, attempt("000000"))).proven
        answer = await found(verifier, attempt(code(clock.now)))
        other = await found(verifier, attempt(code(clock.now), "bob"))

    assert not answer.proven
    assert answer.claims == {"source": "local", "too_many": True}
    assert other.proven


async def test_many_guesses_at_once_are_no_more_than_in_turn(secrets_file: Path, clock: Clock, tmp_path: Path) -> None:
    async with verifying(secrets_file, clock, tmp_path, attempts=3) as verifier:
        answers = await asyncio.gather(*(found(verifier, attempt(f"{n:06}")) for n in range(20)))

    assert sum("too_many" not in answer.claims for answer in answers) == 3


async def test_somebody_unknown_has_to_wait_as_well(secrets_file: Path, clock: Clock, tmp_path: Path) -> None:
    async with verifying(secrets_file, clock, tmp_path, attempts=1) as verifier:
        answers = [await found(verifier, attempt("000000", "mallory")) for _ in range(2)]

    assert answers[1].claims == {"source": "local", "too_many": True}


def test_attempts_count_for_a_while_and_are_forgotten_when_it_was_right() -> None:
    clock = Clock()
    attempts = Attempts(2, 60, clock)
    assert [attempts.begin("a") for _ in range(3)] == [True, True, False]
    clock.now += 61
    assert [attempts.begin("a") for _ in range(3)] == [True, True, False]
    attempts.forget("a")
    assert attempts.begin("a")
    for number in range(ACCOUNTS + 5):
        attempts.begin(f"made-up-{number}")
    assert len(attempts._begun) == ACCOUNTS


# -- the file ---------------------------------------------------------------------------------------------------------

URI = f"otpauth://totp/x:alice?secret={SECRET}&issuer=x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (URI, "line 1"),
        (f"alice {URI}\nalice {URI}", "line 2: .*twice"),
        (f"alice {URI}\nbob otpauth://totp/x?issuer=x", "line 2: is no"),
        ("alice JBSWY3DPEHPK3PXP", "line 1: is no"),
        (f"alice {URI.replace('totp', 'hotp')}&counter=1", "line 1: is no"),
        (f"alice {URI}&encoder=steam", "line 1: is no"),
        ("alice otpauth://totp/x:alice?secret=0189&issuer=x", "line 1: is no"),
        ("alice otpauth://totp/x:alice?secret=JBSWY3DP&issuer=x", "112 bits"),
        (f"alice {URI}&digits=7", "6 or 8"),
        (f"alice {URI}&period=1", "period"),
        (f"alice {URI}&period=3600", "period"),
        (f"alice {URI}&algorithm=MD5", "line 1: is no"),
    ],
)
def test_a_line_that_is_not_understood_is_named_and_not_quoted(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        parse(text)

    assert SECRET not in str(raised.value)


def test_what_is_enrolled_is_understood() -> None:
    accounts = parse(f"Alice von Beispiel {enrolled('Alice von Beispiel', 'doorward')}")

    assert accounts["Alice von Beispiel"].interval == 30
    assert len(accounts["Alice von Beispiel"].byte_secret()) >= 20


async def test_a_file_that_others_may_read_is_not_used(
    verifier: TotpVerifier, secrets_file: Path, clock: Clock
) -> None:
    secrets_file.chmod(0o644)
    assert "chmod" in str((await refusal(verifier, attempt(code(clock.now)))).__cause__)


async def test_what_is_not_set_up_is_named(verifier: TotpVerifier, clock: Clock) -> None:
    missing = await refusal(verifier, attempt("000000", source="vault"))
    mute = await refusal(verifier, Try(attempt("x").verification, evidence()))

    assert "authn.vault.token" in missing.reasons[0].remedy
    assert "keyboard-interactive" in mute.reasons[0].remedy
