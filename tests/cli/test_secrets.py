"""Lines for the gateway's own files of secrets, made and then used."""

from __future__ import annotations

import asyncio
import os
import pty
from pathlib import Path

import pyotp
import pytest

from gateway.authn.argon2 import Argon2Verifier
from gateway.authn.totp import parse
from gateway.cli import main
from gateway.contracts.verifier import found, with_password
from gateway.proofs import HashedPassword
from tests.cli.commands import COMMAND, doorward, written
from tests.stack.process import free_port, write_secret

PASSWORD = "pässwörd"


async def proves(file: Path, line: str, password: str) -> bool:
    write_secret(file, line)
    async with Argon2Verifier.open(file) as verifier:
        attempt = with_password(HashedPassword(kind="argon2", username="alice"), password)
        return (await found(verifier, attempt)).proven


async def test_a_password_from_a_pipe_is_hashed_and_then_proven(tmp_path: Path) -> None:
    told, shown = await asyncio.gather(
        doorward("password", "hash", "alice", stdin=f"{PASSWORD}\n"),
        doorward("password", "hash", "alice", "--json", stdin=f"{PASSWORD}\n"),
    )

    assert (told.status, shown.status) == (0, 0)
    assert await proves(tmp_path / "a", told.out, PASSWORD)
    assert await proves(tmp_path / "b", shown.json["line"], PASSWORD)
    assert not await proves(tmp_path / "c", told.out, "passwort")
    assert PASSWORD not in told.out + told.err + shown.out


async def at_a_terminal(*typed: str) -> tuple[int | None, bytes]:
    """`doorward password hash alice` on a pty: status, and all that is seen there."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "password",
        "hash",
        "alice",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    os.close(theirs)
    seen = b""
    try:
        for prompt, answer in zip((b"Password: ", b"Again: "), typed, strict=True):
            while not seen.endswith(prompt):
                seen += await asyncio.to_thread(os.read, ours, 4096)
            os.write(ours, f"{answer}\n".encode())
        while chunk := await asyncio.to_thread(_read, ours):
            seen += chunk
        return await process.wait(), seen
    finally:
        os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way of saying that the other side is closed
        return b""


async def test_at_a_terminal_it_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    status, seen = await at_a_terminal(PASSWORD, PASSWORD)
    [line] = [line for line in seen.decode().splitlines() if line.startswith("alice:")]

    assert status == 0
    assert PASSWORD not in seen.decode()
    assert await proves(tmp_path / "a", line, PASSWORD)


async def test_two_that_differ_are_refused() -> None:
    status, seen = await at_a_terminal("one", "another")

    assert status == 1
    assert b"not the same" in seen
    assert b"argon2" not in seen


@pytest.mark.parametrize("typed", ["\n", "", "a\0b\n"])
async def test_what_is_no_password_is_refused(typed: str) -> None:
    ran = await doorward("password", "hash", "alice", stdin=typed)

    assert ran.status == 1
    assert ran.out == ""


@pytest.mark.parametrize("name", ["a:b", "", " alice", "#alice", "a\nb"])
@pytest.mark.parametrize("words", [("password", "hash"), ("totp", "enrol")])
def test_a_name_that_would_break_the_line_is_refused(
    words: tuple[str, str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--", name]) == 1
    assert "a name without" in capsys.readouterr().err


async def test_what_is_enrolled_is_a_line_of_the_file_and_an_address(tmp_path: Path) -> None:
    told = await doorward("totp", "enrol", "alice")
    shown = await doorward("totp", "enrol", "alice", "--issuer", "Example", "--json")

    assert isinstance(parse(told.out)["alice"], pyotp.TOTP)
    assert shown.json["line"] == f"alice {shown.json['uri']}"
    assert shown.json["uri"].startswith("otpauth://totp/Example:alice?secret=")
    assert told.out.split("secret=")[1] not in shown.out


async def test_the_check_tries_each_verifier_and_says_what_to_do(tmp_path: Path) -> None:
    passwords, secrets = write_secret(tmp_path / "passwords", ""), write_secret(tmp_path / "secrets", "nonsense")
    passwords.chmod(0o644)
    nowhere = f"http://127.0.0.1:{free_port()}"
    authn = {
        "password_file": str(passwords),
        "vault": {"url": nowhere},
        "webhooks": {"old": {"url": nowhere}},
        "key_lists": {"origins": [nowhere]},
        "totp": {"secrets_file": str(secrets)},
    }
    settings = {"state_dir": str(tmp_path / "state"), "policy": {"url": nowhere}, "authn": authn}
    ran = await doorward("check", "--json", "--config", written(tmp_path, settings))

    found = {one["what"].removeprefix("verifier "): one for one in ran.json if one["what"].startswith("verifier ")}
    assert ran.status == 1
    assert found.keys() == {"argon2", "vault_password", "webhook", "key_list", "totp"}
    assert not any(one["ok"] for one in found.values())
    assert all(one["remedy"] for one in found.values())
    assert "chmod 600" in found["argon2"]["says"]
    assert "line 1" in found["totp"]["says"]
    assert "nonsense" not in ran.out
