"""The Vault issuer against a real Vault and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from gateway.contracts.issuer import IssuerContract, Outage
from gateway.contracts.postgres import PostgresDatabase
from gateway.credentials import Issuer
from gateway.credentials.vault import VaultIssuer
from gateway.credentials.vault_client import Issued, parsed
from gateway.deliveries import PostgresDelivery
from gateway.errors import CredentialsUnavailable
from gateway.model import CredentialSpec, Holder, Lease, SessionId
from gateway.sections import SecretRef
from gateway.settings import VaultSettings
from tests.reading import records
from tests.stack.postgres import Postgres, postgres
from tests.stack.process import write_secret
from tests.stack.vault import Vault, vault

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HOLDER = Holder(SessionId("s-1"), person="alice", grant="g-1", target="orders", traceparent=TRACEPARENT)
READERS = """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readers;"""
REVOKE = Path(__file__).parents[2] / "secrets/vault/database/orders-readonly.revoke.sql"
ROLES = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'"
TTL = 5
IN_TIME = 3.0
"""The settings' 2 s, and what a machine that is busy compiling may add."""


@dataclass(frozen=True)
class Stack:
    postgres: Postgres
    vault: Vault
    audit: Path

    def settings(self, **changes: object) -> VaultSettings:
        token = SecretRef(file=self.vault.gateway_token_file)
        return VaultSettings.model_validate({"url": self.vault.url, "token": token, **changes})

    def roles(self) -> list[str]:
        return self.postgres.sql(ROLES).splitlines()

    def backends(self) -> str:
        return self.postgres.sql(r"SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-%'")

    def token_requests(self, session: str) -> list[dict[str, object]]:
        """What Vault recorded for this session's own token, and for its making."""
        mine = [line for line in records(self.audit) if line["type"] == "request"]
        return [line for line in mine if session in json.dumps(line)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    with postgres(directory / "postgres") as database, vault(directory / "vault", database) as server:
        audit = directory / "audit.jsonl"
        _add_roles(server)
        client = server.client()
        client.sys.enable_audit_device("file", options={"file_path": str(audit), "log_raw": "true"})
        client.adapter.put("/v1/sys/config/auditing/request-headers/traceparent", json={"hmac": False})
        yield Stack(database, server, audit)


@pytest.fixture
def own(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A Vault of the test's own, to seal and to stop."""
    with vault(tmp_path / "vault", stack.postgres) as server:
        yield Stack(stack.postgres, server, stack.audit)


def _add_roles(server: Vault) -> None:
    """Database roles with a hair: one renewed often, one that cannot live long, one slow to make."""
    client = server.client()
    slow = f"SELECT pg_sleep(1); {READERS}"
    for name, ttl, longest, create in (
        ("orders-renewed", 4, 600, READERS), ("orders-capped", 3, 6, READERS), ("orders-slow", 600, 600, slow),
        ("orders-stuck", 600, 600, slow.replace("(1)", "(4)")),
    ):  # fmt: skip
        body = {"db_name": "orders", "default_ttl": ttl, "max_ttl": longest, "creation_statements": [create]}
        client.adapter.put(f"/v1/database/roles/{name}", json={**body, "revocation_statements": [REVOKE.read_text()]})
    policy = client.sys.read_policy("doorward-session")["data"]["rules"]
    for name in ("renewed", "capped", "slow", "stuck", "absent"):
        policy += f'path "database/creds/orders-{name}" {{ capabilities = ["read"] }}\n'
    client.sys.create_or_update_policy("doorward-session", policy)


def spec(role: str = "readonly", name: str = "orders", ttl: int = TTL) -> CredentialSpec:
    where = PostgresDelivery(host="orders-db", port=5432, dbname="orders")
    return CredentialSpec(name=name, issuer="vault", role=f"orders-{role}", ttl_seconds=ttl, deliver=where)


@asynccontextmanager
async def connected(stack: Stack, lease: Lease) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host=stack.postgres.host, port=stack.postgres.port, database=stack.postgres.database,
        user=lease.username, password=lease.password.get_secret_value(), ssl=False,
    )  # fmt: skip
    try:
        yield connection
    finally:
        connection.terminate()


@asynccontextmanager
async def through_a_proxy(stack: Stack, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[object]]]:
    """Port of a proxy before Vault, and the connections made to it."""
    vault_port = int(stack.vault.url.rpartition(":")[2])
    opened: list[object] = []
    pumps: list[asyncio.Future[tuple[None, None]]] = []

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await source.read(65536):
                sink.write(data)
        sink.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await sink.wait_closed()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", vault_port)
        pumps.append(asyncio.gather(copy(reader, to_writer), copy(to_reader, writer)))

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=tls) as proxy:
        yield proxy.sockets[0].getsockname()[1], opened
        await asyncio.gather(*pumps)


