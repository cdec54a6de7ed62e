"""Codes that were used, on the disk: none is good twice, in whatever order, at once, or after a restart."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from gateway.concurrency import to_the_end
from gateway.errors import VerifierUnavailable

T = TypeVar("T")

LOCK_SECONDS = 5.0
REMEMBERED_SECONDS = 3600.0
"""For codes whose period is not known: longer than any of them is good for."""


class UsedCodes:
    """One file for each account that a right code was given for, below one folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    async def claim(self, account: str, counter: int | None, code: SecretStr) -> bool:
        """Whether this is the first use.  `counter` is the period that the code is of: an earlier one is used too;
        where it is not known (None) the code itself is remembered.  It is on the disk before the answer is yes.
        Raises VerifierUnavailable when it cannot be kept.
        """
        return await self._in_a_thread(lambda: self._claim(account, counter, code))

    async def check(self) -> None:
        """Raises VerifierUnavailable when nothing can be kept there."""
        await self._in_a_thread(self._hold_and_let_go)

    async def _in_a_thread(self, work: Callable[[], T]) -> T:
        try:
            return await to_the_end(asyncio.to_thread(work))
        except (OSError, ValueError) as error:
            raise VerifierUnavailable(
                "used one-time codes cannot be kept, so none is taken",
                remedy="Nothing is wrong with what you typed. Tell the platform team: `totp` in state_dir.",
            ) from error

    def _hold_and_let_go(self) -> None:
        with self._held():
            pass

    def _claim(self, account: str, counter: int | None, code: SecretStr) -> bool:
        # The digest of a code that was used keeps no secret; it only keeps codes apart.
        digest = hashlib.sha256(f"{account}\0{code.get_secret_value()}".encode()).hexdigest()
        with self._held() as folder:
            path = self._folder / hashlib.sha256(account.encode()).hexdigest()
            last, codes = _read(path)
            now = self._clock()
            codes = {one: at for one, at in codes.items() if abs(now - at) < REMEMBERED_SECONDS}
            if digest in codes if counter is None else counter <= last:
                return False
            if counter is None:
                codes[digest] = now
            else:
                last = counter
            _write(path, json.dumps({"counter": last, "codes": codes}))
            os.fsync(folder)
            return True

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The folder, locked against other threads and other processes."""
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # `parents` alone would let others read it
        self._folder.mkdir(mode=0o700, exist_ok=True)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(folder)
            yield folder
        finally:
            os.close(folder)


def _lock(folder: int) -> None:
    """Raises BlockingIOError when somebody else does not let go."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _read(path: Path) -> tuple[int, dict[str, float]]:
    """Raises ValueError for a file that is not ours: what was used is then unknown, so nothing is good."""
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return -1, {}
    counter, codes = (kept.get("counter"), kept.get("codes")) if isinstance(kept, dict) else (None, None)
    if not isinstance(counter, int) or not isinstance(codes, dict):
        raise ValueError(f"{path.name} is not what was written")
    if not all(isinstance(at, int | float) for at in codes.values()):
        raise ValueError(f"{path.name} is not what was written")
    return counter, codes


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    os.replace(new, path)
