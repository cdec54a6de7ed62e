"""User certificates: made by `ssh-keygen -s` or by Vault, offered by the stock client, judged by Rego."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.fakes import Known
from tests.ssh.openssh import OpenSSH
from tests.ssh.visitors import Person, comes_in, is_refused
from tests.ssh.world import ALICE, FORWARD, Site, running, target
from tests.stack.opa import Opa
from tests.stack.postgres import postgres
from tests.stack.require import require
from tests.stack.vault import Vault, vault

NOW = ("-V", "-1h:+1h")


class Authority:
    """A certificate authority of `ssh-keygen`, and Alice's key."""

    def __init__(self, directory: Path, kind: str = "ed25519") -> None:
        self.directory = directory
        self.key = directory / f"ca-{kind}"
        keygen("-t", kind, "-N", "", "-f", str(self.key))
        self.public = self.key.with_suffix(".pub").read_text().strip()

    def certify(self, site: Site, *options: str, name: str = ALICE, key: str = "alice.key") -> Path:
        """A certificate for Alice's key; the file."""
        public = self.directory / "alice-certified.pub"
        public.write_bytes(site.keys[ALICE].export_public_key())
        keygen("-s", str(self.key), "-I", "alice@laptop", "-n", name, *(options or NOW), str(public))
        return self.directory / "alice-certified-cert.pub"


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True, timeout=60)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def door(opa: Opa, directory: Path, *trusted: str, revoked: Any = None, **changes: Any) -> AsyncIterator[Site]:
    """A gateway that trusts these authorities, and at which Alice has no key of her own."""
    plain = target(allow={"forwards": [{"host": "127.0.0.1", "port": port} for port in (7, 9)]})
    async with running(opa, directory, targets={"plain": plain}, **changes) as site:
        opa.put(f"people/{ALICE}", {"keys": [], "groups": ["oncall"]})
        entries = {f"ca{number}": {"public_key": public} for number, public in enumerate(trusted)}
        opa.put("authorities", {name: {**entry, "revoked": revoked or {}} for name, entry in entries.items()})
        try:
            yield site
        finally:
            opa.put("authorities", {})


