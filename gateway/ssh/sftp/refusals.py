"""Refusals that are the gateway's own: nothing that policy could be asked about."""

from __future__ import annotations

from gateway.errors import DoorwardError

READ_ONLY = "sftp_read_only"


def read_only() -> DoorwardError:
    return DoorwardError(
        "files can only be read here, not changed",
        code=READ_ONLY,
        remedy="Ask whom the target names for another grant, if you need to change files.",
    )


def malformed(error: Exception) -> DoorwardError:
    return DoorwardError(
        f"the client does not speak SFTP version 3: {error}",
        code="sftp_malformed",
        remedy="Use another client; if yours is a usual one, tell the platform team the session id.",
    )


def unusable() -> DoorwardError:
    return DoorwardError(
        "this name leads to nothing that can be named",
        code="sftp_name_unusable",
        remedy="Use the name of a file or a folder.",
    )


def unreadable() -> DoorwardError:
    return DoorwardError(
        "this name is not UTF-8, so no rule can be asked about it",
        code="sftp_name_unreadable",
        remedy="Rename it where it comes from.",
    )
