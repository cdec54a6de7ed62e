"""What every issuer must do, whatever it issues credentials for.

An issuer's tests inherit `IssuerContract` and bring three fixtures:

    issuer     the Issuer
    database   a `Database` that looks and acts past the issuer (of PostgreSQL: `gateway.contracts.postgres`)
    outage     a `Outage` that takes the issuer away for good
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from gateway.contracts.waiting import GONE_SECONDS, SECONDS, eventually, within
from gateway.credentials import Issuer
from gateway.errors import CredentialsUnavailable
from gateway.model import CredentialSpec, Holder, Lease, SessionId

TTL_SECONDS = 5


class Cut(Exception):
    """The server has ended the connection, or does not give one."""


class Connection(Protocol):
    """The server as the person, with what they were given."""

    async def read(self) -> None:
        """Something that the role may.  Raises Cut."""
        ...

    async def write(self) -> list[str]:
        """Try each thing that the role may not do; those that were done all the same."""
        ...

    async def hang(self) -> None:
        """Run something that takes a minute.  Raises Cut."""
        ...

    async def close(self) -> None: ...


class Database(Protocol):
    """The server itself, asked as its superuser."""

    def credential(self, *, ttl_seconds: int = TTL_SECONDS, role: str = "") -> CredentialSpec:
        """For a role that reads and does not write, unless another is named."""
        ...

    async def roles(self) -> set[str]:
        """Every role that an issuer may have made."""
        ...

    async def connected(self, lease: Lease) -> Connection:
        """Raises Cut."""
        ...

    async def take_away(self, lease: Lease) -> None:
        """End it behind the issuer's back, in a way that the issuer can see."""
        ...


Outage = Callable[[], Awaitable[None]]


def holder(session: str = "s-1") -> Holder:
    return Holder(SessionId(session), "alice", "g-1", "orders-db", f"00-{'1' * 32}-{'2' * 16}-01")


