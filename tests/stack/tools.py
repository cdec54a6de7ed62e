"""The programs that only the tests and the demo stack need, pinned like the shipped ones."""

from __future__ import annotations

from pathlib import Path

from gateway.embedded.tools import OPA, Tool, find_or_build

__all__ = ["COMPOSE", "GVISOR", "HYPERKUBE", "JAEGER", "OPA", "S3", "VAULT", "find_or_build"]

_MODULES = Path(__file__).parent / "modules"

VAULT = Tool("vault", "1.19.0", "github.com/hashicorp/vault", _MODULES / "vault", minutes=12, minimum=(1, 15))
JAEGER = Tool("jaeger", "1.76.0", "github.com/jaegertracing/jaeger/cmd/all-in-one", _MODULES / "jaeger", minutes=6)
COMPOSE = Tool(
    "compose", "2.40.3", "github.com/docker/compose/v2/cmd", _MODULES / "compose", minutes=3, file="docker-compose"
)
S3 = Tool("versitygw", "1.8.0", "github.com/versity/versitygw/cmd/versitygw", _MODULES / "versitygw", minutes=4)
"""A real S3 API over a folder."""
GVISOR = Tool("runsc", "20260224", "gvisor.dev/gvisor/runsc", _MODULES / "gvisor", minutes=1, is_static=True)
"""gVisor as an OCI runtime."""
_VERSION = "k8s.io/component-base/version"
HYPERKUBE = Tool(
    "hyperkube", "1.34.4", ".", _MODULES / "kubernetes", minutes=10,
    ldflags=f"-X {_VERSION}.gitVersion=v1.34.4 -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=34"
    f" -X {_VERSION}.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=v1.34.4",
)  # fmt: skip
"""etcd and the Kubernetes programs in one binary of ours (modules/kubernetes/main.go)."""
