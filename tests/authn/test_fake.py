"""The stand-in keeps the contract, so tests that use it show something."""

from __future__ import annotations

import pytest

from gateway.contracts.verifier import MakeTry, Outage, VerifierContract, with_password
from gateway.proofs import HashedPassword
from tests.fakes import Known


class TestContract(VerifierContract):
    @pytest.fixture
    def verifier(self) -> Known:
        return Known({"alice": "correct horse"})

    @pytest.fixture
    def right(self) -> MakeTry:
        return lambda: with_password(HashedPassword(kind="argon2", username="alice"), "correct horse")

    @pytest.fixture
    def wrong(self) -> MakeTry:
        return lambda: with_password(HashedPassword(kind="argon2", username="alice"), "wrong horse")

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: with_password(HashedPassword(kind="argon2", username="mallory"), "wrong horse")

    @pytest.fixture
    def outage(self, verifier: Known) -> Outage:
        async def end() -> None:
            verifier.unavailable = True

        return end
