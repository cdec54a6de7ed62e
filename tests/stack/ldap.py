"""A real LDAP server: Debian's slapd on a loopback port, with a handful of people in one group."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack import StackError
from tests.stack.machine import SLAPD
from tests.stack.process import Processes, Running, free_port, wait_until, write_secret

SUFFIX = "dc=example,dc=org"
PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
GROUP = "oncall"

CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/slapd.pid
database mdb
suffix "{suffix}"
directory {directory}/data
# As most companies have it: nobody reads, everybody may try to bind.
access to attrs=userPassword by anonymous auth by * none
access to * by users read by anonymous read
"""


@dataclass(frozen=True, slots=True)
class Ldap:
    """A running server."""

    url: str
    process: Running


@contextmanager
def ldap(directory: Path, passwords: Mapping[str, str]) -> Iterator[Ldap]:
    """People by uid, all in the group `oncall`."""
    processes = Processes(directory)
    (directory / "data").mkdir()
    config = directory / "slapd.conf"
    config.write_text(CONFIG.format(directory=directory, suffix=SUFFIX))
    entries = write_secret(directory / "people.ldif", "\n".join(_entries(passwords)))
    ran = subprocess.run(["/usr/sbin/slapadd", "-f", config, "-l", entries], capture_output=True, text=True, timeout=60)
    if ran.returncode != 0:
        raise StackError(f"slapadd: {ran.stderr.strip()}")
    port = free_port()
    try:
        running = processes.start("slapd", [SLAPD, "-d", "0", "-f", config, "-h", f"ldap://127.0.0.1:{port}"])
        wait_until(lambda: _answers(port), running)
        yield Ldap(f"ldap://127.0.0.1:{port}", running)
    finally:
        processes.end()


def _entries(passwords: Mapping[str, str]) -> Iterator[str]:
    yield f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n"
    for unit in (PEOPLE, GROUPS):
        yield f"dn: {unit}\nobjectClass: organizationalUnit\nou: {unit.partition(',')[0].removeprefix('ou=')}\n"
    for name, password in passwords.items():
        kind = f"objectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}"
        yield f"dn: uid={name},{PEOPLE}\n{kind}\nuserPassword: {password}\n"
    members = "\n".join(f"member: uid={name},{PEOPLE}" for name in passwords)
    yield f"dn: cn={GROUP},{GROUPS}\nobjectClass: groupOfNames\ncn: {GROUP}\n{members}\n"


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False
