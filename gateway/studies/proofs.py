"""What somebody could show at the door, as facts: nothing is signed or typed, it is assumed, and said so."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.proofs import Attempt, Certificate
from gateway.ssh.keys import PublicKey, Unreadable, read
from gateway.studies.errors import StudyError

PASSWORDS = frozenset({"vault_password", "argon2", "webhook"})
DIALOGUES = ("totp", "oidc", "questions")
WORDS = "publickey:FILE, publickey, certificate, password, totp, oidc or questions"
TOUCHED_WITH_PIN = 0x05
PERMISSIONS = ("pty", "port-forwarding", "agent-forwarding", "X11-forwarding")
MOST_KEYS = 8


@dataclass(frozen=True, slots=True)
class Proof:
    """One attempt, and what is assumed with it.  `kind` is a word of `WORDS`."""

    kind: str
    method: str
    assumed: str
    attempt: Attempt

    def suits(self, verification: str) -> bool:
        """Whether this is what would be proven in that way."""
        if self.method == "publickey":
            return verification in {"key_list", "webhook"}
        return verification in PASSWORDS if self.kind == "password" else verification == self.kind

    def verified(self, verification: Mapping[str, Any], person: Mapping[str, Any], door: Mapping[str, Any]) -> Attempt:
        """The attempt as its verification leaves it, if that finds it right."""
        kind = str(verification.get("kind"))
        if not self.suits(kind):
            return self.attempt.model_copy(update={"verified_by": kind})
        claims = _claims(kind, verification, person, door)
        return self.attempt.model_copy(update={"proven": True, "verified_by": kind, "verified": True, "claims": claims})


def _claims(
    kind: str, verification: Mapping[str, Any], person: Mapping[str, Any], door: Mapping[str, Any]
) -> dict[str, Any]:
    match kind:
        case "webhook":
            return {"authenticated_username": verification.get("username"), "authz": True}
        case "oidc":
            subject = mapping(person.get("authn")).get("oidc_subject", person["name"])
            told = dict.fromkeys(("preferred_username", "email", "sub", str(door.get("oidc_claim", "sub"))), subject)
            return {**told, "email_verified": True, "provider": verification.get("provider")}
        case "questions":
            return {str(question.get("name")): "assumed" for question in verification.get("questions", [])}
    return {}


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one: what is in the data may be anything."""
    return value if isinstance(value, Mapping) else {}


# -- whatever a person has --------------------------------------------------------------------------------------------


def of_person(name: str, entry: Any, authorities: Any, at: datetime) -> list[Proof]:
    """All that this person could show, if they have what their entry says, and a certificate by each authority."""
    keys = mapping(entry).get("keys")
    lines = [line for line in keys if isinstance(line, str)][:MOST_KEYS] if isinstance(keys, list) else []
    found = [_signed(key) for line in lines if (key := _key(line)) is not None]
    found = found or [_signed(_SOMEBODYS)]
    principals = mapping(mapping(entry).get("authn")).get("principals")
    principal = principals[0] if isinstance(principals, list) and principals else name
    for authority, said in mapping(authorities).items():
        ca = _key(mapping(said).get("public_key"))
        if ca is not None:
            found.append(_certified(authority, ca, str(principal), at))
    return [*found, typed("password"), *(typed(kind) for kind in DIALOGUES)]


def typed(kind: str) -> Proof:
    """A password, a code or a dialogue that would be found right."""
    method = "password" if kind == "password" else "keyboard-interactive"
    return Proof(kind, method, f"that the {kind} is right", Attempt(method=method, proven=False))


def _signed(key: PublicKey, certificate: Certificate | None = None, kind: str = "publickey") -> Proof:
    facts = key.facts(TOUCHED_WITH_PIN if key.facts().type.startswith("sk-") else None)
    how = f"a signature by the key {facts.fingerprint}" if key is not _SOMEBODYS else "a signature by a key of theirs"
    attempt = Attempt(method="publickey", proven=True, key=facts, certificate=certificate)
    return Proof(kind, "publickey", how, attempt)


def _certified(authority: str, ca: PublicKey, principal: str, at: datetime) -> Proof:
    certificate = Certificate(
        key_id=f"{principal} (assumed)", serial=2**63 - 1, ca=ca.facts(), principals=(principal,),
        valid_after=int(at.timestamp()) - 60, valid_before=int(at.timestamp()) + 3600,
        extensions={f"permit-{name}": "" for name in PERMISSIONS},
    )  # fmt: skip
    proof = _signed(_SOMEBODYS, certificate, "certificate")
    return Proof(proof.kind, proof.method, f"a certificate for {principal} by {authority}", proof.attempt)


def _key(line: Any) -> PublicKey | None:
    """The key of an authorized_keys line, if it is one."""
    words = line.split() if isinstance(line, str) else []
    try:
        return read(base64.b64decode(words[1], validate=True)) if len(words) > 1 else None
    except (Unreadable, binascii.Error):
        return None


_SOMEBODYS = read(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"a key that is registered nowhere")
"""A key that is registered nowhere, for whoever's keys are listed elsewhere and for certificates."""


# -- what somebody names ----------------------------------------------------------------------------------------------


def named(words: Sequence[str], has: Sequence[Proof]) -> list[Proof]:
    """Proofs in the order they would be shown.  `has` is what the person has.  Raises StudyError."""
    return [_named(word, has) for word in words]


def _named(word: str, has: Sequence[Proof]) -> Proof:
    kind, _, file = word.partition(":")
    if kind == "publickey" and file:
        return _of_file(Path(file))
    for proof in has:
        if proof.kind == kind and not file:
            return proof
    raise StudyError(f"--proof {word!r} is none", remedy=f"Say {WORDS}; again for each, in their order.")


def _of_file(file: Path) -> Proof:
    """The key or the certificate in a `.pub` file."""
    try:
        line = file.read_text()
        key = read(base64.b64decode(line.split()[1], validate=True))
    except (OSError, UnicodeDecodeError, IndexError, Unreadable, binascii.Error) as error:
        raise StudyError(
            f"--proof publickey:{file}: there is no public key in it: {error}",
            remedy="Name the .pub file of a key, or the -cert.pub file of a certificate.",
        ) from error
    return _signed(key, key.certificate, "certificate" if key.certificate else "publickey")
