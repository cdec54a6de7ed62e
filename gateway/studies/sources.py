"""Where a study has its policies and its data from: a folder, a bundle, a file, or the OPA that decides now."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.embedded.tools import OPA, find_or_build
from gateway.errors import PolicyUnavailable
from gateway.policy.opa import Opa
from gateway.settings import PolicySettings
from gateway.studies.errors import StudyError

ROOTS = ("people", "targets", "grants", "roster", "approvals", "reviews", "door", "authorities")
"""The base documents that decisions read.  `tokens` is none of them: it is for OPA's own authorizer."""

LIVE_SECONDS = 60.0
LARGEST_FILE = 256 * 2**20
DATA_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Policies:
    """Rego by the name that its reader knows each file by."""

    files: Mapping[str, bytes]

    def line(self, file: str, row: int) -> str:
        """The line as it is written; empty where there is none."""
        lines = self.files.get(file, b"").decode(errors="replace").splitlines()
        return lines[row - 1].strip() if 0 < row <= len(lines) else ""


@dataclass(frozen=True, slots=True)
class Data:
    """Base documents: a tree, or a file (JSON or YAML) of one."""

    content: bytes
    suffix: str = ".json"

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Data:
        return cls(json.dumps(tree).encode())


def read_policies(place: Path) -> Policies:
    """The Rego in a folder or in a bundle (`.tar.gz`), tests left out.  Raises StudyError."""
    try:
        files = _of_folder(place) if place.is_dir() else _of_bundle(place)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise StudyError(
            f"--policies {place}: cannot be read: {error}",
            remedy="Name a folder of Rego files, such as policies/, or a bundle (.tar.gz).",
        ) from error
    if not files:
        raise StudyError(f"--policies {place}: there is no Rego in it", remedy="Name the folder that OPA loads.")
    return Policies(files)


def _of_folder(place: Path) -> dict[str, bytes]:
    paths = sorted(path for path in place.rglob("*.rego") if path.is_file() and not _is_test(path.name))
    return {str(path): _bounded(path) for path in paths}


def _of_bundle(place: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with tarfile.open(place, "r:*") as bundle:
        for member in bundle:
            if member.isfile() and member.name.endswith(".rego") and not _is_test(member.name):
                if member.size > LARGEST_FILE:
                    raise OSError(f"{member.name} is too large")
                content = bundle.extractfile(member)
                files[f"{place}:{member.name.lstrip('./')}"] = content.read() if content else b""
    return files


def _is_test(name: str) -> bool:
    return name.endswith("_test.rego")


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_FILE:
        raise OSError(f"{path} is too large")
    return path.read_bytes()


def read_data(file: Path) -> Data:
    """A file of base documents.  Raises StudyError; whether its content is well-formed shows when OPA loads it."""
    if file.suffix not in DATA_SUFFIXES:
        raise StudyError(
            f"--data {file}: it is no {', '.join(DATA_SUFFIXES)} file",
            remedy=f"Name one file that holds {', '.join(ROOTS)}.",
        )
    try:
        content = _bounded(file)
        content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"--data {file}: cannot be read: {error}", remedy="It has to be text in UTF-8.") from error
    return Data(content, file.suffix)


def tree_of(data: Data) -> dict[str, Any]:
    """The documents by root, as OPA reads them.  Raises StudyError."""
    try:
        content = data.content if data.suffix == ".json" else _of_yaml(data)
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise StudyError(f"the data cannot be read: {error}", remedy="Mend the file that --data names.") from error
    if not isinstance(found, dict):
        raise StudyError("the data are no object", remedy=f"Name one file that holds {', '.join(ROOTS)}.")
    return found


def _of_yaml(data: Data) -> bytes:
    """As JSON, by OPA's own reader: another one takes other words for times and for truth."""
    with tempfile.TemporaryDirectory(prefix="doorward-") as place:
        file = Path(place) / f"data{data.suffix}"
        file.write_bytes(data.content)
        ran = subprocess.run(
            [str(find_or_build(OPA)), "eval", "--format", "raw", "--data", str(file), "data"],
            capture_output=True, check=False,
        )  # fmt: skip
    if ran.returncode != 0:
        raise ValueError("it is no YAML that OPA reads")
    return ran.stdout


async def live_data(settings: PolicySettings) -> Data:
    """All base documents of the OPA that decides now.  Raises StudyError, PolicyUnavailable."""
    async with Opa.open(_patient(settings)) as opa:
        return Data.of({root: found for root in ROOTS if (found := await _root(opa, root)) is not None})


async def live_policies(settings: PolicySettings) -> Policies:
    """The policies of the OPA that decides now.  Raises StudyError, PolicyUnavailable."""
    async with Opa.open(_patient(settings)) as opa:
        try:
            return Policies({name: text.encode() for name, text in (await opa.modules()).items()})
        except PolicyUnavailable as error:
            raise _unreadable(error, "its policies") from error


async def _root(opa: Opa, root: str) -> Any:
    try:
        return await opa.read(root)
    except PolicyUnavailable as error:
        raise _unreadable(error, root) from error


def _unreadable(error: PolicyUnavailable, what: str) -> StudyError:
    if error.reasons[0].code == "policy_token_refused":
        return StudyError(
            f"the live OPA does not let this token read {what}",
            remedy="Set policy.auditor_token to a token of the role auditor, or name --policies and --data.",
        )
    return StudyError(
        f"the live OPA did not give {what}: {error}",
        remedy="Look at policy.url in the settings (--config), or name --policies and --data.",
    )


def _patient(settings: PolicySettings) -> PolicySettings:
    """The same OPA, with a token that may read and the time that reading everything takes."""
    token = settings.auditor_token or settings.token
    return settings.model_copy(update={"token": token, "timeout_seconds": LIVE_SECONDS})
