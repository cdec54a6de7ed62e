"""Whose certificates the gateway believes where it is a client."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.errors import SettingsError


def trusting(ca_file: Path | None, section: str) -> ssl.SSLContext:
    """TLS with a server that those in `ca_file` certified, or else the system's authorities; made anew each time.

    Raises SettingsError, naming the settings' `section`, for a file that cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:  # ssl.SSLError too
        raise SettingsError(f"{section}.ca_file: {ca_file}: {error}") from error
