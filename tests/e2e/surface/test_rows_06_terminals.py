"""Rows 6 to 10: terminals, signals and the environment."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.surface.ground import ALONE, Ground, Shared
from tests.e2e.world import Terminal, until

SIGNALS = ("TERM", "INT", "HUP", "USR1", "USR2", "QUIT")


class Tmux:
    """A pane of a real tmux in which one command runs."""

    def __init__(self, name: str) -> None:
        self._server = ["tmux", "-L", name, "-f", "/dev/null"]

    def run(self, *words: str) -> str:
        ran = subprocess.run([*self._server, *words], capture_output=True, text=True, timeout=20, check=False)
        return ran.stdout

    def keys(self, *keys: str) -> None:
        self.run("send-keys", *keys)

    @property
    def screen(self) -> str:
        return self.run("capture-pane", "-p", "-S", "-")

    def wait_for(self, wanted: Callable[[str], bool]) -> str:
        shown: list[str] = [""]

        def seen() -> bool:
            shown[0] = self.screen
            return wanted(shown[0])

        try:
            until(seen, 20, every=0.1)
        except AssertionError as error:
            raise AssertionError(f"the pane shows:\n{shown[0]}") from error
        return shown[0]

    def wait_line(self, line: str) -> str:
        return self.wait_for(lambda screen: line in [one.rstrip() for one in screen.splitlines()])


@contextmanager
def pane(command: list[str], columns: int, rows: int) -> Iterator[Tmux]:
    tmux = Tmux(f"dw-{uuid.uuid4().hex[:8]}")
    shown = " ".join(f"'{word}'" for word in command)
    # What ssh ends with is shown in the pane, which stays.
    tmux.run("new-session", "-d", "-x", str(columns), "-y", str(rows), f'{shown}; echo "ended: $?"; exec sleep 60')
    try:
        yield tmux
    finally:
        tmux.run("kill-server")


@pytest.mark.row(6)
def test_an_interactive_shell_in_a_real_pane(ground: Ground) -> None:
    with pane(ground.ssh_command(), columns=101, rows=33) as tmux:
        tmux.wait_for(lambda screen: screen.rstrip().endswith("$"))
        tmux.keys("stty size; echo $TERM", "Enter")
        tmux.wait_line("33 101")
        tmux.wait_for(lambda screen: any(line.startswith(("tmux", "screen")) for line in screen.splitlines()))
        # Line editing: back three, one deleted, one put in its place.
        tmux.keys("echo edXted", "Left", "Left", "Left", "BSpace", "i", "Enter")
        tmux.wait_line("edited")
        tmux.keys("C-p", "Enter")  # history
        tmux.wait_for(lambda screen: [line.rstrip() for line in screen.splitlines()].count("edited") == 2)
        tmux.run("resize-window", "-x", "90", "-y", "40")
        tmux.keys("until [ \"$(stty size)\" = '40 90' ]; do :; done; echo res''ized", "Enter")
        tmux.wait_line("resized")
        tmux.keys("sleep 100", "Enter")
        tmux.wait_for(lambda screen: screen.rstrip().endswith("sleep 100"))
        tmux.keys("C-c")
        tmux.wait_for(lambda screen: "^C" in screen and screen.rstrip().endswith("$"))
        tmux.keys("sh -c 'exit 5'", "Enter", "C-d")
        tmux.wait_line("ended: 5")


@contextmanager
def on_terminal(command: list[str], prepare: Callable[[int], None]) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    prepare(slave)
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.row(6)
def test_modes_type_and_size_are_there_before_the_first_program_reads_them(ground: Ground) -> None:
    def prepare(slave: int) -> None:
        termios.tcsetwinsize(slave, (17, 71))
        modes = termios.tcgetattr(slave)
        modes[0] &= ~termios.IXON
        modes[3] &= ~termios.ECHOE
        modes[6][termios.VINTR] = b"\x18"
        modes[6][termios.VERASE] = b"\x08"
        termios.tcsetattr(slave, termios.TCSANOW, modes)

    command = ground.ssh_command("stty -a; echo type=$TERM", options=("-tt",))
    with on_terminal(["env", "TERM=vt220", *command], prepare) as terminal:
        assert terminal.wait_end() == 0
        for word in ("rows 17", "columns 71", "intr = ^X", "erase = ^H", "-ixon", "-echoe", "type=vt220"):
            assert word in terminal.seen, terminal.seen


@pytest.mark.row(7)
def test_a_terminal_without_one_at_home_loses_nothing(ground: Ground) -> None:
    typed = ground.ssh(options=("-tt",), stdin=b"stty -echo; echo s''um; exit 3\n")
    assert typed.returncode == 3
    assert b"\rsum\r\n" in typed.stdout
    long = ground.ssh("seq 1 20000", options=("-tt",))
    assert long.stdout.split() == [str(number).encode() for number in range(1, 20001)]


@pytest.mark.row(6)
def test_a_program_that_closes_its_terminal_first_ends_with_its_own_status(ground: Ground) -> None:
    """As `cat` does after Ctrl-D: nobody holds the terminal then, and it must not be hung up."""
    for command, status in (("exec <&- >&- 2>&-; sleep 0.3; exit 7", 7), ("echo up; exec cat", 0)):
        with ground.terminal(command) as terminal:
            if status == 0:
                terminal.wait_for("up")
                terminal.type("\x04")
            assert terminal.wait_end() == status


@pytest.mark.row(7)
def test_no_terminal_where_none_is_wanted(shared: Shared) -> None:
    assert shared.ssh("tty", options=("-T",)).stdout == b"not a tty\n"
    assert shared.ssh("cat; echo end", options=("-T",), stdin=b"a\x04b\x03c\n").stdout == b"a\x04b\x03c\nend\n"


@pytest.mark.row(8)
@pytest.mark.parametrize("target", ["plain", pytest.param("shonly", marks=pytest.mark.no_host)])
async def test_signals_reach_the_program(ground: Ground, target: str) -> None:
    """`ssh` sends none, so asyncssh does."""
    traps = "; ".join(f"trap 'echo {name}' {name}" for name in SIGNALS)
    async with ground.connected(target) as connection:
        process = await connection.create_process(f"{traps}; echo up; while :; do sleep 0.05; done")
        assert await process.stdout.readline() == "up\n"
        for name in SIGNALS:
            process.send_signal(name)
            assert await process.stdout.readline() == f"{name}\n"
        process.send_signal("KILL")
        ended = await process.wait()
        assert ended.exit_signal is not None
        assert ended.exit_signal[0] == "KILL"


@pytest.mark.row(8)
@pytest.mark.no_host
async def test_on_a_terminal_signals_reach_who_has_it(ground: Ground) -> None:
    async with ground.connected() as connection:
        process = await connection.create_process(term_type="dumb", term_size=(80, 24))
        process.stdin.write("sh -c 'echo r''eady; exec sleep 300'; echo \"child: $?\"; exit 4\n")
        seen = ""
        while "ready" not in seen:
            seen += await process.stdout.readline()
        process.send_signal("TERM")  # the sleep's, not the shell's
        rest = await process.wait()
        assert "child: 143" in str(rest.stdout)
        assert rest.exit_status == 4


@pytest.mark.row(9)
def test_variables_where_policy_takes_them_and_never_over_its_own(ground: Ground) -> None:
    asked = (
        "-o", "SetEnv=LC_SET=here GREETING=hi LD_PRELOAD=/tmp/x.so BASH_ENV=/tmp/x FIXED=mine OTHER=no",
        "-o", "SendEnv=LC_SENT",
    )  # fmt: skip
    command = ground.ssh_command("env", options=asked, login=ALONE)
    ran = subprocess.run(["env", "LC_SENT=é", *command], capture_output=True, timeout=30, check=True)
    found = dict(line.split("=", 1) for line in ran.stdout.decode().splitlines() if "=" in line)
    assert (found["LC_SET"], found["LC_SENT"], found["GREETING"]) == ("here", "é", "hi")
    assert found["FIXED"] == "by policy"
    assert not {"LD_PRELOAD", "BASH_ENV", "OTHER"} & found.keys()
    judged = {
        record["input"]["request"]["name"]: record["outcome"]
        for record in ground.audit("request")
        if record["input"]["request"]["kind"] == "env"
    }
    assert judged["LD_PRELOAD"] == judged["BASH_ENV"] == judged["OTHER"] == "deny"
    assert judged["LC_SET"] == "allow"


@pytest.mark.row(10)
def test_the_environment_is_as_sshd_sets_it(ground: Ground) -> None:
    found = dict(line.split("=", 1) for line in ground.ssh("env").stdout.decode().splitlines() if "=" in line)
    address, port, local, local_port = found["SSH_CONNECTION"].split()
    assert (address, local, local_port) == ("127.0.0.1", "127.0.0.1", str(ground.told_port))
    assert found["SSH_CLIENT"] == f"127.0.0.1 {port} {ground.told_port}"
    assert found["USER"] == found["LOGNAME"] == "debug"
    assert found["HOME"] == found["PWD"] == "/home/debug"
    assert found["SHELL"] == "/bin/bash"
    assert "SSH_TTY" not in found
    with ground.terminal('echo "$SSH_TTY" "$(tty)"') as terminal:
        assert terminal.wait_end() == 0
        [pair] = [line.split() for line in terminal.seen.splitlines() if line.startswith("/dev/")]
        assert pair[0] == pair[1]
