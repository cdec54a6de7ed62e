"""JSON Patch (RFC 6902) at the grants door: OPA's three operations and `test`, on one document or on many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jsonpatch
from jsonpointer import JsonPointer, JsonPointerException
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.door.http import DEPTH_LIMIT, Refused, depth
from gateway.door.paths import Path, is_document

OPERATIONS = 4000
DOCUMENTS = 1000
"""What one request may hold: policy judges each document, and all are stored or none."""


class Operation(BaseModel):
    """One operation.  `move` and `copy` are not OPA's, and so not ours."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    op: Literal["add", "remove", "replace", "test"]
    path: str
    value: Any = None


@dataclass(slots=True)
class DocumentPatch:
    """The operations on one document, in order, each with its place in the request."""

    path: Path
    operations: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    @property
    def index(self) -> int:
        """Of the last one: what is wrong with the result is told there."""
        return self.operations[-1][0] if self.operations else 0

    def apply(self, old: Any) -> Any:
        """The document that results from `old`; None, on either side, is no document.  Raises Refused."""
        held = {} if old is None else {"value": old}
        if not self.operations and old is None:
            raise Refused(404, "resource_not_found", f"there is no {'/'.join(self.path)}")
        for index, operation in self.operations:
            if operation == {"op": "test", "path": "/value", "value": None} and "value" not in held:
                continue  # our own word for "there is none", which RFC 6902 has no way to say
            held = _applied(index, operation, held)
        if depth(held) > DEPTH_LIMIT + 1:
            raise Refused(400, "invalid_parameter", f"{'/'.join(self.path)} is nested more than {DEPTH_LIMIT} deep")
        return held.get("value")


def patches(base: Path, body: Any) -> list[DocumentPatch]:
    """The patch of each document at or below `base`.  Raises Refused, naming the operation at fault by its index."""
    if not isinstance(body, list):
        raise Refused(400, "invalid_parameter", "a patch is a list of operations (RFC 6902)")
    if len(body) > OPERATIONS:
        raise Refused(400, "invalid_parameter", f"a patch may have {OPERATIONS} operations; this one has {len(body)}")
    found: dict[Path, DocumentPatch] = {base: DocumentPatch(base)} if is_document(base) else {}
    for index, item in enumerate(body):
        path, operation = _located(base, index, item)
        found.setdefault(path, DocumentPatch(path)).operations.append((index, operation))
    if len(found) > DOCUMENTS:
        raise Refused(400, "invalid_parameter", f"a patch may change {DOCUMENTS} documents; this one has {len(found)}")
    return list(found.values())


def transaction(changes: Sequence[tuple[Path, Any]]) -> list[dict[str, Any]]:
    """The same as one patch to OPA at the root: each path with the value to store, None to remove it."""
    return [
        {"op": "remove", "path": _pointer(path[1:])}
        if value is None
        else {"op": "add", "path": _pointer(path[1:]), "value": value}
        for path, value in changes
    ]


def _located(base: Path, index: int, item: Any) -> tuple[Path, dict[str, Any]]:
    """Which document an operation is for, and the operation on it, as the member `value` of an object."""
    try:
        operation = Operation.model_validate(item)
        parts = (*base, *JsonPointer(operation.path).parts)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise _at(index, f"{'.'.join(map(str, first['loc'])) or 'operation'}: {first['msg']}") from None
    except JsonPointerException as error:
        raise _at(index, f"path: {error}") from error
    for length in range(1, len(parts) + 1):
        if is_document(parts[:length]):
            return parts[:length], _inside(index, operation, parts[length:])
    raise _at(index, f"path: {operation.path} is at or in no document")


def _inside(index: int, operation: Operation, rest: Path) -> dict[str, Any]:
    inner: dict[str, Any] = {"op": operation.op, "path": _pointer(("value", *rest))}
    if operation.op == "remove":
        return inner
    if "value" not in operation.model_fields_set:
        raise _at(index, f"value: {operation.op} needs one")
    return {**inner, "value": operation.value}


def _applied(index: int, operation: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    try:
        changed: dict[str, Any] = jsonpatch.apply_patch(held, [operation])
    except jsonpatch.JsonPatchTestFailed as error:
        raise _at(index, "the test does not hold: somebody changed it meanwhile", 412) from error
    except (jsonpatch.JsonPatchConflict, JsonPointerException) as error:
        raise _at(index, f"there is no {operation['path'].removeprefix('/value') or 'such document'}", 404) from error
    except (jsonpatch.JsonPatchException, TypeError) as error:
        raise _at(index, "it cannot be done to what is there") from error
    return changed


CODES = {400: "invalid_parameter", 404: "resource_not_found", 412: "precondition_failed"}


def _at(index: int, message: str, status: int = 400) -> Refused:
    return Refused(
        status,
        CODES[status],
        f"operation {index}: {message}",
        [{"code": CODES[status], "message": message, "index": index}],
    )


def _pointer(parts: Sequence[str]) -> str:
    return str(JsonPointer.from_parts(parts).path)


__all__ = ["DocumentPatch", "patches", "transaction"]
