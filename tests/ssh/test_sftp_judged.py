"""Under a permit without a shell there is no way round: a name is judged as what it leads to, and opened as judged."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.ssh.delay import delaying
from tests.ssh.files import SECRET, Files, serving
from tests.stack.opa import Opa

Client = asyncssh.SFTPClient
Way = Callable[[Client, Files], Awaitable[Any]]


@pytest.fixture
async def files(opa_server: Opa, tmp_path: Path, unexpected: list[Any]) -> AsyncIterator[Files]:
    async with serving(opa_server, tmp_path, judged=True) as started:
        yield started


async def read(client: Client, path: Any) -> bytes:
    async with client.open(path, "rb") as file:
        data: Any = await file.read()
        return bytes(data)


async def write(client: Client, path: Any, data: bytes = b"written") -> None:
    async with client.open(path, "wb") as file:
        await file.write(data)


async def linked(client: Client, files: Files, to: str) -> str:
    """A link that the client itself has made."""
    await client.symlink(to, "mine")
    return "mine"


async def fsetstat_of_what_may_only_be_read(client: Client, files: Files) -> None:
    async with client.open(f"{files.see}/note", "rb") as file:
        await file.chmod(0o777)


async def write_through_a_link_of_the_client(client: Client, files: Files) -> None:
    await write(client, await linked(client, files, "../secret/key"))


async def read_through_a_link_of_the_client(client: Client, files: Files) -> None:
    await read(client, await linked(client, files, str(files.secret / "key")))


async def rename_of_a_folder_with_a_link(client: Client, files: Files) -> None:
    await client.mkdir("folder")
    await client.symlink("../../secret", "folder/up")
    await client.rename("folder", "moved")
    await read(client, "moved/up/key")


async def link_to_a_link(client: Client, files: Files) -> None:
    await client.symlink(str(files.secret), "one")
    await client.symlink("one/key", "two")
    await read(client, "two")


async def hard_link_to_a_link(client: Client, files: Files) -> None:
    await client.symlink("../secret/key", "one")
    await client.link("one", "two")  # it is the link that gets a second name
    await read(client, "two")


WAYS: dict[str, Way] = {
    "read": lambda c, f: read(c, f.secret / "key"),
    "read by ..": lambda c, f: read(c, f"{f.open}/../secret/key"),
    "read by .. and a relative name": lambda c, f: read(c, "../secret/key"),
    "read by .. out of what is not there": lambda c, f: read(c, "nothing/../../secret/key"),
    "read by a link in the image": lambda c, f: read(c, "link"),
    "read by a link to the folder": lambda c, f: read(c, "folderlink/key"),
    "read by a link of its own": read_through_a_link_of_the_client,
    "read by a link to a link": link_to_a_link,
    "read by a hard link to a link": hard_link_to_a_link,
    "read by a link in a renamed folder": rename_of_a_folder_with_a_link,
    "read by the root of a process": lambda c, f: read(c, f"/proc/self/root{f.secret}/key"),
    "read by the agent's own descriptor": lambda c, f: read(c, "/proc/self/fd/0"),
    "read by a thread's working directory": lambda c, f: read(c, f"/proc/thread-self/cwd{f.secret}/key"),
    "read by many slashes": lambda c, f: read(c, f"//{f.secret}///.//key"),
    "list": lambda c, f: c.listdir(f.secret),
    "list by a link": lambda c, f: c.listdir("folderlink"),
    "list what is above": lambda c, f: c.listdir(".."),
    "list the root": lambda c, f: c.listdir("/"),
    "stat": lambda c, f: c.stat(f.secret / "key"),
    "lstat": lambda c, f: c.lstat(f.secret / "key"),
    "stat by a link": lambda c, f: c.stat("link"),
    "stat of nothing": lambda c, f: c.stat(f.secret / "nothing"),
    "statvfs": lambda c, f: c.statvfs(f.secret),
    "readlink": lambda c, f: c.readlink(f.secret / "out"),
    "write": lambda c, f: write(c, f.secret / "new"),
    "write where one may read": lambda c, f: write(c, f.see / "new"),
    "overwrite where one may read": lambda c, f: write(c, f.see / "note"),
    "write by a link": lambda c, f: write(c, "link"),
    "write by a link of its own": write_through_a_link_of_the_client,
    "write by a link that leads nowhere yet": lambda c, f: write(c, "dangling"),
    "append": lambda c, f: c.open(f.see / "note", "ab"),
    "truncate": lambda c, f: c.truncate(f.secret / "key", 0),
    "truncate by a link": lambda c, f: c.truncate("link", 0),
    "chmod": lambda c, f: c.chmod(f.secret / "key", 0o777),
    "chmod by a link": lambda c, f: c.chmod("link", 0o777),
    "chmod by a link to the folder": lambda c, f: c.chmod("folderlink/key", 0o777),
    "chmod of an open file": fsetstat_of_what_may_only_be_read,
    "times by a link": lambda c, f: c.utime("link", (1, 1)),
    "owner by a link": lambda c, f: c.chown("link", 1, 1),
    "lsetstat": lambda c, f: c.utime(f.secret / "out", (1, 1), follow_symlinks=False),
    "mkdir": lambda c, f: c.mkdir(f.secret / "d"),
    "mkdir by a link": lambda c, f: c.mkdir("folderlink/d"),
    "rmdir": lambda c, f: c.rmdir(f.secret / "empty"),
    "remove": lambda c, f: c.remove(f.secret / "key"),
    "remove by a link": lambda c, f: c.remove("folderlink/key"),
    "remove where one may read": lambda c, f: c.remove(f.see / "note"),
    "rename out": lambda c, f: c.rename(f.secret / "key", "key"),
    "rename out, by a link": lambda c, f: c.rename("folderlink/key", "key"),
    "rename out of where one may read": lambda c, f: c.rename(f.see / "note", "note2"),
    "rename in": lambda c, f: c.rename("note", f.secret / "note"),
    "rename in, by a link": lambda c, f: c.posix_rename("note", "folderlink/key"),
    "rename over": lambda c, f: c.posix_rename("note", f.see / "note"),
    "rename of the folder itself": lambda c, f: c.rename(f.open, f.root / "opened"),
    "rename of the folder above": lambda c, f: c.rename(f.root, f.root.parent / "moved"),
    "hard link": lambda c, f: c.link(f.secret / "key", "key"),
    "hard link by a link": lambda c, f: c.link("folderlink/key", "key"),
    "hard link to what one may read, to write it": lambda c, f: c.link(f.see / "note", "seen"),
    "hard link elsewhere": lambda c, f: c.link("note", f.secret / "note"),
    "symlink elsewhere": lambda c, f: c.symlink("x", f.secret / "l"),
    "symlink elsewhere, by a link": lambda c, f: c.symlink("x", "folderlink/l"),
}  # fmt: skip


def fingerprint(files: Files) -> list[tuple[Any, ...]]:
    """All of `secret` and `see`, but for when it was read."""
    found = []
    for path in sorted([*files.secret.rglob("*"), *files.see.rglob("*"), files.secret, files.see]):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found.append((str(path), info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, content))
    return found


async def test_a_way_round_is_refused_and_changes_nothing(files: Files) -> None:
    (files.secret / "empty").mkdir()
    (files.secret / "out").symlink_to(files.open)
    before = fingerprint(files)
    for note, way in WAYS.items():
        for left in files.open.iterdir():
            left.unlink() if left.is_symlink() or left.is_file() else await asyncio.to_thread(
                os.system, f"rm -r {left}"
            )
        (files.open / "note").write_bytes(b"a note\n")
        (files.open / "link").symlink_to("../secret/key")
        (files.open / "folderlink").symlink_to(files.secret)
        (files.open / "dangling").symlink_to("../secret/fresh")
        refused: asyncssh.SFTPError | None = None
        async with files.client() as client:
            try:
                await way(client, files)
            except asyncssh.SFTPPermissionDenied as error:
                refused = error
        assert refused is not None, f"{note}: was not refused"
        assert refused.reason.startswith("sftp_"), f"{note}: {refused.reason}"
        assert str(files.secret) not in refused.reason, f"{note}: tells where it leads"
        assert fingerprint(files) == before, f"{note}: changed something"
    denied = [asked for asked in files.asked() if asked["outcome"] == "deny"]
    assert len(denied) >= len(WAYS) - 1  # one leads to what has no name, and is refused before anybody is asked


async def test_what_is_allowed_works_and_every_operation_is_a_decision_on_its_canonical_name(files: Files) -> None:
    (files.open / "seen").symlink_to("../see")
    async with files.client() as client:
        assert await read(client, "seen/note") == b"to see\n"
        await client.mkdir("d")
        await write(client, "d/x", b"abc")
        await client.chmod("d/x", 0o640)
        await client.truncate("d/x", 2)
        await client.utime("d/x", (5, 7))
        await client.symlink("x", "d/l")
        assert await client.readlink("d/l") == "x"
        assert await read(client, "d/l") == b"ab"
        await client.link("d/x", "d/h")
        await client.rename("d/x", "d/y")
        await write(client, "d/over")
        await client.posix_rename("d/h", "d/over")
        await client.posix_rename("d/over", "d/h")
        await client.remove("d/y")
        assert sorted(await client.listdir("d")) == ["h", "l"]
        assert (await client.lstat("d/l")).size == 1
        assert await client.realpath("seen/../seen") == str(files.see)
        found = await client.stat("d/h")
        assert (found.permissions, found.mtime, found.size) == (0o100640, 7, 2)
        async with client.open("d/h", "r+b") as file:
            await file.chmod(0o600)
            await file.write(b"zz", 2)
        await client.rmtree("d")
    asked = [(one["operation"], one["path"].removeprefix(f"{files.root}/")) for one in files.asked()]
    assert ("open", "see/note") in asked
    assert ("open", "open/d/x") in asked
    assert ("fsetstat", "open/d/h") in asked
    assert all(one["path"].startswith(f"{files.root}/") for one in files.asked())
    [opened] = [
        one for one in files.asked() if one["operation"] == "open" and one["path"].endswith("d/x") and one["write"]
    ]
    assert (opened["read"], opened["flags"]) == (False, ["write", "create", "truncate"])
    renamed = [one["to"] for one in files.asked() if one["operation"] == "rename"]
    assert renamed == [f"{files.open}/d/y", f"{files.open}/d/over", f"{files.open}/d/h"]
    [link] = [one for one in files.asked() if one["operation"] == "symlink"]
    assert link["target"] == "x"
    recorded = await files.all_operations()
    closed = [one for one in recorded if one["operation"] == "close" and one["path"].endswith("see/note")]
    assert [one["bytes_read"] for one in closed] == [7]


async def test_a_link_of_the_system_is_judged_as_what_it_leads_to(opa_server: Opa, tmp_path: Path) -> None:
    """On this machine, as in a Debian image, /bin is a link to /usr/bin."""
    rules = {"sftp": {"read": ["/usr/bin/*"], "write": []}}
    async with serving(opa_server, tmp_path, judged=True, allow=rules) as files, files.client() as client:
        assert (await read(client, "/bin/ls"))[:4] == b"\x7fELF"
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await read(client, "/bin/../etc/passwd")
        [opened, refused] = [one for one in files.asked() if one["operation"] == "open"]
    assert (opened["path"], refused["path"]) == ("/usr/bin/ls", "/etc/passwd")


async def test_a_refusal_does_not_tell_whether_anything_is_there(files: Files) -> None:
    (files.secret / "folder").mkdir()
    answers = set()
    async with files.client() as client:
        for name in ("key", "nothing", "folder", "folder/nothing", "nothing/nothing", "key/x", "folder/../key"):
            for ask in (client.stat, client.lstat, client.listdir, client.readlink, client.statvfs, client.remove):
                with pytest.raises(asyncssh.SFTPPermissionDenied) as refused:
                    await ask(f"{files.secret}/{name}")
                answers.add(refused.value.reason.partition(" | decision")[0])
            # As words: what the client said itself, without `..`.
            assert await client.realpath(f"{files.secret}/{name}/../x") == os.path.normpath(
                f"{files.secret}/{name}/../x"
            )
        assert await client.stat(f"{files.secret}/folder/../../open/note")
        assert await client.stat(f"{files.secret}/nothing/../../open/note")
    assert len(answers) == 2  # one to who looks, one to who changes


async def test_the_person_is_told_why_and_what_is_allowed(files: Files) -> None:
    status, _, told = await files.sftp(f"get {files.secret}/key {files.site.directory}/stolen")
    assert status == 1
    status, _, told = await files.sftp(f"put {files.site.directory}/key {files.see}/x")
    assert status == 1
    assert "doorward: sftp_write_refused: " in told
    assert f"You may read: {files.open}/**, {files.see}/**; change: {files.open}/**." in told
    assert not (files.site.directory / "stolen").exists()


async def test_a_race_between_check_and_use_leads_nowhere_else(files: Files) -> None:
    """Somebody else swaps a folder for a link, again and again, while operations run."""
    folder, spare, link = files.open / "d", files.open / "spare", files.open / "link"
    folder.mkdir()
    (folder / "key").write_bytes(b"harmless\n")
    link.symlink_to("../secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            folder.rename(spare)
            link.rename(folder)
            folder.rename(link)
            spare.rename(folder)

    ways: list[Way] = [
        lambda c, _: read(c, "d/key"),
        lambda c, _: write(c, "d/new"),
        lambda c, _: c.chmod("d/key", 0o604),
        lambda c, _: c.remove("d/key2"),
        lambda c, _: c.mkdir("d/sub"),
        lambda c, _: c.stat("d/key"),
        lambda c, _: c.listdir("d"),
        lambda c, _: c.posix_rename("d/new", "d/moved"),
        lambda c, _: c.link("d/key", "d/key2"),
        lambda c, _: c.truncate("d/moved", 1),
    ]
    before = fingerprint(files)
    swapping = asyncio.ensure_future(asyncio.to_thread(swap))
    seen: dict[str, int] = {}
    try:
        async with files.client() as client:
            for number in range(200):
                try:
                    await ways[number % len(ways)](client, files)
                    outcome = "done"
                except asyncssh.SFTPPermissionDenied:
                    outcome = "denied"
                except asyncssh.SFTPError:
                    outcome = "failed"
                seen[outcome] = seen.get(outcome, 0) + 1
                if number % len(ways) == 0 and outcome == "done":
                    assert await _read_now(client) != SECRET
    finally:
        stop.set()
        await swapping
    assert fingerprint(files) == before
    assert seen["done"] > 0
    assert seen["denied"] > 0, seen  # the link was seen, and judged as what it led to


async def _read_now(client: Client) -> bytes:
    try:
        return await read(client, "d/key")
    except asyncssh.SFTPError:
        return b""


async def test_what_moved_after_it_was_judged_is_not_opened(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    """Not by chance: the decision itself is held up until the folder is a link."""
    async with (
        delaying(opa_server) as (url, gate),
        serving(opa_server, tmp_path, judged=True, policy={"url": url}) as files,
    ):
        (files.open / "d").mkdir()
        (files.open / "d" / "key").write_bytes(b"harmless\n")
        async with files.client() as client:
            for ask in (
                lambda: read(client, "d/key"),
                lambda: write(client, "d/key"),
                lambda: client.stat("d/key"),
                lambda: client.lstat("d/key"),
                lambda: client.listdir("d"),
                lambda: client.chmod("d/key", 0o777),
                lambda: client.truncate("d/key", 0),
                lambda: client.remove("d/key"),
                lambda: client.mkdir("d/x"),
                lambda: client.rmdir("d/empty"),
                lambda: client.symlink("x", "d/l"),
                lambda: client.readlink("d/out"),
                lambda: client.link("d/key", "k"),
                lambda: client.rename("d/key", "k"),
                lambda: client.posix_rename("note", "d/key"),
                lambda: client.statvfs("d"),
            ):
                (files.secret / "empty").mkdir(exist_ok=True)
                if not (files.secret / "out").is_symlink():
                    (files.secret / "out").symlink_to("x")
                before = fingerprint(files)
                gate.close()
                asking = asyncio.ensure_future(ask())
                await gate.waiting()
                (files.open / "d").rename(files.open / "aside")
                (files.open / "d").symlink_to(files.secret)
                gate.open()
                with pytest.raises(asyncssh.SFTPError):
                    await asking
                assert fingerprint(files) == before
                (files.open / "d").unlink()
                (files.open / "aside").rename(files.open / "d")
        assert {one["outcome"] for one in files.asked()} == {"allow"}


async def test_without_a_policy_engine_operations_are_refused_and_bytes_of_open_files_go_on(
    opa_server: Opa, tmp_path: Path, unexpected: list[Any]
) -> None:
    async with (
        delaying(opa_server) as (url, gate),
        serving(opa_server, tmp_path, judged=True, policy={"url": url}) as files,
    ):
        async with files.client() as client, client.open("kept", "w+b") as file:
            await file.write(b"before", 0)
            gate.refuse()
            for ask in (client.stat("note"), client.mkdir("d"), client.open("note", "rb"), file.chmod(0o777)):
                with pytest.raises(asyncssh.SFTPPermissionDenied) as refused:
                    await ask
                assert refused.value.reason.startswith("policy_un")
            await file.write(b" after", 6)
            again: Any = await file.read(100, 0)
            assert again == b"before after"
            gate.open()
            assert (await client.stat("note")).size == 7
        assert (files.open / "kept").read_bytes() == b"before after"


async def test_a_name_that_policy_cannot_be_shown_is_refused(files: Files) -> None:
    odd = os.fsencode(files.open) + b"/caf\xe9"
    Path(os.fsdecode(odd)).write_bytes(b"x")
    (files.open / "to-it").symlink_to(os.fsdecode(b"caf\xe9"))
    async with files.client() as client:
        for path in (b"caf\xe9", b"to-it", odd):
            with pytest.raises(asyncssh.SFTPPermissionDenied) as refused:
                await read(client, path)
            assert refused.value.reason.startswith("sftp_name_unreadable")
        assert b"caf\xe9" in await client.listdir(b".")
        for path in (b"a\0b", b"x" * 5000, b"/".join([b"d"] * 3000)):
            with pytest.raises(asyncssh.SFTPFailure):
                await client.stat(path)
        await write(client, "é ü", b"fine")
    assert (files.open / "é ü").read_bytes() == b"fine"
