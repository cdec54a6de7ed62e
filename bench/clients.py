"""Waiting for an `ssh` to end, to the microsecond."""

from __future__ import annotations

import os
import select
import subprocess

from tests.stack import StackError

SECONDS = 60


def wait_end(client: subprocess.Popen[bytes]) -> int:
    """Its exit status, in the moment it ends.  (`Popen.wait` with a timeout looks every 50 ms; this has one, too.)"""
    handle = os.pidfd_open(client.pid)
    try:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        if not poller.poll(SECONDS * 1000):
            client.kill()
            raise StackError(f"{client.args!r} did not end in {SECONDS} s")
        return client.wait()
    finally:
        os.close(handle)
