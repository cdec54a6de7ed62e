"""The key that signs a bundle: read by reference, written only where OPA's own command needs it, and never shown."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from pydantic import SecretStr, ValidationError

from gateway.sections import SecretRef
from gateway.studies.errors import StudyError

RSA_BITS = 2048
MAKE_ONE = "Make one: openssl ecparam -name prime256v1 -genkey -noout -out bundle.key"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who may have signed: PEM, the one algorithm that goes with it, and a fingerprint for people to compare."""

    pem: bytes
    algorithm: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its public half."""

    pem: SecretStr = field(repr=False)
    public: PublicKey


def signing_key(reference: str) -> SigningKey:
    """`file:PATH` or `env:NAME`.  Raises StudyError, or SettingsError, that names the reference and never the value."""
    kind, _, name = reference.partition(":")
    if kind not in ("file", "env") or not name:
        raise StudyError(
            "--key is a reference, file:PATH or env:NAME; the key itself is never on a command line",
            remedy="Put the key into a file that only you can read, and name it.",
        )
    try:
        pem = SecretRef(**{kind: name}).read()
    except ValidationError as error:
        raise StudyError(f"--key {reference}: is no reference", remedy="file:PATH or env:NAME.") from error
    try:
        key: PrivateKeyTypes = serialization.load_pem_private_key(pem.get_secret_value().encode(), password=None)
    except TypeError:
        raise StudyError(
            f"--key {reference}: the key is encrypted", remedy="Have it decrypted by what keeps it, for this command."
        ) from None
    except (ValueError, UnsupportedAlgorithm):  # what the library says may hold parts of the key
        raise StudyError(f"--key {reference}: is no private key in PEM", remedy=MAKE_ONE) from None
    return SigningKey(pem, _public(key.public_key(), f"--key {reference}"))


def public_key(file: Path) -> PublicKey:
    """Raises StudyError."""
    try:
        return _public(serialization.load_pem_public_key(file.read_bytes()), f"--public-key {file}")
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise StudyError(
            f"--public-key {file}: is no public key in PEM",
            remedy="Of a private one: openssl pkey -in bundle.key -pubout -out bundle.pem",
        ) from error


def _public(key: PublicKeyTypes, where: str) -> PublicKey:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(pem, _algorithm(key, where), f"SHA256:{hashlib.sha256(der).hexdigest()}")


def _algorithm(key: PublicKeyTypes, where: str) -> str:
    match key:
        case rsa.RSAPublicKey() if key.key_size >= RSA_BITS:
            return "RS256"
        case ec.EllipticCurvePublicKey() if key.curve.name == "secp256r1":
            return "ES256"
        case _:
            raise StudyError(
                f"{where}: a bundle is signed with a key of P-256 (ES256), or of RSA from {RSA_BITS} bits on (RS256)",
                remedy=MAKE_ONE,
            )
