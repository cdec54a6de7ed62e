"""The JSON Schemas of `schemas/`, as their sources say: `python -m tests.policy.schemas` writes them anew.

Questions and answers come from the gateway's pydantic models.  Of a document that the policies themselves check by a
shape (`SHAPES`), the structure comes from there, and the words from the file: a field that is new there is described
here.  All others are by hand.  Whatever a property is, it has a title and a description.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gateway.embedded.tools import find_or_build
from gateway.model import Value
from gateway.policy.contract import (
    AdminAnswer,
    AdmissionAnswer,
    AuthnAnswer,
    AuthzAnswer,
    ConfigAnswer,
    Decision,
    Facts,
    LiveAnswer,
)
from gateway.policy.questions import QUESTIONS

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
POLICIES = ROOT / "policies"
DRAFT = "http://json-schema.org/draft-07/schema#"
"""The newest that OPA's own validator knows."""

Schema = dict[str, Any]

ANSWERS: Mapping[str, tuple[type[Value], Decision]] = {
    "authn": (AuthnAnswer, Decision.AUTHN),
    "config": (ConfigAnswer, Decision.CONFIG),
    "authz": (AuthzAnswer, Decision.AUTHZ),
    "live": (LiveAnswer, Decision.LIVE),
    "admission": (AdmissionAnswer, Decision.ADMISSION),
    "admin": (AdminAnswer, Decision.ADMIN),
}
SHAPES = {"targets": "data.gateway.targets.shape", "authorities": "data.gateway.authn.authority_shape"}
"""What one entry of a document is, as the policies say."""


def question(name: str) -> Schema:
    """What a decision is asked, as the gateway sends it."""
    decision = ANSWERS[name][1]
    return _of_model(f"Input of {_rule(decision)}", QUESTIONS[decision], sent=True)


def answer(name: str) -> Schema:
    """What a decision may answer, as the gateway reads it."""
    model, decision = ANSWERS[name]
    return _of_model(f"Answer of {_rule(decision)}", model, sent=False)


def by_hand(file: Path) -> Schema:
    return _titled(json.loads(file.read_text()))


def shaped(file: Path, shape: str) -> Schema:
    """A document of entries, each of which is as the policies' shape says; the words are the file's."""
    written: Schema = json.loads(file.read_text())
    entry = _worded(_evaluated(shape), written["additionalProperties"])
    return _titled({**written, "additionalProperties": entry})


def generated() -> dict[Path, str]:
    """The files as they have to be."""
    found = {file: by_hand(file) for file in SCHEMAS.glob("*.json")}
    for name in ANSWERS:
        found[SCHEMAS / f"input.{name}.json"] = question(name)
        found[SCHEMAS / f"answer.{name}.json"] = answer(name)
    for name, shape in SHAPES.items():
        file = SCHEMAS / f"data.{name}.json"
        found[file] = shaped(file, shape)
    return {path: json.dumps(schema, indent=2) + "\n" for path, schema in found.items()}


def properties(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every property in a schema, at any depth, with where it is."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}/{name}", inner
    for key, inner in schema.items():
        if key in ("properties", "$defs"):
            for name, one in inner.items():
                yield from properties(one, f"{path}/{name}")
        elif key in ("additionalProperties", "items") and isinstance(inner, dict):
            yield from properties(inner, f"{path}/*")
        elif key in ("allOf", "anyOf", "oneOf"):
            for one in inner:
                yield from properties(one, path)


def _rule(decision: Decision) -> str:
    return f"data.{decision.value.replace('/', '.')}"


def _of_model(title: str, model: type[Value], *, sent: bool) -> Schema:
    schema = model.model_json_schema(mode="serialization" if sent else "validation")
    if sent:
        sparse = {facts.__name__ for facts in Facts.__subclasses__()}
        for name, inner in [(model.__name__, schema), *schema.get("$defs", {}).items()]:
            _sends(inner, all_of_it=name not in sparse)
        schema = _inlined(schema, schema.pop("$defs", {}))
    for _, said in properties(schema):
        said.pop("title", None)
    return _titled({"$schema": DRAFT, **_mapped(schema, _on_one_line), "title": title})


def _sends(schema: Schema, *, all_of_it: bool) -> None:
    """What is sent has no defaults, and all of it is always there, but of facts that may be absent."""
    fields = schema.get("properties", {})
    if fields and all_of_it:
        schema["required"] = list(fields)
    for said in fields.values():
        said.pop("default", None)


def _inlined(schema: Any, definitions: Mapping[str, Schema]) -> Any:
    """The same without references and with "or null" in the type: below an `anyOf`, `opa check` looks at nothing."""
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {key: _inlined(inner, definitions) for key, inner in schema.items() if key not in ("$ref", "anyOf")}
    if "anyOf" in schema:
        one, _null = schema["anyOf"]
        whole = _inlined(one, definitions)
        return {**whole, **rest, "type": [whole["type"], "null"]}
    if "$ref" in schema:
        return {**_inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions), **rest}
    return rest


def _titled(schema: Schema) -> Schema:
    """Every property with a title: its name in plain letters, where nobody gave it a better one."""
    for path, said in properties(schema):
        words = path.rpartition("/")[2].replace("_", " ").replace("-", " ")
        title = said.pop("title", words[:1].upper() + words[1:])
        rest = dict(said)
        said.clear()
        said.update({"title": title, **rest})
    return schema


def _worded(shape: Schema, written: Schema) -> Schema:
    """The shape with the titles and descriptions that the file has at the same place, else at one of the same name."""
    here = dict(properties(written))
    alike = {_last(path): said for path, said in here.items() if "description" in said}
    for path, said in properties(shape):
        words = {**alike.get(_last(path), {}), **here.get(path, {})}
        said.update({key: words[key] for key in ("title", "description") if key in words})
    return shape


def _last(path: str) -> str:
    """A property's own name and that of what it is in."""
    return "/".join(path.replace("/*", "").split("/")[-2:])


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same with each description changed."""
    if isinstance(value, list):
        return [_mapped(one, change) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: change(inner) if key == "description" and isinstance(inner, str) else _mapped(inner, change)
        for key, inner in value.items()
    }


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


@cache
def _evaluated(rule: str) -> Schema:
    command: list[str | Path] = [find_or_build(), "eval", "-f", "raw", "-d", POLICIES, rule]
    found: Schema = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return found


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
