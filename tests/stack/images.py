"""Workspace images without a registry: the debug image from Debian packages, and two that hold next to nothing."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded.tools import cache
from tests.stack import StackError
from tests.stack.docker import Docker, existing_docker

RECIPE = Path(__file__).parents[2] / "backends" / "docker"
SUITE = "bookworm"
CHANGES = ("USER 65532:65532", "WORKDIR /", 'CMD ["/bin/false"]')
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/:/bin/sh\ndebug:x:65532:65532:debug:/home/debug:/bin/sh\n",
    "etc/group": "root:x:0:\ndebug:x:65532:\n",
    "etc/hosts": "",
}
FOLDERS = ("bin", "dev", "etc", "home", "home/debug", "proc", "run", "run/doorward", "sys", "tmp")
BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))


@dataclass(frozen=True, slots=True)
class Images:
    """Ids (`sha256:...`) that the engine takes wherever it takes an image."""

    debug: str
    """Debian with psql, ps, less, git, rsync, ...: what people get."""
    shonly: str
    """/bin/sh (a static busybox) and nothing else."""
    noshell: str
    """No program at all: only what the runtime brings in can run."""


def images(engine: Docker) -> Images:
    """The three images, imported into `engine`; the first call on a machine builds the debug image (about 40 s)."""
    return Images(
        debug=debug_image(engine),
        shonly=tiny_image(engine, has_shell=True),
        noshell=tiny_image(engine, has_shell=False),
    )


def debug_image(engine: Docker) -> str:
    tar = debug_root()
    return engine.import_image(tar, f"doorward-debug:{tar.stem.rpartition('-')[2]}", CHANGES)


def tiny_image(engine: Docker, *, has_shell: bool) -> str:
    tar = tiny_root(has_shell=has_shell)
    return engine.import_image(tar, f"doorward-{tar.stem.rpartition('-')[0]}:{tar.stem.rpartition('-')[2]}", CHANGES)


def debug_root() -> Path:
    """The debug image's files as a tar in the cache, named by its recipe's hash."""
    packages = RECIPE / "packages.txt"
    prepare = RECIPE / "prepare.sh"
    return debian_root("debug", packages.read_text().split(), prepare)


def debian_root(name: str, packages: list[str], prepare: Path | None = None) -> Path:
    """A Debian root with `packages`, after `prepare` ran in it, as a tar in the cache."""
    recipe = "\n".join([SUITE, *packages, prepare.read_text() if prepare else ""])
    tar = cache() / "images" / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar"
    if tar.exists():
        return tar
    if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
        raise StackError("building a Debian image needs root and the package mmdebstrap")
    tar.parent.mkdir(parents=True, exist_ok=True)
    partial = tar.with_suffix(f".{os.getpid()}.new")
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", "--format=tar"]
    if prepare:
        command.append(f"--customize-hook=chroot \"$1\" sh < '{prepare}'")
    print(f"building image {name} from Debian {SUITE} (about 40 s, once) ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    ran = subprocess.run([*command, SUITE, str(partial)], capture_output=True, text=True)
    if ran.returncode != 0:
        partial.unlink(missing_ok=True)
        raise StackError(f"mmdebstrap: {ran.stderr[-1500:].strip()}")
    partial.rename(tar)
    print(f"building image {name} ... {time.monotonic() - started:.0f} s, done", file=sys.stderr, flush=True)
    return tar


def tiny_root(*, has_shell: bool) -> Path:
    """Accounts and empty folders, and /bin/sh where `has_shell`, as a tar in the cache."""
    name = "shonly" if has_shell else "noshell"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700 if folder == "run/doorward" else 0o755
            if folder in ("home/debug", "run/doorward"):
                entry.uid = entry.gid = 65532
            tar.addfile(entry)
        files = {path: (text.encode(), 0o644) for path, text in ACCOUNTS.items()}
        if has_shell:
            files["bin/sh"] = (busybox().read_bytes(), 0o755)
        for name_inside, (data, mode) in files.items():
            entry = tarfile.TarInfo(name_inside)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    path = cache() / "images" / f"{name}-{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.new")
        partial.write_bytes(content.getvalue())
        partial.rename(path)
    return path


def busybox() -> Path:
    for path in BUSYBOX:
        if path.exists():
            return path
    raise StackError("the image with /bin/sh alone needs the package busybox-static")


if __name__ == "__main__":  # `make run BACKEND=docker`: the debug image, on the engine that answers
    engine = existing_docker()
    if engine is None:
        sys.exit("error: no Docker engine answers; start one, or use BACKEND=sandbox")
    debug_image(engine)
