"""One frozen settings tree, built once, handed out in pieces.

Sources, strongest first: `DOORWARD_` environment variables (`DOORWARD_POLICY__URL`), then the TOML file.  Unknown keys
are refused by name.  A secret is never a value here: it is a reference to a file or an environment variable.  Every
default is the safe one.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariable

from gateway.errors import SettingsError

ENV_PREFIX = "DOORWARD_"
Listen = Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$")]
ClientName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretRef(Section):
    """Where a secret is: exactly one of `file` (whole content, trailing newline dropped) or `env`."""

    file: Path | None = None
    env: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> SecretRef:
        if (self.file is None) == (self.env is None):
            raise ValueError("name exactly one of `file` and `env`")
        return self

    def read(self) -> SecretStr:
        """Raises SettingsError that names the reference, never the value."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if not value:
                raise SettingsError(f"environment variable {self.env} is not set, but the settings refer to it")
            return SecretStr(value)
        try:
            value = Path(str(self.file)).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"secret file {self.file} cannot be read: {error}") from error
        if not value:
            raise SettingsError(f"secret file {self.file} is empty")
        return SecretStr(value)


class SshSettings(Section):
    """The door itself."""

    listen: Listen = "127.0.0.1:2222"
    host_keys: tuple[Path, ...] = Field(default=(), description="empty: one ed25519 key made in state_dir")
    login_grace_seconds: float = Field(default=30, gt=0)
    max_auth_tries: int = Field(default=6, ge=1)
    max_connections: int = Field(default=200, ge=1)
    keepalive_seconds: float = Field(default=15, gt=0)
    keepalive_count: int = Field(default=3, ge=1)
    drain_seconds: float = Field(default=5, ge=0, description="on SIGTERM, how long running sessions may go on")


class PolicySettings(Section):
    """The OPA that decides everything."""

    url: str = Field(default="http://127.0.0.1:8181", pattern=r"^https?://")
    token: SecretRef | None = None
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=1.5, gt=0, le=2.5, description="per decision; late is a deny")
    sweep_seconds: float = Field(default=1.0, gt=0, le=60, description="how often live sessions are judged again")
    lint_seconds: float = Field(default=60, gt=0, description="how often malformed grants in OPA are looked for")


class DoorClient(Section):
    """One automation that may write grants."""

    token: SecretRef


class DoorSettings(Section):
    """The grants door: OPA's data API in shape, judged by policy, recorded."""

    listen: Listen | None = Field(default=None, description="absent: no grants door")
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    plain_http: bool = Field(default=False, description="tokens travel in the clear to here; TLS ends before the door")
    clients: dict[ClientName, DoorClient] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _tokens_do_not_travel_in_the_clear(self) -> DoorSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: name both or neither")
        host = (self.listen or "").rpartition(":")[0].strip("[]")
        if not (self.tls_certificate or self.plain_http or host in ("", "localhost", "::1") or host.startswith("127.")):
            raise ValueError(
                f"listen: {host} is not loopback, so tls_certificate and tls_key are needed"
                " (or plain_http = true, where TLS ends before the door)"
            )
        return self


class AuditSettings(Section):
    """The evidence."""

    file: Path | None = Field(default=None, description="absent: audit.jsonl in state_dir")
    grace_seconds: float = Field(default=3, ge=0, description="how long sessions stay paused before they end")


class VaultSettings(Section):
    """A Vault (or OpenBao) whose database secrets engine issues credentials."""

    url: str = Field(pattern=r"^https?://")
    token: SecretRef
    ca_file: Path | None = None
    namespace: str | None = None
    mount: str = "database"
    session_policy: str = Field(default="doorward-session", description="Vault policy of each session's own token")
    timeout_seconds: float = Field(default=1.5, gt=0, le=2.5)


class EmbeddedIssuerSettings(Section):
    """A stand-in for Vault: the gateway itself makes the roles on a PostgreSQL that it administers."""

    dsn: SecretRef
    roles: Path = Field(description="folder of <role>.create.sql and <role>.revoke.sql")


