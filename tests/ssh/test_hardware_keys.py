"""Hardware keys: the flags that they sign are facts, and policy says which it wants.  Signatures are synthetic."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.asn1 import der_decode
from asyncssh.packet import Byte, MPInt, String, UInt32
from asyncssh.public_key import decode_ssh_public_key
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.ssh.test_certificates import Authority, keygen
from tests.ssh.world import ALICE, Site, running
from tests.stack.opa import Opa

TOUCHED, PIN = 0x01, 0x04
APPLICATION = "ssh:"


class Token:
    """A security key that reports what a test wants (OpenSSH's PROTOCOL.u2f)."""

    def __init__(self, kind: str, flags: int) -> None:
        self._flags = flags
        self._kind = kind
        if kind == "ed25519":
            self.algorithm = b"sk-ssh-ed25519@openssh.com"
            self._ed = ed25519.Ed25519PrivateKey.generate()
            fields = String(self._ed.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        else:
            self.algorithm = b"sk-ecdsa-sha2-nistp256@openssh.com"
            self._ec = ec.generate_private_key(ec.SECP256R1())
            point = self._ec.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            fields = String("nistp256") + String(point)
        self.public_data = String(self.algorithm) + fields + String(APPLICATION)

    @property
    def line(self) -> str:
        return decode_ssh_public_key(self.public_data).export_public_key().decode().strip()

    def sign(self, data: bytes, lies: int = 0) -> bytes:
        """The signature; with `lies` it says other flags than those that were signed."""
        counter = UInt32(7)
        signed = sha256(APPLICATION.encode()).digest() + Byte(self._flags) + counter + sha256(data).digest()
        if self._kind == "ed25519":
            raw = self._ed.sign(signed)
        else:
            parts: Any = der_decode(self._ec.sign(signed, ec.ECDSA(hashes.SHA256())))
            raw = b"".join(MPInt(part) for part in parts)
        return String(self.algorithm) + String(raw) + Byte(self._flags ^ lies) + counter


class Pair(asyncssh.SSHKeyPair):
    """A token as asyncssh's client wants it."""

    def __init__(self, token: Token, lies: int = 0) -> None:
        super().__init__(
            token.algorithm, token.algorithm, (token.algorithm,), (token.algorithm,), token.public_data, None
        )
        self._token = token
        self._lies = lies

    def sign(self, data: bytes) -> bytes:
        return self._token.sign(data, self._lies)


@asynccontextmanager
async def door(opa: Opa, directory: Path, token: Token, rules: dict[str, Any]) -> AsyncIterator[Site]:
    async with running(opa, directory) as site:
        opa.put(f"people/{ALICE}", {"keys": [token.line], "groups": []})
        opa.put("door", rules)
        try:
            yield site
        finally:
            opa.put("door", {})


async def opens(site: Site, pair: Pair) -> bool:
    try:
        async with site.connect(client_keys=[pair]) as connection:
            return (await connection.run("echo in")).stdout == "in\n"
    except asyncssh.PermissionDenied:
        return False


def facts(site: Site) -> tuple[bool | None, bool | None]:
    """What the last signature said: touched, PIN given."""
    key = [r for r in site.audit("authn") if r["input"]["attempt"]["proven"]][-1]["input"]["attempt"]["key"]
    return key["touched"], key["pin_verified"]


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize(
    ("flags", "rules", "admitted"),
    [
        (TOUCHED, {}, True),
        (0, {}, False),
        (0, {"require_touch": False}, True),
        (TOUCHED, {"require_pin": True}, False),
        (TOUCHED | PIN, {"require_pin": True}, True),
        (PIN, {"require_pin": True}, False),
        (TOUCHED, {"require_hardware_key": True}, True),
    ],
)
async def test_touch_and_pin_are_what_the_key_signed(
    opa_server: Opa, tmp_path: Path, kind: str, flags: int, rules: dict[str, Any], admitted: bool
) -> None:
    token = Token(kind, flags)
    async with door(opa_server, tmp_path, token, rules) as site:
        assert await opens(site, Pair(token)) is admitted
        assert facts(site) == (bool(flags & TOUCHED), bool(flags & PIN))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
async def test_flags_that_were_not_signed_prove_nothing(opa_server: Opa, tmp_path: Path, kind: str) -> None:
    token = Token(kind, 0)
    async with door(opa_server, tmp_path, token, {}) as site:
        assert not await opens(site, Pair(token, lies=TOUCHED))
        assert not [r for r in site.audit("authn") if r["input"]["attempt"]["proven"]]
        assert [r["reasons"] for r in site.audit("verify")] == [[{"code": "bad_signature"}]]


@pytest.mark.parametrize(
    ("options", "flags", "admitted"),
    [
        ((), TOUCHED, True),
        ((), 0, False),
        (("-O", "no-touch-required"), 0, True),
        (("-O", "verify-required"), TOUCHED, False),
        (("-O", "verify-required"), TOUCHED | PIN, True),
    ],
)
async def test_a_certificate_can_say_how_its_hardware_key_is_used(
    opa_server: Opa, tmp_path: Path, options: tuple[str, ...], flags: int, admitted: bool
) -> None:
    token, authority = Token("ed25519", flags), Authority(tmp_path)
    (tmp_path / "sk.pub").write_text(token.line)
    keygen("-s", str(authority.key), "-I", "token", "-n", ALICE, "-V", "-1h:+1h", *options, str(tmp_path / "sk.pub"))
    line = (tmp_path / "sk-cert.pub").read_text().split()
    async with door(opa_server, tmp_path, token, {"chain": [["certificate"]]}) as site:
        opa_server.put("authorities", {"ca": {"public_key": authority.public}})
        try:
            pair = Pair(token)
            pair.algorithm, pair.public_data = line[0].encode(), base64.b64decode(line[1])
            assert await opens(site, pair) is admitted
            assert facts(site) == (bool(flags & TOUCHED), bool(flags & PIN))
        finally:
            opa_server.put("authorities", {})


async def test_a_plain_key_is_not_enough_where_hardware_is_needed(opa_server: Opa, tmp_path: Path) -> None:
    async with running(opa_server, tmp_path) as site:
        opa_server.put("door", {"require_hardware_key": True})
        try:
            with pytest.raises(asyncssh.PermissionDenied):
                async with site.connect():
                    pass
        finally:
            opa_server.put("door", {})
