"""An API server that knows no `v5.channel.k8s.io`, as before 1.30: the streams are `v4`, and that is said."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.backends import Backend, Order
from gateway.contracts.backend import StreamContract, inside, sh
from gateway.settings import KubernetesSettings
from tests.backends.test_kubernetes import backend, cluster_settings, order, runtime
from tests.stack.cluster import Cluster

__all__ = ["backend", "order", "runtime"]
pytestmark = pytest.mark.usefixtures("closed")


@pytest.fixture(scope="module")
def settings(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesSettings]:
    there = cluster_settings(cluster)
    assert there.kubeconfig is not None
    with cluster.older_api() as url:
        file: Path = tmp_path_factory.mktemp("older") / "kubeconfig"
        file.write_text(there.kubeconfig.read_text().replace(cluster.url, url))
        yield there.model_copy(update={"kubeconfig": file})


class TestStream(StreamContract):
    """Starting, streaming and ending, all of it."""

    async def test_it_is_said(self, backend: Backend, order: Order, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            async with inside(backend, order) as connection:
                assert await sh(connection, "echo here") == ("here", 0)
        assert [one.message for one in caplog.records].count("kubernetes_streams_by_v4") == 1
