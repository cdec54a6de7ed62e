"""Who comes in over TCP, to the grants door and to the admin API: known by what they prove, or charged for guessing."""

from __future__ import annotations

import logging
import ssl

from aiohttp import web

from gateway.audit.journal import Journal
from gateway.door.clients import Clients, Unknown, shown
from gateway.door.http import Refused
from gateway.door.strangers import Strangers
from gateway.errors import AuditUnavailable, SettingsError
from gateway.policy.contract import Automation
from gateway.settings_door import DoorSettings
from gateway.telemetry import Step

log = logging.getLogger(__name__)


class Doorman:
    """One for all that automation reaches over TCP: who guesses here pays there too."""

    def __init__(self, settings: DoorSettings, clients: Clients, strangers: Strangers) -> None:
        self._settings = settings
        self._clients = clients
        self._strangers = strangers

    async def known(self, request: web.Request, journal: Journal, event: Step) -> Automation:
        """Who it is.  Raises Refused, which is on record as `event`, or VerifierUnavailable where it cannot be told."""
        # Behind whoever ends TLS for us all are one address, and one's mistakes are not the others'.
        address = "" if self._settings.plain_http else request.remote or ""
        if shown(request) is None and self._strangers.refuses(address):
            raise Refused(429, "too_many_requests", "too many wrong tokens from this address: try again later")
        try:
            return await self._clients.known(request)
        except Unknown as error:
            why = str(error)
        self._strangers.charge(address)
        try:
            await journal.record(event, "refused", verb=request.method, path=request.path, why=why)
        except AuditUnavailable:
            log.error("client_refusal_unrecorded", extra={"of": event})
        raise Refused(401, "unauthorized", "no client has this token")

    def tls(self) -> ssl.SSLContext | None:
        """What connections are encrypted with; None where they are not.  Raises SettingsError."""
        settings = self._settings
        if settings.tls_certificate is None:
            return None
        # No authorities but ours: those of the system sign for anybody.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        except OSError as error:
            raise SettingsError(f"door.tls_certificate: {error}") from error
        if settings.client_ca_file is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(settings.client_ca_file)
            except OSError as error:
                raise SettingsError(f"door.client_ca_file: {error}") from error
        return context
