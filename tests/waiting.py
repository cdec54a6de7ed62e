"""Waiting without sleeping for a guess; the published contracts wait in the same way."""

from gateway.contracts.waiting import SECONDS, eventually, until

__all__ = ["SECONDS", "eventually", "until"]
