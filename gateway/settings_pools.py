"""Settings of workspaces that are ready before anybody needs them."""

from __future__ import annotations

from pydantic import Field

from gateway.sections import Section
from gateway.values import Name


class PoolSettings(Section):
    """The warm workspaces of one backend.  What they are like is learned from permits."""

    size: int = Field(ge=0, le=1000, description="kept ready of each kind; 0: none, and only starts are bounded")
    total: int = Field(default=32, ge=0, le=10_000, description="kept ready in all; kinds asked for last come first")
    kinds: int = Field(default=8, ge=1, le=1000, description="how many are kept ready: those asked for last")
    targets: tuple[Name, ...] = Field(default=(), description="of these targets alone; empty: of all")
    max_age_seconds: float = Field(default=3600, ge=1, le=86400, description="then it is replaced, unused")
    forget_seconds: float = Field(default=604_800, ge=1, description="a kind that nobody asked for is given up")
    starts_at_once: int = Field(default=4, ge=1, le=1000, description="of this backend, in turn by person")
    wait_seconds: float = Field(default=60, gt=0, le=600, description="for a turn, at most; then it is refused")
