"""The wheel holds all that runs, and works installed, outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.e2e.world import until
from tests.stack.process import free_port

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts" / "wheel", str(directory)], check=True, env=environment, capture_output=True)
    [built] = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `doorward` command of an environment that has the wheel and, by path, our dependencies."""
    environment = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    [packages] = environment.glob("lib/python3.*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, f"--prefix={environment}", wheel], check=True, capture_output=True)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = environment / "bin" / "doorward"
    script.write_text(f"#!{environment}/bin/python\n" + script.read_text().split("\n", 1)[1])
    return script


def test_the_wheel_holds_the_agent_the_policies_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert "gateway/_assets/agent/doorward-agent-linux-amd64" in names
    assert "gateway/_assets/agent/doorward-agent-linux-arm64" in names
    assert "gateway/_assets/policies/gateway/config/config.rego" in names
    assert "gateway/_assets/policies/.manifest" in names
    assert "gateway/_assets/schemas/input.authz.json" in names
    assert "gateway/_assets/backends/docker/seccomp.json" in names
    assert "gateway/embedded/modules/opa/go.sum" in names
    assert not [name for name in names if name.startswith(("tests/", "bench/", "demo/", "policy-tests/"))]


def test_the_installed_command_runs_the_door_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    port, state = free_port(), tmp_path / "state"
    command = [str(installed), "run", "--listen", f"127.0.0.1:{port}", "--state", str(state)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    try:
        until(lambda: "ready on" in (tmp_path / "log").read_text() or process.poll() is not None, 60)
        options = ["-o", f"UserKnownHostsFile={state}/known_hosts", "-o", "BatchMode=yes", "-F", "none"]
        ssh = ["ssh", *options, "-i", str(state / "alice"), "-p", str(port), "alice@127.0.0.1"]
        ran = subprocess.run([*ssh, "psql -qAt -c 'select count(*) from orders'"], capture_output=True, timeout=30)
        assert (ran.returncode, ran.stdout) == (0, b"4\n"), (tmp_path / "log").read_text() + ran.stderr.decode()
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_the_installed_command_checks_a_folder_of_somebody_elses(installed: Path, tmp_path: Path) -> None:
    """It has the schemas with it; what it says of a folder is of that folder."""
    (tmp_path / "mine" / "gateway" / "authz").mkdir(parents=True)
    file = tmp_path / "mine" / "gateway" / "authz" / "authz.rego"
    file.write_text('package gateway.authz\n\ndecision := {"allow": true} if input.request.kind == "shell"\n')
    environment = {**os.environ, "PYTHONPATH": ""}
    ours = subprocess.run([installed, "policy", "check"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    command = [str(installed), "policy", "check", "--policies", "mine"]
    theirs = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert (ours.returncode, ours.stdout) == (0, "nothing found\n"), ours.stderr
    assert theirs.returncode == 1
    assert "undefined: asked nothing" in theirs.stdout
