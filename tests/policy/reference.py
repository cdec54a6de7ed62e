"""The reference pages in `docs/reference/`, as the schemas say: `scripts/schemas` writes them anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.policy.schemas import ROOT, SCHEMAS, Schema

FOLDER = ROOT / "docs" / "reference"
KINDS = {"input": "What a decision is asked", "answer": "What a decision may answer", "data": "What data may be"}


def pages() -> dict[Path, str]:
    """The pages as they have to be."""
    return {FOLDER / f"{kind}.md": _page(kind, title) for kind, title in KINDS.items()}


def _page(kind: str, title: str) -> str:
    lines = [
        f"# {title}",
        "",
        f"Generated from `schemas/{kind}.*.json` by `scripts/schemas`.",
        "What it all means is in [contracts.md](../contracts.md).",
        "`*` in a path is any entry of a list, or any name.",
    ]
    for file in sorted(SCHEMAS.glob(f"{kind}.*.json")):
        schema = json.loads(file.read_text())
        lines += [
            "",
            f"## {file.stem}",
            "",
            f"{schema['title']}.",
            "",
            "| field | type | | what it is |",
            "|---|---|---|---|",
        ]
        lines += dict.fromkeys(_rows(schema, schema.get("$defs", {}), ""))
    return "\n".join(lines) + "\n"


def _rows(schema: Schema, definitions: dict[str, Schema], path: str, depth: int = 0) -> Iterator[str]:
    """One for each property, at any depth."""
    schema = _whole(schema, definitions)
    for name, said in schema.get("properties", {}).items():
        needed = "required" if name in schema.get("required", []) else ""
        words = str(said.get("description", "")).replace("|", "\\|")
        yield f"| `{path}{name}` | {_type(said, definitions)} | {needed} | {words} |"
        yield from _rows(said, definitions, f"{path}{name}.", depth + 1)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _rows(schema[key], definitions, f"{path}*.", depth + 1)
    for key in ("allOf", "anyOf", "oneOf"):
        for one in schema.get(key, []):
            yield from _rows(one, definitions, path, depth + 1)


def _whole(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    found = schema.get("$ref")
    return definitions[found.rpartition("/")[2]] if found else schema


def _type(schema: Schema, definitions: dict[str, Schema]) -> str:
    schema = _whole(schema, definitions)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(one, definitions) for one in schema[key]))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{_shown(one)}`" for one in schema["enum"])
    kind = schema.get("type", "object" if "allOf" in schema else "anything")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        file.write_text(text)
