"""Whose door this is: host keys, their certificates and their rotation; private names of asyncssh 2.24.1, as in raw.py.

asyncssh keeps one key pair for all connections and notes on it which signature the last client asked for, so that two
clients at once can get each other's; and it signs RSA with SHA-1 where it proves keys.  Here each signature is made
for one connection with the algorithm that was agreed there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncssh.connection import SSHServerConnection, SSHServerConnectionOptions
from asyncssh.packet import PacketDecodeError, SSHPacket, String
from asyncssh.public_key import SSHKey, SSHOpenSSHCertificate

RSA = b"ssh-rsa"
SIGNED_WITH = {
    b"ssh-ed25519": (b"ssh-ed25519",),
    b"ecdsa-sha2-nistp256": (b"ecdsa-sha2-nistp256",),
    b"ecdsa-sha2-nistp384": (b"ecdsa-sha2-nistp384",),
    b"ecdsa-sha2-nistp521": (b"ecdsa-sha2-nistp521",),
    RSA: (b"rsa-sha2-512", b"rsa-sha2-256"),
}
"""Key types that can be host keys, and what signs with them."""
CERTIFIED = b"-cert-v01@openssh.com"
MAX_PROOFS = 16
"""How often a client may ask for all keys to be proven: each costs us signatures."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to prove whose door it is: what the client is shown, and what signs for it."""

    key: SSHKey
    signature: bytes
    public_data: bytes

    def sign(self, data: bytes) -> bytes:
        return self.key.sign(data, self.signature)


@dataclass(frozen=True, slots=True)
class Identity:
    """The keys that are used, their certificates, and keys to come, which are only announced."""

    keys: Sequence[SSHKey]
    next_keys: Sequence[SSHKey] = ()
    certificates: Sequence[SSHOpenSSHCertificate] = ()
    _by_public_data: dict[bytes, SSHKey] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._by_public_data.update((key.public_data, key) for key in (*self.keys, *self.next_keys))

    def offers(self) -> dict[bytes, Offer]:
        """By algorithm.  A certificate that has ended is offered no more: the bare key may still be known."""
        now, found = time.time(), dict[bytes, Offer]()
        for certificate in self.certificates:
            if certificate._valid_after <= now < certificate._valid_before:
                key = self._by_public_data[certificate.key.public_data]
                for signature in SIGNED_WITH[key.algorithm]:
                    found.setdefault(signature + CERTIFIED, Offer(key, signature, certificate.public_data))
        for key in self.keys:
            for signature in SIGNED_WITH[key.algorithm]:
                found.setdefault(signature, Offer(key, signature, key.public_data))
        return found

    @property
    def announced(self) -> list[bytes]:
        return list(self._by_public_data)

    def find(self, public_data: bytes) -> SSHKey | None:
        return self._by_public_data.get(public_data)


class Hosted(SSHServerConnection):
    """Proves whose door it is, and tells which keys are to be known from now on (OpenSSH's PROTOCOL, section 2.5)."""

    _proofs = 0

    def appear_as(self, identity: Identity) -> None:
        self._identity = identity
        self._offers = identity.offers()
        self._server_host_key_algs = list(self._offers)
        self._agreed = b""

    def choose_server_host_key(self, peer_host_key_algs: Sequence[bytes]) -> bool:
        for algorithm in peer_host_key_algs:
            offer = self._offers.get(algorithm)
            if offer is not None:
                self._server_host_key = offer  # type: ignore[assignment]  # what a key exchange needs of a key pair
                self._agreed = offer.signature
                return True
        return False

    def send_server_host_keys(self) -> None:
        self._send_global_request(b"hostkeys-00@openssh.com", *map(String, self._identity.announced))

    def _process_hostkeys_prove_00_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        self._proofs += 1
        self._report_global_response(self._proven(packet) if self._proofs <= MAX_PROOFS else False)

    def _proven(self, packet: SSHPacket) -> bytes | bool:
        """A signature for each key that is asked for, each at most once; False when it is not ours to prove."""
        prefix = String("hostkeys-prove-00@openssh.com") + String(self._session_id)
        asked: dict[bytes, bytes] = {}
        try:
            while packet:
                public_data = packet.get_string()
                key = self._identity.find(public_data)
                if key is None or public_data in asked:
                    return False
                asked[public_data] = String(key.sign(prefix + String(public_data), self._signature_of(key)))
        except PacketDecodeError:
            return False
        return b"".join(asked.values()) or False

    def _signature_of(self, key: SSHKey) -> bytes:
        """OpenSSH wants RSA proven with what the key exchange agreed on, if that was RSA."""
        possible = SIGNED_WITH[key.algorithm]
        return self._agreed if self._agreed in possible else possible[0]


@dataclass(frozen=True, slots=True)
class Common:
    """What all connections share that begin now."""

    options: SSHServerConnectionOptions
    identity: Identity
    max_auth_tries: int
