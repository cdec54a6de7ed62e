"""A forced command: what runs in place of what was asked for, and finds that in its environment, as sshd has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncssh.packet import String

from gateway.errors import WorkspaceUnavailable
from gateway.ssh.raw import RawChannel
from gateway.ssh.requests import ORIGINAL_COMMAND, Request, original_command

if TYPE_CHECKING:
    from gateway.ssh.server import Engineer


async def forced_command(engineer: Engineer) -> str | None:
    """The permit's, where it has one."""
    return (await engineer.permit_granted()).workspace.force_command


async def put_in_place(forced: str, request: Request, far: RawChannel) -> tuple[str, bytes]:
    """What is started in place of `request`, which it finds in SSH_ORIGINAL_COMMAND.

    Nothing starts where it could not find it: it would be taken for a shell that was asked for.
    """
    asked = original_command(request.name, request.payload)
    if asked is not None and not await far.request("env", String(ORIGINAL_COMMAND) + String(asked), True):
        raise WorkspaceUnavailable(
            f"what runs there does not take {ORIGINAL_COMMAND}, which its forced command has to know",
            remedy=f"Tell the platform team. On a host: its sshd_config needs `AcceptEnv {ORIGINAL_COMMAND}`.",
        )
    return "exec", String(forced)


async def forges(engineer: Engineer, request: Request) -> bool:
    """Whether it sets, also where policy would take it, what a forced command must be able to believe."""
    name = request.facts["name"] if request.name == "env" else ""
    return name == ORIGINAL_COMMAND and await forced_command(engineer) is not None
