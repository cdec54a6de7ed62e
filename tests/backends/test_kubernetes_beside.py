"""Beside a running service, on a real cluster: what of the contract holds there, who is kept apart, and every end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.backends import Backend, Order
from gateway.backends.kubernetes.backend import KubernetesBackend
from gateway.backends.kubernetes.beside import Guest
from gateway.backends.kubernetes.spec import AGENT, DEADLINE_SECONDS
from gateway.contracts.backend import IsolationContract, StreamContract, agent, another, inside, sh
from gateway.contracts.waiting import GONE_SECONDS
from gateway.errors import WorkspaceUnavailable
from gateway.model import Beside, Holder, PodOptions, SessionId, WorkspaceSpec, WorkspaceUser
from gateway.settings import KubernetesSettings
from tests.backends.held import ALONE, SHARING
from tests.backends.test_kubernetes import INSTANCE, NOWHERE, cluster_settings
from tests.stack.cluster import Cluster
from tests.stack.cluster.service import APP, LABELS, PORT, SHOP, USER, WORDS, Service, shop
from tests.waiting import SECONDS, eventually

pytestmark = pytest.mark.usefixtures("closed")


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    with shop(cluster) as there:
        yield there


@pytest.fixture(scope="module")
def running(service: Service) -> Iterator[str]:
    """A pod of the service, which is as it was when all is over."""
    with service.running() as pod:
        before = service.pod(pod)
        yield pod
        after = service.pod(pod)
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert [one["restartCount"] for one in after["status"]["containerStatuses"]] == [0]
        assert service.is_ready(pod)
        assert service.guests() == []


@pytest.fixture(scope="module")
def settings(cluster: Cluster) -> KubernetesSettings:
    return cluster_settings(cluster)


@pytest.fixture
async def backend(settings: KubernetesSettings) -> AsyncIterator[KubernetesBackend]:
    async with KubernetesBackend.open(settings, INSTANCE) as opened:
        yield opened


class Seen:
    """The containers beside the service, as its administrator sees them, past the backend."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def alive(self, session: SessionId) -> bool:
        """An entry of what has ended stays in the pod for ever."""
        listed = await asyncio.to_thread(self._service.guests, session)
        return bool(listed or await asyncio.to_thread(self._service.processes, session))

    async def kill(self, session: SessionId) -> None:
        """No API does that to one container: the node's own root does."""
        await asyncio.to_thread(self._service.kill, session)


@pytest.fixture
def runtime(service: Service) -> Seen:
    return Seen(service)