class IssuerContract:
    async def test_a_lease_reads_and_does_not_write(self, issuer: Issuer, database: Database) -> None:
        async with issuer.lease([database.credential()], holder()) as leases:
            connection = await database.connected(leases.items[0])
            try:
                await connection.read()
                assert await connection.write() == []
            finally:
                await connection.close()

    async def test_leaving_cuts_open_connections_and_takes_the_role(self, issuer: Issuer, database: Database) -> None:
        async with issuer.lease([database.credential()], holder()) as leases:
            lease = leases.items[0]
            assert lease.username in await database.roles()
            connection = await database.connected(lease)
            await connection.read()
        with pytest.raises(Cut):
            await connection.read()
        await connection.close()
        assert await database.roles() == set()
        with pytest.raises(Cut):
            await database.connected(lease)

    async def test_leaving_ends_a_statement_that_runs(self, issuer: Issuer, database: Database) -> None:
        async with issuer.lease([database.credential()], holder()) as leases:
            connection = await database.connected(leases.items[0])
            running = asyncio.ensure_future(connection.hang())
            await asyncio.wait([running], timeout=0.05)
            left = time.monotonic()
        assert time.monotonic() - left < GONE_SECONDS
        await asyncio.wait([running], timeout=1)
        assert running.done()
        assert isinstance(running.exception(), Cut)
        await connection.close()
        assert await database.roles() == set()

    async def test_leaving_after_an_error_passes_it_on(self, issuer: Issuer, database: Database) -> None:
        with pytest.raises(ZeroDivisionError):
            async with issuer.lease([database.credential()], holder()):
                raise ZeroDivisionError
        assert await database.roles() == set()

    @pytest.mark.parametrize("milliseconds", [0, 1, 3, 6, 10, 15, 25, 40, 80])
    async def test_entering_cancelled_on_the_way_leaves_nothing(
        self, issuer: Issuer, database: Database, milliseconds: int
    ) -> None:
        context = issuer.lease([database.credential()], holder())
        entering = asyncio.ensure_future(context.__aenter__())
        await asyncio.wait([entering], timeout=milliseconds / 1000)
        entering.cancel()
        await asyncio.wait([entering])
        if not entering.cancelled():  # it was faster
            await context.__aexit__(None, None, None)
        assert await database.roles() == set()

    async def test_a_session_cancelled_twice_leaves_nothing(self, issuer: Issuer, database: Database) -> None:
        inside = asyncio.Event()

        async def session() -> None:
            async with issuer.lease([database.credential()], holder()):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(session())
        await inside.wait()
        task.cancel()
        await asyncio.wait([task], timeout=0.002)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await database.roles() == set()

    async def test_a_lease_is_renewed_past_its_own_time(self, issuer: Issuer, database: Database) -> None:
        async with issuer.lease([database.credential()], holder()) as leases:
            issued = time.monotonic()

            async def is_past() -> bool:
                return time.monotonic() - issued > TTL_SECONDS + 1.5

            lost = asyncio.ensure_future(leases.wait_lost())
            assert await eventually(is_past)
            connection = await database.connected(leases.items[0])
            await connection.close()
            assert not lost.done()
            lost.cancel()

    async def test_two_sessions_share_nothing(self, issuer: Issuer, database: Database) -> None:
        async with issuer.lease([database.credential()], holder("s-1")) as one:
            async with issuer.lease([database.credential()], holder("s-2")) as two:
                assert one.items[0].username != two.items[0].username
                assert one.items[0].password != two.items[0].password
                assert one.items[0].lease_id != two.items[0].lease_id
            assert await database.roles() == {one.items[0].username}
            await (await database.connected(one.items[0])).close()

    async def test_several_credentials_are_one_session_s(self, issuer: Issuer, database: Database) -> None:
        specs = [database.credential(), database.credential()]
        async with issuer.lease(specs, holder()) as leases:
            assert [lease.spec for lease in leases.items] == specs
            assert len({lease.username for lease in leases.items}) == 2
        assert await database.roles() == set()

    async def test_no_credential_is_no_lease(self, issuer: Issuer) -> None:
        async with issuer.lease([], holder()) as leases:
            assert list(leases.items) == []

    async def test_an_unknown_role_is_refused_and_the_others_are_taken_back(
        self, issuer: Issuer, database: Database
    ) -> None:
        specs = [database.credential(), database.credential(role="no-such-role")]
        with pytest.raises(CredentialsUnavailable):
            await issuer.lease(specs, holder()).__aenter__()
        assert await database.roles() == set()

    async def test_a_lease_that_is_taken_away_outside_is_lost(self, issuer: Issuer, database: Database) -> None:
        async with issuer.lease([database.credential()], holder()) as leases:
            await database.take_away(leases.items[0])
            async with asyncio.timeout(SECONDS):
                assert await leases.wait_lost()

    async def test_a_cancelled_wait_for_loss_changes_nothing(self, issuer: Issuer, database: Database) -> None:
        async with issuer.lease([database.credential()], holder()) as leases:
            waiting = asyncio.ensure_future(leases.wait_lost())
            await asyncio.wait([waiting], timeout=0.02)
            waiting.cancel()
            await asyncio.wait([waiting])
            await (await database.connected(leases.items[0])).close()

    async def test_an_issuer_that_is_gone_refuses_within_two_seconds(
        self, issuer: Issuer, database: Database, outage: Outage
    ) -> None:
        await outage()

        async def refused(ask: Awaitable[object]) -> None:
            with pytest.raises(CredentialsUnavailable):
                await ask

        await within(2, lambda: refused(issuer.lease([database.credential()], holder()).__aenter__()))
        await within(2, lambda: refused(issuer.check()))

    async def test_an_outage_ends_the_leases_by_their_own_time(
        self, issuer: Issuer, database: Database, outage: Outage
    ) -> None:
        async with issuer.lease([database.credential()], holder()) as leases:
            await outage()
            async with asyncio.timeout(TTL_SECONDS + 3):
                assert await leases.wait_lost()

    async def test_the_password_is_in_no_log_and_no_repr(
        self, issuer: Issuer, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        async with issuer.lease([database.credential()], holder()) as leases:
            password = leases.items[0].password.get_secret_value()
            shown = repr(leases) + repr(leases.items)
        assert len(password) >= 20
        assert password not in shown
        assert password not in "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)

    async def test_a_check_passes_where_it_can_issue(self, issuer: Issuer) -> None:
        await issuer.check()
