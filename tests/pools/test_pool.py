"""Warm workspaces on a real backend: claimed once, bound before they are anybody's, replaced, drained, and gone."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.backends.sandbox.backend import SandboxBackend
from gateway.backends.sandbox.records import end_orphans
from gateway.backends.sandbox.root import AGENT
from gateway.concurrency import cancel_and_wait
from gateway.errors import SettingsError, WorkspaceUnavailable
from gateway.metrics import UNMETERED
from gateway.model import Beside, PodOptions, WorkspaceSpec
from gateway.pools import Pools
from gateway.pools.kinds import Kind, Kinds
from gateway.pools.pool import Pool
from gateway.settings import Settings
from gateway.settings_pools import PoolSettings
from gateway.ssh.agent import connected
from tests.pools.world import Stocked, of, order_for, sandboxes, stocked
from tests.stack.require import require
from tests.waiting import eventually, until


@pytest.fixture
def state() -> Iterator[Path]:
    require("bwrap")
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
    assert end_orphans(AGENT) == 0


@pytest.fixture
def backend(state: Path) -> SandboxBackend:
    return sandboxes(state)


@pytest.fixture
async def stock(backend: SandboxBackend, state: Path) -> AsyncIterator[Stocked]:
    async with stocked(backend, state) as made:
        yield made


def records(state: Path) -> dict[str, dict[str, Any]]:
    """What remembers running sandboxes, by session."""
    found: dict[str, dict[str, Any]] = {}
    for file in (state / "sandbox" / "test").glob("*.json"):
        with suppress(FileNotFoundError):  # it has just been removed
            record = json.loads(file.read_text())
            found[record["session"]] = record
    return found


async def test_the_first_of_a_kind_is_cold_and_the_next_is_ready(stock: Stocked) -> None:
    async with stock.claimed(order_for()) as first:
        assert (first.facts["start"], first.facts["why"]) == ("cold", "first of its kind")
        assert await first.says("echo here") == "here"
    await stock.full(2)
    async with stock.claimed(order_for()) as second:
        assert second.facts["start"] == "warm"
        assert second.facts["ready_seconds"] >= 0
        assert await second.says("echo here") == "here"
    await stock.full(2)


async def test_nothing_of_a_person_is_there_before_the_claim(stock: Stocked, state: Path) -> None:
    order = order_for("alice", env={"FOR": "alice"}, force_command="true # alice")
    await stock.learn(order, 2)
    seen = state / "pool.json"
    await until(seen.exists, 30)
    before = records(state)
    assert len(before) == 2
    assert all(session.startswith("pool-") for session in before)
    for record in before.values():
        environment = Path(f"/proc/{record['pid']}/environ").read_bytes()
        assert b"orders-db" not in environment
        for secret in (b"alice", b"grant-1", order.holder.session.encode(), b"TRACEPARENT"):
            assert secret not in environment + json.dumps(record).encode() + seen.read_bytes()
    async with stock.claimed(order) as held:
        assert held.facts["start"] == "warm"
        record = records(state)[order.holder.session]
        assert record["pid"] == int(held.workspace.id)
        assert record["started_for"] in before
        assert record["started_for"] not in records(state)
    assert order.holder.session not in records(state)


async def test_fifty_at_once_on_a_pool_of_eight_are_all_served_each_in_its_own(
    backend: SandboxBackend, state: Path
) -> None:
    async with stocked(backend, state, size=8, starts_at_once=4) as stock:
        await stock.learn(order_for(), 8)
        together = asyncio.Barrier(50)

        async def one(number: int) -> tuple[str, str]:
            async with stock.claimed(order_for(f"person-{number % 5}")) as held:
                assert await held.says(f"cat /tmp/mine 2>/dev/null; echo {number} > /tmp/mine; cat /tmp/mine") == str(
                    number
                )
                await together.wait()  # all fifty are inside
                return held.workspace.id, held.facts["start"]

        async with asyncio.timeout(120):
            found = await asyncio.gather(*map(one, range(50)))
        assert len({place for place, _ in found}) == 50
        assert Counter(start for _, start in found)["warm"] >= 8
        await stock.full(8)
    assert records(state) == {}


async def test_claims_that_are_cancelled_anywhere_lose_nothing_and_give_nothing_back(
    backend: SandboxBackend, state: Path
) -> None:
    async with stocked(backend, state, size=4) as stock:
        await stock.learn(order_for(), 4)
        used: Counter[str] = Counter()

        async def one() -> None:
            async with stock.claimed(order_for()) as held:
                used[held.workspace.id] += 1
                assert await held.says("cat /tmp/mine 2>/dev/null; echo x > /tmp/mine") == ""

        for turns in range(40):
            task = asyncio.ensure_future(one())
            for _ in range(turns):  # cut off at each step in turn
                await asyncio.sleep(0)
            await cancel_and_wait([task])
        await stock.full(4)
        async with asyncio.timeout(60):
            await asyncio.gather(*(one() for _ in range(8)))
        assert max(used.values()) == 1
        await stock.full(4)
        assert len(records(state)) == 4
    assert records(state) == {}


async def test_one_that_is_killed_in_the_pool_is_noticed_and_replaced(stock: Stocked, state: Path) -> None:
    await stock.learn(order_for(), 2)
    before = records(state)
    for record in before.values():
        os.kill(record["pid"], signal.SIGKILL)
    await until(lambda: stock.ready() == 2 and not before.keys() & records(state).keys(), 60)


async def test_one_that_is_killed_as_it_is_claimed_is_not_handed_out(stock: Stocked, state: Path) -> None:
    await stock.learn(order_for(), 2)
    for record in records(state).values():
        os.kill(record["pid"], signal.SIGKILL)
    async with stock.claimed(order_for()) as held:  # in the very turn of the loop: nobody has noticed yet
        assert (held.facts["start"], held.facts["why"]) == ("cold", "not bound")
        assert await held.says("echo here") == "here"


async def test_one_that_cannot_be_bound_is_thrown_away(stock: Stocked, state: Path) -> None:
    await stock.learn(order_for(), 2)
    before = records(state)
    for session in before:
        (state / "sandbox" / "test" / f"{session}.json").unlink()
    async with stock.claimed(order_for()) as held:
        assert (held.facts["start"], held.facts["why"]) == ("cold", "not bound")
        assert int(held.workspace.id) not in {record["pid"] for record in before.values()}


async def test_one_whose_agent_says_nothing_any_more_is_not_handed_out(stock: Stocked, state: Path) -> None:
    await stock.learn(order_for(), 2)
    stopped = [record["pid"] for record in records(state).values()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    async with stock.claimed(order_for()) as held:
        assert held.facts["why"] == "not bound"
        assert int(held.workspace.id) not in stopped


async def test_another_image_limit_or_way_out_is_another_kind_and_the_old_one_is_drained(
    backend: SandboxBackend, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.pools.kinds.OUTDATED_SECONDS", 0.0)
    async with stocked(backend, state) as stock:
        await stock.learn(order_for(), 2)
        old = set(records(state))
        changed = order_for(limits=order_for().spec.limits.model_copy(update={"pids": 65}))
        async with stock.claimed(changed) as held:
            assert held.facts["start"] == "cold"
        await until(lambda: stock.ready() == 2 and not old & records(state).keys(), 60)
        assert [kind["wanted"] for kind in stock.pool.describe()["kinds"]] == [2]
        async with stock.claimed(of(changed, "bob")) as held:
            assert held.facts["start"] == "warm"


async def test_another_agent_drains_the_pool(state: Path) -> None:
    backend = sandboxes(state)
    copy = state / "agent"
    state.chmod(0o755)
    copy.write_bytes(backend.agent.read_bytes())
    copy.chmod(0o755)
    backend.agent = copy
    async with stocked(backend, state) as stock:
        await stock.learn(order_for(), 2)
        old = set(records(state))
        replaced = state / "agent.new"
        replaced.write_bytes(copy.read_bytes())
        replaced.chmod(0o755)
        replaced.replace(copy)
        async with stock.claimed(order_for()) as held:
            assert held.facts["start"] == "cold"
        await until(lambda: stock.ready() == 2 and not old & records(state).keys(), 60)


async def test_what_is_told_at_the_claim_makes_no_other_kind(stock: Stocked) -> None:
    await stock.learn(order_for(env={"A": "1"}), 2)
    async with stock.claimed(order_for("bob", env={"A": "2"}, shell="/bin/sh", force_command="id")) as held:
        assert held.facts["start"] == "warm"


async def test_in_all_there_are_no_more_than_the_total_and_who_was_asked_for_last_comes_first(
    backend: SandboxBackend, state: Path
) -> None:
    async with stocked(backend, state, size=2, total=3, kinds=2) as stock:
        for target in ("one", "two", "three"):
            async with stock.claimed(order_for(target=target)):
                pass
        await until(lambda: (stock.ready("three"), stock.ready("two"), stock.ready("one")) == (2, 1, 0), 60)
        assert len(records(state)) == 3


async def test_targets_that_are_not_named_have_none(backend: SandboxBackend, state: Path) -> None:
    async with stocked(backend, state, targets=["one"]) as stock:
        for target, why in (("two", "not pooled"), ("one", "first of its kind")):
            async with stock.claimed(order_for(target=target)) as held:
                assert held.facts["why"] == why
        await stock.full(2, "one")
        assert stock.ready("two") == 0


def test_nothing_is_put_beside_a_service_before_somebody_needs_it(state: Path) -> None:
    beside = PodOptions(beside=Beside(namespace="shop", selector={"app": "payments-api"}))
    spec = WorkspaceSpec(backend="kubernetes", image="x", pod=beside)
    kinds = Kinds(state / "pool.json", PoolSettings(size=2))
    assert not kinds.asked(Kind.of(replace(order_for(), spec=spec)))
    assert list(kinds.wanted()) == []


async def test_the_old_are_replaced_unused(backend: SandboxBackend, state: Path) -> None:
    async with stocked(backend, state, max_age_seconds=1) as stock:
        await stock.learn(order_for(), 2)
        old = set(records(state))
        await until(lambda: stock.ready() == 2 and not old & records(state).keys(), 60)


async def test_after_a_restart_the_pool_is_full_before_anybody_asks(backend: SandboxBackend, state: Path) -> None:
    async with stocked(backend, state) as stock:
        await stock.learn(order_for(), 2)
        await until((state / "pool.json").exists, 30)
    assert records(state) == {}
    async with stocked(backend, state) as stock:
        await stock.full(2)
        async with stock.claimed(order_for()) as held:
            assert held.facts["start"] == "warm"


@pytest.mark.parametrize("content", [b"", b"\xff", b"[{}]", b'{"a": 1}', b"[[[["])
async def test_a_file_of_kinds_that_is_nonsense_costs_a_cold_start_and_no_more(
    backend: SandboxBackend, state: Path, content: bytes
) -> None:
    (state / "pool.json").write_bytes(content)
    async with stocked(backend, state) as stock, stock.claimed(order_for()) as held:
        assert held.facts["start"] == "cold"


async def test_what_cannot_be_started_is_tried_again_later_and_later(
    backend: SandboxBackend, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with stocked(backend, state, size=4) as stock:
        with pytest.raises(WorkspaceUnavailable):
            async with stock.claimed(order_for(image="nowhere")):
                pass
        await until(lambda: [kind["failures"] for kind in stock.pool.describe()["kinds"]] == [2], 60)
    failed = [record for record in caplog.records if record.message == "pool_start_failed"]
    assert len(failed) <= 5  # four together, then one at a time
    assert records(state) == {}


async def test_the_reaper_knows_what_is_in_the_pool_and_what_was_claimed(stock: Stocked, state: Path) -> None:
    await stock.learn(order_for(), 2)
    order = order_for()
    async with stock.claimed(order) as held:
        await stock.full(2)
        assert await stock.pool.reap([order.holder.session]) == []
        assert await held.says("echo here") == "here"
        there = set(records(state))
        assert set(await stock.backend.reap([])) == there  # as another life of this gateway would see them
    await stock.full(2)


async def test_a_turn_that_does_not_come_is_explained(backend: SandboxBackend, state: Path) -> None:
    async with stocked(backend, state, size=0, starts_at_once=1, wait_seconds=0.2) as stock:
        async with stock.pool._turns.turn("bob"):
            heard: list[str] = []
            order = replace(order_for(), waits_for=heard.append)
            with pytest.raises(WorkspaceUnavailable, match="others wait for theirs too") as caught:
                async with stock.claimed(order):
                    pass
        assert "Try again in a minute" in caught.value.reasons[0].remedy
        assert heard == ["a workspace, and none is ready: 1 wait for one to be started, 1 at a time"]
        async with stock.claimed(order_for()) as held:
            assert held.facts["why"] == "not pooled"


async def test_a_pool_of_a_backend_that_is_not_there_or_cannot_have_one_stops_the_start(state: Path) -> None:
    class Plain:
        name = "plain"
        workspace = reap = check = None

    for backends, words in (({}, "no backend of this name"), ({"plain": Plain()}, "cannot keep workspaces ready")):
        settings = Settings(state_dir=state, pools={"plain": {"size": 1}})
        with pytest.raises(SettingsError, match=words):
            async with Pools.open(settings, backends, connected, UNMETERED):  # type: ignore[arg-type]
                pass


async def test_kinds_are_asked_for_while_others_are_remembered(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path / "pool.json", PoolSettings(size=1))
    more = iter([Kind.of(order_for(target=f"target-{number}")) for number in range(6000)])
    for kind in itertools.islice(more, 3000):
        kinds.asked(kind)
    saving = asyncio.ensure_future(asyncio.to_thread(kinds.save))
    while not saving.done():
        kinds.asked(next(more))  # as a login does
        await asyncio.sleep(0.001)
    await saving
    assert len(json.loads((tmp_path / "pool.json").read_text())) >= 3000


GATEWAY = """
import asyncio, sys
from pathlib import Path
from tests.pools.world import order_for, sandboxes, stocked

async def main(state):
    async with stocked(sandboxes(Path(state)), Path(state)) as stock:
        await stock.learn(order_for(), 2)
        async with stock.claimed(order_for()):
            await stock.full(2)
            print("full", flush=True)
            await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


async def test_a_gateway_that_is_killed_leaves_nothing_of_its_pool(state: Path) -> None:
    command = (sys.executable, "-c", GATEWAY, str(state))
    gateway = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert gateway.stdout is not None
    assert await gateway.stdout.readline() == b"full\n"
    pids = [record["pid"] for record in records(state).values()]
    assert len(pids) == 3
    gateway.send_signal(signal.SIGKILL)
    await gateway.wait()

    async def all_gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    assert await eventually(all_gone, seconds=30)
    async with stocked(sandboxes(state), state) as stock:
        await stock.pool.reap([])
        assert not {record["pid"] for record in records(state).values()} & set(pids)


async def test_the_agent_is_connected_once_and_for_all(stock: Stocked) -> None:
    await stock.learn(order_for(), 2)
    async with stock.claimed(order_for()) as held:
        assert isinstance(stock.pool, Pool)
        with pytest.raises(WorkspaceUnavailable):
            await held.workspace.create_connection(asyncio.Protocol)
