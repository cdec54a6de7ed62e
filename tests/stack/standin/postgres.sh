#!/bin/sh
# What the published PostgreSQL image's entry point does, as far as docker-compose.opa.yaml relies on it.
set -eu
PGDATA=/var/lib/postgresql/data
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
export PGDATA PATH
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown postgres "$PGDATA" /var/run/postgresql
    chmod 0700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --clear-groups sh "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # shellcheck disable=SC2086
    initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait start --options="-c listen_addresses="
    createdb --username=postgres "$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sql) psql -v ON_ERROR_STOP=1 --username=postgres --dbname="$POSTGRES_DB" --file="$file" ;;
            *.sh) sh "$file" ;;
        esac
    done
    pg_ctl --wait --mode=fast stop
fi
exec "$@" -c listen_addresses='*'
