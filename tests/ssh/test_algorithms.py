"""What is negotiated: ssh-audit has nothing to say against it, hybrids come first, and keys are renewed under load."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gateway.ssh.algorithms import KEY_EXCHANGE, WITHOUT_GCM, ciphers_for
from tests.ssh.openssh import OpenSSH
from tests.ssh.world import Site, running
from tests.stack.opa import Opa

ALLOWED = {
    f"{name}: does not provide protection against post-quantum attacks"
    for name in ("curve25519-sha256", "curve25519-sha256@libssh.org")
}
"""The one complaint that is accepted: clients without ML-KEM need these (OpenSSH before 9.9; its sntrup761 needs liboqs
here), and they come last."""


async def audit(site: Site) -> dict[str, Any]:
    words = ["-m", "ssh_audit.ssh_audit", "--skip-rate-test", "-jj", f"127.0.0.1:{site.port}"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert out, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


def complaints(report: dict[str, Any]) -> set[str]:
    """Every failure and warning about what is offered, by name."""
    found = set()
    for part in ("kex", "key", "enc", "mac"):
        for algorithm in report[part]:
            for severity in ("fail", "warn"):
                found |= {f"{algorithm['algorithm']}: {why}" for why in algorithm.get("notes", {}).get(severity, [])}
    return found | {str(cve) for cve in report.get("cves", [])}


@pytest.mark.parametrize("everybody", [False, True], ids=["to OpenSSH", "to others"])
async def test_ssh_audit_finds_nothing_to_complain_of(
    site: Site, everybody: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if everybody:  # ssh-audit calls itself OpenSSH, so it is shown what others are shown
        monkeypatch.setattr("gateway.ssh.unproven.ciphers_for", lambda _: ciphers_for(b"SSH-2.0-other"))
    report = await audit(site)

    assert complaints(report) <= ALLOWED
    assert [one["algorithm"] for one in report["kex"]][: len(KEY_EXCHANGE)] == KEY_EXCHANGE
    assert "kex-strict-s-v00@openssh.com" in [one["algorithm"] for one in report["kex"]]
    assert {one["algorithm"] for one in report["enc"]} >= set(WITHOUT_GCM if everybody else ["aes128-gcm@openssh.com"])


async def test_the_hybrid_key_exchange_is_taken_where_both_have_it(site: Site) -> None:
    async with site.connect() as connection:
        assert (await connection.run("echo in")).stdout == "in\n"
        assert connection._server_kexinit.find(b"mlkem768x25519-sha256,") > 0
        assert KEY_EXCHANGE[0] == "mlkem768x25519-sha256"
    with pytest.raises(asyncssh.KeyExchangeFailed):
        async with site.connect(kex_algs=["diffie-hellman-group14-sha1", "ecdh-sha2-nistp256"]):
            pass


@pytest.mark.parametrize("cipher", WITHOUT_GCM)
async def test_a_client_without_gcm_finds_something(site: Site, cipher: str) -> None:
    data = random.Random(1).randbytes(2**20)
    async with site.connect(encryption_algs=[cipher]) as connection:
        ran = await connection.run("cat", input=data, encoding=None)
        assert ran.stdout == data
        assert connection.get_extra_info("recv_cipher") == cipher


@pytest.mark.parametrize("mac", ["hmac-sha2-256", "hmac-sha1-etm@openssh.com", "umac-64@openssh.com"])
async def test_a_client_with_nothing_but_weak_macs_finds_nothing(site: Site, mac: str) -> None:
    with pytest.raises(asyncssh.KeyExchangeFailed):
        async with site.connect(encryption_algs=["aes256-ctr"], mac_algs=[mac]):
            pass


# -- new keys under load ---------------------------------------------------------------------------------------------


class Counted:
    """How often a side of a gateway's connections began a key exchange."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from gateway.ssh.raw import GateConnection

        self.ours = self.newkeys = 0
        kexinit, newkeys = GateConnection._send_kexinit, GateConnection.send_newkeys

        def send_kexinit(connection: Any) -> None:
            self.ours += 1
            kexinit(connection)

        def send_newkeys(connection: Any, k: bytes, h: bytes) -> None:
            self.newkeys += 1
            newkeys(connection, k, h)

        monkeypatch.setattr(GateConnection, "_send_kexinit", send_kexinit)
        monkeypatch.setattr(GateConnection, "send_newkeys", send_newkeys)


async def echoed(site: Site, directory: Path, data: bytes, *options: str) -> bytes:
    """`data` through OpenSSH's client, `cat` inside, and back."""
    process = await asyncio.create_subprocess_exec(
        *OpenSSH(site, directory).command("cat", options=options),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(data), 60)
    assert process.returncode == 0, err.decode()
    return out


@pytest.mark.parametrize(
    ("changes", "options", "least"),
    [
        pytest.param({}, ["-o", "RekeyLimit=1M"], 10, id="the client's RekeyLimit"),
        pytest.param({"rekey_bytes": 2**20}, [], 10, id="the gateway's own, by bytes"),
        pytest.param({"rekey_bytes": 2**20}, ["-o", "RekeyLimit=1M"], 10, id="both at once"),
        pytest.param({"rekey_seconds": 0.1}, [], 2, id="the gateway's own, by time"),
    ],
)
async def test_keys_are_renewed_under_load_both_ways_and_nothing_is_lost(
    opa_server: Opa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Any, options: Sequence[str], least: int
) -> None:
    counted = Counted(monkeypatch)
    data = random.Random(2).randbytes(24 * 2**20)
    async with running(opa_server, tmp_path, ssh=changes) as site:
        out = await echoed(site, tmp_path, data, *options)

    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
    assert counted.newkeys >= least


async def test_what_is_only_received_is_counted_too(
    opa_server: Opa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    async with running(opa_server, tmp_path, ssh={"rekey_bytes": 2**20}) as site, site.connect() as connection:
        ran = await connection.run("wc -c", input=bytes(12 * 2**20), encoding=None)
        assert ran.stdout is not None
        assert int(ran.stdout) == 12 * 2**20
        assert counted.newkeys >= 4  # each while 1 to 2 MB are on their way
