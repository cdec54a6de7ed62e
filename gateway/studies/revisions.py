"""What a build of a folder is called when nobody says: the commit it is from, with a mark where the folder differs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gateway.studies.errors import StudyError

SECONDS = 20
DIRTY = "-dirty"


def revision_of(folder: Path) -> str:
    """`git describe` of the folder's repository, `-dirty` where a file of the folder is not as committed.

    Raises StudyError where there is no repository: a name has to be given.
    """
    described = _git(folder, "describe", "--tags", "--always", "--abbrev=12")
    return f"{described}{DIRTY if _git(folder, 'status', '--porcelain', '--', '.') else ''}"


def _git(folder: Path, *words: str) -> str:
    try:
        ran = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unnamed(folder) from error
    if ran.returncode != 0:
        raise _unnamed(folder)
    return ran.stdout.strip()


def _unnamed(folder: Path) -> StudyError:
    return StudyError(
        f"{folder} is in no git repository with a commit, so what is built has no name",
        remedy="Say --revision: it is on every record of a decision.",
    )
