"""Whoever guesses at the grants door pays as at the SSH port (`[ssh.penalties]`), with an account of its own."""

from __future__ import annotations

from gateway.penalties import Fault, Penalties
from gateway.settings_ssh import SshSettings
from gateway.sources import Sources


class Strangers:
    """What each source owes for tokens and certificates that nobody has."""

    def __init__(self, settings: SshSettings) -> None:
        self._penalties = Penalties(settings.penalties)
        self._sources = Sources(settings.source_prefix_v4, settings.source_prefix_v6, settings.penalties.exempt)

    def refuses(self, address: str) -> bool:
        return self._penalties.refuses(self._sources.of(address))

    def charge(self, address: str) -> None:
        self._penalties.charge(self._sources.of(address), Fault.AUTH_FAIL)
