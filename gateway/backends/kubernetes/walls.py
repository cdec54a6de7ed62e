"""What stands around every workspace of a namespace: the rule against all traffic, and the rights of the gateway."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from typing import Any

from kubernetes_asyncio.client.exceptions import ApiException

from gateway.backends.kubernetes.cluster import Cluster, translated
from gateway.backends.kubernetes.probe import is_enforced
from gateway.backends.kubernetes.spec import Site, deny_all
from gateway.errors import WorkspaceUnavailable
from gateway.model import Beside, WorkspaceSpec
from gateway.settings import KubernetesSettings

log = logging.getLogger(__name__)
TRY_SECONDS = 600.0
RETRY_SECONDS = 30.0
RULE_SECONDS = 30.0
"""How long a rule that was seen is taken to be there still."""
PINNED = re.compile(r"^\S+@sha256:[0-9a-f]{64}$")
Rights = Sequence[tuple[str, str, Sequence[str]]]
"""API group, resource and verbs of each."""
RIGHTS: Rights = (
    ("", "pods", ("get", "list", "watch", "create", "patch", "delete")),
    ("", "pods/exec", ("get", "create")),  # `create` as well from 1.35 on
    ("", "pods/attach", ("get", "create")),
    ("networking.k8s.io", "networkpolicies", ("get", "create", "update")),
)


class Walls:
    """Of one gateway in one namespace."""

    def __init__(self, cluster: Cluster, settings: KubernetesSettings, site: Site) -> None:
        self._cluster = cluster
        self._settings = settings
        self._site = site
        self._rule = deny_all(site)
        self._seen = -RULE_SECONDS
        self._looking = asyncio.Lock()
        self._tried = asyncio.Event()
        self._is_enforced: bool | WorkspaceUnavailable = False

    def check(self, spec: WorkspaceSpec) -> None:
        """Raise WorkspaceUnavailable, naming the permit's field, for what this cluster cannot hold to."""
        if not PINNED.match(spec.image):
            raise WorkspaceUnavailable(
                "the workspace's image is not pinned by digest",
                remedy="In the policy, set workspace.image to name@sha256:<digest>.",
            )
        if (beside := spec.pod.beside) is not None:
            self._check_place(beside)
            return  # it is held to whatever its pod is
        limit = self._settings.pod_pids_limit
        if limit is None or limit > spec.limits.pids:
            held = "no limit that the gateway knows of" if limit is None else f"a limit of {limit}"
            raise WorkspaceUnavailable(
                f"the permit allows {spec.limits.pids} processes, and the cluster's kubelets have {held}",
                remedy="Platform team: set podPidsLimit in the kubelets' configuration, the same number in "
                "backends.kubernetes.pod_pids_limit, and at least that in the target's limits.pids.",
            )

    def _check_place(self, beside: Beside) -> None:
        """Where workspaces are, a selector could find somebody else's."""
        if beside.namespace == self._cluster.namespace:
            raise WorkspaceUnavailable(
                f"the permit is for a place beside the workspaces themselves, in their namespace {beside.namespace}",
                remedy="Security team: the target's pod.beside.namespace has to be that of a service.",
            )

    async def keep_tried(self) -> None:
        """Find out now, and now and then again, whether the rule is enforced."""
        if self._settings.enforces_network_policy is not None:
            self._is_enforced = self._settings.enforces_network_policy
            self._tried.set()
            return
        while True:
            try:
                await self._see()
                self._is_enforced = await is_enforced(self._cluster, self._site)
            except WorkspaceUnavailable as error:
                self._is_enforced = error
            log.info("kubernetes_network_tried", extra={"enforced": self._is_enforced is True})
            self._tried.set()
            known = not isinstance(self._is_enforced, WorkspaceUnavailable)
            await asyncio.sleep(TRY_SECONDS if known else RETRY_SECONDS)

    async def ready(self, spec: WorkspaceSpec) -> None:
        """See to it that the rule against all traffic is there, and enforced where the permit requires that.

        Raises WorkspaceUnavailable.
        """
        await self._see()
        if spec.pod.isolation == "required":
            await self.check_enforced()

    async def check_enforced(self) -> None:
        """Raise WorkspaceUnavailable unless the rule against all traffic was found to be enforced."""
        await self._tried.wait()
        if isinstance(self._is_enforced, WorkspaceUnavailable):
            raise WorkspaceUnavailable(
                f"it is not known whether the cluster enforces NetworkPolicy: {self._is_enforced}",
                remedy="Try again in a minute; if it stays so, tell the platform team.",
            )
        if not self._is_enforced:
            raise WorkspaceUnavailable(
                "the cluster does not enforce NetworkPolicy, and the permit requires that workspaces have no network",
                remedy="Platform team: use a network plugin that enforces it; or security team: set the target's "
                'pod.isolation to "best_effort".',
            )

    async def _see(self) -> None:
        async with self._looking:
            if time.monotonic() - self._seen < RULE_SECONDS:
                return
            with translated("refused the rule that keeps workspaces off the network"):
                await self._made()
            self._seen = time.monotonic()

    async def _made(self) -> None:
        api, namespace, name = self._cluster.network, self._cluster.namespace, self._rule["metadata"]["name"]
        try:
            found: Any = await api.read_namespaced_network_policy(name, namespace)
        except ApiException as error:
            if error.status != 404:
                raise
            try:
                await api.create_namespaced_network_policy(namespace, self._rule)
            except ApiException as race:
                if race.status != 409:
                    raise
            return
        if found.spec.ingress or found.spec.egress or set(found.spec.policy_types) != {"Ingress", "Egress"}:
            await api.replace_namespaced_network_policy(name, namespace, self._rule)


async def check_rights(cluster: Cluster, rights: Rights, how: str) -> None:
    """Raise WorkspaceUnavailable, naming what the gateway may not do in the cluster's namespace; `how` gives it."""
    body = {"spec": {"namespace": cluster.namespace}}
    with translated("refused to tell what the gateway may do"):
        review: Any = await cluster.authorization.create_self_subject_rules_review(body)
    rules = review.status.resource_rules or ()
    missing = [
        f"{verb} {resource}"
        for group, resource, verbs in rights
        for verb in verbs
        if not _may(rules, group, resource, verb)
    ]
    if missing:
        raise WorkspaceUnavailable(
            f"the gateway may not {', '.join(missing)} in the namespace {cluster.namespace}",
            remedy=f"Platform team: {how}",
        )


def _may(rules: Sequence[Any], group: str, resource: str, verb: str) -> bool:
    def has(words: Sequence[str] | None, word: str) -> bool:
        return bool(words) and (word in words or "*" in words)  # type: ignore[operator]

    return any(
        has(rule.api_groups, group)
        and has(rule.resources, resource)
        and has(rule.verbs, verb)
        and not rule.resource_names
        for rule in rules
    )
