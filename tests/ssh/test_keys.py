"""Keys and certificates as they come off the wire: read whole or not at all."""

from __future__ import annotations

import base64
import random
import subprocess
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import MPInt, String

from gateway.ssh.keys import PublicKey, Unreadable, read

KINDS = ["ed25519", "ecdsa", "rsa"]


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True, timeout=60)


def blob(file: Path) -> bytes:
    return base64.b64decode(file.read_text().split()[1])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One of each kind, with everything that a certificate can hold."""
    directory = tmp_path_factory.mktemp("certificates")
    keygen("-t", "ed25519", "-N", "", "-f", str(directory / "ca"))
    found = {}
    for kind in KINDS:
        keygen("-t", kind, "-N", "", "-f", str(directory / kind))
        options = ("force-command=id", "source-address=10.0.0.0/8,::1", "critical:a@b=c", "extension:d@e=f")
        named = [word for option in options for word in ("-O", option)]
        keygen("-s", str(directory / "ca"), "-I", "key id, ü", "-n", "alice,bob", "-z", str(2**64 - 1), *named,
               "-V", "always:forever", str(directory / f"{kind}.pub"))  # fmt: skip
        found[kind] = blob(directory / f"{kind}-cert.pub")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_is_read_whole(certificates: dict[str, bytes], kind: str) -> None:
    certificate = read(certificates[kind]).certificate

    assert certificate is not None
    assert (certificate.key_id, certificate.serial) == ("key id, ü", 2**64 - 1)
    assert certificate.principals == ("alice", "bob")
    assert (certificate.valid_after, certificate.valid_before) == (0, -1)
    assert certificate.critical_options == {
        "a@b": "c", "force-command": "id", "source-address": "10.0.0.0/8,::1",
    }  # fmt: skip
    assert certificate.extensions["d@e"] == "f"
    assert certificate.extensions["permit-pty"] == ""
    assert certificate.ca.type == "ssh-ed25519"


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_with_any_bit_changed_is_none(certificates: dict[str, bytes], kind: str) -> None:
    """Or it says the same: an encoding can be loose in what was signed by nobody."""
    whole, dice = certificates[kind], random.Random(7)
    facts = read(whole)
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(dice.choice((1, 1, 2, 5))):
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        try:
            found = read(bytes(changed))
        except Unreadable:
            continue
        assert found.certificate == facts.certificate
        assert found.facts() == facts.facts()


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_cut_short_or_with_more_is_none(certificates: dict[str, bytes], kind: str) -> None:
    whole = certificates[kind]
    for cut in (*range(0, len(whole), 7), len(whole) - 1):
        with pytest.raises(Unreadable):
            read(whole[:cut])
    with pytest.raises(Unreadable):
        read(whole + b"\0")


def test_a_certificate_cannot_be_an_authority(certificates: dict[str, bytes]) -> None:
    authority, above = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    whole = certificates["ed25519"]
    start = String("ssh-ed25519")
    signature = whole.rindex(start)
    unsigned = whole[: whole.rindex(start, 0, signature) - 4]

    def signed_by(public: bytes) -> bytes:
        data = unsigned + String(public)
        return data + String(authority.sign(data, b"ssh-ed25519"))

    assert read(signed_by(authority.public_data)).certificate is not None
    with pytest.raises(Unreadable):
        read(signed_by(above.generate_user_certificate(authority, "intermediate").public_data))


@pytest.mark.parametrize("algorithm", [b"ssh-rsa", b"rsa-sha2-256", b"ssh-ed25519", b"", b"\xff", b"rsa-sha2-512x"])
def test_the_algorithm_that_is_named_is_the_one_that_signed(algorithm: bytes) -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    offered = PublicKey(key.convert_to_public())
    signature = key.sign(b"message", b"rsa-sha2-512")

    assert offered.verified(b"rsa-sha2-512", b"message", signature) is not None
    assert offered.verified(b"rsa-sha2-512-cert-v01@openssh.com", b"message", signature) is not None
    assert offered.verified(algorithm, b"message", signature) is None
    assert offered.verified(b"rsa-sha2-512", b"messages", signature) is None
    assert offered.verified(b"rsa-sha2-512", b"message", b"") is None


@pytest.mark.parametrize(("exponent", "modulus"), [(-1, 2**2048 + 1), (65537, -(2**2048)), (1, 1), (0, 0)])
def test_numbers_that_no_key_has_are_unreadable(exponent: int, modulus: int) -> None:
    with pytest.raises(Unreadable):
        read(String("ssh-rsa") + MPInt(exponent) + MPInt(modulus))


def test_nonsense_is_unreadable() -> None:
    dice = random.Random(11)
    starts = [b"", String("ssh-rsa"), String("ssh-ed25519"), String("ssh-dss"), String("x-cert-v01@openssh.com"),
              String("sk-ssh-ed25519-cert-v01@openssh.com"), String("ssh-ed25519-cert-v01@openssh.com")]  # fmt: skip
    for _ in range(2000):
        with pytest.raises(Unreadable):
            read(dice.choice(starts) + dice.randbytes(dice.randrange(64)))
