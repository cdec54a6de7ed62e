#!/bin/sh
# The OPAL server: tells the client of each copy where the source is.  One for all copies; docs/distribution.md has the
# steps.  Whoever may read its configuration may read the data, so it knows each client by a token.  Needed:
#
#   SOURCE_URL                the OPA that is written, such as https://opa-a.example:8181
#   COPY_READER_TOKEN_FILE    its token of the role `copy_reader`
#   COPY_ROOTS                what is copied, such as '["grants", "approvals"]'; absent: all data
#   COPY_PERIOD_SECONDS       how often, 1 if absent
#   COPY_USABLE_SECONDS       how long a copy is judged by that hears nothing, 60 if absent
#   OPAL_AUTH_PRIVATE_KEY, OPAL_AUTH_PUBLIC_KEY    files of an RSA key, which signs the clients' tokens
#   OPAL_MASTER_TOKEN_FILE    what a client's token is asked for with
#
# It listens at 127.0.0.1:7002, in the clear: end TLS in front of it.
set -eu

reader=$(cat "$COPY_READER_TOKEN_FILE")
asked="{\\\"seconds\\\": ${COPY_USABLE_SECONDS:-60}"
[ -z "${COPY_ROOTS:-}" ] || asked="$asked, \\\"roots\\\": $(printf %s "$COPY_ROOTS" | sed 's/"/\\"/g')"
asked="$asked}"

OPAL_AUTH_MASTER_TOKEN=$(cat "$OPAL_MASTER_TOKEN_FILE")
OPAL_DATA_CONFIG_SOURCES=$(cat <<CONFIG
{"config": {"entries": [{
  "url": "$SOURCE_URL/v0/data/gateway/copies/taken",
  "config": {"method": "post", "headers": {"Authorization": "Bearer $reader"}, "data": "$asked"},
  "dst_path": "/",
  "periodic_update_interval": ${COPY_PERIOD_SECONDS:-1}
}]}}
CONFIG
)
export OPAL_AUTH_MASTER_TOKEN OPAL_DATA_CONFIG_SOURCES
export OPAL_AUTH_PUBLIC_KEY_FORMAT=pem OPAL_REPO_WATCHER_ENABLED=false OPAL_SERVER_WORKER_COUNT=1 OPAL_LOG_COLORIZE=false
exec opal-server run
