"""The fake keeps the parts of the contract that need no walls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.assets import agent_binary
from gateway.backends import Order
from gateway.contracts.backend import LIMITS, NETWORK, USER, Runtime, StreamContract
from gateway.model import Holder, SessionId, WorkspaceSpec
from tests.fakes import ProcessBackend


class TestProcess(StreamContract):
    @pytest.fixture
    def backend(self) -> ProcessBackend:
        return ProcessBackend(agent_binary())

    @pytest.fixture
    def runtime(self, backend: ProcessBackend) -> Runtime:
        return backend

    @pytest.fixture
    def order(self) -> Order:
        spec = WorkspaceSpec(backend="process", image="none", user=USER, limits=LIMITS, network=NETWORK)
        holder = Holder(SessionId("s1"), "alice", "grant-1", "orders-db", f"00-{'1' * 32}-{'2' * 16}-01")
        return Order(spec, holder, datetime.now(UTC) + timedelta(hours=1))
