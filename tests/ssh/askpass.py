"""The stock client with somebody who types: answers by what the prompt asks for, through SSH_ASKPASS."""

from __future__ import annotations

import os
from asyncio import create_subprocess_exec, wait_for
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from tests.ssh.world import ALICE, Site
from tests.stack.process import write_secret

SECONDS = 60
SCRIPT = """\
#!/bin/sh
echo "$1" >>"$0.asked"
case "$1" in
  *[Pp]assword:*) cat "$0.password" ;;
  *code:*) cat "$0.code" ;;
  *) exit 1 ;;
esac
"""


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def is_in(self) -> bool:
        return (self.status, self.out) == (0, "in\n")

    @property
    def is_denied(self) -> bool:
        return self.status == 255 and "Permission denied" in self.err


class Typist:
    """Somebody with `ssh`, keys or none, a password and a code."""

    def __init__(self, site: Site, directory: Path) -> None:
        self._site = site
        self._script = directory / "askpass"
        self._script.write_text(SCRIPT)
        self._script.chmod(0o700)
        self._key = directory / "typist.key"

    def asked(self) -> list[str]:
        """Every prompt so far."""
        file = Path(f"{self._script}.asked")
        return file.read_text().splitlines() if file.exists() else []

    async def ssh(
        self,
        *,
        login: str = ALICE,
        key: asyncssh.SSHKey | None = None,
        password: str = "",
        code: str = "",
        methods: str = "publickey,password,keyboard-interactive",
    ) -> Ran:
        """`ssh login@door echo in`, each question answered once."""
        write_secret(Path(f"{self._script}.password"), password)
        write_secret(Path(f"{self._script}.code"), code)
        identity = ["-o", "IdentityFile=none"]
        if key is not None:
            identity = ["-i", str(write_secret(self._key, key.export_private_key().decode()))]
        settings = (
            "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR",
            "NumberOfPasswordPrompts=1", f"PreferredAuthentications={methods}",
        )  # fmt: skip
        words = [word for setting in settings for word in ("-o", setting)]
        process = await create_subprocess_exec(
            "ssh", "-F", "none", *identity, *words, "-p", str(self._site.port), f"{login}@127.0.0.1", "echo in",
            stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True,
            env={**os.environ, "SSH_ASKPASS": str(self._script), "SSH_ASKPASS_REQUIRE": "force"},
        )  # fmt: skip
        try:
            out, err = await wait_for(process.communicate(), SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())
