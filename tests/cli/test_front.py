"""What `doorward` says of the front's settings, and a running one that reads its keys again."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import asyncssh

from tests.cli.commands import doorward
from tests.ssh.test_host_keys import certify, make_key, public
from tests.stack.example import settings_toml
from tests.stack.opa import Opa
from tests.waiting import eventually


def written(tmp_path: Path, opa: Opa, ssh: dict[str, Any], **more: Any) -> Path:
    settings = {
        "state_dir": str(tmp_path / "state"),
        "ssh": {"listen": "127.0.0.1:0", **ssh},
        "policy": {"url": opa.url, "token": {"file": str(opa.token_files["gateway"])}},
        **more,
    }
    file = tmp_path / "doorward.toml"
    file.write_text(settings_toml(settings))
    return file


async def found(file: Path, what: str) -> dict[str, Any]:
    ran = await doorward("check", "--json", "--config", file)
    [finding] = [finding for finding in ran.json if finding["what"] == what]
    return dict(finding)


async def test_check_names_what_is_wrong_with_keys_and_certificates(opa_server: Opa, tmp_path: Path) -> None:
    key = make_key(tmp_path, "host")
    authority = asyncssh.generate_private_key("ssh-ed25519")
    ended = certify(authority, key, valid_before="-1d")
    good = await found(written(tmp_path, opa_server, {"host_keys": [str(key)]}), "host keys")
    late = await found(
        written(tmp_path, opa_server, {"host_keys": [str(key)], "host_certificates": [str(ended)]}), "host keys"
    )
    missing = await found(written(tmp_path, opa_server, {"host_keys": [str(tmp_path / "none")]}), "host keys")
    vault = {"host_certificate": {"vault": {"principals": ["door.test"]}}}
    nowhere = await found(written(tmp_path, opa_server, {"host_keys": [str(key)], **vault}), "host certificate")

    assert good["ok"]
    assert "SHA256:" in good["says"]
    assert not late["ok"]
    assert "has ended" in late["says"]
    assert "SIGHUP" in late["remedy"]
    assert not missing["ok"]
    assert "ssh.host_keys" in missing["says"]
    assert not nowhere["ok"]
    assert "credentials.vault" in nowhere["says"]


async def test_a_running_gateway_reads_its_keys_again_at_sighup(opa_server: Opa, tmp_path: Path) -> None:
    key = make_key(tmp_path, "host")
    file, old = written(tmp_path, opa_server, {"host_keys": [str(key)]}), public(key)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", "--config", str(file),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while b"ready on" not in (line := await process.stdout.readline()):
                assert line, "it did not start"
        port = int(line.decode().rpartition(":")[2])

        async def shows(expected: str) -> bool:
            shown = await asyncssh.get_server_host_key("127.0.0.1", port, config=[])
            return shown is not None and shown.export_public_key().decode().split()[1] == expected.split()[1]

        assert await shows(old)
        make_key(tmp_path, "host")
        assert await shows(old), "not before it is asked to"
        process.send_signal(signal.SIGHUP)
        assert await eventually(lambda: shows(public(key)))
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
