"""One Kubernetes cluster over kubernetes-asyncio: its client, its errors in our words, its watches."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.watch import Watch

from gateway.backends.kubernetes.spec import GRACE_SECONDS
from gateway.backends.kubernetes.stream import PodStream, upgrade
from gateway.errors import SettingsError, WorkspaceUnavailable
from gateway.settings import KubernetesSettings

log = logging.getLogger(__name__)
FAULTS = (ApiException, aiohttp.ClientError, OSError, TimeoutError)
ASK_SECONDS = 1.8
"""For a question that a cluster in order answers in milliseconds: one that hangs is refused within 2 s."""
WATCH_SECONDS = 240
RETRY_SECONDS = 0.5
END_SECONDS = 10.0
ADMISSION = ("ValidatingAdmissionPolicy", "admission webhook")
"""How the API server begins to say that a policy or a webhook of the cluster's owner said no."""


class Streaming(client.ApiClient):
    """Makes of a call with `_preload_content=False` its address and headers, for `upgrade`."""

    async def request(self, method: str, url: str, **given: Any) -> Any:  # type: ignore[override]
        if given.get("_preload_content", True):
            return await super().request(method, url, **given)
        words = [(name, one) for name, value in given["query_params"] or () for one in _all(value)]
        return f"{url}?{urlencode(words)}", dict(given["headers"] or {})


class Cluster:
    """One namespace of it."""

    def __init__(self, api: client.ApiClient, streaming: Streaming, namespace: str) -> None:
        self.namespace = namespace
        # Generated, and typed for models where plain JSON is taken as well.
        self.core: Any = client.CoreV1Api(api)
        self.network: Any = client.NetworkingV1Api(api)
        self.authorization: Any = client.AuthorizationV1Api(api)
        self.version: Any = client.VersionApi(api)
        self._addresses: Any = client.CoreV1Api(streaming)
        self._session: aiohttp.ClientSession = streaming.rest_client.pool_manager

    def within(self, namespace: str) -> Cluster:
        """Another namespace of the same cluster, over the same connections."""
        other = copy.copy(self)
        other.namespace = namespace
        return other

    async def attach(self, pod: str, container: str) -> PodStream:
        """Hold a container's stdin; its stderr goes to the log.  Raises one of FAULTS."""
        url, headers = await self._addresses.connect_get_namespaced_pod_attach(
            pod, self.namespace, container=container, stdin=True, stdout=False, stderr=True, _preload_content=False
        )
        held = await upgrade(self._session, url, headers, pod)
        if not held.can_half_close:
            log.warning("kubernetes_streams_by_v4", extra={"workspace": pod, "why": "the API server has no v5"})
        return held

    async def exec(self, pod: str, container: str, command: list[str]) -> PodStream:
        """Run `command` in a container, its stdin and stdout the stream.  Raises one of FAULTS."""
        url, headers = await self._addresses.connect_get_namespaced_pod_exec(
            pod, self.namespace, container=container, command=command, stdin=True, stdout=True, stderr=True,
            _preload_content=False,
        )  # fmt: skip
        return await upgrade(self._session, url, headers, pod)

    async def watched(self, pod: str) -> AsyncIterator[dict[str, Any]]:
        """The pod as it is and as it becomes, until it is deleted.  Raises one of FAULTS.

        Listed, then watched from there: a watch that begins by itself can miss a deletion.
        """
        selector = {"field_selector": f"metadata.name={pod}"}
        while True:
            listed = await self._listed(selector)
            if not listed["items"]:
                return
            yield listed["items"][0]
            async with Watch("object") as watch:
                changes = watch.stream(
                    self.core.list_namespaced_pod, self.namespace, timeout_seconds=WATCH_SECONDS,
                    resource_version=listed["metadata"]["resourceVersion"], **selector,
                )  # fmt: skip
                async for change in changes:
                    if change["type"] == "DELETED":
                        return
                    yield change["raw_object"]

    async def pod(self, name: str) -> dict[str, Any] | None:
        """It as it is now, if it is there.  Raises one of FAULTS."""
        return next(iter((await self._listed({"field_selector": f"metadata.name={name}"}))["items"]), None)

    async def pods(self, label: str) -> list[dict[str, Any]]:
        return list((await self._listed({"label_selector": label}))["items"])

    async def _listed(self, selector: dict[str, str]) -> dict[str, Any]:
        """As plain JSON, which the generated models would take apart and lose words of."""
        url, headers = await self._addresses.list_namespaced_pod(self.namespace, _preload_content=False, **selector)
        async with self._session.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=10)) as response:
            if response.status != 200:
                raise ApiException(status=response.status, reason=(await response.text())[:2000])
            listed: dict[str, Any] = await response.json()
            return listed