async def eventually(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.05)


async def refusal(issuer: Issuer, *specs: CredentialSpec) -> tuple[CredentialsUnavailable, float]:
    began = time.monotonic()
    with pytest.raises(CredentialsUnavailable) as refused:
        async with issuer.lease(specs, HOLDER):
            pass
    return refused.value, time.monotonic() - began


class PastTheIssuer(PostgresDatabase):
    """The database as the contract wants to look at it."""

    def __init__(self, postgres: Postgres) -> None:
        super().__init__(postgres.host, postgres.port)
        self._postgres = postgres

    async def roles(self) -> set[str]:
        return set(self._postgres.sql(ROLES).splitlines())

    async def run(self, statement: str) -> None:
        self._postgres.sql(statement)


class TestContract(IssuerContract):
    @pytest.fixture
    def mine(self, stack: Stack, request: pytest.FixtureRequest) -> Iterator[Stack]:
        """The shared stack, or one whose Vault may be taken away."""
        yield request.getfixturevalue("own") if "outage" in request.fixturenames else stack
        for name in stack.roles():  # of a Vault that is no more
            stack.postgres.sql(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')

    @pytest.fixture
    async def issuer(self, mine: Stack) -> AsyncIterator[Issuer]:
        async with VaultIssuer.open(mine.settings()) as issuer:
            yield issuer

    @pytest.fixture
    def database(self, mine: Stack) -> PastTheIssuer:
        return PastTheIssuer(mine.postgres)

    @pytest.fixture
    def outage(self, mine: Stack) -> Outage:
        async def end() -> None:
            mine.vault.process.end()

        return end


# --- kept


async def test_a_lease_works_inside_and_is_gone_with_its_connections_after(stack: Stack) -> None:
    async with VaultIssuer.open(stack.settings()) as issuer:
        async with issuer.lease([spec(), spec(name="again")], HOLDER) as leases:
            assert [lease.spec.name for lease in leases.items] == ["orders", "again"]
            assert len({lease.username for lease in leases.items}) == 2
            manager = connected(stack, leases.items[0])
            connection = await manager.__aenter__()
            assert await connection.fetchval("SELECT current_user") == leases.items[0].username
        assert stack.roles() == []
        assert stack.backends() == "0"
        await manager.__aexit__(None, None, None)


async def test_no_credentials_ask_vault_for_nothing(stack: Stack) -> None:
    async with VaultIssuer.open(stack.settings(url="http://127.0.0.1:1")) as issuer, issuer.lease([], HOLDER) as leases:
        assert list(leases.items) == []


async def test_the_roles_end_in_postgresql_follows_the_renewals(stack: Stack) -> None:
    query = "SELECT rolvaliduntil FROM pg_roles WHERE rolname LIKE 'v-%'"
    async with VaultIssuer.open(stack.settings()) as issuer, issuer.lease([spec("renewed")], HOLDER) as leases:
        first = stack.postgres.sql(query)
        await eventually(lambda: stack.postgres.sql(query) > first, 10)
        past = "SELECT now() > timestamptz '{}'".format(first)  # noqa: UP032  # the first end is over
        await eventually(lambda: stack.postgres.sql(past) == "t", 15)
        async with connected(stack, leases.items[0]) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_a_lease_that_cannot_live_longer_is_told_lost_before_it_ends(stack: Stack) -> None:
    async with (
        VaultIssuer.open(stack.settings()) as issuer,
        issuer.lease([spec("capped")], HOLDER) as leases,
        connected(stack, leases.items[0]) as connection,
    ):
        began = time.monotonic()
        assert "'orders' cannot be kept: it has reached the longest life" in await leases.wait_lost()
        assert 3 < time.monotonic() - began < 6
        assert await connection.fetchval("SELECT 1") == 1


async def test_every_request_carries_the_trace_and_the_token_knows_its_session(stack: Stack) -> None:
    holder = Holder(SessionId("s-trace"), person="alice", grant="g-1", target="orders", traceparent=TRACEPARENT)
    async with VaultIssuer.open(stack.settings()) as issuer, issuer.lease([spec("renewed")], holder):
        await eventually(lambda: any("sys/leases/renew" in json.dumps(r) for r in stack.token_requests("s-trace")), 5)
    requests = [line["request"] for line in stack.token_requests("s-trace")]
    paths = {request["path"] for request in requests}  # type: ignore[index]
    assert paths >= {
        "auth/token/create/doorward-session", "database/creds/orders-renewed", "auth/token/renew-self",
        "sys/leases/renew", "sys/leases/revoke", "auth/token/revoke-self",
    }  # fmt: skip
    assert all(request["headers"]["traceparent"] == [TRACEPARENT] for request in requests)  # type: ignore[index]


async def test_connections_to_vault_are_kept_and_shared(stack: Stack) -> None:
    async with through_a_proxy(stack) as (port, opened):
        async with VaultIssuer.open(stack.settings(url=f"http://127.0.0.1:{port}")) as issuer:
            for _ in range(10):
                async with issuer.lease([spec()], HOLDER):
                    pass
        assert len(opened) <= 2  # one more while the gateway's own token is renewed


async def test_vaults_certificate_must_be_of_the_ca_in_the_settings(stack: Stack, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 1 -subj /CN=vault"
    words = [*request.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    await asyncio.to_thread(subprocess.run, words, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with through_a_proxy(stack, tls) as (port, _):
        url = f"https://127.0.0.1:{port}"
        async with VaultIssuer.open(stack.settings(url=url, ca_file=certificate)) as issuer:
            await issuer.check()
        async with VaultIssuer.open(stack.settings(url=url)) as issuer:
            assert (await refusal(issuer, spec()))[0].reasons[0].code == "vault_untrusted"


# --- gone


ABANDON = """
import asyncio, sys
from gateway.credentials.vault import VaultIssuer
from gateway.settings import VaultSettings
from tests.credentials.test_vault import HOLDER, spec

async def main():
    async with VaultIssuer.open(VaultSettings.model_validate_json(sys.argv[1])) as issuer:
        async with issuer.lease([spec()], HOLDER) as leases:
            lease = leases.items[0]
            print(lease.username, lease.password.get_secret_value(), flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_gateway_leaves_no_role_and_no_connection_after_the_ttl(stack: Stack) -> None:
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ABANDON, stack.settings().model_dump_json(), stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert gateway.stdout is not None
    user, password = (await gateway.stdout.readline()).decode().split()
    connection = await asyncpg.connect(
        host=stack.postgres.host, port=stack.postgres.port, database="orders", user=user, password=password, ssl=False
    )
    gateway.kill()
    await gateway.wait()
    assert stack.roles() == [user]
    await eventually(lambda: not stack.roles() and stack.backends() == "0", TTL + 4)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")


async def test_a_cancelled_enter_leaves_nothing(stack: Stack) -> None:
    async with VaultIssuer.open(stack.settings()) as issuer:
        entering = asyncio.ensure_future(issuer.lease([spec("slow", ttl=600)], HOLDER).__aenter__())
        busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(1)%'"
        await eventually(lambda: int(stack.postgres.sql(busy)) > 1, 5)  # ours, and the asking itself
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
    assert stack.roles() == []


async def test_a_database_that_is_slow_is_a_refusal_in_time_and_leaves_nothing(stack: Stack) -> None:
    async with VaultIssuer.open(stack.settings()) as issuer:
        error, seconds = await refusal(issuer, spec("stuck", ttl=600))
        assert error.reasons[0].code == "vault_unreachable"
        assert seconds < IN_TIME
    await eventually(lambda: not stack.roles(), 10)
    busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(4)%'"
    await eventually(lambda: stack.postgres.sql(busy) == "1", 10)
    assert stack.roles() == []


async def test_one_role_unknown_leaves_none_of_the_others(stack: Stack) -> None:
    async with VaultIssuer.open(stack.settings()) as issuer:
        error, seconds = await refusal(issuer, spec(ttl=600), spec("absent", ttl=600))
    assert error.reasons[0].code == "credential_role_unknown"
    assert "orders-absent" in error.reasons[0].message
    assert seconds < 1
    assert stack.roles() == []


async def test_a_role_the_policy_does_not_name_is_denied(stack: Stack) -> None:
    async with VaultIssuer.open(stack.settings()) as issuer:
        error, _ = await refusal(issuer, spec("elsewhere"))
    assert error.reasons[0].code == "vault_denied"


# --- Vault in trouble


async def test_vault_down_or_sealed_is_a_refusal_that_says_so(own: Stack) -> None:
    async with VaultIssuer.open(own.settings()) as issuer:
        own.vault.client().sys.seal()
        assert (await refusal(issuer, spec()))[0].reasons[0].code == "vault_sealed"
        with pytest.raises(CredentialsUnavailable, match="sealed"):
            await issuer.check()
        own.vault.process.end()
        assert (await refusal(issuer, spec()))[0].reasons[0].code == "vault_unreachable"
        with pytest.raises(CredentialsUnavailable, match="did not answer"):
            await issuer.check()


async def test_a_vault_that_hangs_is_a_refusal_in_time(own: Stack) -> None:
    async with VaultIssuer.open(own.settings()) as issuer:
        os.kill(own.vault.process.pid, signal.SIGSTOP)
        try:
            refusals = await asyncio.gather(*(refusal(issuer, spec()) for _ in range(40)))
        finally:
            os.kill(own.vault.process.pid, signal.SIGCONT)
    assert {error.reasons[0].code for error, _ in refusals} == {"vault_unreachable"}
    assert max(seconds for _, seconds in refusals) < IN_TIME
    await eventually(lambda: not own.roles(), 10)


async def test_a_session_lives_through_a_pause_of_vault(own: Stack) -> None:
    settings = own.settings(timeout_seconds=0.5)
    async with VaultIssuer.open(settings) as issuer, issuer.lease([spec(ttl=8)], HOLDER) as leases:
        os.kill(own.vault.process.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(leases.wait_lost(), 4)
        os.kill(own.vault.process.pid, signal.SIGCONT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(leases.wait_lost(), 9)


async def test_a_vault_that_stays_down_is_told_before_the_end_and_exit_is_bounded(
    own: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    async with VaultIssuer.open(own.settings()) as issuer:
        async with issuer.lease([spec()], HOLDER) as leases:
            lease, began = leases.items[0], time.monotonic()
            own.vault.process.end()
            assert "Vault did not renew it in time" in await leases.wait_lost()
            assert 3 < time.monotonic() - began < TTL
            began = time.monotonic()
        assert time.monotonic() - began < 10
    logged = [record for record in caplog.records if record.message == "lease_not_revoked"]
    assert [vars(record)["lease_id"] for record in logged] == [lease.lease_id]
    assert logged[0].levelno == logging.ERROR
    user = lease.username  # its Vault is no more, so nobody else will
    own.postgres.sql(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')


def new_token(stack: Stack, period: str) -> str:
    made = stack.vault.client().auth.token.create(policies=["doorward-gateway"], period=period, no_default_policy=True)
    return str(made["auth"]["client_token"])


async def test_a_revoked_gateway_token_ends_its_sessions_and_a_new_one_in_the_file_is_taken(
    stack: Stack, tmp_path: Path
) -> None:
    token = write_secret(tmp_path / "token", new_token(stack, "1h"))
    async with VaultIssuer.open(stack.settings(token=SecretRef(file=token))) as issuer:
        async with issuer.lease([spec()], HOLDER) as leases:
            stack.vault.client().auth.token.revoke(token.read_text())
            assert "was revoked" in await asyncio.wait_for(leases.wait_lost(), TTL)
        assert (await refusal(issuer, spec()))[0].reasons[0].code == "vault_denied"
        with pytest.raises(CredentialsUnavailable, match="lookup-self"):
            await issuer.check()
        token.unlink()
        assert (await refusal(issuer, spec()))[0].reasons[0].code == "vault_token_missing"
        write_secret(token, new_token(stack, "1h"))
        await issuer.check()
        async with issuer.lease([spec()], HOLDER):
            pass


async def test_the_gateways_token_and_a_replaced_one_in_use_are_kept_alive(stack: Stack, tmp_path: Path) -> None:
    token = write_secret(tmp_path / "token", new_token(stack, "7s"))
    async with VaultIssuer.open(stack.settings(token=SecretRef(file=token))) as issuer:
        async with issuer.lease([spec()], HOLDER) as leases:
            write_secret(token, new_token(stack, "7s"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(leases.wait_lost(), 12)
        await issuer.check()


# --- told


@pytest.mark.parametrize("path", ["sys/leases/renew", "sys/leases/revoke", "auth/token/renew-self"])
async def test_check_names_the_path_that_the_session_policy_lacks(own: Stack, path: str) -> None:
    client = own.vault.client()
    rules = client.sys.read_policy("doorward-session")["data"]["rules"]
    async with VaultIssuer.open(own.settings()) as issuer:
        await issuer.check()
        client.sys.create_or_update_policy("doorward-session", rules.replace(f'"{path}"', '"nowhere"'))
        with pytest.raises(CredentialsUnavailable, match=path) as refused:
            await issuer.check()
        assert "secrets/vault" in refused.value.reasons[0].remedy


async def test_no_secret_is_logged_or_shown(stack: Stack, own: Stack, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with VaultIssuer.open(own.settings()) as issuer:
        async with issuer.lease([spec()], HOLDER) as leases:
            lease = leases.items[0]
            secrets = [lease.password.get_secret_value(), own.vault.gateway_token(), "hvs."]
            shown = [repr(issuer), repr(leases), repr(lease), str(lease)]
        own.vault.process.end()
        error: BaseException | None = (await refusal(issuer, spec()))[0]
        while error is not None:
            shown += [repr(error), str(vars(error))]
            assert getattr(error, "request", None) is None
            error = error.__cause__ or error.__context__
    shown += [str(vars(record)) for record in caplog.records]
    assert [secret for secret in secrets for text in shown if secret in text] == []


def test_an_answer_that_does_not_fit_is_in_no_error() -> None:
    with pytest.raises(CredentialsUnavailable) as caught:
        parsed(Issued, {"lease_id": "", "lease_duration": 60, "data": {"username": "u", "password": "s3cr3t"}})

    assert caught.value.reasons[0].code == "vault_unexpected"
    # What pydantic complains with holds all that came, whether or not its text shows it.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
