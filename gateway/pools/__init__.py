"""Workspaces that are ready before anybody needs them: by backend, as the settings say, of the kinds permits ask for.

Each has its agent connected already, and holds nothing of a person until it is claimed.  It is handed out once, if at
all, and never comes back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from opentelemetry.metrics import Meter

from gateway.backends import Backend, Poolable, Workspace
from gateway.concurrency import background
from gateway.errors import SettingsError
from gateway.parties import Agent, Connect
from gateway.pools.kinds import Kinds
from gateway.pools.pool import Pool
from gateway.pools.warm import Claimed
from gateway.settings import Settings


class Pools:
    """All backends of a gateway, those that have a pool as the pool; and how the agent of a workspace is reached."""

    def __init__(self, backends: Mapping[str, Backend], pools: Mapping[str, Pool], connect: Connect) -> None:
        self.backends: Mapping[str, Backend] = {**backends, **pools}
        self._pools = pools
        self._connect = connect

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, backends: Mapping[str, Backend], connect: Connect, meter: Meter
    ) -> AsyncIterator[Pools]:
        """Filled while the body runs; nothing is left of them after it.

        Raises SettingsError for a pool of a backend that is not there, or that cannot have one.
        """
        pools = {}
        async with AsyncExitStack() as stack:
            for name, own in settings.pools.items():
                backend = backends.get(name)
                if backend is None:
                    raise SettingsError(f"pools.{name}: there is no backend of this name; add [backends.{name}]")
                if not isinstance(backend, Poolable):
                    raise SettingsError(f"pools.{name}: this backend cannot keep workspaces ready; remove the section")
                kinds = Kinds(settings.state / f"pool-{name}.json", own)
                pools[name] = pool = Pool(backend, connect, own, kinds, meter)
                await stack.enter_async_context(background(pool.keep()))
            yield cls(backends, pools, connect)

    @asynccontextmanager
    async def connect(self, workspace: Workspace) -> AsyncIterator[Agent]:
        """The agent of `workspace`: at once where it has been connected all along.  Raises WorkspaceUnavailable."""
        if isinstance(workspace, Claimed):
            yield workspace.agent  # its connection ends with the workspace
        else:
            async with self._connect(workspace) as agent:
                yield agent

    def describe(self) -> dict[str, Any]:
        """For the operator."""
        return {name: pool.describe() for name, pool in self._pools.items()}
