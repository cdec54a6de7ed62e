"""Rows 1 to 5: how a command is run, and what is heard of its end."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.surface.ground import ALONE, Ground, Shared


@pytest.mark.row(1)
def test_exit_status_propagates(shared: Shared) -> None:
    assert [shared.ssh(f"exit {status}").returncode for status in (0, 1, 42, 255)] == [0, 1, 42, 255]


@pytest.mark.row(1)
@pytest.mark.parametrize("missing", ["no-such-program --please", "/no/such/program"])
def test_a_command_that_is_not_there_is_127_with_the_shells_message(ground: Ground, missing: str) -> None:
    ran = ground.ssh(missing)
    assert ran.returncode == 127
    assert missing.split()[0].encode() in ran.stderr
    assert ran.stdout == b""


@pytest.mark.row(2)
async def test_a_death_by_signal_is_exit_signal_on_the_wire(ground: Ground) -> None:
    async with ground.connected() as connection:
        for signal in ("TERM", "KILL", "USR1", "SEGV"):
            killed = await connection.run(f"kill -{signal} $$")
            assert killed.exit_signal is not None, signal
            assert killed.exit_signal[0] == signal
        # What a shell itself says of its child is a status.
        assert (await connection.run("sh -c 'kill -TERM $$'; exit $?")).exit_status == 128 + 15


@pytest.mark.row(2)
def test_ssh_itself_makes_255_of_a_death_by_signal(shared: Shared) -> None:
    assert shared.ssh("kill -TERM $$").returncode == 255


@pytest.mark.row(3)
def test_stdout_and_stderr_are_apart_without_a_terminal_and_one_with_it(ground: Ground) -> None:
    apart = ground.ssh("echo out; echo err >&2; printf 'a\\nb'")
    assert (apart.stdout, apart.stderr) == (b"out\na\nb", b"err\n")
    with ground.terminal("echo out; echo err >&2") as terminal:
        assert terminal.wait_end() == 0
        assert "out\r\nerr\r\n" in terminal.seen


@pytest.mark.row(4)
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo a; echo b", b"a\nb\n"),
        ("false && echo no || echo yes", b"yes\n"),
        ("printf 'b\\na\\n' | sort | tr a-z A-Z", b"A\nB\n"),
        ("cd /tmp && rm -f g*; echo 1 > g1; echo 2 > g2; cat < g1 g*", b"1\n2\n"),
        ("echo $HOME ${LANG} $((6*7)) `echo x` $(echo y)", b"/home/debug C.UTF-8 42 x y\n"),
        ("/bin/echo a b | tr a z; echo $?", b"z b\n0\n"),
        ("/bin/echo $LANG", b"C.UTF-8\n"),
        ("/bin/sh -c 'exit 3' || echo $?", b"3\n"),
    ],
)
def test_a_command_line_is_always_a_shells(shared: Shared, command: str, said: bytes) -> None:
    assert shared.out(command) == said


@pytest.mark.row(5)
def test_quoting_survives_byte_for_byte(ground: Ground) -> None:
    everything = bytes(byte for byte in range(1, 256) if byte != ord("'"))
    for argument in (
        b"a  b\t\nc\n\n",
        "é € 日本 🙂".encode(),
        b"\xff\xfe\x80 not UTF-8",
        b'$HOME `id` \\ " ! * ~',
        everything,
    ):
        ran = ground.ssh(b"printf %s '" + argument + b"'")
        assert (ran.stdout, ran.returncode) == (argument, 0)


@pytest.mark.row(5)
def test_a_long_command_line_arrives_whole(shared: Shared) -> None:
    assert shared.out(f"printf %s {'x' * 100_000} | wc -c").strip() == b"100000"


@pytest.mark.row(5)
@pytest.mark.parametrize("blank", [" ", "\n", ";", ""])
def test_a_blank_command_is_harmless(ground: Ground, blank: str) -> None:
    """`ssh host ''` asks for a shell, without a terminal and with nothing to read."""
    ran = ground.ssh(blank)
    assert ran.stdout == b""
    assert ran.returncode == (2 if blank == ";" else 0)


@pytest.mark.row(5)
def test_words_of_the_client_are_joined_by_the_client_alone(ground: Ground) -> None:
    command = ground.ssh_command("printf", "'%s|'", "a b", "'c d'", login=ALONE)
    assert subprocess.run(command, capture_output=True, timeout=30, check=True).stdout == b"a|b|c d|"
