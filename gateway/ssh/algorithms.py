"""What is negotiated: post-quantum hybrids first, authenticated encryption, nothing with SHA-1.

`tests/ssh/test_algorithms.py` holds it against ssh-audit.  Left out on purpose: finite-field Diffie-Hellman, which
cryptography is about to drop, and NIST's curves for key exchange, which ssh-audit fails; so a client in FIPS mode finds
nothing in common.
"""

from __future__ import annotations

from asyncssh.kex import get_kex_algs

_KEY_EXCHANGE = (
    "mlkem768x25519-sha256",
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
)
KEY_EXCHANGE = [name for name in _KEY_EXCHANGE if name.encode() in get_kex_algs()]
"""sntrup761 where liboqs is installed."""

GCM = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
WITHOUT_GCM = ["chacha20-poly1305@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr"]
MAC = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"]
"""For the ciphers that have none of their own."""


def ciphers_for(client_version: bytes) -> list[bytes]:
    """AES-GCM, which is several times faster here; and for whom it may be missing, also what they have.

    The client's order decides, and OpenSSH's before 10.0 has AES-GCM last: offered the others, it would take them.
    It has AES-GCM since 6.2.
    """
    others = [] if client_version.startswith(b"SSH-2.0-OpenSSH_") else WITHOUT_GCM
    return [name.encode() for name in GCM + others]
