"""What the embedded PostgreSQL holds: a table worth reading, the group that may read it, and the issuer's own role."""

from __future__ import annotations

from pathlib import Path

import asyncpg

DATABASE = "orders"
ISSUER = "doorward_issuer"
_READY = "SELECT to_regclass('public.orders') IS NOT NULL AND EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
SAMPLE = Path(__file__).parent / "orders.sql"
_ISSUER = """
CREATE ROLE doorward_issuer LOGIN CREATEROLE NOCREATEDB NOREPLICATION;
GRANT pg_signal_backend TO doorward_issuer;
GRANT CONNECT ON DATABASE orders TO doorward_issuer;
"""
_OPTIONS = "GRANT readers TO doorward_issuer WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
_SINCE_OPTIONS = 160000


async def prepare(maintenance_dsn: str, dsn: str, issuer_password: str) -> None:
    """Bring the sample in, all or nothing, where it is not yet; and give the issuer the password that is noted."""
    connection = await asyncpg.connect(maintenance_dsn)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()
    connection = await asyncpg.connect(dsn)
    try:
        if not await connection.fetchval(_READY, ISSUER):
            async with connection.transaction():
                await connection.execute(SAMPLE.read_text() + _ISSUER)
                if int(await connection.fetchval("SHOW server_version_num")) >= _SINCE_OPTIONS:
                    await connection.execute(_OPTIONS)
                await connection.execute("SET LOCAL log_statement = 'none'")
                # A literal, since ALTER ROLE takes no parameters; the password is token_urlsafe's alphabet only.
                await connection.execute(f"ALTER ROLE {ISSUER} PASSWORD '{issuer_password}'")
    finally:
        await connection.close()
