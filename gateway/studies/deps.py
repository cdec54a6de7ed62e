"""Which base documents a rule can read, by `opa deps`: found in the rules, whatever the data says."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gateway.embedded.tools import OPA, find_or_build
from gateway.studies.errors import StudyError
from gateway.studies.sources import Policies


def roots(policies: Policies, queries: Sequence[str]) -> list[set[str]]:
    """Of each query (`data.gateway.authz.decision`) the first words of the documents.  Raises StudyError."""
    binary = find_or_build(OPA)
    with tempfile.TemporaryDirectory(prefix="doorward-") as place:
        for number, content in enumerate(policies.files.values()):
            (Path(place) / f"{number}.rego").write_bytes(content)
        return [_roots(binary, place, query) for query in queries]


def _roots(binary: Path, place: str, query: str) -> set[str]:
    command = [str(binary), "deps", "--format", "json", "--data", place, query]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        refs = json.loads(told.stdout).get("base") or []
    except ValueError:
        said = told.stderr.strip()[:300]
        raise StudyError(f"OPA cannot say what {query} reads: {said}", remedy="See `doorward policy check`.") from None
    paths = [[str(part["value"]) for part in ref] for ref in refs]
    return {path[1] for path in paths if len(path) > 1 and path[0] == "data"}
