#!/bin/sh
# Run by PostgreSQL's image at its first start, after the sample database: the role that Vault connects as.
set -eu
ISSUER_PASSWORD=$(cat /run/secrets/issuer-password)
export ISSUER_PASSWORD
psql -v ON_ERROR_STOP=1 --username postgres --dbname "$POSTGRES_DB" --file /issuer.sql