class CredentialsSettings(Section):
    """The issuers a permit can name, by their keys here."""

    vault: VaultSettings | None = None
    embedded: EmbeddedIssuerSettings | None = None


class DockerSettings(Section):
    """A Docker engine, over its API."""

    url: str | None = Field(default=None, description="absent: DOCKER_HOST, else the default socket")
    agent: Path | None = Field(default=None, description="agent binary; absent: the one that came with us")
    seccomp_profile: Path | None = Field(default=None, description="absent: backends/docker/seccomp.json")
    runtime: str | None = Field(default=None, description="OCI runtime, for example runsc")


class SandboxSettings(Section):
    """bubblewrap on this machine."""

    agent: Path | None = Field(default=None, description="agent binary; absent: the one that came with us")
    roots: dict[ClientName, Path] = Field(
        default_factory=dict, description="image name to root folder; `host` is always there: this machine's own /usr"
    )
    tools: tuple[Path, ...] = Field(default=(), description="extra folders bound read-only and put on the PATH")


class BackendsSettings(Section):
    """The runtimes a permit can name, by their keys here."""

    docker: DockerSettings | None = None
    sandbox: SandboxSettings | None = None


class TelemetrySettings(Section):
    """Where traces go.  A trace is not evidence: an exporter that is down changes nothing."""

    exporter: Literal["none", "file", "otlp_http", "otlp_grpc"] = "none"
    endpoint: str | None = Field(default=None, description="for otlp_*: for example http://127.0.0.1:4318")
    file: Path | None = Field(default=None, description="for file: absent means traces.jsonl in state_dir")
    service_name: str = "doorward"


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", env_ignore_empty=True
    )

    state_dir: Path = Path("~/.local/state/doorward")
    instance: str = Field(default="doorward", pattern=r"^[A-Za-z0-9._-]{1,63}$", description="this gateway's own name")
    ssh: SshSettings = SshSettings()
    policy: PolicySettings = PolicySettings()
    door: DoorSettings = DoorSettings()
    audit: AuditSettings = AuditSettings()
    credentials: CredentialsSettings = CredentialsSettings()
    backends: BackendsSettings = BackendsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @property
    def state(self) -> Path:
        return self.state_dir.expanduser()

    @property
    def admin_socket(self) -> Path:
        return self.state / "admin.sock"

    @property
    def audit_file(self) -> Path:
        return self.audit.file or self.state / "audit.jsonl"


def load(file: Path | None) -> Settings:
    """Read the TOML `file` and the environment.  Raises SettingsError naming each bad key and its remedy."""
    _refuse_unknown_variables()
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"settings file {file} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"settings file {file} is not TOML: {error}") from error
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()]
        raise SettingsError("; ".join(lines)) from error
    except UnreadableVariable as error:
        raise SettingsError(f"environment: {error}") from error


def _refuse_unknown_variables() -> None:
    # pydantic-settings ignores a misspelt top-level variable, and a setting that silently does not hold is a hole.
    known = {name.upper() for name in Settings.model_fields}
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable not in ALIEN_VARIABLES:
            head = variable.removeprefix(ENV_PREFIX).split("__")[0]
            if head not in known:
                raise SettingsError(f"environment variable {variable}: no setting has this name")


ALIEN_VARIABLES = frozenset(f"{ENV_PREFIX}{name}" for name in ("REQUIRE", "CACHE", "CONFIG", "TOKEN_FILE"))
"""Variables that start with our prefix and are not settings: the tests', the cache's, the CLI's."""


def to_toml(tree: Mapping[str, object]) -> str:
    """A settings file that holds `tree`: strings, numbers, lists of them and nested tables."""
    lines: list[str] = []
    _table(lines, "", tree)
    return "\n".join(lines).lstrip() + "\n"


def _table(lines: list[str], name: str, tree: Mapping[str, object]) -> None:
    values = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    if name and values:
        lines.append(f"\n[{name}]")
    lines.extend(f"{key} = {json.dumps(value)}" for key, value in values.items())  # a JSON scalar is TOML
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _table(lines, f"{name}.{key}" if name else key, value)
