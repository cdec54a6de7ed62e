"""THE STORY of one session: permit -> credentials and workspace -> relay -> gone.

It names no vendor.  Everything that can end a session is one line of `_until_it_ends`; everything that is held is held
by `async with`, so every way out lets go of all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from gateway.audit.journal import Journal
from gateway.backends import CREDENTIALS_DIR, Backend, Order, Workspace
from gateway.clocks import Clocks
from gateway.concurrency import background, each, first_done, together
from gateway.credentials import Issuer, Leases
from gateway.credentials.delivery import delivery
from gateway.errors import CredentialsUnavailable, DoorwardError, GatewayShutdown, SessionEnded, WorkspaceUnavailable
from gateway.live import Live
from gateway.model import CredentialSpec, Holder, Permit, Reason, SessionId
from gateway.narration import Narration, narrated, notice
from gateway.obliged import Obligations
from gateway.parties import Agent, Client, Connect
from gateway.policy import Configured, Policy
from gateway.policy.census import Census, NoRoom
from gateway.telemetry import Step
from gateway.verdicts import LiveEntry

log = logging.getLogger(__name__)

CUT_OFF_SECONDS = 3.0
"""So long the runtime may take to say why.  A kubelet looks at its containers once a second, then tells the cluster:
0.7 to 1.2 s after the connection's end."""


