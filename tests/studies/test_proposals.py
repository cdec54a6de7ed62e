"""The shortest change: every reason code has a refusal here, and what is proposed for it is applied and asked again."""

from __future__ import annotations

import re

import pytest

from gateway.policy.contract import Decision
from gateway.studies.engine import Change, Studied
from gateway.studies.proposals import NOTHING_FITS, Proposals, is_refused, outcome_of, proposals
from gateway.studies.register import CANDIDATES, IN_SESSIONS, NEVER
from tests.studies.refusals import REFUSALS, Refusal, certified, patched
from tests.studies.world import POLICIES, study

ASKED = ("authn", "config", "authz, live", "authz", "authz, kind `sftp`", "live", "all", "all but authn")
"""Rows of the catalogue whose codes are reasons of these decisions."""


def catalogued() -> set[str]:
    text = (POLICIES / "README.md").read_text().partition("\n## Codes\n")[2]
    rows = [line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| ")]
    return {code for name, codes in rows if name in ASKED for code in re.findall(r"`([a-z0-9_]+)`", codes)} - {"sftp"}


def test_every_code_of_the_catalogue_has_a_remedy_that_is_tried_here_or_a_reason_why_there_is_none() -> None:
    tried = {refusal.code for refusal in REFUSALS}
    assert len(catalogued()) > 45
    assert catalogued() <= CANDIDATES.keys() | NEVER.keys()
    assert not CANDIDATES.keys() & NEVER.keys()
    assert CANDIDATES.keys() <= tried <= CANDIDATES.keys() | NEVER.keys()
    nothing = {refusal.code for refusal in REFUSALS if not refusal.proposed}
    assert IN_SESSIONS.keys() <= nothing <= NEVER.keys() | IN_SESSIONS.keys()


async def faults_of(opa: Studied, refusal: Refusal) -> str:
    """What is wrong with what is proposed for the refusal; empty where nothing is."""
    tree = refusal.tree
    roots = [Change((root,), document) for root, document in tree.items()]
    removed = [Change((root,), remove=True) for root in ("grants",) if root not in tree]
    async with opa.changed([*roots, *removed]):
        answer = (await opa.ask(refusal.decision, refusal.question)).result
        outcome, reason = outcome_of(refusal.decision, answer)
        if outcome != f"{'warn' if refusal.code == 'grant_ends_soon' else 'deny'}:{refusal.code}":
            return f"it is {outcome}"
        found = await proposals(opa, tree, refusal.decision, refusal.question, reason)
        if not refusal.proposed:
            return "" if not found.found and found.why_none else f"proposed, though it should not be: {found}"
        titles = ["; and ".join(one.steps) for one in found.found]
        if not any(refusal.proposed in title for title in titles):
            return f"proposed is {titles}; tried was {found.tried}"
        for proposal in found.found:
            after = patched(tree, proposal.data)
            async with opa.changed([Change((root,), document) for root, document in after.items()]):
                asked = patched(refusal.question, proposal.question)
                outcome, _ = outcome_of(refusal.decision, (await opa.ask(refusal.decision, asked)).result)
            if is_refused(outcome) or outcome != proposal.outcome:
                return f"{proposal.steps} ends in {outcome}"
    return ""


@pytest.mark.parametrize("decision", [Decision.AUTHN, Decision.CONFIG, Decision.AUTHZ, Decision.LIVE])
async def test_what_is_proposed_is_applied_and_then_allows(decision: Decision) -> None:
    wrong = {}
    async with study() as opa:
        for number, refusal in enumerate(REFUSALS):
            if refusal.decision is decision and (fault := await faults_of(opa, refusal)):
                wrong[number, refusal.code] = fault
    assert not wrong


async def test_nobody_is_proposed_to_approve_for_themselves_nor_the_disabled() -> None:
    approvals = [one for one in REFUSALS if one.code in ("grant_not_approved", "grant_approval_over")]
    async with study() as opa:
        for refusal in approvals:
            async with opa.changed([Change((root,), document) for root, document in refusal.tree.items()]):
                _, reason = outcome_of(refusal.decision, (await opa.ask(refusal.decision, refusal.question)).result)
                found = await proposals(opa, refusal.tree, refusal.decision, refusal.question, reason)
            assert found.found
            for proposal in found.found:
                given = [one["path"].split("/")[-1] for one in proposal.data if "/approvals/" in one["path"]]
                given += [one["value"] for one in proposal.data if one["path"].endswith("/approved_by")]
                assert not {"alice", "Alice", "carol"} & set(given)


async def test_what_was_tried_in_vain_is_told_with_the_refusal_that_was_left() -> None:
    [refusal] = [one for one in REFUSALS if one.code == "no_grant" and "2 approvals" in one.proposed]
    tree = refusal.tree
    tree["people"] = {"alice": tree["people"]["alice"], "bob": tree["people"]["bob"]}
    async with study(tree) as opa, opa.changed([Change(("grants",), remove=True)]):
        _, reason = outcome_of(refusal.decision, (await opa.ask(refusal.decision, refusal.question)).result)
        found = await proposals(opa, tree, refusal.decision, refusal.question, reason)
    assert not found.found
    assert found.tried[0] == "a grant for alice on orders-db, for an hour: deny:grant_not_approved"
    assert "and the approval of the grant new-1 by bob: deny:grant_not_approved" in found.tried[1]


async def test_where_no_change_fits_that_is_told() -> None:
    forever = certified("certificate_not_yet_valid", "", {"valid_after": 2**64 - 1, "valid_before": -1})
    async with study() as opa:
        _, reason = outcome_of(forever.decision, (await opa.ask(forever.decision, forever.question)).result)
        assert reason["code"] == forever.code
        found = await proposals(opa, forever.tree, forever.decision, forever.question, reason)
    assert found == Proposals(why_none=NOTHING_FITS)
