"""Stop a log at each of its steps: a step is a call that changes what is on the disk.

`python -m tests.audit.stopping DIRECTORY keep|drop` runs one story again and again, each time in a process of its own
and in a folder of its own (`000`, `001`, ...), and kills it with SIGKILL before the next step; a write is half done
then.  It ends with the first story that comes to its end.  What was promised is in `promised`, a number a line.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from gateway.audit.chain import head_file
from gateway.audit.retention import tidy
from gateway.audit.rotation import Keeping
from gateway.audit.writer import Writer, now

STEPS = ("open", "write", "pwrite", "ftruncate", "fdatasync", "fsync", "rename", "unlink")
EVERY_TIME = Keeping(rotate_bytes=1)
KEEPING = {"keep": EVERY_TIME, "drop": Keeping(rotate_bytes=1, pack=True, keep_segments=1)}
RECORDS = 3

Stop = Callable[[str, tuple[Any, ...]], None]
"""Called before each step with its name and its arguments."""


@contextmanager
def before_each_step(stop: Stop) -> Iterator[None]:
    real = {name: getattr(os, name) for name in STEPS}

    def stopping(name: str) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            stop(name, args)
            return real[name](*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, stopping(name))
    try:
        yield
    finally:
        for name in STEPS:
            setattr(os, name, real[name])


class Log:
    """A writer with the head file that it needs."""

    def __init__(self, path: Path, keeping: Keeping) -> None:
        self.path, self.keeping = path, keeping
        self._heads = os.open(head_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._writer = Writer(path, self._heads, keeping)

    def record(self, number: int) -> None:
        removed = self._writer.append([({"time": now(), "event": "step", "number": number}, {})])
        if removed is not None:
            tidy(self.path, removed, pack=self.keeping.pack, stop=Event())

    def close(self) -> None:
        self._writer.close()
        os.close(self._heads)


def story(path: Path, keeping: Keeping, promised: Callable[[int], object]) -> None:
    log = Log(path, keeping)
    for number in range(RECORDS):
        log.record(number)
        promised(number)
    log.close()


def killed_at(step: int, folder: Path, keeping: Keeping) -> None:
    left, write = step, os.write
    promises = os.open(folder / "promised", os.O_WRONLY | os.O_CREAT)

    def stop(name: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if left == 0:
            if name == "write":
                write(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    with before_each_step(stop):
        story(folder / "audit.jsonl", keeping, lambda number: write(promises, b"%d\n" % number))


def main(directory: Path, keeping: Keeping) -> None:
    for step in range(1000):
        folder = directory / f"{step:03d}"
        folder.mkdir()
        child = os.fork()
        if child == 0:
            killed_at(step, folder, keeping)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]), KEEPING[sys.argv[2]])
