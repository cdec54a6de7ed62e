"""Passwords by argon2 hashes in a file."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import argon2
import pytest

from gateway.authn.argon2 import WAITING, Argon2Verifier, hashed, parse
from gateway.contracts.verifier import MakeTry, Outage, Try, VerifierContract, found, refusal, with_password
from gateway.errors import VerifierUnavailable
from gateway.proofs import HashedPassword
from tests.stack.process import write_secret

PASSWORD = "correct horse"
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
LINE = f"alice:{CHEAP.hash(PASSWORD)}\n"


def attempt(name: str = "alice", password: str = PASSWORD) -> Try:
    return with_password(HashedPassword(kind="argon2", username=name), password)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_secret(tmp_path / "passwords", f"# who may\n\n{LINE}bob:{CHEAP.hash('another')}\n")


@pytest.fixture
async def verifier(path: Path) -> AsyncIterator[Argon2Verifier]:
    async with Argon2Verifier.open(path) as opened:
        yield opened


class TestContract(VerifierContract):
    @pytest.fixture
    def right(self) -> MakeTry:
        return attempt

    @pytest.fixture
    def wrong(self) -> MakeTry:
        return lambda: attempt(password="wrong horse")

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: attempt("mallory", "wrong horse")

    @pytest.fixture
    def outage(self, path: Path) -> Outage:
        async def end() -> None:
            path.unlink()

        return end


async def test_each_has_their_own_password(verifier: Argon2Verifier) -> None:
    assert (await found(verifier, attempt("bob", "another"))).proven
    assert not (await found(verifier, attempt("bob"))).proven
    assert not (await found(verifier, attempt("alice", ""))).proven


async def test_a_file_that_changed_is_read_again(verifier: Argon2Verifier, path: Path) -> None:
    assert not (await found(verifier, attempt("carol", "new"))).proven
    os.replace(write_secret(path.with_suffix(".new"), f"carol:{CHEAP.hash('new')}\n"), path)

    assert (await found(verifier, attempt("carol", "new"))).proven
    assert not (await found(verifier, attempt())).proven


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
async def test_a_file_that_others_may_touch_is_not_used(verifier: Argon2Verifier, path: Path, mode: int) -> None:
    assert (await found(verifier, attempt())).proven
    path.chmod(mode)
    error = await refusal(verifier, attempt())

    assert error.reasons[0].code == "secrets_file"
    assert str(path) not in str(error)
    assert "authn.password_file" in str(error.__cause__)
    assert "chmod 600" in str(error.__cause__)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("alice\n", "line 1 is not"),
        (f"{LINE}{LINE}", "line 2: this name is there twice"),
        ("alice:hunter2-in-the-clear\n", "line 1 is not"),
        ("alice:$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA\n", "line 1 is not"),
        ("alice:$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA\n", "memory_cost"),
        ("alice:$argon2id$v=19$m=64,t=99,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA\n", "time_cost"),
        ("alice:$argon2id$v=19$m=8,t=1,p=9$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA\n", "memory_cost"),
        ("alice:$argon2id$v=19$m=64,t=1,p=1$c29t$c29tZWhhc2hzb21laGFzaA\n", "salt_len"),
        ("alice:$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQab$c29tZWhhc2hzb21laGFzaA\n", "line 1: .*cut short"),
        ("alice:$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaAxyz\n", "line 1: .*cut short"),
        ("\udcff", "is not UTF-8"),
    ],
)
async def test_a_file_that_is_not_understood_proves_nothing(
    verifier: Argon2Verifier, path: Path, text: str, why: str
) -> None:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    error = await refusal(verifier, attempt())

    assert re.search(why, str(error.__cause__))
    assert "hunter2" not in str(error.__cause__)
    with pytest.raises(VerifierUnavailable):
        await verifier.check()


async def test_a_pipe_in_the_files_place_is_refused_at_once(verifier: Argon2Verifier, path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)

    assert "is not a file" in str((await refusal(verifier, attempt())).__cause__)


async def test_a_file_with_nobody_in_it_lets_nobody_in(verifier: Argon2Verifier, path: Path) -> None:
    path.write_text("")

    assert not (await found(verifier, attempt())).proven


async def test_an_unknown_name_costs_what_a_wrong_password_costs(path: Path) -> None:
    ours = argon2.PasswordHasher(time_cost=2, memory_cost=16 * 1024, parallelism=1)  # a sixth of the usual
    path.write_text(f"alice:{ours.hash(PASSWORD)}\n")
    async with Argon2Verifier.open(path) as verifier:

        async def seconds(name: str) -> float:
            began = time.process_time()
            assert not (await found(verifier, attempt(name, "wrong"))).proven
            return time.process_time() - began

        wrong = min([await seconds("alice") for _ in range(5)])
        nobody = min([await seconds("mallory") for _ in range(5)])

    assert 0.5 < nobody / wrong < 2


async def test_hashing_does_not_hold_up_the_others(path: Path) -> None:
    dear = argon2.PasswordHasher(time_cost=4, memory_cost=16 * 1024, parallelism=1)
    path.write_text(f"alice:{dear.hash(PASSWORD)}\n")
    async with Argon2Verifier.open(path) as verifier:
        checking = asyncio.gather(*(found(verifier, attempt()) for _ in range(4)))
        turns = 0
        while not checking.done():
            turns += 1
            await asyncio.sleep(0)

        assert all(answer.proven for answer in await checking)
    assert turns > 50


async def test_more_than_can_wait_are_turned_away_and_the_others_served(verifier: Argon2Verifier) -> None:
    tries = [verifier.verify(attempt().verification, attempt().evidence) for _ in range(WAITING + 5)]
    answers = await asyncio.gather(*tries, return_exceptions=True)

    assert sum(isinstance(answer, VerifierUnavailable) for answer in answers) == 5
    assert (await found(verifier, attempt())).proven


def test_a_line_that_is_made_is_understood() -> None:
    assert list(parse(f"alice:{hashed(PASSWORD)}")) == ["alice"]
