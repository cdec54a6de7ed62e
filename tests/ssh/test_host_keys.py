"""Whose door it is: rotation and certificates as OpenSSH's own client sees them, and proofs that give nothing away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import SSHPacket, String

from gateway.errors import SettingsError
from gateway.host_keys import read
from gateway.settings import Settings
from gateway.ssh.hosted import MAX_PROOFS, Identity
from gateway.ssh.raw import GateConnection
from tests.ssh.world import ALICE, Site, running
from tests.stack.opa import Opa
from tests.waiting import until

TYPES = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]


def make_key(directory: Path, name: str, kind: str = "ssh-ed25519", **options: Any) -> Path:
    if kind == "ssh-rsa":
        options = {"key_size": 3072, **options}
    key = asyncssh.generate_private_key(kind, **options)
    path = directory / name
    path.write_bytes(key.export_private_key())
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("keys")
    return {kind: make_key(directory, kind, kind) for kind in TYPES}


@pytest.fixture
def opened(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> Callable[..., Any]:
    @asynccontextmanager
    async def opening(**ssh: Any) -> AsyncIterator[Site]:
        async with running(opa_server, tmp_path, ssh=ssh) as site:
            (tmp_path / ALICE).write_bytes(site.keys[ALICE].export_private_key())
            (tmp_path / ALICE).chmod(0o600)
            yield site

    return opening


async def ssh(site: Site, *options: str, known: Path, checking: str = "yes") -> tuple[int, str]:
    """The stock client, as one whose host is always called the same."""
    words = [
        "ssh", "-F", "none", "-i", str(site.directory / ALICE), "-p", str(site.port), "-o", "IdentitiesOnly=yes",
        "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={known}",
        "-o", "GlobalKnownHostsFile=none", "-o", "HostKeyAlias=door.test", "-o", f"StrictHostKeyChecking={checking}",
        "-o", "UpdateHostKeys=yes", *options, f"{ALICE}@127.0.0.1", "echo in",
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, (out + err).decode()


def known_hosts(tmp_path: Path, *keys: Path) -> Path:
    file = tmp_path / "known_hosts"
    file.write_text("".join(f"door.test {public(key)}\n" for key in keys))
    return file


def public(key: Path) -> str:
    return asyncssh.read_private_key(key).export_public_key().decode().strip()


# -- rotation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", ["ssh-ed25519", "ssh-rsa"])
@pytest.mark.parametrize("new", TYPES)
async def test_a_client_learns_the_next_key_and_trusts_it_when_it_is_the_only_one(
    opened: Any, tmp_path: Path, keys: dict[str, Path], old: str, new: str
) -> None:
    present, to_come = keys[old], make_key(tmp_path, "next", new)
    known = known_hosts(tmp_path, present)
    async with opened(host_keys=[present], next_host_keys=[to_come]) as site:
        status, said = await ssh(site, known=known)
        assert (status, "in\n" in said) == (0, True), said
        assert {line.split()[2] for line in known.read_text().splitlines()} == {
            public(present).split()[1],
            public(to_come).split()[1],
        }
    async with opened(host_keys=[to_come]) as site:
        status, said = await ssh(site, known=known)
        assert (status, "in\n" in said) == (0, True), said
        assert public(present).split()[1] not in known.read_text(), "the old key is forgotten"


async def test_all_keys_are_announced_and_each_is_used_by_who_wants_it(
    opened: Any, tmp_path: Path, keys: dict[str, Path]
) -> None:
    async with opened(host_keys=list(keys.values())) as site:
        for algorithm in ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-256", "rsa-sha2-512"):
            known = known_hosts(tmp_path, keys["ssh-rsa" if algorithm.startswith("rsa") else algorithm])
            status, said = await ssh(site, "-o", f"HostKeyAlgorithms={algorithm}", known=known)
            assert (status, "in\n" in said) == (0, True), said
        status, said = await ssh(site, "-o", "HostKeyAlgorithms=ssh-rsa", known=known)
        assert "no matching host key" in said, "SHA-1 is not offered"


async def test_clients_at_once_get_each_the_signature_they_agreed_on(keys: dict[str, Path]) -> None:
    """OpenSSH's client hangs up on another signature than the one agreed on; asyncssh's would not notice."""
    identity = Identity([asyncssh.read_private_key(keys["ssh-rsa"])])
    algorithms = [b"rsa-sha2-256", b"rsa-sha2-512"]
    connections: list[Any] = [GateConnection.__new__(GateConnection) for _ in algorithms]
    for connection, algorithm in zip(connections, algorithms, strict=True):
        connection.appear_as(identity)
        assert connection.choose_server_host_key([algorithm])

    signed = [connection._server_host_key.sign(b"hash") for connection in connections]
    assert [SSHPacket(signature).get_string() for signature in signed] == algorithms


async def test_only_our_own_keys_are_proven_and_each_once_and_not_for_ever(opened: Any, keys: dict[str, Path]) -> None:
    ours = String(asyncssh.read_private_key(keys["ssh-ed25519"]).public_data)
    alien = String(asyncssh.generate_private_key("ssh-ed25519").public_data)

    async def ask(payload: bytes) -> tuple[int, bytes]:
        kind, packet = await asyncio.wait_for(
            connection._make_global_request(b"hostkeys-prove-00@openssh.com", payload), 10
        )
        return kind, packet.get_remaining_payload()

    async with opened(host_keys=[keys["ssh-ed25519"]]) as site, site.connect() as connection:
        for payload in (b"", alien, ours + alien, ours + ours, ours[:-1], b"\xff" * 8):
            assert (await ask(payload))[0] == 82
        kind, answer = await ask(ours)
        data = String("hostkeys-prove-00@openssh.com") + String(connection._session_id) + ours
        assert kind == 81
        assert (
            asyncssh.read_private_key(keys["ssh-ed25519"])
            .convert_to_public()
            .verify(data, SSHPacket(answer).get_string())
        )
        assert {(await ask(ours))[0] for _ in range(MAX_PROOFS)} == {81, 82}
        assert (await ask(ours))[0] == 82
        assert (await connection.run("echo on")).stdout == "on\n"


async def test_keys_are_read_again_while_running_and_wrong_ones_change_nothing(
    opened: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = make_key(tmp_path, "host")
    async with opened(host_keys=[file]) as site, site.connect() as before:
        old = public(file)
        file.write_text("not a key")
        await site.gateway.host_keys.read_again()
        assert "host_keys_not_read" in caplog.text
        assert await shown(site) == old
        make_key(tmp_path, "host")
        await site.gateway.host_keys.read_again()
        assert await shown(site) == public(file) != old
        assert (await before.run("echo on")).stdout == "on\n"


async def shown(site: Site) -> str:
    key = await asyncssh.get_server_host_key("127.0.0.1", site.port, config=[])
    assert key is not None
    return key.export_public_key().decode().strip()


# -- certificates ----------------------------------------------------------------------------------------------------


def certify(authority: asyncssh.SSHKey, key: Path, name: str = "door.test", valid_before: Any = "+1d") -> Path:
    certificate = authority.generate_host_certificate(
        asyncssh.read_private_key(key), "door", principals=[name], valid_after="-2d", valid_before=valid_before
    )
    path = key.with_name(f"{key.name}-cert.pub")
    path.write_bytes(certificate.export_certificate())
    return path


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa"])
async def test_a_client_that_knows_only_the_authority_trusts_a_certified_key(
    opened: Any, tmp_path: Path, keys: dict[str, Path], kind: str
) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    known = tmp_path / "known_hosts"
    known.write_text(f"@cert-authority door.test {authority.export_public_key().decode()}")
    async with opened(host_keys=[keys[kind]], host_certificates=[certify(authority, keys[kind])]) as site:
        status, said = await ssh(site, known=known)
        assert (status, "in\n" in said) == (0, True), said


async def test_a_certificate_that_has_ended_is_not_shown_and_the_bare_key_still_is(
    opened: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority, key = asyncssh.generate_private_key("ssh-ed25519"), make_key(tmp_path, "host")
    known = known_hosts(tmp_path, key)
    known.write_text(known.read_text() + f"@cert-authority door.test {authority.export_public_key().decode()}")
    async with opened(host_keys=[key], host_certificates=[certify(authority, key, valid_before="-1d")]) as site:
        status, said = await ssh(site, known=known)
        assert (status, "in\n" in said) == (0, True), said
    assert "host_certificate_ended" in caplog.text


def settings(tmp_path: Path, **ssh: Any) -> Settings:
    return Settings(state_dir=tmp_path, ssh=ssh)


async def test_what_is_wrong_with_a_key_or_certificate_is_told_by_its_setting(tmp_path: Path) -> None:
    key, other = make_key(tmp_path, "host"), make_key(tmp_path, "other")
    authority = asyncssh.generate_private_key("ssh-ed25519")
    user = tmp_path / "user-cert.pub"
    user.write_bytes(authority.generate_user_certificate(asyncssh.read_private_key(key), "x").export_certificate())
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"host_keys": [tmp_path / "none"]}, "ssh.host_keys"),
        ({"host_keys": [key, other]}, "two keys of one type"),
        ({"host_keys": [make_key(tmp_path, "small", "ssh-rsa", key_size=2048)]}, "2048 bits"),
        ({"host_keys": [make_key(tmp_path, "dsa", "ssh-dss")]}, "cannot be host keys"),
        ({"host_keys": [key], "next_host_keys": [tmp_path / "none"]}, "ssh.next_host_keys"),
        ({"host_keys": [key], "host_certificates": [tmp_path / "none"]}, "ssh.host_certificates"),
        ({"host_keys": [key], "host_certificates": [key]}, "ssh.host_certificates"),
        ({"host_keys": [key], "host_certificates": [user]}, "no certificate of a host"),
        ({"host_keys": [key], "host_certificates": [certify(authority, other)]}, "certifies none"),
    ]
    for ssh, why in wrong:
        with pytest.raises(SettingsError, match=why):
            read(settings(tmp_path, **ssh))


async def test_a_key_that_is_already_used_is_not_announced_twice(tmp_path: Path) -> None:
    key = make_key(tmp_path, "host")
    assert len(read(settings(tmp_path, host_keys=[key], next_host_keys=[key])).announced) == 1


async def test_a_certificate_is_offered_within_its_time_only(tmp_path: Path) -> None:
    key = make_key(tmp_path, "host")
    authority = asyncssh.generate_private_key("ssh-ed25519")
    certificate = certify(authority, key, valid_before=int(time.time()) + 2)
    identity = read(settings(tmp_path, host_keys=[key], host_certificates=[certificate]))
    assert list(identity.offers()) == [b"ssh-ed25519-cert-v01@openssh.com", b"ssh-ed25519"]
    await until(lambda: list(identity.offers()) == [b"ssh-ed25519"])
