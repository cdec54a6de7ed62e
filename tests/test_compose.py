"""docker-compose.opa.yaml comes up, every part healthy, and what it promises holds."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.stack.compose import FILE, SECRETS, Composed, composed
from tests.stack.docker import docker
from tests.stack.require import require
from tests.stack.tools import COMPOSE, find_or_build

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    require("docker", "images")
    directory = tmp_path_factory.mktemp("compose")
    with docker(directory, networks=True) as engine, composed(engine, directory) as started:
        yield started


def test_the_file_is_valid_with_its_own_image_names(tmp_path: Path) -> None:
    subprocess.run(["sh", SECRETS, tmp_path / "secrets"], check=True, capture_output=True)
    environment = {**os.environ, "SECRETS_DIR": str(tmp_path / "secrets")}
    command = [str(find_or_build(COMPOSE)), "--file", str(FILE), "config"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "openpolicyagent/opa:" in ran.stdout
    for name in ("opa-admin.token", "postgres.password", "vault-root.token"):
        assert (tmp_path / "secrets" / name).read_text() not in ran.stdout


def test_opa_takes_a_known_token_and_no_other(stack: Composed) -> None:
    url = f"{stack.opa}/v1/data/people/alice"
    token = (stack.secrets / "opa-admin.token").read_text()
    assert httpx.put(url, json={"keys": []}, headers={"authorization": f"Bearer {token}"}).status_code == 204
    assert httpx.get(url, headers={"authorization": "Bearer guess"}).status_code == 401
    assert httpx.get(f"{stack.opa}/health?bundles").status_code == 200


def test_the_gateway_answers_as_an_ssh_server(stack: Composed) -> None:
    with socket.create_connection(("127.0.0.1", stack.ssh_port), timeout=5) as connection:
        assert connection.recv(8) == b"SSH-2.0-"


def test_vault_issues_a_role_that_reads_the_orders(stack: Composed) -> None:
    script = (
        "export VAULT_ADDR=http://127.0.0.1:8200 HOME=/tmp VAULT_TOKEN=$(cat /run/secrets/vault-root-token);"
        "vault read -format=json database/creds/orders-readonly"
    )
    issued = stack.compose("exec", "-T", "vault", "sh", "-c", script)
    assert '"username": "v-' in issued
    orders = stack.compose("exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "orders", "-Atc", "TABLE orders")
    assert len(orders.splitlines()) == 4


def test_no_secret_is_in_a_containers_configuration(stack: Composed) -> None:
    configuration = stack.compose("config")
    for file in stack.secrets.glob("*.*"):
        if file.suffix in (".token", ".password"):
            assert file.read_text() not in configuration
