"""What the embedded PostgreSQL holds: a table worth reading, the group that may read it, and the issuer's own role."""

from __future__ import annotations

import asyncpg

DATABASE = "orders"
ISSUER = "doorward_issuer"
_READY = "SELECT to_regclass('public.orders') IS NOT NULL AND EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
_SAMPLE = """
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    item text NOT NULL,
    cents integer NOT NULL CHECK (cents >= 0),
    status text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'paid', 'sent', 'stuck')),
    placed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO orders (customer, item, cents, status) VALUES
    ('Ada', 'lamp', 4900, 'paid'),
    ('Grace', 'desk', 25900, 'sent'),
    ('Linus', 'chair', 8900, 'stuck'),
    ('Barbara', 'shelf', 12900, 'new');
CREATE ROLE readers NOLOGIN;
REVOKE ALL ON DATABASE orders FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE orders TO readers;
GRANT USAGE ON SCHEMA public TO readers;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO readers;
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
                await connection.execute(_SAMPLE)
                if int(await connection.fetchval("SHOW server_version_num")) >= _SINCE_OPTIONS:
                    await connection.execute(_OPTIONS)
                await connection.execute("SET LOCAL log_statement = 'none'")
                # A literal, since ALTER ROLE takes no parameters; the password is token_urlsafe's alphabet only.
                await connection.execute(f"ALTER ROLE {ISSUER} PASSWORD '{issuer_password}'")
    finally:
        await connection.close()
