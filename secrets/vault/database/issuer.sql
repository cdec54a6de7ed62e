-- Run once per database server, as superuser: the role that Vault (or the embedded issuer) connects as.
--   ISSUER_PASSWORD=... psql -f issuer.sql     (psql 14 or newer, for \set ON_ERROR_STOP on
\getenv password ISSUER_PASSWORD
CREATE ROLE doorward_issuer LOGIN CREATEROLE NOCREATEDB NOREPLICATION PASSWORD :'password';
GRANT pg_signal_backend TO doorward_issuer;
SELECT format('GRANT CONNECT ON DATABASE %I TO doorward_issuer', current_database()) \gexec
SELECT current_setting('server_version_num')::int >= 160000 AS has_grant_options \gset
\if :has_grant_options
    GRANT readers TO doorward_issuer WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
\endif
