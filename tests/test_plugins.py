"""Backends and issuers of other packages: installed, named in the settings, and used; or refused with a remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.errors import SettingsError
from gateway.model import Address
from gateway.parts import open_backends, open_issuers
from gateway.settings import Settings
from gateway.standalone import example_target
from tests.cli.commands import doorward, written
from tests.e2e.world import ALICE, Door
from tests.stack import example
from tests.stack.images import tiny_root
from tests.stack.opa import Opa, opa
from tests.stack.require import require

EXAMPLE = Path(__file__).parents[1] / "examples" / "runc-backend"
ISSUER = """
from contextlib import asynccontextmanager
from gateway.sections import Section

class Mine:
    class Settings(Section):
        url: str

    @staticmethod
    @asynccontextmanager
    async def open(settings, place):
        yield Mine(settings.url, place)

    def __init__(self, url, place):
        self.name, self.url, self.place = "{name}", url, place
"""


@dataclass(frozen=True)
class Place:
    opa: Opa
    directory: Path


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, for this process and those it starts."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def offers(packages: Path, name: str, module: str, source: str, group: str = "doorward.backends") -> None:
    """An installed package `module` whose entry point `name` is its `Mine`."""
    information = packages / f"{module}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:Mine\n")
    (packages / f"{module}.py").write_text(source)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(tiny_root(has_shell=True)) as tar:
        tar.extractall(root, filter="tar")
    root.chmod(0o755)
    return root


@pytest.fixture
def place(parts_dir: Path) -> Iterator[Place]:
    directory = parts_dir / "plugins"
    directory.mkdir()
    with opa(directory / "opa") as server:
        yield Place(server, directory)
    shutil.rmtree(directory)


def test_the_example_is_installed_and_an_engineer_works_in_its_container(
    packages: Path, place: Place, root: Path, tmp_path: Path
) -> None:
    require("runc", "images")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    source = shutil.copytree(EXAMPLE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([*pip, "--target", packages, source], check=True)
    target = {
        **example_target(Address(host="127.0.0.1", port=1), "runc", "tiny", "none"),
        "limits": {"memory_bytes": 2**26, "cpus": 1.0, "pids": 32, "tmpfs_bytes": 2**22},
        "network": {"egress": []},
        "credentials": [],
    }
    opa = place.opa
    opa.put("grants", {})
    example.load(opa, {"tiny": target}, {ALICE: example.ssh_key(place.directory)})
    settings = {
        "state_dir": str(tmp_path / "state"),
        "ssh": {"listen": "127.0.0.1:0", "drain_seconds": 1, **example.OPEN},
        "policy": {"url": opa.url, "token": {"file": str(opa.token_files["gateway"])}},
        "door": {
            "listen": "127.0.0.1:0",
            "clients": {"ticketing": {"token": {"file": str(example.door_token(place.directory))}}},
        },
        "backends": {"runc": {"roots": {"tiny": str(root)}}},
    }
    door = Door(place, tmp_path, f"{ALICE}+tiny")
    door.start(settings)
    try:
        door.grant(target="tiny")
        ran = door.ssh("id -u; cat; exit 3", stdin=b"here")
        checked = door.doorward("check")
        assert not [known for known in _known_to_runc() if known.startswith("s-")]
    finally:
        door.stop()

    assert (ran.stdout, ran.returncode) == (b"65532\nhere", 3), ran.stderr
    assert "backend runc" in checked.stdout, checked
    assert "Traceback" not in door.log.read_text()


def _known_to_runc() -> list[str]:
    return subprocess.run(["runc", "list", "-q"], capture_output=True, text=True, check=True).stdout.split()


def test_the_example_is_as_short_as_it_says() -> None:
    lines = [line for line in (EXAMPLE / "doorward_runc.py").read_text().splitlines() if line.strip()]
    assert len(lines) < 150


async def test_an_issuer_of_another_package_is_opened_with_its_settings(packages: Path, tmp_path: Path) -> None:
    offers(packages, "mine", "mine_issuer", ISSUER.format(name="mine"), "doorward.issuers")
    settings = Settings.model_validate(
        {"state_dir": tmp_path / "state", "instance": "blue", "credentials": {"mine": {"url": "https://issuer"}}}
    )

    [opening] = open_issuers(settings)
    async with opening as opened:
        assert opened.url == "https://issuer"  # type: ignore[attr-defined]
        place = opened.place  # type: ignore[attr-defined]
    assert place.instance == "blue"
    assert place.state == tmp_path / "state" / "plugins" / "mine"
    assert place.state.stat().st_mode & 0o777 == 0o700
    assert os.access(place.agent, os.X_OK)


async def test_a_plugin_goes_by_the_name_of_its_section(packages: Path, tmp_path: Path) -> None:
    offers(packages, "mine", "mine_other", ISSUER.format(name="other"), "doorward.backends")
    settings = Settings.model_validate({"state_dir": tmp_path, "backends": {"mine": {"url": "x"}}})

    [opening] = open_backends(settings, "test")
    with pytest.raises(SettingsError, match="the plugin mine calls itself other"):
        await opening.__aenter__()


async def test_what_is_installed_and_not_named_is_not_imported(packages: Path, tmp_path: Path) -> None:
    offers(packages, "mine", "mine_trap", "raise SystemExit('imported')")
    ran = await doorward("config", "schema", env={"PYTHONPATH": str(packages)})
    assert (ran.status, ran.err) == (0, "")
    assert Settings.model_validate({"state_dir": tmp_path}).backends.plugins == {}
    assert "mine_trap" not in sys.modules


@pytest.mark.parametrize(
    ("source", "section", "said"),
    [
        (None, {"mine": {"url": "x"}}, "mine: not one of ours, and no entry point of the group doorward.backends"),
        ("import nothing_like_it", {"mine": {"url": "x"}}, "mine: mine_bad:Mine of mine_bad cannot be loaded"),
        ("", {"mine": {"url": "x"}}, "mine: mine_bad:Mine of mine_bad cannot be loaded"),
        ("Mine = object()", {"mine": {"url": "x"}}, "mine: mine_bad:Mine of mine_bad has no `Settings` and `open`"),
        (ISSUER, {"mine": {"url": "x", "ulr": "s3cret"}}, "mine.ulr: Extra inputs are not permitted"),
        (ISSUER, {"mine": {"url": 7}}, "mine.url: Input should be a valid string"),
        (ISSUER, {"mine": "s3cret"}, "mine: Input should be a valid dictionary"),
    ],
)
async def test_a_section_that_cannot_be_used_is_named_with_the_reason(
    packages: Path, tmp_path: Path, source: str | None, section: dict[str, object], said: str
) -> None:
    if source is not None:
        offers(packages, "mine", "mine_bad", source)
    file = written(tmp_path, {"backends": section})
    ran = await doorward("sessions", "--config", file, env={"PYTHONPATH": str(packages)})

    assert ran.status == 1
    assert f"doorward: settings: backends.{said}" in ran.err
    assert "s3cret" not in ran.err


async def test_a_name_that_two_packages_offer_is_refused(packages: Path, tmp_path: Path) -> None:
    for module in ("mine_one", "mine_two"):
        offers(packages, "mine", module, ISSUER)
    file = written(tmp_path, {"backends": {"mine": {"url": "x"}}})
    ran = await doorward("sessions", "--config", file, env={"PYTHONPATH": str(packages)})

    assert "mine: offered by mine_one and mine_two; uninstall one" in ran.err


def test_a_section_can_come_from_the_environment(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offers(packages, "mine", "mine_environment", ISSUER)
    monkeypatch.setenv("DOORWARD_BACKENDS__MINE__URL", "y")

    assert Settings().backends.plugins["mine"].url == "y"
