"""One-time codes (RFC 6238), proven by Vault's TOTP engine or by secrets in a file of the gateway's own.

The file has lines of `account otpauth://totp/...?secret=...`, as `doorward totp enrol` prints them.
No code is good twice (`used_codes.py`), and who guesses has to wait (`attempts.py`).
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyotp
from pydantic import JsonValue, SecretStr

from gateway.authn import Evidence, Prompt, Verified
from gateway.authn.attempts import Attempts
from gateway.authn.private_file import PrivateFile
from gateway.authn.used_codes import UsedCodes
from gateway.authn.vault import Vault, errors_in, segment
from gateway.errors import VerifierUnavailable
from gateway.proofs import Totp
from gateway.settings_authn import TotpSettings, VaultAuthnSettings

SKEW = 1
"""How many periods a clock may be off."""
DIGITS = (6, 8)
SHORTEST = 15
"""Seconds of a period.  More than 120 s, and a secret of less than 112 bits, pyotp refuses (NIST SP 800-63B-4)."""


@dataclass(frozen=True, slots=True)
class Match:
    """A code that is right, and the period it is of.  Vault does not say which that is, but whether it was used."""

    counter: int | None = None
    was_used: bool = False


class Source(Protocol):
    """Where codes are looked at."""

    async def match(self, verification: Totp, code: SecretStr) -> Match | None:
        """None for a wrong code and an unknown account alike.  Raises VerifierUnavailable."""
        ...

    async def check(self) -> None: ...


class TotpVerifier:
    """The verifier of kind `totp`.

    `claims`: `source`; where it is so, `used_before` (the code is right, and was used already) or `too_many` (nothing
    was looked at, for too many wrong codes came before).
    """

    def __init__(self, sources: Mapping[str, Source], attempts: Attempts, used: UsedCodes) -> None:
        self._sources = sources
        self._attempts = attempts
        self._used = used

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: TotpSettings,
        vault: VaultAuthnSettings | None,
        state: Path,
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[TotpVerifier]:
        """What was used is kept in `state`.  Raises SettingsError."""
        async with AsyncExitStack() as stack:
            sources: dict[str, Source] = {}
            if settings.secrets_file is not None:
                sources["local"] = LocalSecrets(settings.secrets_file, clock)
            if vault is not None and vault.token is not None:
                sources["vault"] = VaultCodes(await stack.enter_async_context(Vault.open(vault)))
            attempts = Attempts(settings.attempts, settings.within_seconds)
            yield cls(sources, attempts, UsedCodes(state / "totp", clock))

    async def verify(self, verification: Totp, evidence: Evidence) -> Verified:
        """See `Verifier.verify`."""
        source = self._source(verification.source)
        if evidence.ask is None:
            raise VerifierUnavailable(
                "the policy wants a one-time code where none can be asked for",
                remedy="Tell the platform team: policy may name `totp` for keyboard-interactive only.",
            )
        [answer] = await evidence.ask("", [Prompt(verification.prompt, echo=False)])
        code = SecretStr("".join(answer.get_secret_value().split()))
        account = f"{verification.source}/{verification.mount}/{verification.account}"
        said: dict[str, JsonValue] = {"source": verification.source}
        if not self._attempts.begin(account):
            return Verified(False, {**said, "too_many": True})
        match = await source.match(verification, code)
        if match is None:
            return Verified(False, said)
        if match.was_used or not await self._used.claim(account, match.counter, code):
            return Verified(False, {**said, "used_before": True})
        self._attempts.forget(account)
        return Verified(True, said)

    async def check(self) -> None:
        """Raises VerifierUnavailable when a source cannot be used, or what was used cannot be kept."""
        if not self._sources:
            raise VerifierUnavailable(
                "no source of one-time codes is set up", remedy="Set authn.totp.secrets_file, or authn.vault.token."
            )
        for source in self._sources.values():
            await source.check()
        await self._used.check()

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            raise VerifierUnavailable(
                f"the policy names {name!r} for one-time codes, which this gateway has not set up",
                remedy="Tell the platform team: the settings lack authn.totp.secrets_file, or authn.vault.token.",
            )
        return self._sources[name]


class VaultCodes:
    """Vault's TOTP engine.  It knows how far a clock may be off, and refuses a code that it has seen."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def match(self, verification: Totp, code: SecretStr) -> Match | None:
        path = f"{verification.mount}/code/{segment(verification.account)}"
        if verification.account in (".", "..") or not _is_code(code):
            return None
        body = {"code": code.get_secret_value()}
        status, said = await self._vault.post(path, body, self._vault.own_token())
        if status == 200 and isinstance(said, dict) and isinstance(said.get("data"), dict):
            return Match() if said["data"].get("valid") is True else None
        if status == 400 and any(error.startswith("code already used") for error in errors_in(said)):
            return Match(was_used=True)
        if any(error.startswith("unknown key") or "unsupported path" in error for error in errors_in(said)):
            return None  # no such account, or a name that Vault cannot spell
        raise VerifierUnavailable(
            f"Vault cannot check one-time codes at {verification.mount}",
            code="vault_failed",
            remedy="Platform team: is the TOTP engine enabled there, and may authn.vault.token update its code/*?",
        ) from PermissionError(f"status {status}: {'; '.join(errors_in(said))[:300]}")

    async def check(self) -> None:
        await self._vault.check()


