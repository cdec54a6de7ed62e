"""What may open the door, written a second time from docs/authentication.md, in Python: the judge of the fuzzer.

It may admit more than policy does (it does not know every rule), never less.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

STRONG = {"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}
HARDWARE = {"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"}
FACTORS = {"publickey", "certificate", "password", "totp", "oidc", "questions"}


def may_enter(world: dict[str, Any], asked: Any, answer: dict[str, Any]) -> bool:
    """Whether whoever is accepted so may be."""
    identity = answer["identity"]
    if identity.get("honeypot"):
        return _is_bait(world, asked, identity["person"])
    login = _at(asked, "login", "user")
    person = login.split("+")[0] if isinstance(login, str) else None
    entry = _at(world, "people", person)
    if identity["person"] != person or not isinstance(entry, dict) or entry.get("disabled", False) is not False:
        return False
    attempt, proofs = _at(asked, "attempt"), _at(asked, "proofs")
    if not isinstance(attempt, dict) or not isinstance(proofs, list):
        return False
    found = [_factor(world, asked, str(person), one, last=one is attempt) for one in [*proofs, attempt]]
    return identity["via"] == found and found in _chains(world, entry)


def may_be_asked_for_more(world: dict[str, Any], asked: Any) -> bool:
    """Whether an attempt that was proven may count as a part of a chain."""
    login = _at(asked, "login", "user")
    person = login.split("+")[0] if isinstance(login, str) else None
    entry, attempt = _at(world, "people", person), _at(asked, "attempt")
    if not isinstance(entry, dict) or not isinstance(attempt, dict):
        return False
    return _factor(world, asked, str(person), attempt, last=True) is not None


def _chains(world: dict[str, Any], entry: dict[str, Any]) -> list[Any]:
    authn = entry.get("authn", {})
    if not isinstance(authn, dict):
        return []
    door = world.get("door", {})
    usual = door.get("chain", [["publickey"], ["certificate"]]) if isinstance(door, dict) else []
    chains = authn.get("chain", usual)
    return chains if isinstance(chains, list) else []


def _factor(world: dict[str, Any], asked: Any, person: str, one: Any, *, last: bool) -> str | None:
    """What one proof is worth to this person.  Only the last may be a key that is merely offered."""
    method, proven, way = _at(one, "method"), _at(one, "proven"), _at(one, "verified_by")
    if method == "publickey":
        if proven is not True and not last:
            return None
        if isinstance(_at(one, "certificate"), dict):
            return "certificate" if _is_certified(world, asked, person, one) else None
        return "publickey" if _is_theirs(world, person, one) else None
    if proven is not True or _at(one, "verified") is not True or not isinstance(way, str):
        return None
    if method in ("password", "keyboard-interactive") and way in ("vault_password", "argon2", "webhook"):
        return "password" if _kind(world, person, "password") == way else None
    if method == "keyboard-interactive" and way == "oidc":
        return "oidc" if _at(one, "claims", "provider") == _at(world, "door", "verify", "oidc", "provider") else None
    return way if method == "keyboard-interactive" and way in ("totp", "questions") else None


def _is_theirs(world: dict[str, Any], person: str, one: Any) -> bool:
    line = _at(one, "key", "public_key")
    if not isinstance(line, str) or not _is_strong(_at(one, "key")):
        return False
    keys = _items(_at(world, "people", person, "keys"))
    if any(str(key).split()[:2] == line.split()[:2] for key in keys):
        return True
    return _at(one, "verified") is True and _at(one, "verified_by") == _kind(world, person, "publickey")


def _is_strong(key: Any) -> bool:
    line, bits = _at(key, "public_key"), _at(key, "bits")
    kind = line.split()[0] if isinstance(line, str) and line.split() else ""
    if kind == "ssh-rsa":
        return isinstance(bits, int | float) and bits >= 3072
    return kind in STRONG | HARDWARE


def _is_certified(world: dict[str, Any], asked: Any, person: str, one: Any) -> bool:
    certificate, now = one["certificate"], _at(asked, "now_ns")
    ca = _at(certificate, "ca", "public_key")
    after, before = certificate.get("valid_after"), certificate.get("valid_before")
    if not isinstance(ca, str) or not all(_is_number(one) for one in (now, after, before)):
        return False
    trusting = [a for a in _items(world.get("authorities")) if str(_at(a, "public_key")).split()[:2] == ca.split()[:2]]
    names = _at(world, "people", person, "authn", "principals")
    options = certificate.get("critical_options")
    return (
        bool(trusting)
        and all(isinstance(a, dict) and a.get("disabled", False) is False for a in trusting)
        and not any(_is_revoked(a, one) for a in trusting)
        and any(name in _items(certificate.get("principals")) for name in (_items(names) if names else [person]))
        and after * 1e9 <= now
        and (before == -1 or now < before * 1e9)
        and isinstance(options, dict)
        and options.keys() <= {"force-command", "source-address", "verify-required"}
        and _is_from(options.get("source-address"), _at(asked, "connection", "client_address"))
    )


def _is_revoked(authority: Any, one: Any) -> bool:
    return (
        _at(one, "certificate", "serial") in _items(_at(authority, "revoked", "serials"))
        or _at(one, "certificate", "key_id") in _items(_at(authority, "revoked", "key_ids"))
        or _at(one, "key", "fingerprint") in _items(_at(authority, "revoked", "keys"))
    )


def _is_from(ranges: Any, address: Any) -> bool:
    if ranges is None:
        return True
    try:
        here = ipaddress.ip_address(address)
        return any(here in ipaddress.ip_network(one, strict=False) for one in ranges.split(","))
    except (ValueError, AttributeError, TypeError):
        return False


def _is_bait(world: dict[str, Any], asked: Any, person: str) -> bool:
    entry = _at(world, "people", person)
    if not isinstance(entry, dict) or entry.get("disabled", False) is not False:
        return False
    return any(
        _at(trap, "person") == person
        and (
            _at(asked, "login", "user") in _items(_at(trap, "logins"))
            or _at(asked, "gateway", "instance") in _items(_at(trap, "instances"))
        )
        for trap in _items(_at(world, "door", "honeypots"))
    )


def _kind(world: dict[str, Any], person: str, factor: str) -> Any:
    own = _at(world, "people", person, "authn", "verify", factor)
    return _at(own, "kind") if own is not None else _at(world, "door", "verify", factor, "kind")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _items(value: Any) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _at(value: Any, *path: Any) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) and isinstance(step, str) else None
    return value
