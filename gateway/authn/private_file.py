"""A file of secrets that only the gateway's own user can read: read when needed, parsed again when it changed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from gateway.errors import VerifierUnavailable

T = TypeVar("T")

MAX_BYTES = 16 * 2**20
OTHERS = stat.S_IRWXG | stat.S_IRWXO


class PrivateFile(Generic[T]):
    """One file, as its parser understands it.  It blocks, and may be used from several threads."""

    def __init__(self, path: Path, setting: str, parse: Callable[[str], T]) -> None:
        """`parse` raises ValueError with words that quote nothing of the file."""
        self._path = path
        self._setting = setting
        self._parse = parse
        self._lock = threading.Lock()
        self._version: tuple[int, ...] = ()
        self._value: T | None = None

    def read(self) -> T:
        """Raises VerifierUnavailable for a file that is not there, not private, or not what it should be: what was
        read of it before does not count any more.
        """
        with self._lock:
            try:
                return self._read()
            except UnicodeDecodeError:
                why = "is not UTF-8"
            except OSError as error:
                why = error.strerror or "cannot be read"
            except ValueError as error:
                why = str(error)
        # Outside the handlers: a UnicodeDecodeError holds the bytes.  Who is at the door need not know where the file
        # is; `doorward check` shows the cause.
        raise VerifierUnavailable(
            "the gateway's own file of secrets cannot be used",
            code="secrets_file",
            remedy="Nothing is wrong with what you typed. Tell the platform team: `doorward check` says what it is.",
        ) from PermissionError(f"{self._setting}: {self._path}: {why}")

    def _read(self) -> T:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make us wait
        with open(descriptor, encoding="utf-8") as file:
            found = os.fstat(descriptor)
            _refuse_unless_private(found)
            version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if version != self._version or self._value is None:
                self._value, self._version = self._parse(file.read()), version
            return self._value


def _refuse_unless_private(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is not a file")
    if found.st_mode & OTHERS:
        raise ValueError("others may read or write it: run `chmod 600` on it")
    if found.st_uid not in (0, os.geteuid()):
        raise ValueError("belongs to another user: run `chown` on it")
    if found.st_size > MAX_BYTES:
        raise ValueError("is too large")