class Sessions:
    """Tells the story for each connection."""

    def __init__(
        self,
        policy: Policy,
        backends: Mapping[str, Backend],
        issuers: Mapping[str, Issuer],
        connect: Connect,
        live: Live,
        obligations: Obligations,
        census: Census,
    ) -> None:
        self._policy = policy
        self._backends = backends
        self._issuers = issuers
        self._connect = connect
        self._live = live
        self._obligations = obligations
        self._census = census

    async def handle(self, session: SessionId, client: Client, journal: Journal) -> None:
        """The boundary: only cancellation leaves it, and then the client has been told."""
        try:
            await first_done(self._run(session, client, journal), client.wait_abandoned())
        except DoorwardError as error:
            client.end(error)
        except BaseException as error:
            is_cut = isinstance(error, asyncio.CancelledError)  # by a gateway that ends, and nobody else
            client.end(GatewayShutdown() if is_cut else DoorwardError("the gateway failed; this is not your doing"))
            if not isinstance(error, Exception):
                raise
            log.exception("session_bug", extra={"session": session})

    async def _run(self, session: SessionId, client: Client, journal: Journal) -> None:
        """The story."""
        answer = await self._permit(session, client, journal)
        permit = answer.granted()
        journal.bind(grant=permit.grant, target=permit.target)
        holder = _holder(session, client, permit, journal)
        await client.remember(permit)
        try:
            place = self._census.take(holder, permit.max_sessions, client)
        except NoRoom:
            # Others were quicker than the answer: policy, asked again, says so in its own words.
            (await self._policy.configure(journal, client.subject, answer.request)).granted()
            raise
        with place:
            client.permit(permit, answer.desk)
            await self._inside(holder, permit, client, journal)

    async def _inside(self, holder: Holder, permit: Permit, client: Client, journal: Journal) -> None:
        """What there is between a permit and its end."""
        async with (
            self._live.entered(holder, permit, client, journal) as entry,
            background(entry.wait_ended()) as starting,
            narrated(client) as (narration, ready),
            together(
                journal.held(Step.LEASE, self._leases(permit, holder), issuers=_issuers_of(permit)),
                self._reached(permit, holder, narration, journal),
            ) as (leases, (workspace, agent)),
        ):
            await self._furnish(agent, leases, permit, client, journal)
            ready()
            starting.cancel()  # from here on the relay looks, and tells before it takes away
            entry.raise_if_ended()
            client.relay_to(agent, notice(permit))
            async with journal.step(Step.RELAY) as step:
                try:
                    await self._until_it_ends(client, permit, entry, leases, workspace, agent)
                except SessionEnded as ended:
                    client.end(ended)  # told before anything is taken away
                    raise
                finally:
                    step.note(channels=list(client.traffic()), judged=entry.judged)

    async def _permit(self, session: SessionId, client: Client, journal: Journal) -> Configured:
        """The permit for what they ask for, or for what they then choose at the desk, its conditions met."""
        request = await client.wait_request()
        answer = await self._policy.configure(journal, client.subject, request)
        while answer.permit is None:
            request = await client.choose(answer)
            answer = await self._policy.configure(journal, client.subject, request)
        return await self._obligations.met(session, client, request, answer, journal)

    async def _furnish(
        self, agent: Agent, leases: Sequence[Leases], permit: Permit, client: Client, journal: Journal
    ) -> None:
        """Deliver the credentials into the workspace's tmpfs, and open its ways out: neither waits for the other."""
        delivered = delivery([lease for held in leases for lease in held.items], CREDENTIALS_DIR)
        spec = permit.workspace
        setup = partial(
            agent.setup,
            env={**client.environment(), **spec.env, **delivered.env, "TRACEPARENT": journal.traceparent},
            home=spec.home,
            shell=spec.shell,
            user=spec.user.name,
            files=delivered.files,
        )
        ways_out = partial(agent.open_egress, permit, journal, delivered.logins)
        await each(lambda part: part(), (setup, ways_out), at_once=2)

    async def _until_it_ends(
        self,
        client: Client,
        permit: Permit,
        entry: LiveEntry,
        leases: Sequence[Leases],
        workspace: Workspace,
        agent: Agent,
    ) -> None:
        """Return when the engineer has gone; raise SessionEnded when anything else ends the session."""
        clocks = Clocks(permit, client.idle_seconds, client.say)
        again = "Connect again." if permit.workspace.host else "Connect again for a fresh workspace."
        await first_done(
            entry.wait_ended(),
            client.wait_gone(),
            clocks.wait_over(),
            _ends(workspace.wait_gone, "workspace_gone", again),
            _ends(lambda: _cut_off(agent, workspace), "workspace_gone", again),
            *(_ends(held.wait_lost, "credentials_lost", "Connect again for fresh credentials.") for held in leases),
        )

    @asynccontextmanager
    async def _reached(
        self, permit: Permit, holder: Holder, narration: Narration, journal: Journal
    ) -> AsyncIterator[tuple[Workspace, Agent]]:
        """The workspace and its agent, which hold no credential yet: had while credentials are issued."""
        backend = permit.workspace.backend
        async with (
            journal.held(Step.WORKSPACE, self._workspace(permit, holder, narration), backend=backend) as workspace,
            journal.held(Step.AGENT, self._connect(workspace)) as agent,
        ):
            yield workspace, agent

    def _workspace(
        self, permit: Permit, holder: Holder, narration: Narration
    ) -> AbstractAsyncContextManager[Workspace]:
        name = permit.workspace.backend
        if name not in self._backends:
            raise WorkspaceUnavailable(
                f"the permit names the backend {name!r}, which this gateway does not have",
                remedy=f"Tell the platform team: [backends.{name}] is missing in the gateway's settings.",
            )
        order = Order(permit.workspace, holder, permit.expires_at, narration.waits_for, narration.tells)
        return self._backends[name].workspace(order)

    @asynccontextmanager
    async def _leases(self, permit: Permit, holder: Holder) -> AsyncIterator[Sequence[Leases]]:
        by_issuer: dict[str, list[CredentialSpec]] = {}
        for spec in permit.credentials:
            by_issuer.setdefault(spec.issuer, []).append(spec)
        for name in by_issuer.keys() - self._issuers.keys():
            raise CredentialsUnavailable(
                f"the permit names the issuer {name!r}, which this gateway does not have",
                remedy=f"Tell the platform team: [credentials.{name}] is missing in the gateway's settings.",
            )
        async with together(*(self._issuers[name].lease(specs, holder) for name, specs in by_issuer.items())) as leases:
            yield _Held(leases)


class _Held(tuple[Leases, ...]):
    """Leases that can say what they are without saying the secret."""

    def describe(self) -> dict[str, Any]:
        return {"leases": [lease.facts() for held in self for lease in held.items]}


def _holder(session: SessionId, client: Client, permit: Permit, journal: Journal) -> Holder:
    identity = client.subject.identity
    assert identity is not None
    return Holder(session, identity.person, permit.grant, permit.target, journal.traceparent)


def _issuers_of(permit: Permit) -> str:
    return ",".join(sorted({spec.issuer for spec in permit.credentials}))


async def _ends(wait: Callable[[], Any], code: str, remedy: str) -> None:
    raise SessionEnded([Reason(code=code, message=await wait(), remedy=remedy)])


async def _cut_off(agent: Agent, workspace: Workspace) -> str:
    """The agent's connection has ended; the workspace, which ends with it, may know why."""
    await agent.wait_gone()
    try:
        async with asyncio.timeout(CUT_OFF_SECONDS):
            return await workspace.wait_gone()
    except TimeoutError:
        return "the connection to the workspace was lost"
