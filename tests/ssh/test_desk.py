"""What the door itself tells, and the menu: with the stock client on a terminal, with asyncssh where that cannot."""

from __future__ import annotations

import asyncio
import random
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import String

from gateway.model import Choice
from gateway.ssh.asking import MAX_LINE, Line, chosen
from gateway.ssh.raw import RawChannel
from tests.e2e.world import Terminal, grant_of, in_seconds
from tests.ssh.test_races import gated
from tests.ssh.world import ALICE, Site, running, target
from tests.stack.opa import POLICIES, Opa, opa
from tests.stack.require import require
from tests.waiting import SECONDS, until

TARGETS = {
    "orders-db": target(description="The orders database"),
    "orders-files": target(description="Files \x1b[31mof orders", session={"max_channels": 10}),
    "reports": target(description="Reports"),
}


@pytest.fixture
async def desk(opa_server: Opa, tmp_path: Path, unexpected: list[dict[str, Any]]) -> AsyncIterator[Site]:
    """Alice has grants for three targets, Bob for one, and Carol, whose key is Alice's, for none."""
    async with running(opa_server, tmp_path, targets=TARGETS, grant=False) as site:
        for name in TARGETS:
            opa_server.put(f"grants/{ALICE}/{name}-1", grant_of(target=name, reason="so\nit is", ticket="INC-7"))
        opa_server.put("people/carol", {"keys": [site.keys[ALICE].export_public_key().decode().strip()], "groups": []})
        yield site
        await site.nothing_left()


def command(site: Site, login: str, *words: str, options: Sequence[str] = ()) -> list[str]:
    key = site.directory / "key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(site.keys[ALICE].export_private_key())
    return [
        "ssh", "-F", "none", "-i", str(key), "-p", str(site.port), *options, "-o", "BatchMode=yes",
        "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no",
        "-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={site.directory}/known_hosts",
        f"{login}@127.0.0.1", *words,
    ]  # fmt: skip


