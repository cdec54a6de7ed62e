"""A folder of grants as people write them: YAML or JSON, one or many in a file."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gateway.errors import DoorwardError
from gateway.model import Reason

ENDINGS = {".yaml", ".yml", ".json"}
FILE_BYTES = 2**20
REMEDY = "Each grant is an object with person, id and the grant's own fields; see docs/grants.md."


@dataclass(frozen=True, slots=True)
class Manifest:
    """One grant, and where it is written."""

    file: str
    person: str
    id: str
    grant: dict[str, Any]


class Unreadable(DoorwardError):
    """What is wrong in the folder, all of it."""

    code = "manifest"

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__(faults[0][1])
        self.reasons = tuple(
            Reason(code=self.code, message=f"{file}: {fault}"[:500], remedy=REMEDY, field="") for file, fault in faults
        )


def read(folder: Path) -> list[Manifest]:
    """Every grant in it and its subfolders, in order.  Raises Unreadable with everything that is wrong."""
    faults: list[tuple[str, str]] = []
    found: dict[tuple[str, str], Manifest] = {}
    if not folder.is_dir():
        raise Unreadable([(str(folder), "there is no such folder")])
    for file in sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS and path.is_file()):
        name = str(file.relative_to(folder))
        try:
            for manifest in _grants(name, _documents(file)):
                first = found.setdefault((manifest.person, manifest.id), manifest)
                if first is not manifest:
                    faults.append((name, f"id: {manifest.person}/{manifest.id} is in {first.file} already"))
        except (ValueError, RecursionError, OSError) as error:
            faults.append((name, str(error)))
    if faults:
        raise Unreadable(faults)
    return list(found.values())


def _documents(file: Path) -> Iterator[Any]:
    if file.stat().st_size > FILE_BYTES:
        raise ValueError(f"it is larger than {FILE_BYTES} bytes")
    text = file.read_text()
    if file.suffix == ".json":
        yield json.loads(text, object_pairs_hook=_no_name_twice)
        return
    try:
        yield from yaml.load_all(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from error


def _grants(file: str, documents: Iterator[Any]) -> Iterator[Manifest]:
    for document in documents:
        for item in document if isinstance(document, list) else [] if document is None else [document]:
            if not isinstance(item, dict):
                raise ValueError("a grant is an object")
            grant = dict(item)
            names = [grant.pop(field, None) for field in ("person", "id")]
            for field, name in zip(("person", "id"), names, strict=True):
                if not isinstance(name, str) or not name:
                    raise ValueError(f"{field}: must be text, and not empty")
            yield Manifest(file, str(names[0]), str(names[1]), grant)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return found


class _Loader(yaml.SafeLoader):
    """Times stay text, as JSON has them; nothing is there twice, and nothing refers to something else."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken: a few lines can mean gigabytes")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found = super().construct_mapping(node, deep=True)
        if len(found) < len(node.value):
            raise yaml.YAMLError(f"a name is there twice in one object ({node.start_mark})")
        if not all(isinstance(name, str) for name in found):
            raise yaml.YAMLError(f"names are text: put it in quotes ({node.start_mark})")
        return found


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
