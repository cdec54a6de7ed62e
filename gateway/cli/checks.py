"""`doorward check`: settings, policy, OPA, issuers, runtimes and images, and for each what to do."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import asyncssh
from pydantic import ValidationError

from gateway import host_keys
from gateway.audit.chain import verify
from gateway.audit.segments import closed
from gateway.authn import Checked
from gateway.backends import TRIAL, Backend, Order
from gateway.cli import FAILED, add_config, add_json, settings_of, show
from gateway.credentials import Issuer
from gateway.errors import DoorwardError, PolicyUnavailable, SettingsError
from gateway.model import WorkspaceSpec
from gateway.policy.bundles import Bundle, look
from gateway.policy.contract import Decision, common
from gateway.policy.opa import Opa
from gateway.settings import Settings
from gateway.settings_ssh import VaultHostCertificateSettings
from gateway.words import printable


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    says: str
    remedy: str = ""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser("check", help="find out whether everything the gateway needs is there; exit 1 if not")
    add_config(check)
    add_json(check)
    check.set_defaults(command=_check)


def _check(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    findings = asyncio.run(_findings(settings))
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.says}")
        if not finding.ok and finding.remedy:
            lines.append(f"      what to do: {finding.remedy}")
    show(parsed, [asdict(finding) for finding in findings], "\n".join(map(printable, lines)))
    return 0 if all(finding.ok for finding in findings) else FAILED


async def _findings(settings: Settings) -> list[Finding]:
    looks = {"state folder": _state, "host keys": _host_keys, "audit log": _audit}
    if settings.door.listen:
        looks["grants door"] = _door
    found = [Finding("settings", True, "well-formed")]
    found += [await _tried(what, partial(look, settings)) for what, look in looks.items()]
    if (host := settings.ssh.host_certificate.vault) is not None:
        found.append(await _tried("host certificate", lambda: _host_certificate(settings, host)))
    async with AsyncExitStack() as stack:
        targets: dict[str, Any] = {}
        try:
            opa = await stack.enter_async_context(Opa.open(settings.policy))
        except DoorwardError as error:
            found.append(_finding("OPA", error))
        else:
            found.append(await _tried("OPA", lambda: _opa(opa, settings)))
            if found[-1].ok:  # else each question would only say the same again
                found += [await _tried(f"policy {decision.value}", partial(_decides, opa, decision, settings))
                          for decision in Decision]  # fmt: skip
                found += await _bundles(opa)
                targets = await _targets(opa, found)
        found += await _parts(stack, settings, targets)
        found += await _verifiers(stack, settings)
        found += await _identity_providers(stack, settings)
    return found


async def _tried(what: str, look: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(what, True, await look())
    except DoorwardError as error:
        return _finding(what, error)


def _finding(what: str, error: DoorwardError) -> Finding:
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return Finding(what, False, f"{error}{cause}", error.reasons[0].remedy)


async def _state(settings: Settings) -> str:
    folder = settings.state.absolute()
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise SettingsError(f"state_dir: {there} is no folder that this user may write to", remedy="Name one that is.")
    return f"{folder} {'is there' if there == folder else 'will be made'}"


async def _host_keys(settings: Settings) -> str:
    if not settings.ssh.host_keys:
        return "one is made in state_dir on first start"
    identity = host_keys.read(settings)
    if any(map(host_keys.ended, identity.certificates)):
        raise SettingsError("ssh.host_certificates: one has ended", remedy="Have the key signed again, then SIGHUP.")
    return ", ".join(key.get_fingerprint() for key in identity.keys)


async def _host_certificate(settings: Settings, host: VaultHostCertificateSettings) -> str:
    from gateway.credentials.vault_host import HostSigner

    if settings.credentials.vault is None:
        raise SettingsError("ssh.host_certificate.vault needs credentials.vault", remedy="Say where Vault is.")
    async with HostSigner.open(settings.credentials.vault, host) as signer:
        key = asyncssh.generate_private_key("ssh-ed25519")
        await signer.sign([key.export_public_key().decode("ascii").strip()])
    return f"{host.mount} signs for {', '.join(host.principals)}"


async def _audit(settings: Settings) -> str:
    file = settings.audit_file
    if not file.exists() and not closed(file):
        return f"{file} will be made"
    try:
        faults = list(verify(file))
    except OSError as error:
        raise SettingsError(f"audit.file: {error}") from error
    if faults:
        raise DoorwardError(f"{file}: {faults[0]}", remedy="Run `doorward audit verify` and keep the file as it is.")
    return f"{file} is whole"


async def _door(settings: Settings) -> str:
    names = [name for name, client in settings.door.clients.items() if client.hashes()]
    if not names:
        raise SettingsError("door.clients is empty: nobody can write a grant", remedy="Name a client and its token.")
    return f"clients: {', '.join(names)}"


async def _opa(opa: Opa, settings: Settings) -> str:
    await opa.check()
    return f"answers at {settings.policy.url}"


async def _decides(opa: Opa, decision: Decision, settings: Settings) -> str:
    from gateway.parts import open_verifiers

    asked = {"verifiers": sorted(open_verifiers(settings))} if decision is Decision.UNFIT else {}
    answer = await opa.query(decision.asked_at, {**common(settings.instance), **asked}, {})
    if not answer.defined:
        raise PolicyUnavailable(f"{decision.value} is undefined", remedy="Load policies/ into OPA.")
    if decision is Decision.UNFIT and answer.result:
        named = "; ".join(f"{fault['entry']}: {fault['problem']}" for fault in answer.result[:5])
        raise DoorwardError(f"{len(answer.result)} entries that nobody can log in by: {named}",
                            remedy="Correct them, or set up what they name: docs/authentication.md.")  # fmt: skip
    if decision is Decision.MALFORMED and answer.result:
        named = ", ".join(f"{grant['person']}/{grant['id']}" for grant in answer.result[:5])
        raise DoorwardError(f"{len(answer.result)} grants are malformed and have no effect: {named}",
                            remedy="Write them again through the grants door, which says what is wrong.")  # fmt: skip
    return "defined"


async def _bundles(opa: Opa) -> list[Finding]:
    try:
        bundles, told = await look(opa)
    except DoorwardError as error:
        return [_finding("bundles", error)]
    found = [_bundle(bundle, told) for bundle in bundles]
    if not any(root.split("/")[0] == "gateway" for bundle in bundles for root in bundle.roots):
        found.append(
            Finding("bundles", True, "none owns `gateway`: records of decisions do not say which policy it was")
        )
    return found


def _bundle(bundle: Bundle, told: bool) -> Finding:
    what = f"bundle {bundle.name}"
    revision = f"revision {bundle.revision or '(none)'}"
    if bundle.taken:
        says = f"{revision} owns {', '.join(bundle.taken)}: what was written there is gone, and cannot be written again"
        return Finding(what, False, says, "Publish one that does not, then have the grants written again.")
    if bundle.trouble:
        says = f"{revision} stays, for the next one fails: {bundle.trouble}"
        return Finding(what, False, says, "See docs/distribution.md, section `A bundle that fails`.")
    return Finding(
        what, True, revision if told else f"{revision}; OPA does not tell of one that fails: it has no `status`"
    )


async def _targets(opa: Opa, found: list[Finding]) -> dict[str, Any]:
    """Those of which a permit can be made; the others are findings."""
    try:
        targets = await opa.read("targets") or {}
        malformed = (await opa.query("gateway/targets/malformed", {}, {})).result or []
    except DoorwardError as error:
        found.append(_finding("targets", error))
        return {}
    faults = {fault["target"]: "; ".join(fault["problems"][:5]) for fault in malformed}
    found += [
        Finding(f"target {name}", False, says, "Correct its entry: docs/reference/data.md has every field.")
        for name, says in faults.items()
    ]
    return {name: target for name, target in targets.items() if name not in faults}


async def _parts(stack: AsyncExitStack, settings: Settings, targets: dict[str, Any]) -> list[Finding]:
    from gateway.parts import open_backends, open_issuers

    found: list[Finding] = []
    backends: dict[str, Backend] = {}
    openings: tuple[tuple[str, Callable[[], Sequence[AbstractAsyncContextManager[Any]]]], ...] = (
        ("backend", partial(open_backends, settings, f"{settings.instance}-check")),
        ("issuer", partial(open_issuers, settings)),
    )
    for kind, opening in openings:
        try:
            opened = opening()
        except DoorwardError as error:
            found.append(_finding(kind, error))
            continue
        for manager in opened:
            try:
                part: Backend | Issuer = await stack.enter_async_context(manager)
            except DoorwardError as error:
                found.append(_finding(kind, error))
                continue
            found.append(await _tried(f"{kind} {part.name}", partial(_usable, part)))
            if kind == "backend":
                backends[part.name] = part  # type: ignore[assignment]  # what open_backends opens is a Backend
    found += [await _tried(f"target {name}", partial(_target, target, backends)) for name, target in targets.items()]
    return found


async def _verifiers(stack: AsyncExitStack, settings: Settings) -> list[Finding]:
    from gateway.parts import open_checked_verifiers

    found: list[Finding] = []
    for kind, manager in open_checked_verifiers(settings).items():
        try:
            verifier = await stack.enter_async_context(manager)
        except DoorwardError as error:
            found.append(_finding(f"verifier {kind}", error))
        else:
            found.append(await _tried(f"verifier {kind}", partial(_usable, verifier)))
    return found


async def _identity_providers(stack: AsyncExitStack, settings: Settings) -> list[Finding]:
    names = [*settings.authn.oidc, *settings.authn.github]
    if not names:
        return []
    from gateway.authn.oidc import OidcVerifier

    try:
        verifier = await stack.enter_async_context(OidcVerifier.open(settings.authn))
    except DoorwardError as error:
        return [_finding("identity providers", error)]
    return [await _tried(f"identity provider {name}", partial(verifier.check, name)) for name in names]


async def _usable(part: Backend | Issuer | Checked) -> str:
    await part.check()
    return "usable"


async def _target(target: dict[str, Any], backends: dict[str, Backend]) -> str:
    name = target.get("backend")
    if name not in backends:
        raise DoorwardError(f"names the backend {name!r}", remedy=f"Add [backends.{name}] to the settings.")
    fields = {key: target[key] for key in WorkspaceSpec.model_fields if key in target}
    try:
        spec = WorkspaceSpec.model_validate({**fields, "backend": name}, strict=False)
    except ValidationError as error:
        raise DoorwardError(f"is not a workspace: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
    await backends[name].check(spec)
    if spec.host is not None:
        return await _host(spec, backends[name])
    if spec.pod.beside is not None:
        return f"{name} has a ready pod in {spec.pod.beside.namespace}, and is held there to its own containers"
    return f"{name} has {spec.image}"


async def _host(spec: WorkspaceSpec, backend: Backend) -> str:
    """Logged in to, as a session would be, and left again."""
    from gateway.ssh.host import reached

    async with backend.workspace(Order(spec, TRIAL, datetime.max.replace(tzinfo=UTC))) as host, reached(host):
        return f"logged in to {host.id}"