class LocalSecrets:
    """Secrets in a file that only the gateway can read."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._file = PrivateFile(path, "authn.totp.secrets_file", parse)
        self._clock = clock

    async def match(self, verification: Totp, code: SecretStr) -> Match | None:
        accounts = await asyncio.to_thread(self._file.read)
        known = accounts.get(verification.account)
        found = _matching(known or pyotp.TOTP(pyotp.random_base32()), code.get_secret_value(), self._clock())
        return found if known is not None else None

    async def check(self) -> None:
        await asyncio.to_thread(self._file.read)


def _matching(secret: pyotp.TOTP, code: str, now: float) -> Match | None:
    """The newest period that `code` is right for; all are looked at, in the same time."""
    found = None
    current = int(now) // secret.interval
    for counter in range(max(0, current - SKEW), current + SKEW + 1):
        if hmac.compare_digest(secret.generate_otp(counter).encode(), code.encode()):
            found = Match(counter)
    return found


def _is_code(code: SecretStr) -> bool:
    text = code.get_secret_value()
    return text.isascii() and text.isdigit() and DIGITS[0] <= len(text) <= DIGITS[1]


def parse(text: str) -> Mapping[str, pyotp.TOTP]:
    """Secrets by account.  Raises ValueError that names the line and quotes nothing of it."""
    accounts: dict[str, pyotp.TOTP] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        account, _, uri = line.strip().rpartition(" ")
        account = account.strip()
        if not account or account in accounts:
            raise ValueError(f"line {number}: is not `account otpauth://totp/...`, or the account is there twice")
        accounts[account] = _secret(uri, number)
    return accounts


def _secret(uri: str, number: int) -> pyotp.TOTP:
    try:
        secret = pyotp.parse_uri(uri)
    except ValueError:
        secret = None
    if type(secret) is not pyotp.TOTP or secret.digits not in DIGITS or secret.interval < SHORTEST:
        raise ValueError(
            f"line {number}: is no otpauth://totp/ address with a secret of 112 bits or more, 6 or 8 digits and a"
            f" period of {SHORTEST} to 120 seconds; `doorward totp enrol ACCOUNT` makes one"
        )
    return secret


def enrolled(account: str, issuer: str) -> str:
    """An address with a new secret, as authenticator programs read it."""
    return pyotp.TOTP(pyotp.random_base32(32)).provisioning_uri(name=account, issuer_name=issuer)
