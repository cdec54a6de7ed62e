"""The programs that only the tests and the demo stack need, pinned like the shipped ones."""

from __future__ import annotations

from pathlib import Path

from gateway.embedded.tools import OPA, Tool, find_or_build

__all__ = ["COMPOSE", "JAEGER", "OPA", "VAULT", "find_or_build"]

_MODULES = Path(__file__).parent / "modules"

VAULT = Tool("vault", "1.19.0", "github.com/hashicorp/vault", _MODULES / "vault", minutes=12, minimum=(1, 15))
JAEGER = Tool("jaeger", "1.76.0", "github.com/jaegertracing/jaeger/cmd/all-in-one", _MODULES / "jaeger", minutes=6)
COMPOSE = Tool(
    "compose", "2.40.3", "github.com/docker/compose/v2/cmd", _MODULES / "compose", minutes=3, file="docker-compose"
)
