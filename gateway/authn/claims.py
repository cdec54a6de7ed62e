"""What a provider says of a person, as facts for policy: a filtered set, bounded in size.

A claim is handed on whole or not at all.  One that is too long is left out and named in `left_out`: half a list of
groups would be a lie, and a policy that needs all of it can say no.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import JsonValue

STANDARD = ("sub", "preferred_username", "email", "email_verified", "acr", "amr", "auth_time")
GROUPS = "groups"
CLAIM_BYTES = 32 * 2**10
ALL_BYTES = 48 * 2**10
GROUP_LENGTH = 256


def facts(claims: Mapping[str, Any], groups_claim: str, extra: Iterable[str]) -> dict[str, JsonValue]:
    """`claims` by their own names, but the groups, which are `groups` by whatever name the provider has for them."""
    wanted = {name: claims[name] for name in (*STANDARD, *extra) if claims.get(name) is not None}
    left_out: set[str] = set()
    if claims.get(groups_claim) is not None:
        wanted[GROUPS] = claims[groups_claim]
        if not _are_groups(wanted[GROUPS]):
            del wanted[GROUPS]
            left_out.add(GROUPS)
    found: dict[str, JsonValue] = {}
    room = ALL_BYTES
    for name, value in wanted.items():
        size = _size(value)
        if size is None or size > min(CLAIM_BYTES, room):
            left_out.add(name)
        else:
            room -= size
            found[name] = value
    if left_out:
        found["left_out"] = list[JsonValue](sorted(left_out))
    return found


def _size(value: Any) -> int | None:
    """Bytes as JSON; None for what is none: Python reads NaN and halves of characters, and OPA does not."""
    try:
        return len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except ValueError:
        return None


def _are_groups(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and len(one) <= GROUP_LENGTH for one in value)
