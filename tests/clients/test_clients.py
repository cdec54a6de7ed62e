"""The door tried by others' code: each client does login, exec, file transfer and a forward, on both backends.

The table in docs/ssh.md says the same.  `pytest -s` shows what each client negotiated.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.standalone import PERSON, TARGET
from tests.clients.had import CLIENTS, HERE, command, with_packages
from tests.e2e.world import Door, Site, settings_of
from tests.stack import example
from tests.stack.process import free_port
from tests.stack.require import require

pytestmark = pytest.mark.slow

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""What PostgreSQL answers with one byte, S or N, whoever asks (its protocol, section 55.2.10)."""
BYTES = bytes(range(256)) * 4 + b"\xff\r\n\0"


@dataclass(frozen=True)
class Gate:
    """A door that the example's person has a grant at."""

    port: int
    key: Path

    def tried(self, client: str, task: str, **order: Any) -> dict[str, Any]:
        """What came of one task of one client."""
        words, environment = command(client)
        asked = {"task": task, "port": self.port, "user": PERSON, "key": str(self.key), **order}
        ran = subprocess.run(
            [*words, json.dumps(asked)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        result: dict[str, Any] = json.loads(ran.stdout)
        print(f"{client}: {result['algorithms']}")
        return result


@pytest.fixture(scope="module", params=["sandbox", "docker"])
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    if request.param == "sandbox":
        require("bwrap")
        with on_one_machine() as opened:
            yield opened
    else:
        with on_real_parts(request.getfixturevalue("site")) as opened:
            yield opened


@contextmanager
def on_one_machine() -> Iterator[Gate]:
    """`doorward run`: the sandbox and embedded parts."""
    state = Path(tempfile.mkdtemp(prefix="dw-clients-"))
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "run", "--listen", "127.0.0.1:0", "--state", str(state)],
        stdout=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        ready = next((line for line in process.stdout if "ready on" in line), "")
        assert ready, "the door did not start"
        yield Gate(int(ready.rpartition(":")[2]), state / PERSON)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()
        shutil.rmtree(state, ignore_errors=True)


@contextmanager
def on_real_parts(site: Site) -> Iterator[Gate]:
    """Docker, Vault and everything else."""
    with tempfile.TemporaryDirectory(prefix="dw-clients-") as folder:
        site.opa.put("grants", {})
        example.load(site.opa, {TARGET: site.target()}, {PERSON: example.ssh_key(site.directory)})
        door = Door(site, Path(folder))
        door.start(settings_of(site, door.directory))
        try:
            door.grant()
            yield Gate(door.port, site.directory / PERSON)
        finally:
            door.stop()
        assert "Traceback" not in door.log.read_text()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    if request.param == "ssh2":
        require("npm")
    return str(request.param)


def test_login(gate: Gate, client: str) -> None:
    result = gate.tried(client, "login")

    assert "31 97" in bytes.fromhex(result["stdout"]).decode()
    assert result["status"] == 7
    assert len(result["algorithms"]) == 3


def test_exec(gate: Gate, client: str) -> None:
    result = gate.tried(client, "exec", command="cat; echo 'it'\\''s' \"é\" >&2; exit 42", stdin=BYTES.hex())

    assert bytes.fromhex(result["stdout"]) == BYTES
    assert bytes.fromhex(result["stderr"]) == "it's é\n".encode()
    assert result["status"] == 42


def test_file_transfer(gate: Gate, client: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "put").write_bytes(data)
    gate.tried(client, "transfer", put=str(tmp_path / "put"), there="/tmp/there", get=str(tmp_path / "get"))

    assert (tmp_path / "get").read_bytes() == data


def test_forward(gate: Gate, client: str) -> None:
    result = gate.tried(client, "forward", host=TARGET, hostPort=5432, send=SSL_REQUEST.hex())

    assert bytes.fromhex(result["answer"]) in (b"S", b"N")


def test_the_table_in_the_documentation_has_these_clients() -> None:
    section = (HERE.parents[1] / "docs" / "ssh.md").read_text().partition("## Other clients")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", section, re.M)[1:]

    assert [name.split(" ")[0] for name, *_ in rows] == ["OpenSSH", *CLIENTS, "Ansible"]
    assert {cell.strip() for _, *cells in rows for cell in cells} <= {"yes", "yes (1)", "yes (2)"}


# -- Ansible, by its stock ssh connection ---------------------------------------------------------------------------

WITHOUT_PYTHON = """
- hosts: all
  gather_facts: false
  tasks:
    - raw: echo it\\'s; exit 3
      register: ran
      failed_when: ran.rc != 3 or ran.stdout_lines != ["it's"]
    - script: "{{ folder }}/script"
      register: ran
      failed_when: ran.stdout_lines != ["run there"]
    - wait_for: {port: "{{ forwarded }}", host: 127.0.0.1, timeout: 10}
      delegate_to: localhost
      connection: local
"""
"""For images that have no Python, as the debug image for Docker has none; most of Ansible's modules need it."""

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ping:
    - command: {argv: [sh, -c, "echo it\\\\'s; exit 3"]}
      register: ran
      failed_when: ran.rc != 3 or ran.stdout != "it's"
    - copy: {src: "{{ folder }}/put", dest: /tmp/there}
    - fetch: {src: /tmp/there, dest: "{{ folder }}/get", flat: true}
    - wait_for: {port: "{{ forwarded }}", host: 127.0.0.1, timeout: 10}
      delegate_to: localhost
      connection: local
"""


@pytest.mark.parametrize("gate", ["sandbox"], indirect=True)
@pytest.mark.parametrize(("pipelining", "transfer"), [("True", "sftp"), ("False", "scp"), ("True", "piped")])
def test_ansible(gate: Gate, tmp_path: Path, pipelining: str, transfer: str) -> None:
    """Ping, command, copy and fetch over one kept connection, and a forward of that connection."""
    require("/usr/bin/python3")
    played(gate, tmp_path, PLAYBOOK, ANSIBLE_PIPELINING=pipelining, ANSIBLE_SSH_TRANSFER_METHOD=transfer)

    assert (tmp_path / "get").read_bytes() == (tmp_path / "put").read_bytes()


def test_ansible_without_python(gate: Gate, tmp_path: Path) -> None:
    played(gate, tmp_path, WITHOUT_PYTHON)


def played(gate: Gate, folder: Path, playbook: str, **settings: str) -> None:
    """Run a playbook to its good end, over one connection."""
    (folder / "put").write_bytes(os.urandom(300_000))
    (folder / "script").write_text("#!/bin/sh\necho run there\n")
    (folder / "play.yml").write_text(playbook)
    forwarded = free_port()
    inventory = {"all": {"hosts": {"orders": ansible_host(gate, folder, forwarded)}}}
    (folder / "hosts.json").write_text(json.dumps(inventory))
    extra = json.dumps({"folder": str(folder), "forwarded": forwarded})
    with tempfile.TemporaryDirectory(prefix="dw-cp-") as control:
        own = {"ANSIBLE_HOME": f"{folder}/home", "ANSIBLE_SSH_CONTROL_PATH": f"{control}/s", "LC_ALL": "C.UTF-8"}
        ran = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.json", "-e", extra, "play.yml"],
            env={**with_packages(), **own, **settings},
            cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        ended = subprocess.run(["ssh", "-S", f"{control}/s", "-O", "exit", "door"], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "failed=0" in ran.stdout
    assert ended.returncode == 0, "one connection was kept for all"


def ansible_host(gate: Gate, folder: Path, forwarded: int) -> dict[str, object]:
    options = f"-o UserKnownHostsFile={folder}/known_hosts -o StrictHostKeyChecking=no -o IdentityAgent=none"
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": gate.port,
        "ansible_user": PERSON,
        "ansible_ssh_private_key_file": str(gate.key),
        "ansible_ssh_common_args": f"-F none {options}",
        "ansible_ssh_extra_args": f"-L {forwarded}:{TARGET}:5432",
        "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=30s",
        "ansible_python_interpreter": "auto_silent",
        "ansible_remote_tmp": "/tmp/.ansible",  # its default is below ~alice, and the workspace has no such account
    }
