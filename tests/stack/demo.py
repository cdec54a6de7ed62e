"""The whole stack in the background for people: `up`, `down`, `status` over one directory."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded.tools import build_agent
from tests.stack import example
from tests.stack.docker import Docker, existing_docker, remove_docker, start_docker
from tests.stack.images import debug_image
from tests.stack.jaeger import Jaeger, start_jaeger
from tests.stack.machine import install_packages
from tests.stack.opa import Opa, start_opa
from tests.stack.postgres import Postgres, remove_postgres, start_postgres
from tests.stack.process import PIDS, Processes
from tests.stack.vault import Vault, start_vault

AGENT_SOURCE = Path(__file__).parents[2] / "backends" / "agent"
INSTANCE = "demo"
STATE = "stack.json"
SSH = "127.0.0.1:2222"
DOOR = "127.0.0.1:8282"


@dataclass(frozen=True, slots=True)
class Parts:
    postgres: Postgres
    vault: Vault
    opa: Opa
    docker: Docker
    image: str
    jaeger: Jaeger


def up(directory: Path) -> None:
    """Bring everything up and say what to run next.  Already up: only says so.  Raises StackError, having ended all."""
    if (directory / STATE).exists() and _dead(directory) == []:
        print(f"already up in {directory}\n{_next_commands(directory)}")
        return
    down(directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    try:
        parts = _start(Processes(directory, attached=False))
    except BaseException:  # also Ctrl-C: half a stack is of no use, and nobody would know to end it
        down(directory)
        raise
    _write_state(directory, parts)
    print(_next_commands(directory))


def down(directory: Path) -> None:
    """End what `up` started, by recorded pid and start time, and remove the directory.  Nothing there: does nothing."""
    if not (directory / PIDS).exists():
        return
    if (directory / STATE).exists():
        state = json.loads((directory / STATE).read_text())
        engine = Docker(state["docker"], is_ours=state["docker_is_ours"])
        if engine.answers():
            with _step("workspaces removed"):
                engine.remove_workspaces(f"doorward.instance={INSTANCE}")
    with _step("processes ended"):
        Processes(directory).end()
    remove_docker(directory)
    remove_postgres(directory)
    shutil.rmtree(directory)


def status(directory: Path) -> int:
    """Print what runs; 0 when all of it does."""
    if not (directory / PIDS).exists():
        print("down")
        return 3
    for running in Processes(directory).running:
        print(f"{running.name:10} pid {running.pid:<8} {'up' if running.is_alive() else 'DEAD'}   {running.log}")
    if (directory / STATE).exists():
        for name, value in json.loads((directory / STATE).read_text()).items():
            print(f"{name:16} {value}")
    return 1 if _dead(directory) else 0


def _start(processes: Processes) -> Parts:
    install_packages()
    with _step("postgres"):
        postgres = start_postgres(processes)
    with _step("vault"):
        vault = start_vault(processes, postgres)
    with _step("docker"):
        docker = existing_docker() or start_docker(processes)
    with _step("debug image"):
        image = debug_image(docker)
    with _step("jaeger"):
        jaeger = start_jaeger(processes)
    with _step("opa"):
        opa = start_opa(processes, otlp_grpc=jaeger.otlp_grpc)
    if (AGENT_SOURCE / "main.go").exists():
        with _step("agent"):
            build_agent(AGENT_SOURCE)
    return Parts(postgres, vault, opa, docker, image, jaeger)


def _write_state(directory: Path, parts: Parts) -> None:
    keys = {example.PERSON: example.ssh_key(directory)}
    example.load(parts.opa, {example.TARGET: example.orders_target(parts.image, parts.postgres)}, keys)
    settings = {
        "state_dir": str(directory / "state"),
        "instance": INSTANCE,
        "ssh": {"listen": SSH, **example.OPEN},
        "policy": {"url": parts.opa.url, "token": {"file": str(parts.opa.token_files["gateway"])}},
        "door": {
            "listen": DOOR,
            "clients": {"ticketing": {"token": {"file": str(example.door_token(directory))}}},
        },
        "credentials": {"vault": {"url": parts.vault.url, "token": {"file": str(parts.vault.gateway_token_file)}}},
        "backends": {"docker": {"url": parts.docker.host}},
        "telemetry": {"exporter": "otlp_http", "endpoint": parts.jaeger.otlp_http},
    }
    (directory / "doorward.toml").write_text(example.settings_toml(settings))
    state = {
        "opa": parts.opa.url, "vault": parts.vault.url, "postgres": f"127.0.0.1:{parts.postgres.port}",
        "docker": parts.docker.host, "docker_is_ours": parts.docker.is_ours, "image": parts.image,
        "traces": parts.jaeger.query, "decision_log": str(parts.opa.decision_log),
    }  # fmt: skip
    (directory / STATE).write_text(json.dumps(state, indent=1))


def _next_commands(directory: Path) -> str:
    state = json.loads((directory / STATE).read_text())
    grant = f"http://{DOOR}/v1/data/grants/{example.PERSON}/INC-1"
    host, port = SSH.split(":")
    now = "$(date -u +%FT%TZ)"
    fields = (
        f'"target":"{example.TARGET}","reason":"stuck orders","approved_by":"the orders team lead",'
        f'"starts_at":"\'"{now}"\'","ends_at":"\'"$(date -u -d +1hour +%FT%TZ)"\'"'
    )
    return f"""
The stack is up. Next, each in a terminal of its own:

1. the gateway
   {_doorward()} serve --config {directory}/doorward.toml

2. a grant, as the ticketing system would write it
   curl -sS -X PUT -H @{directory}/ticketing.header {grant} -d '{{{fields}}}'

3. the engineer on call
   ssh -i {directory}/{example.PERSON} -p {port} -o UserKnownHostsFile={directory}/known_hosts \\
     -o StrictHostKeyChecking=accept-new {example.PERSON}@{host}
   and in there: psql -c 'select * from orders'

4. the grant ends, and with it the session
   curl -sS -X DELETE -H @{directory}/ticketing.header {grant}

Traces: {state["traces"]}   Decisions: {state["decision_log"]}
End it all: make stack-down
"""


def _doorward() -> str:
    """The command as this interpreter has it: installed beside it, or from the checkout."""
    installed = Path(sys.executable).with_name("doorward")
    return str(installed) if installed.exists() else f"{sys.executable} -m gateway"


def _dead(directory: Path) -> list[str]:
    return [running.name for running in Processes(directory).running if not running.is_alive()]


@contextmanager
def _step(name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{name:18} {time.monotonic() - started:5.1f} s", file=sys.stderr, flush=True)
