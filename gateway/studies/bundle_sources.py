"""What may be in a bundle, judged before OPA sees it.

OPA lets a bundle own whatever its manifest names, signed or not, and wipes what was there.  Grants and what else is
written while OPA runs would be gone with the next poll, and the door could write none: so no bundle of ours owns them.
A bundle holds rules or data, never both: rules are security's to sign, and data has roots of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.policy.bundles import LIVE_ROOTS
from gateway.studies.errors import StudyError

MANIFEST = ".manifest"
RULE_ROOTS = ("gateway", "system")
DATA_ROOTS = ("people", "targets", "door", "authorities", "tokens")

REVISION = re.compile(r"[A-Za-z0-9._+:/@-]{1,128}")
"""No comma, equals sign or blank: a record says `name=revision,name=revision`."""

DATA_FILES = ("data.json", "data.yaml", "data.yml")
IGNORED = (".md",)


class BundleRefused(StudyError):
    """What was looked at must not reach an OPA."""

    code = "bundle_refused"
    remedy = "See docs/distribution.md."


@dataclass(frozen=True, slots=True)
class Source:
    """A folder that may become a bundle: its manifest's roots and what it holds, by the names in the bundle."""

    roots: tuple[str, ...]
    files: Mapping[str, bytes]

    @property
    def holds_rules(self) -> bool:
        return any(root.split("/")[0] in RULE_ROOTS for root in self.roots)


def read_source(folder: Path) -> Source:
    """Raises BundleRefused that names the file or the root at fault, StudyError where the folder cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
        files = {path.relative_to(folder).as_posix(): path for path in paths}
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{folder / MANIFEST} cannot be read: {error}",
            remedy='A bundle says which roots it owns, as policies/ does: {"roots": ["gateway", "system/authz"]}.',
        ) from error
    roots = permitted_roots(manifest, str(folder / MANIFEST))
    kept = {name: path for name, path in files.items() if not name.endswith(IGNORED)}
    for name, path in kept.items():
        _permitted_file(path, name, rules=_of_rules(roots))
    try:
        return Source(roots, {name: path.read_bytes() for name, path in kept.items()})
    except OSError as error:
        raise StudyError(f"{folder} cannot be read: {error}") from error


def permitted_roots(manifest: Any, where: str) -> tuple[str, ...]:
    """The manifest's roots.  Raises BundleRefused where one is not a bundle's to own."""
    roots = manifest.get("roots") if isinstance(manifest, dict) else None
    if not isinstance(roots, list) or not roots or not all(isinstance(root, str) for root in roots):
        raise BundleRefused(
            f"{where}: names no roots, so the bundle would own everything, the grants among it",
            remedy='Say which, for example {"roots": ["gateway", "system/authz"]}.',
        )
    for root in roots:
        head = root.strip("/").split("/")[0]
        if head in LIVE_ROOTS:
            raise BundleRefused(
                f"{where}: the root {root!r} is written while OPA runs; a bundle that owns it wipes it,"
                " and OPA then refuses every write to it",
                remedy="Take it out of the roots. Grants go through the grants door.",
            )
        if head not in (*RULE_ROOTS, *DATA_ROOTS):
            raise BundleRefused(
                f"{where}: the root {root!r} is none that a bundle may own",
                remedy=f"Rules: {', '.join(RULE_ROOTS)}. Data: {', '.join(DATA_ROOTS)}.",
            )
    if _of_rules(roots) and any(root.split("/")[0] in DATA_ROOTS for root in roots):
        raise BundleRefused(
            f"{where}: owns rules and data, {', '.join(roots)}",
            remedy="Build two bundles: each is then changed, signed and rolled back by itself.",
        )
    return tuple(roots)


def _of_rules(roots: Sequence[str]) -> bool:
    return any(root.strip("/").split("/")[0] in RULE_ROOTS for root in roots)


def _permitted_file(path: Path, name: str, *, rules: bool) -> None:
    if path.is_symlink() or not path.is_file():
        raise BundleRefused(f"{path}: is no plain file", remedy="Put the file itself there.")
    if name == MANIFEST:
        return
    if rules and name.endswith("_test.rego"):
        raise BundleRefused(f"{path}: a test is no rule", remedy="Tests have a folder of their own: policy-tests/.")
    if rules and name.endswith(".rego"):
        return
    if not rules and path.name in DATA_FILES:
        return
    holds = "rules (*.rego)" if rules else f"data ({', '.join(DATA_FILES)})"
    raise BundleRefused(
        f"{path}: a bundle with these roots holds {holds} and nothing else",
        remedy="Move it out. Data has bundles of its own, with roots of their own.",
    )
