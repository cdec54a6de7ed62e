"""Public keys, certificates and signatures of SSH's wire as facts.  What is verified here is verified whole.

Certificates are decoded by us (OpenSSH's PROTOCOL.certkeys): asyncssh merges critical options with extensions, drops
the unknown ones, and refuses some itself.  Here nothing is judged but signatures; all else is for policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket, String
from asyncssh.public_key import SSHKey, decode_ssh_public_key

from gateway.proofs import Certificate, Key

SIGNATURES = frozenset(
    {
        b"ssh-ed25519", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521",
        b"rsa-sha2-256", b"rsa-sha2-512",
        b"sk-ssh-ed25519@openssh.com", b"sk-ecdsa-sha2-nistp256@openssh.com",
    }
)  # fmt: skip
"""What OpenSSH takes by default.  asyncssh also verifies `ssh-rsa` and `rsa1024-sha1`, which sign with SHA-1."""

CERTIFICATE = b"-cert-v01@openssh.com"
USER_CERTIFICATE, HOST_CERTIFICATE = 1, 2
FOR_EVER = 2**64 - 1
TOUCHED, PIN_VERIFIED = 0x01, 0x04

# How many fields a key of the type has between the certificate's nonce and its serial: all are strings on the wire.
_FIELDS = {
    b"ssh-ed25519": 1,
    b"ssh-rsa": 2,
    b"ecdsa-sha2-nistp256": 2,
    b"ecdsa-sha2-nistp384": 2,
    b"ecdsa-sha2-nistp521": 2,
    b"sk-ssh-ed25519@openssh.com": 2,
    b"sk-ecdsa-sha2-nistp256@openssh.com": 3,
}


class Unreadable(Exception):
    """A key, certificate or signature that is not what it says it is."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that was offered, or the key that an offered certificate certifies."""

    key: SSHKey
    certificate: Certificate | None = None

    def facts(self, flags: int | None = None) -> Key:
        """`flags` are those that a hardware key signed."""
        facts = _facts(self.key)
        if flags is None:
            return facts
        return facts.model_copy(update={"touched": bool(flags & TOUCHED), "pin_verified": bool(flags & PIN_VERIFIED)})

    def verified(self, algorithm: bytes, message: bytes, signature: bytes) -> Key | None:
        """The key's facts if it signed `message`, by the algorithm that was named and one we take; else None."""
        try:
            packet = SSHPacket(signature)
            used = packet.get_string()
            right = used in SIGNATURES and _named(algorithm) == used and self._verify(message, signature)
            return self.facts(_flags(packet) if used.startswith(b"sk-") else None) if right else None
        except (PacketDecodeError, ValueError):
            return None

    def _verify(self, message: bytes, signature: bytes) -> bool:
        self.key.set_touch_required(False)  # whether it has to be touched is policy's to say
        return self.key.verify(message, signature)


def read(blob: bytes) -> PublicKey:
    """A public key, or a user certificate whose CA's signature is right.  Raises Unreadable."""
    with _reading():
        if _is_certificate(blob):
            return _read_certificate(blob, USER_CERTIFICATE)
        return PublicKey(decode_ssh_public_key(blob))


def host_certificate(blob: bytes) -> Certificate | None:
    """What a host that showed `blob` is certified for; None for a bare key.  Raises Unreadable, as `read` does."""
    with _reading():
        return _read_certificate(blob, HOST_CERTIFICATE).certificate if _is_certificate(blob) else None


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever is wrong with what is read is Unreadable."""
    try:
        yield
    except (PacketDecodeError, asyncssh.KeyImportError, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise Unreadable(str(error)) from error


def _is_certificate(blob: bytes) -> bool:
    return SSHPacket(blob).get_string().endswith(CERTIFICATE)


def _read_certificate(blob: bytes, wanted: int) -> PublicKey:
    packet = SSHPacket(blob)
    algorithm = packet.get_string()
    kind = _plain(algorithm)
    if kind not in _FIELDS:
        raise Unreadable("a certificate of an unknown type")
    packet.get_string()  # nonce
    key = String(kind) + b"".join(String(packet.get_string()) for _ in range(_FIELDS[kind]))
    serial, role = packet.get_uint64(), packet.get_uint32()
    key_id, principals = _text(packet.get_string()), _strings(packet.get_string())
    valid_after, valid_before = packet.get_uint64(), packet.get_uint64()
    critical, extensions = _options(packet.get_string()), _options(packet.get_string())
    packet.get_string()  # reserved
    ca_blob = packet.get_string()
    signed = packet.get_consumed_payload()
    signature = packet.get_string()
    packet.check_end()
    if role != wanted:
        raise Unreadable("a user's certificate is none of a host, nor the other way round")
    facts = Certificate(
        key_id=key_id,
        serial=serial,
        ca=_signed_by(ca_blob, signed, signature),
        principals=tuple(_text(principal) for principal in principals),
        valid_after=valid_after,
        valid_before=-1 if valid_before == FOR_EVER else valid_before,
        critical_options=critical,
        extensions=extensions,
    )
    return PublicKey(decode_ssh_public_key(key), facts)


def _signed_by(blob: bytes, signed: bytes, signature: bytes) -> Key:
    """The CA, if it signed.  A CA cannot be a certificate itself: there are no chains (PROTOCOL.certkeys)."""
    authority = PublicKey(decode_ssh_public_key(blob))
    if SSHPacket(signature).get_string() not in SIGNATURES or not authority._verify(signed, signature):
        raise Unreadable("the certificate's signature is wrong, or of a kind that is not taken")
    return authority.facts()


def _options(data: bytes) -> dict[str, str]:
    """Names and values; each name once, and each value nothing or one string of text."""
    packet, found = SSHPacket(data), dict[str, str]()
    while packet:
        name, value = _text(packet.get_string()), SSHPacket(packet.get_string())
        if name in found:
            raise Unreadable(f"the option {name!r} is there twice")
        found[name] = _text(value.get_string()) if value else ""
        value.check_end()
    return found


def _strings(data: bytes) -> list[bytes]:
    packet, found = SSHPacket(data), []
    while packet:
        found.append(packet.get_string())
    return found


def _text(data: bytes) -> str:
    """Text that is judged as it is meant: what UTF-8 cannot show, or NUL would cut short, is not accepted."""
    text = data.decode("utf-8")
    if "\0" in text:
        raise Unreadable("text cannot hold NUL")
    return text


def _flags(packet: SSHPacket) -> int:
    """The flags byte of a hardware key's signature (PROTOCOL.u2f), after its algorithm was read and it was verified."""
    packet.get_string()
    return packet.get_byte()


def _plain(algorithm: bytes) -> bytes:
    """The type of the key that a certificate of the type `algorithm` certifies."""
    kind = algorithm.removesuffix(CERTIFICATE)
    return kind + b"@openssh.com" if kind.startswith(b"sk-") else kind


def _named(algorithm: bytes) -> bytes:
    """The signature algorithm that a request's algorithm stands for (RFC 8332 section 3, PROTOCOL.certkeys)."""
    return _plain(algorithm) if algorithm.endswith(CERTIFICATE) else algorithm


def _facts(key: SSHKey) -> Key:
    exported = key.export_public_key("openssh").decode("ascii").split()
    bits = getattr(getattr(key, "_key", None), "n", None)
    return Key(
        type=exported[0],
        fingerprint=key.get_fingerprint(),
        public_key=" ".join(exported[:2]),
        bits=bits.bit_length() if isinstance(bits, int) else None,
    )
