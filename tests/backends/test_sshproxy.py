"""The sshproxy backend keeps the part of the contract that can be true of a host that is there already."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import asyncssh
import pytest

from gateway.backends import Backend, Order
from gateway.backends.sshproxy.backend import SshProxyBackend
from gateway.contracts.backend import LIMITS, Line, StreamContract
from gateway.contracts.waiting import SECONDS
from gateway.errors import WorkspaceUnavailable
from gateway.model import Holder, Host, SessionId, VaultLogin, WorkspaceSpec
from gateway.settings_sshproxy import SshProxySettings
from tests.stack.require import require
from tests.stack.sshd import USER, Sshd, sshd

SIGNED = SshProxySettings.model_validate({"vault": {}})


class Authority:
    """An authority of the test's own: it signs as Vault does, and is here to have sessions named in sshd's log."""

    def __init__(self) -> None:
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self.public = self._key.export_public_key().decode().strip()

    async def sign(self, public_key: str, login: VaultLogin, user: str, key_id: str, seconds: int) -> str:
        certificate = self._key.generate_user_certificate(
            asyncssh.import_public_key(public_key), key_id, principals=[user], valid_before=f"+{seconds}s"
        )
        return certificate.export_certificate().decode()


class Machine:
    """The host, asked past the backend: connections that its server has, by the kernel's list."""

    def __init__(self, server: Sshd) -> None:
        self._server = server

    async def alive(self, session: SessionId) -> bool:
        """A connection that is of this session, or nobody's yet."""
        owners = {
            int(port): owner
            for port, owner in re.findall(
                r"Accepted publickey .* port (\d+) .* ID doorward/\S*/(\S+) ", self._server.log
            )
        }
        return any(owners.get(port, session) == session for port in self._server.connected())

    async def kill(self, _session: SessionId) -> None:
        for pid in self._server.children():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def _there_is_an_sshd() -> None:
    require("sshd")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("host"), user_authority=authority.public) as server:
        yield server


@pytest.fixture
async def backend(authority: Authority) -> AsyncIterator[Backend]:
    async with SshProxyBackend.open(SIGNED, nullcontext(authority)) as opened:
        yield opened


@pytest.fixture
def runtime(host: Sshd) -> Machine:
    return Machine(host)


@pytest.fixture
def order(request: pytest.FixtureRequest, host: Sshd) -> Order:
    there = Host(
        address="127.0.0.1", port=host.port, user=USER, host_keys=(host.host_key,), vault=VaultLogin(role="any")
    )
    session = SessionId(re.sub(r"[^A-Za-z0-9]", "-", request.node.name))
    holder = Holder(session, "alice", "G-1", "there", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    return Order(WorkspaceSpec(backend="sshproxy", host=there), holder, expires_at)


class TestSshProxy(StreamContract):
    """Not applicable: `IsolationContract` (walls, limits, a read-only root, a network of loopback) is all about what is
    started, and nothing is started on a host; and, by name, the four below.
    """

    test_set_up_reaches_what_is_started_after_it = None  # type: ignore[assignment]
    """`setup@doorward` is our agent's, and there is none."""
    test_the_order_s_environment_is_there = None  # type: ignore[assignment]
    """It goes with each program (`gateway/ssh/host.py`), not with the connection: `tests/ssh/test_hosts.py`."""
    test_leaving_ends_what_ignores_a_polite_end = None  # type: ignore[assignment]
    """A host's processes are its own: what has no terminal goes on when its connection ends, as with any sshd."""

    async def test_killed_from_outside_everyone_is_told(self, backend: Backend, order: Order, runtime: Machine) -> None:  # type: ignore[override]
        """In other words than "killed": a connection that is lost does not say why."""
        async with backend.workspace(order) as workspace:
            _, line = await workspace.create_connection(Line)
            gone = asyncio.ensure_future(workspace.wait_gone())
            await asyncio.wait([gone], timeout=0.05)
            assert not gone.done()
            assert await runtime.alive(order.holder.session)
            await runtime.kill(order.holder.session)
            async with asyncio.timeout(SECONDS):
                assert (await gone).endswith("closed the connection")
                await line.lost.wait()  # type: ignore[attr-defined]
        assert not await runtime.alive(order.holder.session)


async def test_what_names_no_host_is_refused(backend: Backend, order: Order) -> None:
    started = WorkspaceSpec(backend="sshproxy", image="x", limits=LIMITS)
    with pytest.raises(WorkspaceUnavailable, match="no host"):
        await backend.check(started)
    with pytest.raises(WorkspaceUnavailable, match="no host"):
        async with backend.workspace(Order(started, order.holder, order.expires_at)):
            pytest.fail("a workspace that is nowhere")


@pytest.mark.parametrize("line", ["ssh-ed25519 AAAA", "@cert-authority ssh-rsa AAAAB3NzaC1yc2E="])
async def test_a_pinned_key_that_is_none_is_refused(backend: Backend, order: Order, line: str) -> None:
    assert order.spec.host is not None
    spec = order.spec.model_copy(update={"host": order.spec.host.model_copy(update={"host_keys": (line,)})})
    with pytest.raises(WorkspaceUnavailable, match="cannot be read"):
        await backend.check(spec)


async def test_a_certificate_ends_with_its_permit(host: Sshd, order: Order, authority: Authority) -> None:
    """And a signer that certifies another key is not believed."""
    asked: list[int] = []

    class Other(Authority):
        async def sign(self, public_key: str, login: VaultLogin, user: str, key_id: str, seconds: int) -> str:
            asked.append(seconds)
            other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
            return await authority.sign(other, login, user, key_id, seconds)

    ending = Order(order.spec, order.holder, datetime.now(UTC) + timedelta(seconds=20))
    async with SshProxyBackend.open(SIGNED, nullcontext(Other())) as backend:
        for each in (order, ending):
            with pytest.raises(WorkspaceUnavailable, match="certifies another key"):
                async with backend.workspace(each):
                    pytest.fail("logged in by another's certificate")
    assert asked[0] == 120
    assert 15 <= asked[1] <= 20
