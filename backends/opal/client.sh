#!/bin/sh
# An OPAL client, beside each copy: takes all data from the source once a period and writes it to the copy, root by root.
# docs/distribution.md has the steps.  Needed:
#
#   COPY_URL                  the copy, such as http://127.0.0.1:8181
#   COPY_WRITER_TOKEN_FILE    its token of the role `copy_writer`
#   OPAL_SERVER_URL           the OPAL server, such as https://opal.example
#   OPAL_CLIENT_TOKEN_FILE    from `opal-client obtain-token`
#
# It serves its own health at 127.0.0.1:7000.
set -eu

OPAL_POLICY_STORE_AUTH_TOKEN=$(cat "$COPY_WRITER_TOKEN_FILE")
OPAL_CLIENT_TOKEN=$(cat "$OPAL_CLIENT_TOKEN_FILE")
export OPAL_POLICY_STORE_AUTH_TOKEN OPAL_CLIENT_TOKEN
export OPAL_POLICY_STORE_URL="$COPY_URL" OPAL_POLICY_STORE_AUTH_TYPE=token OPAL_EXCLUDE_POLICY_STORE_SECRETS=true
# What failed is not tried again by itself: the next period brings what is newer.
export OPAL_POLICY_STORE_CONN_RETRY='{"wait_strategy": "fixed", "wait_time": 0, "attempts": 1}'
export OPAL_DATA_UPDATER_CONN_RETRY="$OPAL_POLICY_STORE_CONN_RETRY" OPAL_HTTP_FETCHER_TIMEOUT="${OPAL_HTTP_FETCHER_TIMEOUT:-5}"
export OPAL_KEEP_ALIVE_INTERVAL=5
export OPAL_POLICY_UPDATER_ENABLED=false OPAL_INLINE_OPA_ENABLED=false OPAL_SPLIT_ROOT_DATA=true OPAL_LOG_COLORIZE=false
exec opal-client run
