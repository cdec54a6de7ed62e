"""`doorward grants lint`: what was written straight to OPA and has no effect, for CI and for the curious."""

from __future__ import annotations

import argparse

from pydantic import TypeAdapter, ValidationError

from gateway.cli import FAILED, settings_of, show, table
from gateway.cli.admin import opa
from gateway.errors import PolicyUnavailable
from gateway.policy.contract import Decision, MalformedGrant, common

FOUND = TypeAdapter(tuple[MalformedGrant, ...])


def add_to(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    linting = actions.add_parser("lint", help="list grants in OPA that have no effect; exit status 1: there are some")
    linting.set_defaults(command=_lint)
    return linting


def _lint(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    answer = opa(settings, "POST", Decision.MALFORMED.value, {"input": common(settings.instance)})
    try:
        # A rule that is undefined is a policy of somebody else's, and no clean bill.
        found = FOUND.validate_python(answer["result"], strict=False)
    except (KeyError, ValidationError) as error:
        raise PolicyUnavailable(
            "this OPA's policy does not say which grants are malformed", code="policy_undefined"
        ) from error
    rows = [[grant.person, grant.id, ", ".join(map(str, grant.problems))] for grant in found]
    value = {"malformed": [grant.model_dump(mode="json") for grant in found]}
    show(parsed, value, table(rows, ["PERSON", "GRANT", "PROBLEMS"]) if rows else "every grant is well-formed")
    return FAILED if rows else 0