def _all(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


@asynccontextmanager
async def connect(settings: KubernetesSettings) -> AsyncIterator[Cluster]:
    """A client; nothing is sent yet, so a cluster that is down is found by the session that needs it."""
    configuration = client.Configuration()
    try:
        if settings.kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(
                str(settings.kubeconfig), settings.context, configuration, persist_config=False
            )
    except (config.ConfigException, OSError, ValueError) as error:
        where = settings.kubeconfig or "the pod's service account"
        raise SettingsError(f"backends.kubernetes.kubeconfig: {where} cannot be used: {error}") from error
    # Each session holds three connections: aiohttp's pool is no limit on sessions.
    configuration.connection_pool_maxsize = 0
    async with client.ApiClient(configuration) as api, Streaming(configuration) as streaming:
        yield Cluster(api, streaming, settings.namespace)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn whatever the API server or the way to it says into WorkspaceUnavailable; the original is its cause."""
    try:
        yield
    except (ApiException, aiohttp.ClientResponseError) as error:
        raise _refusal(error, what) from error
    except FAULTS as error:
        raise WorkspaceUnavailable(
            "the cluster does not answer",
            remedy="Nothing is wrong with your grant. Tell the platform team; try again when the cluster answers.",
        ) from error


def _refusal(error: ApiException | aiohttp.ClientResponseError, what: str) -> WorkspaceUnavailable:
    words = message_of(error)
    log.warning("kubernetes_refused", extra={"status": error.status, "error": ascii(words[:500])})
    if "exceeded quota" in words:
        return WorkspaceUnavailable(
            "the namespace's quota is used up",
            remedy="Try again when others have left, or ask the platform team for a larger ResourceQuota.",
        )
    if "violates PodSecurity" in words:
        return WorkspaceUnavailable(
            "the cluster's Pod Security admission refused the workspace",
            remedy="Tell the platform team: the namespace asks for more than `restricted`, or the permit for less.",
        )
    if "RuntimeClass" in words or "PriorityClass" in words:
        return WorkspaceUnavailable(
            "the cluster does not have the runtime class or the priority class that the permit names",
            remedy="Tell the security team: the target's pod.runtime_class or pod.priority_class is not the cluster's.",
        )
    if any(mark in words for mark in ADMISSION):
        return WorkspaceUnavailable(
            "an admission policy of the cluster refused the workspace",
            remedy="Tell the platform team the session id: the gateway's log (kubernetes_refused) says which, and why.",
        )
    if error.status in (401, 403):
        return WorkspaceUnavailable(
            "the cluster does not let the gateway do this",
            remedy="Tell the platform team to run `doorward check`: a Role in backends/kubernetes is not in force.",
        )
    return WorkspaceUnavailable(f"the cluster {what}", remedy="Tell the platform team the session id.")


def message_of(error: ApiException | aiohttp.ClientResponseError) -> str:
    """The API server's own sentence."""
    text = str(getattr(error, "body", None) or getattr(error, "message", None) or getattr(error, "reason", None) or "")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text


async def _until_gone(cluster: Cluster, pod: str, seconds: float) -> bool:
    """Whether a pod that is being deleted has gone in time.  An API server that is away meanwhile is asked again."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    async for _ in cluster.watched(pod):
                        pass
                    return True
                except (ApiException, aiohttp.ClientError, OSError):
                    await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        return False


async def removed(cluster: Cluster, name: str, grace_seconds: int = GRACE_SECONDS) -> bool:
    """Delete within bounds; whether that worked is said and logged, not raised: closing must not fail to go on.

    Without a grace the API server forgets a pod at once, whose processes may still run: for one that never ran.
    """
    try:
        async with asyncio.timeout(END_SECONDS):
            await _delete(cluster, name, grace_seconds)
            if await _until_gone(cluster, name, END_SECONDS):
                return True
        log.error("kubernetes_pod_not_removed", extra={"pod": name})
    except FAULTS as error:
        log.error("kubernetes_pod_not_removed", extra={"pod": name, "error": str(error)[:500]})
    return False


async def _delete(cluster: Cluster, name: str, grace_seconds: int) -> None:
    try:
        await cluster.core.delete_namespaced_pod(name, cluster.namespace, grace_period_seconds=grace_seconds)
    except ApiException as error:
        if error.status != 404:
            raise