async def log_in(site: Site, certificate: Path, *words: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
    ssh = OpenSSH(site, site.directory)
    return await ssh.run(*(words or ("echo in",)), options=("-o", f"CertificateFile={certificate}", *options))


def codes(site: Site) -> list[str]:
    return [
        record["answer"]["reasons"][0]["code"] for record in site.audit("authn")
        if record["outcome"] == "reject" and record["input"]["attempt"]["certificate"]
    ]  # fmt: skip


async def test_a_certificate_opens_and_its_key_id_is_on_every_record(
    authority: Authority, opa_server: Opa, tmp_path: Path, unexpected: Any
) -> None:
    async with door(opa_server, tmp_path, authority.public) as site:
        certificate = authority.certify(site, *NOW, "-z", "42", "-O", "extension:note@example=x")
        assert (await log_in(site, certificate))[:2] == (0, "in\n")

        facts = site.audit("config")[0]["input"]["proofs"][0]["certificate"]
        assert (facts["serial"], facts["principals"]) == (42, [ALICE])
        assert facts["extensions"]["note@example"] == "x"
        known = site.audit("config")[0]["seq"]
        await site.nothing_left()
        assert {record.get("key_id") for record in site.audit() if record["seq"] >= known and "session" in record} == {
            "alice@laptop"
        }


@pytest.mark.parametrize(
    ("options", "name", "code"),
    [
        (("-V", "-2h:-1h"), ALICE, "certificate_expired"),
        (("-V", "+1h:+2h"), ALICE, "certificate_not_yet_valid"),
        (NOW, "bob", "certificate_not_yours"),
        ((*NOW, "-O", "source-address=198.51.100.0/24"), ALICE, "certificate_elsewhere"),
        ((*NOW, "-O", "critical:beep@example=x"), ALICE, "certificate_option_unknown"),
        ((*NOW, "-z", "666"), ALICE, "certificate_revoked"),
    ],
)
async def test_a_certificate_that_does_not_hold_is_refused_and_its_holder_told_why(
    authority: Authority, opa_server: Opa, tmp_path: Path, options: tuple[str, ...], name: str, code: str
) -> None:
    async with door(opa_server, tmp_path, authority.public, revoked={"serials": [666]}) as site:
        status, _, said = await log_in(site, authority.certify(site, *options, name=name))

        assert status == 255
        assert f"doorward: {code}:" in said, said
        assert codes(site) == [code]
        assert not site.audit("config")


async def test_an_authority_that_nobody_trusts_is_as_good_as_none(opa_server: Opa, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ours, other = Authority(tmp_path), Authority(tmp_path / "other")
    async with door(opa_server, tmp_path, ours.public) as site:
        status, _, said = await log_in(site, other.certify(site))

        assert (status, "doorward:" in said) == (255, False)
        assert set(codes(site)) == {"not_recognised"}


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
async def test_authorities_of_other_kinds(opa_server: Opa, tmp_path: Path, kind: str) -> None:
    authority = Authority(tmp_path, kind)
    async with door(opa_server, tmp_path, authority.public) as site:
        assert (await log_in(site, authority.certify(site)))[:2] == (0, "in\n")


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
async def test_certificates_of_other_kinds(authority: Authority, opa_server: Opa, tmp_path: Path, kind: str) -> None:
    async with door(opa_server, tmp_path, authority.public) as site:
        key = tmp_path / kind
        keygen("-t", kind, "-N", "", "-f", str(key))
        keygen("-s", str(authority.key), "-I", "other", "-n", ALICE, *NOW, str(key.with_suffix(".pub")))
        ran = await log_in(site, tmp_path / f"{kind}-cert.pub", options=("-i", str(key)))
        assert ran[:2] == (0, "in\n"), ran


async def test_a_certificate_signed_with_sha1_is_not_read(opa_server: Opa, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "rsa")
    async with door(opa_server, tmp_path, authority.public) as site:
        status, _, _ = await log_in(site, authority.certify(site, *NOW, "-t", "ssh-rsa"))

        assert status == 255
        assert codes(site) == []


async def test_the_address_is_judged_by_its_ranges(authority: Authority, opa_server: Opa, tmp_path: Path) -> None:
    async with door(opa_server, tmp_path, authority.public) as site:
        certificate = authority.certify(site, *NOW, "-O", "source-address=198.51.100.0/24,127.0.0.0/8,::1")
        assert (await log_in(site, certificate))[:2] == (0, "in\n")


async def test_a_forced_command_runs_whatever_was_asked_for(
    authority: Authority, opa_server: Opa, tmp_path: Path
) -> None:
    async with door(opa_server, tmp_path, authority.public) as site:
        certificate = authority.certify(site, *NOW, "-O", "force-command=echo forced instead of $SSH_ORIGINAL_COMMAND")
        assert (await log_in(site, certificate, "rm -rf /"))[:2] == (0, "forced instead of rm -rf /\n")


async def test_what_the_certificate_does_not_permit_is_refused(
    authority: Authority, opa_server: Opa, tmp_path: Path
) -> None:
    async with door(opa_server, tmp_path, authority.public) as site:
        bare = authority.certify(site, *NOW, "-O", "clear")
        assert (await log_in(site, bare))[:2] == (0, "in\n")
        assert "PTY allocation request failed" in (await log_in(site, bare, "tty", options=("-tt",)))[2]
        key = asyncssh.read_private_key(str(site.directory / "alice.key"))
        certificate = asyncssh.read_certificate(str(bare))
        async with site.connect(client_keys=[(key, certificate)]) as connection:
            with pytest.raises(asyncssh.ChannelOpenError, match="certificate_restricts"):
                await connection.open_connection(FORWARD["host"], FORWARD["port"])
        refused = {r["answer"]["reasons"][0]["code"] for r in site.audit("request") if r["outcome"] == "deny"}
        assert refused == {"certificate_restricts"}


async def test_host_certificates_are_not_for_people(authority: Authority, opa_server: Opa, tmp_path: Path) -> None:
    async with door(opa_server, tmp_path, authority.public) as site:
        status, _, _ = await log_in(site, authority.certify(site, *NOW, "-h"))

        assert status == 255
        assert codes(site) == []


@pytest.mark.parametrize(
    ("factor", "way", "claims"),
    [
        ("totp", {"kind": "totp", "source": "local"}, {}),
        ("oidc", {"kind": "oidc", "provider": "corp"}, {"provider": "corp", "preferred_username": ALICE}),
    ],
)
async def test_a_certificate_then_a_second_factor(
    authority: Authority, opa_server: Opa, tmp_path: Path, factor: str, way: dict[str, Any], claims: dict[str, Any]
) -> None:
    verifiers = {factor: Known({ALICE: "492816"}, claims)}
    async with door(opa_server, tmp_path, authority.public, verifiers=verifiers) as site:
        certificate = asyncssh.read_certificate(str(authority.certify(site)))
        rules = {"chain": [["certificate", factor]], "verify": {factor: way}}
        opa_server.put(f"people/{ALICE}", {"keys": [], "authn": rules})
        keys: Any = [(site.keys[ALICE], certificate)]
        assert await comes_in(site, Person("492816"), client_keys=keys) == "in"

        assert site.audit("config")[0]["input"]["identity"]["via"] == ["certificate", factor]
        await is_refused(site, Person("111111"), client_keys=keys)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    require("postgres")
    directory = tmp_path_factory.mktemp("signer")
    with postgres(directory / "postgres") as database, vault(directory / "vault", database) as server:
        yield server


async def test_a_certificate_that_vault_signed_opens(signer: Vault, opa_server: Opa, tmp_path: Path) -> None:
    api = signer.client().adapter
    ours = api.get("/v1/ssh-user/config/ca")["data"]["public_key"]
    async with door(opa_server, tmp_path, ours) as site:
        public = site.keys[ALICE].export_public_key().decode()
        asked = {"public_key": public, "valid_principals": ALICE}
        signed = api.post("/v1/ssh-user/sign/doorward-user", json=asked)["data"]
        file = tmp_path / "vault-cert.pub"
        file.write_text(signed["signed_key"])
        assert (await log_in(site, file))[:2] == (0, "in\n")

        facts = site.audit("config")[0]["input"]["proofs"][0]["certificate"]
        assert facts["key_id"].startswith("vault-")
        assert facts["serial"] == int(signed["serial_number"], 16)
        opa_server.put("authorities/ca0/revoked", {"serials": [facts["serial"]]})
        status, _, said = await log_in(site, file)
        assert (status, "doorward: certificate_revoked:" in said) == (255, True)
