"""Doorward's own contract, inherited: it is all that a backend must prove."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from doorward_runc import Runc, RuncSettings

from gateway.assets import agent_binary
from gateway.backends import Backend, Order
from gateway.contracts.backend import LIMITS, NETWORK, USER, IsolationContract, StreamContract
from gateway.model import Holder, SessionId, WorkspaceSpec
from gateway.plugins import Place

if os.geteuid() != 0 or not shutil.which("runc") or not shutil.which("busybox"):
    lacking = "needs root and the packages runc and busybox-static"
    if os.environ.get("DOORWARD_REQUIRE") == "all":  # as in CI: what is not there is a failure
        pytest.fail(lacking, pytrace=False)
    pytest.skip(lacking, allow_module_level=True)


class Machine:
    """runc, asked past the backend."""

    def __init__(self, state: Path) -> None:
        self._state = state

    async def alive(self, session: SessionId) -> bool:
        known = subprocess.run(["runc", "state", session], capture_output=True).returncode == 0
        return known or (self._state / session).exists()

    async def kill(self, session: SessionId) -> None:
        subprocess.run(["runc", "kill", session, "KILL"], check=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    root.chmod(0o755)
    for folder in ("bin", "dev", "etc", "home/debug", "proc", "run", "tmp", "usr"):
        (root / folder).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), root / "bin" / "busybox")
    subprocess.run(["chroot", root, "/bin/busybox", "--install", "-s", "/bin"], check=True)
    return root


class TestRunc(StreamContract, IsolationContract):
    @pytest.fixture
    def state(self, tmp_path: Path) -> Iterator[Path]:
        state = tmp_path / "state"
        state.mkdir()
        yield state
        assert list(state.iterdir()) == []

    @pytest.fixture
    async def backend(self, root: Path, state: Path) -> AsyncIterator[Backend]:
        async with Runc.open(RuncSettings(roots={"tiny": root}), Place("test", agent_binary(), state)) as opened:
            yield opened

    @pytest.fixture
    def runtime(self, state: Path) -> Machine:
        return Machine(state)

    @pytest.fixture
    def order(self) -> Order:
        spec = WorkspaceSpec(backend="runc", image="tiny", user=USER, limits=LIMITS, network=NETWORK)
        holder = Holder(SessionId("s1"), "alice", "grant-1", "orders-db", f"00-{'1' * 32}-{'2' * 16}-01")
        return Order(spec, holder, datetime.now(UTC) + timedelta(hours=1))
