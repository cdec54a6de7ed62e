"""Candidates where it is the login that lacks: who it is, what was proven, where it goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from gateway.studies.engine import Change
from gateway.studies.proofs import mapping
from gateway.studies.remedies import HOUR, Case, Step, moment_of

KNOWN_OPTIONS = ("force-command", "source-address", "verify-required")
CERTIFICATE = ("attempt", "certificate")


def enable(case: Case) -> Iterator[Step]:
    entry = case.of("people", case.person)
    if isinstance(entry, Mapping) and entry.get("disabled", False) is not False:
        yield Step(
            f"enable {case.person}'s account again",
            (Change(("people", case.person, "disabled"), False),),
            note="Ask those who keep the accounts why it was disabled.",
        )


def register_key(case: Case) -> Iterator[Step]:
    entry, key = case.of("people", case.person), case.get("attempt", "key", "public_key")
    if isinstance(entry, Mapping) and isinstance(key, str) and case.get(*CERTIFICATE) is None:
        keys = entry.get("keys") if isinstance(entry.get("keys"), list) else []
        yield Step(
            f"register this key for {case.person}",
            (Change(("people", case.person, "keys"), [*(keys or ()), key]),),
            note="Only if they tell you, by another way, that the key is theirs.",
        )


def choose_target(case: Case) -> Iterator[Step]:
    for target in sorted({str(grant.get("target")) for grant in case.grants.values() if grant.get("target")}):
        yield Step(
            f"say where to: ssh {case.person}+{target}@door",
            question=(Change(("login", "user"), f"{case.person}+{target}"),),
        )


def prove_more(case: Case) -> Iterator[Step]:
    """What the target requires and was not proven, the fewest first."""
    via = [factor for factor in case.get("identity", "via") or () if isinstance(factor, str)]
    targets = {case.target_of(grant) for grant in case.grants.values()} if not case.named else {case.named}
    for target in sorted(targets):
        wanted = case.of("targets", target, "require")
        chains = [chain for chain in wanted if isinstance(chain, list)] if isinstance(wanted, list) else []
        lacking = [[factor for factor in chain if factor not in via] for chain in chains]
        for more in sorted(lacking, key=len):
            yield Step(
                f"prove {' and '.join(map(str, more))} too: ssh {case.person}+{target}@door",
                question=(Change(("identity", "via"), [*via, *more]),),
                note="What is to be proven is asked for where the target is named in the login.",
            )


def log_in_unforced(case: Case) -> Iterator[Step]:
    yield Step(
        "log in by a key, or by a certificate without a forced command",
        question=(Change(("identity", "force_command"), ""),),
    )


def permission(case: Case) -> Iterator[Step]:
    restrictions = [one for one in case.get("identity", "restrictions") or () if isinstance(one, str)]
    for word in restrictions:
        yield Step(
            f"log in by a certificate with permit-{word}",
            question=(Change(("identity", "restrictions"), [one for one in restrictions if one != word]),),
        )


def use_hardware(case: Case) -> Iterator[Step]:
    """What a security key can say of its use; that it is one, no question can change."""
    key = ("attempt", "key")
    if str(case.get(*key, "public_key")).startswith("sk-"):
        touched, pin = Change((*key, "touched"), True), Change((*key, "pin_verified"), True)
        yield Step("touch the security key", question=(touched,))
        yield Step("give the security key's PIN", question=(pin,))
        yield Step("touch the security key, and give its PIN", question=(touched, pin))


# -- certificates -----------------------------------------------------------------------------------------------------


def log_in_as_named(case: Case) -> Iterator[Step]:
    _, plus, target = case.login.partition("+")
    for principal in case.get(*CERTIFICATE, "principals") or ():
        if isinstance(principal, str) and principal in mapping(case.of("people")):
            yield Step(
                f"log in as {principal}, whom the certificate names",
                question=(Change(("login", "user"), f"{principal}{plus}{target}"),),
            )


def valid_later(case: Case) -> Iterator[Step]:
    after = case.get(*CERTIFICATE, "valid_after")
    if isinstance(after, int) and (moment := moment_of(after)):
        yield Step(f"wait until {moment:%Y-%m-%d %H:%M:%S} UTC, when the certificate begins",
                   question=case.asked_at(moment))  # fmt: skip


def renewed(case: Case) -> Iterator[Step]:
    before = int(case.now.timestamp()) + HOUR
    yield Step("have a new certificate signed", question=(Change((*CERTIFICATE, "valid_before"), before),))


def from_there(case: Case) -> Iterator[Step]:
    text = case.get(*CERTIFICATE, "critical_options", "source-address")
    for place in str(text).split(",")[:8]:
        try:
            network = ip_network(place, strict=False)
        except ValueError:
            continue
        address = str(network[0] if network.num_addresses == 1 else network[1])
        yield Step(
            f"connect from {place}, which the certificate is for",
            question=(Change(("connection", "client_address"), address),),
        )


def without_option(case: Case) -> Iterator[Step]:
    options: Mapping[str, Any] = mapping(case.get(*CERTIFICATE, "critical_options"))
    kept = {name: value for name, value in options.items() if name in KNOWN_OPTIONS}
    if more := sorted(options.keys() - kept.keys()):
        yield Step(
            f"have a certificate signed without the critical option {', '.join(more)}",
            question=(Change((*CERTIFICATE, "critical_options"), kept),),
        )
