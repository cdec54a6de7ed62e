"""A real OpenID Connect provider: Keycloak from Maven Central, on the Java of this machine.

Its first start takes a minute, most of it making tables; so they are made once, when it is unpacked, and each server
begins with a copy.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.embedded.tools import cache, made_once, run_shown
from tests.stack import IN_THE_CLEAR, StackError
from tests.stack.browser import Browser
from tests.stack.process import Processes, Running, free_port, wait_until

VERSION = "26.0.7"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
RECIPE = 1
"""Part of the cache's name: raise it when what is done to the distribution changes."""
ADMIN = "admin"
ADMIN_PASSWORD = "only-on-loopback"  # a throwaway server's; it is the same in every copy of the tables
REALM = "corp"
CLIENT = "doorward"
CLIENT_WITH_SECRET = "doorward-with-secret"
CLIENT_SECRET = "a secret: of +this/ client%"
"""With all that a form or a header could get wrong."""
CODE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Keycloak:
    """A running server with one realm, which has one client for the device flow."""

    url: str
    process: Running

    @property
    def issuer(self) -> str:
        return f"{self.url}/realms/{REALM}"

    def add_user(self, name: str, groups: Sequence[str] = ()) -> str:
        """A person of these groups; their password."""
        password = secrets.token_urlsafe(12)
        with _admin(self.url) as admin:
            for group in groups:
                if not admin.get(f"/admin/realms/{REALM}/groups", params={"search": group, "exact": True}).json():
                    _sent(admin.post(f"/admin/realms/{REALM}/groups", json={"name": group}))
            user = {
                "username": name, "enabled": True, "groups": [f"/{group}" for group in groups],
                "email": f"{name}@example.com", "emailVerified": True, "firstName": name.title(), "lastName": "Example",
                "credentials": [{"type": "password", "value": password, "temporary": False}],
            }  # fmt: skip
            _sent(admin.post(f"/admin/realms/{REALM}/users", json=user))
        return password

    def sessions(self, name: str) -> list[dict[str, Any]]:
        """What the person is logged in to: each has `clients`, by id."""
        with _admin(self.url) as admin:
            [user] = admin.get(f"/admin/realms/{REALM}/users", params={"username": name, "exact": True}).json()
            found: list[dict[str, Any]] = admin.get(f"/admin/realms/{REALM}/users/{user['id']}/sessions").json()
            return found


def answer(url: str, name: str, password: str, *, approve: bool = True) -> str:
    """What a person does in their browser with the address that they were shown; the page that ends it."""
    browser = Browser()
    browser.open(url)
    browser.submit("username", username=name, password=password)
    if approve:
        browser.submit("accept", accept="Yes")
    else:
        browser.submit("cancel", cancel="No")
    return browser.page


@contextmanager
def keycloak(directory: Path) -> Iterator[Keycloak]:
    """A server with the realm made."""
    processes = Processes(directory)
    try:
        started = start_keycloak(processes)
        _make_realm(started.url)
        yield started
    finally:
        processes.end()


def start_keycloak(processes: Processes) -> Keycloak:
    home = find_or_make()
    tables = processes.directory / "tables"
    shutil.copytree(home / "tables", tables)
    url, running = _start(processes, home, tables)
    return Keycloak(url, running)


def _start(processes: Processes, home: Path, tables: Path) -> tuple[str, Running]:
    port, health = free_port(), free_port()
    running = processes.start(
        "keycloak",
        [
            home / "bin" / "kc.sh", "start", "--optimized", "--cache=local", "--log-level=warn",
            "--hostname-strict=false",
            "--http-enabled=true", "--http-host=127.0.0.1", f"--http-port={port}",
            f"--http-management-port={health}",
        ],
        # In the environment, for it would be a shell's business on the command line.
        env={**_environment(), "KC_DB_URL": f"jdbc:h2:file:{tables}/keycloakdb;NON_KEYWORDS=VALUE"},
    )  # fmt: skip
    wait_until(lambda: _is_ready(f"http://127.0.0.1:{health}/health/ready"), running, seconds=240)
    return f"http://127.0.0.1:{port}", running


def _environment() -> dict[str, str]:
    return {
        "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
        "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
        "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
    }


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, verify=IN_THE_CLEAR).status_code == 200
    except httpx.TransportError:
        return False


# -- the distribution -------------------------------------------------------------------------------------------------


def find_or_make() -> Path:
    """The unpacked distribution, fitted to its database, with the tables made; the first call takes two minutes.

    Raises ToolUnavailable or StackError.
    """
    return made_once(cache() / f"keycloak-{VERSION}-{RECIPE}", _make)


def _make(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="dw-kc-") as name:
        scratch = Path(name)
        fetch = ["mvn", "-B", "-q", f"{PLUGIN}:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={scratch}"]
        run_shown(fetch, f"fetching keycloak {VERSION} from Maven Central (150 MB, once)", cwd=scratch)
        [archive] = scratch.glob("*.zip")
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(scratch)
        for part in (scratch / f"keycloak-{VERSION}").iterdir():
            part.rename(folder / part.name) if part.is_file() else shutil.move(part, folder / part.name)
        script = folder / "bin" / "kc.sh"
        script.chmod(0o755)
        run_shown(
            [str(script), "build", "--db=dev-file", "--health-enabled=true"],
            "fitting keycloak to its database (about 20 s, once)",
            env=_environment(),
        )
        _make_tables(folder, scratch)


def _make_tables(home: Path, scratch: Path) -> None:
    processes = Processes(scratch / "first")
    try:
        _start(processes, home, home / "tables")
    finally:
        processes.end()


# -- the realm --------------------------------------------------------------------------------------------------------


def _make_realm(url: str) -> None:
    groups = {
        "name": "groups", "protocol": "openid-connect", "protocolMapper": "oidc-group-membership-mapper",
        "config": {
            "claim.name": "groups", "full.path": "false",
            "id.token.claim": "true", "access.token.claim": "false", "userinfo.token.claim": "true",
        },
    }  # fmt: skip
    client = {
        "clientId": CLIENT, "publicClient": True, "standardFlowEnabled": False, "directAccessGrantsEnabled": False,
        "attributes": {"oauth2.device.authorization.grant.enabled": "true"}, "protocolMappers": [groups],
    }  # fmt: skip
    secret = {**client, "clientId": CLIENT_WITH_SECRET, "publicClient": False, "secret": CLIENT_SECRET}
    realm = {
        "realm": REALM, "enabled": True, "clients": [client, secret],
        "oauth2DeviceCodeLifespan": CODE_SECONDS, "oauth2DevicePollingInterval": 1,
    }  # fmt: skip
    with _admin(url) as admin:
        _sent(admin.post("/admin/realms", json=realm))


@contextmanager
def _admin(url: str) -> Iterator[httpx.Client]:
    login = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN_PASSWORD}
    with httpx.Client(base_url=url, timeout=60, verify=IN_THE_CLEAR) as client:
        answered = client.post("/realms/master/protocol/openid-connect/token", data=login)
        client.headers["authorization"] = f"Bearer {_sent(answered).json()['access_token']}"
        yield client


def _sent(answered: httpx.Response) -> httpx.Response:
    if answered.is_error:
        raise StackError(f"keycloak: {answered.request.url.path}: {answered.status_code}: {answered.text[:500]}")
    return answered


__all__ = [
    "CLIENT",
    "CLIENT_SECRET",
    "CLIENT_WITH_SECRET",
    "Keycloak",
    "answer",
    "find_or_make",
    "keycloak",
    "start_keycloak",
]
