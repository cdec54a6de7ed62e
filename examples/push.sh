#!/bin/sh
# A ticketing system that deletes a grant straight at OPA, and then has the gateway look at once.  OPA and ADMIN are the
# addresses of OPA and of the gateway's admin API; OPA_HEADER and HEADER files with `Authorization: Bearer <token>`.
set -eu
curl -sS --fail-with-body -X DELETE -H @"$OPA_HEADER" "$OPA/v1/data/grants/alice/INC-1"
curl -sS --fail-with-body -X POST -H @"$HEADER" "$ADMIN/v1/reevaluate?person=alice"