@pytest.fixture
def order(cluster: Cluster, request: pytest.FixtureRequest) -> Order:
    spec = WorkspaceSpec(
        backend="kubernetes", image=cluster.images.beside("full"), pod=PodOptions(beside=ALONE), env={"TERM": "dumb"}
    )
    session = SessionId(f"s{abs(hash(request.node.name)) % 10**12}")
    holder = Holder(session, "alice", "INC-1", "payments", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    return Order(spec, holder, datetime.now(UTC) + timedelta(hours=1))


def changed(order: Order, **spec: Any) -> Order:
    return replace(order, spec=order.spec.model_copy(update=spec))


def sharing(order: Order, **spec: Any) -> Order:
    return changed(order, pod=PodOptions(beside=SHARING), **spec)


@pytest.mark.usefixtures("running")
class TestStream(StreamContract):
    """Starting, streaming and ending.  Not applicable, by name, the two below."""

    test_a_check_passes_where_a_workspace_can_start = None  # type: ignore[assignment]
    """It wants admission policies in force besides, as `test_kubernetes_service.py` has them."""

    test_reaping_removes_only_sessions_that_do_not_live = None  # type: ignore[assignment]
    """Nobody can remove a container from a pod: it ends by itself, which the tests of ends below see."""


@pytest.mark.usefixtures("running")
class TestStreamWithProcessesShared(TestStream):
    """The same where the agent is not the first process."""

    @pytest.fixture
    def order(self, order: Order) -> Order:
        return sharing(order)


@pytest.mark.usefixtures("running")
class TestIsolation(IsolationContract):
    """Who it is and what it may; the walls and limits are the pod's, and so these do not apply, by name."""

    test_the_places_to_write_are_there_and_in_memory = None  # type: ignore[assignment]
    test_what_is_written_is_limited = None  # type: ignore[assignment]
    """The API has no volume for an ephemeral container: with a read-only root there is no place to write."""
    test_the_credentials_place_is_the_user_s_alone = None  # type: ignore[assignment]
    """For the same reason; a permit that has credentials is refused."""
    test_the_only_network_is_its_own_loopback = None  # type: ignore[assignment]
    """It has the pod's: that is what it is for."""
    test_the_permit_s_hosts_are_names_of_loopback_addresses = None  # type: ignore[assignment]
    """Egress is refused: the pod's network is there already."""
    test_processes_are_limited = None  # type: ignore[assignment]
    """By the kubelet, for the pod as a whole; the permit has no number."""
    test_memory_is_limited = None  # type: ignore[assignment]
    """By the pod's own limit: see `test_a_hog_is_taken_before_the_service`."""

    @pytest.fixture(params=["alone", "sharing"])
    def order(self, order: Order, request: pytest.FixtureRequest) -> Order:
        return sharing(order) if request.param == "sharing" else order


# -- what is shared, and what is not ---------------------------------------------------------------------------------


async def test_the_service_is_reached_on_localhost_and_its_processes_are_not_seen(
    backend: Backend, order: Order, running: str, service: Service
) -> None:
    told: list[str] = []
    async with backend.workspace(replace(order, tells=told.append)) as workspace, agent(workspace) as connection:
        assert isinstance(workspace, Guest)
        uid = service.pod(running)["metadata"]["uid"]
        assert workspace.describe() == {"id": workspace.id, "namespace": SHOP, "pod": running, "pod_uid": uid}
        assert told == [f"beside the pod {running} of {SHOP} ({uid})"]
        assert await sh(connection, f"curl -s localhost:{PORT}") == (WORDS, 0)
        said, _ = await sh(connection, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; cat /proc/1/cmdline")
        assert "httpd" not in said
        assert "doorward-agent" in said
        assert await sh(connection, "echo $API_KEY; ls /var/run/secrets") == (
            "ls: cannot access '/var/run/secrets': No such file or directory", 2,
        )  # fmt: skip


async def test_with_processes_shared_they_are_seen_and_of_another_user_no_more_than_that(
    backend: Backend, order: Order, running: str
) -> None:
    async with inside(backend, sharing(order)) as connection:
        said, _ = await sh(connection, "ps -eo uid,args")
        assert f"{USER} busybox httpd -f -p 127.0.0.1:{PORT}" in " ".join(said.split())
        for secret in ("environ", "root/www/index.html", "mem"):
            said, status = await sh(connection, f"cat /proc/1/{secret}")
            assert (status, "Permission denied" in said) == (1, True), said
        said, status = await sh(connection, "kill -9 1")
        assert (status, "not permitted" in said) == (1, True), said


async def test_two_at_once_do_not_see_each_other(backend: Backend, order: Order, running: str) -> None:
    async with inside(backend, another(order)) as one, inside(backend, another(order)) as two:
        await one.create_process("exec sleep 54321")
        assert await eventually(lambda: _sees(one, "sleep 54321"))
        assert not await _sees(two, "sleep 54321")


async def _sees(connection: Any, program: str) -> bool:
    return program in (await sh(connection, "ps -e -o args"))[0].splitlines()


# -- who may come to the agent ---------------------------------------------------------------------------------------

KNOCK = (
    "use Socket; $SIG{PIPE} = 'IGNORE'; socket(S, PF_UNIX, SOCK_STREAM, 0);"
    "connect(S, pack('Sx', AF_UNIX) . '{name}') or die \"none: $!\";"
    'syswrite(S, "SSH-2.0-x\\r\\n"); print sysread(S, my $b, 100) ? "served" : "hung up";'
)


@pytest.mark.parametrize("beside", [ALONE, SHARING], ids=["alone", "sharing"])
@pytest.mark.parametrize("uid", [USER, 65532], ids=["same user", "another user"])
async def test_a_process_of_the_service_is_not_let_in(
    cluster: Cluster, service: Service, running: str, order: Order, beside: Beside, uid: int
) -> None:
    """While the agent waits, and nobody has come yet: afterwards nobody is let in at all."""
    order = changed(order, pod=PodOptions(beside=beside), user=WorkspaceUser(uid=uid))
    name = await asyncio.to_thread(service.add, running, order)
    try:
        assert await eventually(lambda: _is_found(service, running, name))
        knock = KNOCK.replace("{name}", name)
        assert await service.executed(running, "api", ["perl", "-e", knock]) == "hung up"
        said = await asyncio.to_thread(service.log, running, name)
        why = "another user's" if uid != USER else "of another container"
        assert f"a connection is not let in: it is {why}" in said
    finally:
        service.kill(order.holder.session)
        assert await eventually(lambda: _over(service, order))


async def _is_found(service: Service, pod: str, name: str) -> bool:
    """By everybody in the pod's network."""
    return f"@{name}" in await service.executed(pod, "api", ["cat", "/proc/net/unix"])


async def _over(service: Service, order: Order) -> bool:
    return not await Seen(service).alive(order.holder.session)


# -- ends ------------------------------------------------------------------------------------------------------------

ORPHAN = """sh -c 'setsid sh -c "trap \\"\\" TERM HUP; echo up; while :; do sleep 1; done" &'; sleep 1000"""


@asynccontextmanager
async def with_an_orphan(backend: Backend, order: Order) -> AsyncIterator[Any]:
    """A stubborn program in a session of its own, whose parents have gone."""
    async with backend.workspace(order) as workspace, agent(workspace) as connection:
        process = await connection.create_process(ORPHAN)
        assert await process.stdout.readline() == "up\n"
        yield workspace, connection


@pytest.mark.parametrize("shared", [False, True])
async def test_what_was_put_into_the_background_ends_with_the_session(
    backend: Backend, order: Order, runtime: Seen, running: str, shared: bool
) -> None:
    order = sharing(order) if shared else order
    async with with_an_orphan(backend, order):
        leaving = time.monotonic()
    assert time.monotonic() - leaving < GONE_SECONDS
    assert not await runtime.alive(order.holder.session)


async def test_an_agent_that_is_killed_takes_everything_along(
    backend: Backend, order: Order, runtime: Seen, running: str
) -> None:
    """It is not the first process, so nothing protects it from its own user: then the runtime ends the rest."""
    order = sharing(order)
    async with with_an_orphan(backend, order) as (workspace, connection), asyncio.timeout(SECONDS):
        await connection.create_process("pkill -9 -f 'doorward-agent beside'")
        assert await workspace.wait_gone() == "the workspace was killed from outside"
        assert await eventually(lambda: _gone(runtime, order))


async def _gone(runtime: Seen, order: Order) -> bool:
    return not await runtime.alive(order.holder.session)


async def test_it_ends_by_itself_when_its_permit_is_long_over(backend: Backend, order: Order, running: str) -> None:
    late = replace(order, expires_at=datetime.now(UTC) - timedelta(seconds=DEADLINE_SECONDS - 6))
    async with with_an_orphan(backend, late) as (workspace, _), asyncio.timeout(SECONDS):
        assert await workspace.wait_gone() == "the workspace's time was over: its agent ended it at its deadline"


@pytest.mark.parametrize("how", ["deleted", "evicted"])
async def test_a_pod_that_goes_takes_its_guest_along_and_says_so(
    backend: Backend, order: Order, service: Service, how: str
) -> None:
    other = {"app": "short-lived"}
    order = changed(order, pod=PodOptions(beside=Beside(namespace=SHOP, selector=other)))
    with service.running("short-lived", labels=other) as pod:
        async with backend.workspace(order) as workspace, agent(workspace), asyncio.timeout(SECONDS):
            await asyncio.to_thread(service.evict if how == "evicted" else service.delete, pod)
            assert await workspace.wait_gone() == "the pod that the workspace was beside is being deleted"
        assert service.processes(order.holder.session) == []


async def test_a_hog_is_taken_before_the_service(
    backend: Backend, order: Order, service: Service, running: str
) -> None:
    """Its memory is the pod's, whose limit is the service's."""
    async with backend.workspace(order) as workspace, agent(workspace) as connection:
        assert await sh(connection, "cat /proc/self/oom_score_adj") == ("1000", 0)
        hog = asyncio.ensure_future(connection.run("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"))
        gone = asyncio.ensure_future(workspace.wait_gone())
        await asyncio.wait([hog, gone], timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if hog.done() and not hog.exception():
            assert "KILL" in (hog.result().exit_signal or ())
        else:
            assert "memory" in await gone or "killed" in await gone
        gone.cancel()
        hog.cancel()
        await asyncio.wait([hog, gone])
    assert [one["restartCount"] for one in service.pod(running)["status"]["containerStatuses"]] == [0]


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": NOWHERE}, "image is not to be had"),
        ({"image": "debug:latest"}, "not pinned by digest"),
        ({"pod": PodOptions(beside=Beside(namespace=SHOP, selector={"app": "none"}))}, "no ready pod of payments"),
        ({"pod": PodOptions(beside=Beside(namespace="default", selector=LABELS))}, "does not let the gateway"),
        (
            {"pod": PodOptions(beside=SHARING.model_copy(update={"container": "web"}))},
            f"the pod {APP}-0 has no container 'web'",
        ),
        ({"user": WorkspaceUser(uid=2**33)}, "refused a container beside the service"),
    ],
)
async def test_what_cannot_be_started_is_one_sentence(
    backend: KubernetesBackend, order: Order, runtime: Seen, running: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(WorkspaceUnavailable) as refused:
        await backend.workspace(changed(order, **change)).__aenter__()
    assert words in str(refused.value)
    assert refused.value.reasons[0].remedy


async def test_an_image_without_the_agent_is_said(
    backend: KubernetesBackend, order: Order, cluster: Cluster, running: str
) -> None:
    with pytest.raises(WorkspaceUnavailable, match=f"has no {AGENT}"):
        await backend.workspace(changed(order, image=cluster.images.workspace("shonly"))).__aenter__()


async def test_what_the_owner_of_the_cluster_refuses_is_said(
    backend: KubernetesBackend, order: Order, service: Service, running: str
) -> None:
    words = "an admission policy of the cluster refused"
    with service.closed_by_policy(), pytest.raises(WorkspaceUnavailable, match=words):
        await backend.workspace(order).__aenter__()


async def test_nothing_is_added_to_a_pod_that_was_not_chosen(
    backend: KubernetesBackend, order: Order, service: Service, running: str
) -> None:
    context: Any = backend.workspace(order)
    context._name, context._uid = running, "of another of that name"
    with pytest.raises(WorkspaceUnavailable, match="has gone"):
        await context._add()
    assert context.id not in {one["name"] for one in service.pod(running)["spec"].get("ephemeralContainers", ())}


async def test_a_pod_of_the_same_name_is_not_the_same_pod(
    backend: KubernetesBackend, order: Order, service: Service
) -> None:
    """As a StatefulSet's are: the end of one is no other's life."""
    other = {"app": "stateful"}
    order = changed(order, pod=PodOptions(beside=Beside(namespace=SHOP, selector=other)))
    with service.running("stateful-0", labels=other):
        context = backend.workspace(order)
        workspace = await context.__aenter__()
    with service.running("stateful-0", labels=other) as again:
        async with asyncio.timeout(SECONDS):
            assert await workspace.wait_gone() == "the pod that the workspace was beside has gone"
        await context.__aexit__(None, None, None)
        assert "ephemeralContainers" not in service.pod(again)["spec"]
