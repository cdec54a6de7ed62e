"""Passwords, proven by argon2id hashes in a file of the gateway's own: lines of `name:$argon2id$...`."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import zlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import argon2
from pydantic import SecretStr

from gateway.authn import Evidence, Verified
from gateway.authn.private_file import PrivateFile
from gateway.errors import VerifierUnavailable
from gateway.proofs import HashedPassword

THREADS = 2
"""Hashing takes a core and 64 MiB each: more at once would make logins slow for all."""
WAITING = 64
SECONDS = 10.0
BOUNDS = {
    "memory_cost": (8, 2**20), "time_cost": (1, 20), "parallelism": (1, 16), "salt_len": (8, 64), "hash_len": (16, 64)
}  # fmt: skip
"""What a hash may cost: at most 1 GiB (memory is counted in KiB)."""
PLAIN = f"$argon2id$v=19$m=65536,t=3,p=4${'A' * 22}${'A' * 43}"
"""What an empty file's hashes are taken to cost: the library's own recommendation."""
LINE = re.compile(r"(?P<name>[^:]+):(?P<hash>\$argon2id\$v=19\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+)")


class Argon2Verifier:
    """The verifier of kind `argon2`.  It has no claims: the file holds nothing else to tell."""

    def __init__(self, path: Path, threads: ThreadPoolExecutor) -> None:
        """`open` makes one."""
        self._file = PrivateFile(path, "authn.password_file", parse)
        self._threads = threads
        self._waiting = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Argon2Verifier]:
        """The file is read when it is needed, and again whenever it changed."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        try:
            yield cls(path, threads)
        finally:
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    async def verify(self, verification: HashedPassword, evidence: Evidence) -> Verified:
        """See `Verifier.verify`.  Cancelled, a hash that has begun is computed to its end, for nobody."""
        if evidence.password is None:
            raise VerifierUnavailable("a password is needed, and there is none")
        if self._waiting >= WAITING:
            raise VerifierUnavailable("too many passwords are being checked", code="verifier_busy")
        self._waiting += 1
        try:
            async with asyncio.timeout(SECONDS):
                check = partial(self._is_right, verification.username, evidence.password)
                return Verified(await asyncio.get_running_loop().run_in_executor(self._threads, check))
        except TimeoutError as error:
            raise VerifierUnavailable("checking the password took too long", code="verifier_timeout") from error
        finally:
            self._waiting -= 1

    async def check(self) -> None:
        """Raises VerifierUnavailable when the file cannot be used."""
        await asyncio.to_thread(self._file.read)

    def _is_right(self, name: str, password: SecretStr) -> bool:
        hashes = self._file.read()
        known = hashes.get(name)
        try:
            right = argon2.PasswordHasher().verify(known or _stand_in(hashes, name), password.get_secret_value())
        except argon2.exceptions.VerifyMismatchError:
            return False
        except argon2.exceptions.Argon2Error as error:
            raise VerifierUnavailable("the password's hash cannot be computed") from error
        return right and known is not None


def parse(text: str) -> Mapping[str, str]:
    """Hashes by name.  Raises ValueError that names the line and quotes nothing of it."""
    hashes: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = LINE.fullmatch(line.strip())
        if found is None:
            raise ValueError(f"line {number} is not name:$argon2id$v=19$...; `doorward password hash NAME` makes one")
        if found["name"] in hashes:
            raise ValueError(f"line {number}: this name is there twice")
        _bounded(found["hash"], number)
        hashes[found["name"]] = found["hash"]
    return hashes


def hashed(password: str) -> str:
    """A hash of `password`, at the library's recommended cost (RFC 9106's second recommendation)."""
    return argon2.PasswordHasher().hash(password)


def _bounded(text: str, number: int) -> None:
    try:
        cost = argon2.extract_parameters(text)
        for part in text.split("$")[-2:]:
            _unpacked(part)
    except ValueError:
        raise ValueError(f"line {number}: its salt or its hash is cut short") from None
    beyond = [name for name, (least, most) in BOUNDS.items() if not least <= getattr(cost, name) <= most]
    if beyond or cost.memory_cost < 8 * cost.parallelism:
        raise ValueError(f"line {number}: {', '.join(beyond) or 'memory_cost'}: too little, or more than is taken")


def _stand_in(hashes: Mapping[str, str], name: str) -> str:
    """What an unknown name is checked against: a hash of nothing, as dear as one of the file's own, always the same."""
    known = sorted(hashes.values())
    like = known[zlib.crc32(name.encode()) % len(known)] if known else PLAIN
    head, salt, digest = like.rsplit("$", 2)
    return "$".join([head, _noise(salt), _noise(digest)])


def _noise(like: str) -> str:
    return base64.b64encode(secrets.token_bytes(len(_unpacked(like)))).decode().rstrip("=")


def _unpacked(part: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode(part + "=" * (-len(part) % 4), validate=True)