async def ssh(site: Site, login: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(site, login, *words, **more),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    return await asyncio.to_thread(run)


async def at_terminal(site: Site, login: str, play: Callable[[Terminal], int], *words: str, **more: Any) -> int:
    """`play` with `ssh -tt` on a terminal of 30 x 100; what it returns."""

    def run() -> int:
        with Terminal.running(command(site, login, *words, options=("-tt", *more.get("options", ())))) as terminal:
            terminal.resize(30, 100)
            return play(terminal)

    return await asyncio.to_thread(run)


def started(site: Site) -> int:
    return len(site.audit("workspace"))


# -- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", [ALICE, f"{ALICE}+reports", f"{ALICE}+nowhere", "carol"])
@pytest.mark.parametrize("word", ["help", "access"])
async def test_help_and_access_are_told_to_whoever_is_authenticated(desk: Site, login: str, word: str) -> None:
    told = await ssh(desk, login, word, options=("-o", "SetEnv=LC_X=y"))

    assert (told.returncode, told.stderr) == (0, "")
    assert f"ssh {login.partition('+')[0]}+" in told.stdout
    assert ("plus sign" if word == "help" else "Grants of") in told.stdout


async def test_access_lists_what_holds_what_is_to_come_and_what_ended_and_no_other_target(
    desk: Site, opa_server: Opa
) -> None:
    opa_server.put(
        f"grants/{ALICE}/next", grant_of(target="reports", starts_at=in_seconds(3600), ends_at=in_seconds(7200))
    )
    opa_server.put(
        f"grants/{ALICE}/last", grant_of(target="reports", starts_at=in_seconds(-7200), ends_at=in_seconds(-60))
    )
    opa_server.delete(f"grants/{ALICE}/orders-files-1")

    told = (await ssh(desk, ALICE, "access")).stdout

    now, later, over = (told.index(title) for title in ("reach now:", "Not yet:", "Ended within"))
    assert now < told.index("orders-db") < told.index("reports-1") < later < told.index("next") < over
    assert over < told.index("grant    last")
    assert "ticket INC-7" in told
    assert "so it is" in told
    assert "(59 min left)" in told
    assert "orders-files" not in told
    assert "beside" not in told


async def test_a_word_is_told_also_where_the_workspace_cannot_be_started(desk: Site, opa_server: Opa) -> None:
    opa_server.put("targets/orders-db/backend", "missing")
    refused = await ssh(desk, f"{ALICE}+orders-db", "true")
    told = await ssh(desk, f"{ALICE}+orders-db", "help", options=("-o", "SetEnv=LC_X=y"))
    opa_server.put("targets/orders-db/backend", "process")

    assert "workspace_unavailable" in refused.stderr
    assert (told.returncode, told.stderr) == (0, "")
    session = desk.audit("accept")[-1]["session"]
    asked = [record for record in desk.audit("request") if record["session"] == session]
    assert {record["input"]["request"]["kind"] for record in asked} == {"session"}


async def test_a_word_waits_for_no_workspace(opa_server: Opa, tmp_path: Path) -> None:
    async with gated(opa_server, tmp_path, stop_at="before entering") as (site, backend):
        told = await ssh(site, ALICE, "help", options=("-o", "SetEnv=LC_X=y"))
        assert (told.returncode, told.stderr) == (0, "")
        assert backend.reached.is_set()
        await until(lambda: len(site.gone("connection")) == 1)
        assert site.gone("workspace") == []


async def test_what_is_more_than_a_word_is_the_workspaces(desk: Site) -> None:
    for words in ("sh -c 'echo ours; exit 3'", "help; exit 3", " help; exit 3"):
        assert (await ssh(desk, f"{ALICE}+orders-db", words)).returncode == 3


async def test_a_word_is_answered_as_of_now_in_an_old_connection(desk: Site, opa_server: Opa) -> None:
    async with desk.connect(username=f"{ALICE}+reports") as connection:
        assert "reports-1" in str((await connection.run("access")).stdout)
        opa_server.put(f"grants/{ALICE}/extra", grant_of(target="reports", ticket="INC-99"))
        assert "INC-99" in str((await connection.run("access")).stdout)
        assert (await connection.run("echo on")).stdout == "on\n"


# -- no target named: a list ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("true",), ("-s", "sftp"), ()])
async def test_without_a_terminal_the_targets_are_listed(desk: Site, words: tuple[str, ...]) -> None:
    options, rest = (("-s",), words[1:]) if words[:1] == ("-s",) else (("-T",), words)
    refused = await ssh(desk, ALICE, *rest, options=options)

    assert (refused.returncode, refused.stdout) == (254, "")
    assert "doorward: target_needed: You have grants for 3 targets" in refused.stderr
    assert f"doorward: {ALICE}+orders-db   The orders database · until" in refused.stderr
    assert "\x1b" not in refused.stderr
    assert started(desk) == 0


async def test_a_command_on_a_terminal_is_a_scripts_too(desk: Site) -> None:
    def play(terminal: Terminal) -> int:
        return terminal.wait_end()

    assert await at_terminal(desk, ALICE, play, "true") == 254


async def test_a_forward_alone_is_refused_with_the_reason(desk: Site) -> None:
    refused = await ssh(desk, ALICE, options=("-W", "127.0.0.1:7", "-o", "LogLevel=INFO"))

    assert refused.returncode == 255
    assert "target_needed" in refused.stderr
    assert "orders-db" in refused.stderr


async def test_scp_and_sftp_show_the_list(desk: Site, tmp_path: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        options = command(desk, ALICE)[1:-1]
        options[options.index("-p")] = "-P"
        return subprocess.run(
            ["scp", *options, str(tmp_path / "known_hosts"), f"{ALICE}@127.0.0.1:/tmp/x"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    refused = await asyncio.to_thread(run)
    assert refused.returncode != 0
    assert "target_needed" in refused.stderr


# -- no target named: a menu ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "name"),
    [("1\r", "orders-db"), ("reports\r", "reports"), ("rep\r", "reports"), ("orders-f\n", "orders-files"),
     ("x\x7f2\r", "orders-files"), ("9\r\x1b[A\x1bx zz\x15 3 \r", "reports"), ("é\x00\xff1\r", "orders-db")],
)  # fmt: skip
async def test_a_choice_at_the_menu_is_a_session_on_that_target(desk: Site, typed: str, name: str) -> None:
    def play(terminal: Terminal) -> int:
        seen = terminal.wait_for("q to leave: ")
        assert all(choice in seen for choice in TARGETS)
        assert "\x1b" not in seen
        terminal.type(typed)
        terminal.wait_for(f"· {name} ·")
        terminal.type("stty size; echo $TERM $LC_X; exit 7\r")
        return terminal.wait_end()

    seen: list[str] = []

    def kept(terminal: Terminal) -> int:
        status = play(terminal)
        seen.append(terminal.seen)
        return status

    assert await at_terminal(desk, ALICE, kept, options=("-o", "SetEnv=LC_X=mine")) == 7
    assert "30 100" in seen[0]
    assert " mine" in seen[0]
    [_, chosen] = desk.audit("config")
    assert chosen["input"]["request"] == {"kind": "shell", "target": name}
    assert [record["target"] for record in desk.audit("workspace")] == [name]
    judged = [record["input"]["request"]["kind"] for record in desk.audit("request")]
    assert judged[:4] == ["session", "pty-req", "env", "shell"] or set(judged[:5]) >= {"session", "pty-req", "env"}


async def test_a_terminal_resized_at_the_menu_has_its_new_size_and_what_was_typed_ahead_arrives(desk: Site) -> None:
    def play(terminal: Terminal) -> int:
        terminal.wait_for("q to leave: ")
        terminal.resize(41, 141)
        terminal.type("rep\rstty size; exit 5\r")
        status = terminal.wait_end()
        assert "41 141" in terminal.seen
        return status

    assert await at_terminal(desk, ALICE, play) == 5


async def test_a_terminal_resized_while_what_was_chosen_starts_has_its_new_size(
    opa_server: Opa, tmp_path: Path
) -> None:
    async with gated(opa_server, tmp_path, stop_at="before entering") as (site, backend):
        opa_server.put(f"grants/{ALICE}/g3", grant_of(target="beside"))
        async with site.connect() as connection:
            shell = await connection.create_process(term_type="xterm", encoding=None)
            await shell.stdout.readuntil(b"leave: ")
            shell.stdin.write(b"slow\r")
            await until(lambda: {"kind": "shell"} in [record["input"]["request"] for record in site.audit("request")])
            shell.change_terminal_size(141, 41)
            await connection.run("access")  # answered, so what was sent before has arrived
            backend.go.set()
            shell.stdin.write(b"stty size; exit 5\r")
            ended = await shell.wait()
        assert ended.exit_status == 5
        assert "41 141" in str(ended.stdout)


async def test_the_menu_on_a_persons_own_screen(desk: Site, tmp_path: Path) -> None:
    require("tmux")

    def tmux(*words: str) -> str:
        run = subprocess.run(["tmux", "-S", str(tmp_path / "s"), *words], capture_output=True, text=True, check=True)
        return run.stdout

    def screen() -> str:
        return tmux("capture-pane", "-p")

    tmux("-f", "/dev/null", "new-session", "-d", "-x", "90", "-y", "20", shlex.join(command(desk, ALICE)))
    try:
        await until(lambda: "q to leave:" in screen())
        tmux("send-keys", "nonsense", "Enter")
        await until(lambda: "none of them, or more than one, is nonsense." in screen())
        tmux("send-keys", "Up", "orderx", "BSpace", "s-d", "Left")
        await until(lambda: screen().rstrip().endswith("q to leave: orders-d"))
        tmux("send-keys", "Enter")
        await until(lambda: "· orders-db ·" in screen())
        tmux("send-keys", "stty size", "Enter")
        await until(lambda: "\n20 90" in screen() or "\n19 90" in screen())
        assert "\n   2  orders-files  Files  [31mof orders" in screen()
        tmux("send-keys", "exit", "Enter")
        await desk.nothing_left()
    finally:
        subprocess.run(["tmux", "-S", str(tmp_path / "s"), "kill-server"], capture_output=True, check=False)


@pytest.mark.parametrize("typed", ["q\r", "\x03", "\x04", "a\rb\rc\r", "x" * 5000])
async def test_who_leaves_the_menu_has_started_nothing(desk: Site, typed: str) -> None:
    def play(terminal: Terminal) -> int:
        terminal.wait_for("q to leave: ")
        terminal.type(typed)
        status = terminal.wait_end()
        assert "doorward: nothing_chosen:" in terminal.seen
        return status

    assert await at_terminal(desk, ALICE, play) == 254
    assert started(desk) == 0


async def test_the_words_and_the_patience_of_the_desk_are_policys(
    tmp_path: Path, unexpected: list[dict[str, Any]]
) -> None:
    shutil.copytree(POLICIES, tmp_path / "policies")
    file = tmp_path / "policies" / "gateway" / "desk" / "desk.rego"
    text = file.read_text().replace('words := {"access", "help"}', 'words := {"help", "mute"}')
    file.write_text(text.replace("seconds := 120", "seconds := 1").replace("_line(text) := ", "_line(text) := text #"))

    def play(terminal: Terminal) -> int:
        terminal.wait_for("q to leave: ")
        status = terminal.wait_end()
        assert "doorward: nothing_chosen: no target was chosen within 1 s" in terminal.seen
        assert "Files ?[31mof orders" in terminal.seen, "whatever policy says"
        return status

    with opa(tmp_path / "opa", policies=tmp_path / "policies") as server:
        async with running(server, tmp_path, targets=TARGETS) as site:
            assert (await ssh(site, ALICE, "help")).returncode == 0
            assert (await ssh(site, ALICE, "access")).returncode == 127, "the workspace's again"
            assert "policy_malformed" in (await ssh(site, ALICE, "mute")).stderr
            server.put(f"grants/{ALICE}/g2", grant_of(target="orders-files"))
            assert await at_terminal(site, ALICE, play) == 254
            await site.nothing_left()


async def test_without_policy_a_word_and_a_choice_are_refused_and_a_running_program_goes_on(
    tmp_path: Path, unexpected: list[dict[str, Any]]
) -> None:
    with opa(tmp_path / "opa") as server:
        async with running(server, tmp_path, targets=TARGETS) as site:
            server.put(f"grants/{ALICE}/g2", grant_of(target="reports"))
            async with site.connect(username=f"{ALICE}+reports") as permitted, site.connect() as asked:
                cat = await permitted.create_process("cat", encoding=None)
                menu = await asked.create_process(term_type="xterm", encoding=None)
                await menu.stdout.readuntil(b"leave: ")
                server.process.end()

                told = await permitted.run("help")
                assert (told.exit_status, told.stdout) == (254, "")
                assert "policy_unreachable" in str(told.stderr)
                cat.stdin.write(b"on")
                assert await cat.stdout.readexactly(2) == b"on"
                menu.stdin.write(b"reports\r")
                ended = await menu.wait()
                assert ended.exit_status == 254
                assert "policy_unreachable" in f"{ended.stdout!r} {ended.stderr!r}"
            await site.nothing_left()


async def test_the_menu_gives_nothing_that_policy_does_not(desk: Site, opa_server: Opa) -> None:
    def play(terminal: Terminal) -> int:
        terminal.wait_for("q to leave: ")
        opa_server.delete(f"grants/{ALICE}/reports-1")
        terminal.type("reports\r")
        status = terminal.wait_end()
        assert "doorward: no_grant: You have no grant for reports at this time." in terminal.seen
        return status

    assert await at_terminal(desk, ALICE, play) == 254
    assert started(desk) == 0


async def test_a_permit_without_a_shell_refuses_what_was_chosen_at_the_menu(desk: Site, opa_server: Opa) -> None:
    opa_server.put("targets/reports/allow", {"exec": True})

    def play(terminal: Terminal) -> int:
        terminal.wait_for("q to leave: ")
        terminal.type("reports\r")
        status = terminal.wait_end()
        assert "_refused:" in terminal.seen
        return status

    assert await at_terminal(desk, ALICE, play) == 254


async def test_beside_a_menu_words_are_answered_and_everything_else_waits_for_nobody(desk: Site) -> None:
    async with desk.connect() as connection:
        shell = await connection.create_process(term_type="xterm", encoding=None)
        await shell.stdout.readuntil(b"leave: ")
        assert "Grants of alice" in str((await connection.run("access")).stdout)
        other = await connection.run("true")
        assert other.exit_status == 254
        assert "target_needed" in str(other.stderr)
        with pytest.raises(asyncssh.ChannelOpenError) as caught:
            await connection.open_connection("127.0.0.1", 7)
        assert caught.value.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
        shell.stdin.write(b"2\rexit 4\r")
        assert (await shell.wait()).exit_status == 4
        assert (await connection.run("exit 3")).exit_status == 3, "and now there is a permit"


async def test_channels_opened_before_the_choice_are_judged_and_counted_after_it(desk: Site) -> None:
    async with desk.connect() as connection:
        shell = await connection.create_process(term_type="xterm", encoding=None)
        await shell.stdout.readuntil(b"leave: ")
        opened = [RawChannel(connection, lambda *_: True) for _ in range(25)]
        for channel in opened:
            await channel.open("session", b"", asyncssh.SSHClientSession())
        shell.stdin.write(b"2\r")
        await until(lambda: started(desk), 30)
        for channel in opened:
            assert await channel.request("exec", String("sleep 60"), True)
        judged = [record["input"]["request"]["kind"] for record in desk.audit("request")]
        assert judged.count("exec") == 9
        assert judged.count("session") == 10


@pytest.mark.parametrize("how", ["connection", "channel", "eof"])
async def test_a_client_that_is_gone_from_the_menu_leaves_nothing(desk: Site, how: str) -> None:
    async with desk.connect() as connection:
        shell = await connection.create_process(term_type="xterm", encoding=None)
        await shell.stdout.readuntil(b"leave: ")
        match how:
            case "connection":
                connection.abort()
            case "channel":
                shell.close()
            case "eof":
                shell.stdin.write_eof()
                assert (await shell.wait()).exit_status == 254
        await desk.nothing_left()
    assert started(desk) == 0


async def test_a_gateway_that_shuts_down_ends_a_menu(opa_server: Opa, tmp_path: Path) -> None:
    async with running(opa_server, tmp_path, targets=TARGETS) as site:
        opa_server.put(f"grants/{ALICE}/g2", grant_of(target="reports"))
        connection = await asyncssh.connect("127.0.0.1", site.port, **site.options())
        shell = await connection.create_process(term_type="xterm", encoding=None)
        await shell.stdout.readuntil(b"leave: ")
    ended = await asyncio.wait_for(shell.wait(), SECONDS)
    assert ended.exit_status == 254
    assert b"doorward: gateway_shutdown:" in ended.stderr + ended.stdout  # type: ignore[operator]
    await connection.wait_closed()


# -- the line and the choice ----------------------------------------------------------------------------------------


CHOICES = [Choice(target=name, login=f"alice+{name}") for name in ("1", "orders", "orders-db", "q", "reports")]


@pytest.mark.parametrize(
    ("text", "target"),
    [("1", "1"), ("2", "orders"), ("02", "orders"), ("5", "reports"), ("6", None), ("0", None), ("-1", None),
     ("orders", "orders"), ("orders-", "orders-db"), ("o", None), ("r", "reports"), ("", None), ("R", None),
     ("²", None), ("٣", None), ("9" * 120, None)],
)  # fmt: skip
def test_a_choice_is_a_number_a_name_or_a_beginning_that_only_one_has(text: str, target: str | None) -> None:
    assert chosen(CHOICES, text) == target


def test_whatever_is_typed_a_line_is_ascii_and_bounded_and_its_echo_moves_no_cursor() -> None:
    chaos = random.Random(4254)
    for _ in range(300):
        line, echoed = Line(), ""
        for byte in chaos.choices([*range(256), 0x1B, 0x5B, 0x7F, 0x15], k=400):
            echo = line.take(byte)
            if echo is None:
                line.left = False
                text = line.start_again()
                assert len(text) <= MAX_LINE
                assert text.isascii()
                assert text.isprintable()
            else:
                echoed += echo
        assert set(echoed) - set("\b") <= set(map(chr, range(0x20, 0x7F)))
