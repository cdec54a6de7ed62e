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
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariable

from gateway import plugins
from gateway.errors import SettingsError
from gateway.sections import ClientName, SecretRef, Section
from gateway.settings_authn import AuthnSettings
from gateway.settings_door import DoorSettings
from gateway.settings_hooks import HookSettings
from gateway.settings_pools import PoolSettings
from gateway.settings_ssh import SshSettings
from gateway.settings_sshproxy import SshProxySettings

ENV_PREFIX = "DOORWARD_"
PLUGIN = "plugin"
"""The kind of an error whose message begins with the rest of the key."""


class PolicySettings(Section):
    """The OPA that decides everything."""

    url: str = Field(default="http://127.0.0.1:8181", pattern=r"^https?://")
    token: SecretRef | None = None
    auditor_token: SecretRef | None = Field(default=None, description="what `doorward policy` reads everything with")
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=1.5, gt=0, le=2.5, description="per decision; late is a deny")
    sweep_seconds: float = Field(default=1.0, gt=0, le=60, description="how often live sessions are judged again")
    bundles_seconds: float = Field(default=10, gt=0, description="how often OPA is asked how its bundles fare")
    lint_seconds: float = Field(default=60, gt=0, description="how often malformed grants in OPA are looked for")


class AuditSettings(Section):
    """The evidence."""

    file: Path | None = Field(default=None, description="absent: audit.jsonl in state_dir")
    grace_seconds: float = Field(default=3, ge=0, description="how long sessions stay paused before they end")
    rotate_bytes: int = Field(default=2**27, ge=2**20, description="a file that long is closed, and the next begun")
    rotate_seconds: float = Field(default=86400, ge=60, description="and one whose first record is that old")
    compress: bool = Field(default=False, description="closed files are packed with gzip")
    keep_segments: int | None = Field(default=None, ge=1, description="how many closed files are kept; absent: all")
    keep_days: float | None = Field(
        default=None, gt=0, le=36500, description="how long they are kept; absent: for ever"
    )


class VaultKubernetesSettings(Section):
    """The gateway's own token by Vault's Kubernetes auth method, for the service account of its pod."""

    role: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    mount: str = Field(default="kubernetes", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_/-]*$")
    token_file: Path = Field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount/token"),
        description="the service account's projected token; read at each login, for the kubelet replaces it",
    )


class VaultSettings(Section):
    """A Vault (or OpenBao) whose secrets engines issue credentials."""

    url: str = Field(pattern=r"^https?://")
    token: SecretRef | None = None
    kubernetes: VaultKubernetesSettings | None = None
    ca_file: Path | None = None
    namespace: str | None = None
    mount: str = "database"
    session_policy: str = Field(default="doorward-session", description="Vault policy of each session's own token")
    timeout_seconds: float = Field(default=1.5, gt=0, le=2.5)

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.token is None) == (self.kubernetes is None):
            raise ValueError("say how the gateway is known to Vault: exactly one of `token` and `kubernetes`")
        return self


class EmbeddedIssuerSettings(Section):
    """A stand-in for Vault: the gateway itself makes the roles on a PostgreSQL that it administers."""

    dsn: SecretRef
    roles: Path = Field(description="folder of <role>.create.sql and <role>.revoke.sql")


class Offered(Section):
    """A section of parts, ours and those of installed packages: a key that is not ours is an entry point's name."""

    model_config = ConfigDict(extra="allow")
    group: ClassVar[str]

    @model_validator(mode="after")
    def _plugins(self) -> Self:
        try:
            self.plugins.update(plugins.validated(self.group, self.plugins))
        except ValueError as error:
            raise PydanticCustomError(PLUGIN, "{reason}", {"reason": str(error)}) from error
        return self

    @property
    def plugins(self) -> dict[str, Any]:
        """The settings of those that are not ours, each as its own model."""
        return self.__pydantic_extra__ or {}


class CredentialsSettings(Offered):
    """The issuers a permit can name, by their keys here."""

    group = plugins.ISSUERS

    vault: VaultSettings | None = None
    embedded: EmbeddedIssuerSettings | None = None


class RedisSettings(Section):
    """What the gateway's own connections to Redis need, where a permit says that they speak TLS."""

    ca_file: Path | None = Field(default=None, description="who signs servers' certificates; absent: the system's")


class DockerSettings(Section):
    """A Docker engine, over its API."""

    url: str | None = Field(default=None, description="absent: DOCKER_HOST, else the default socket")
    agent: Path | None = Field(default=None, description="agent binary; absent: the one that came with us")
    seccomp_profile: Path | None = Field(default=None, description="absent: backends/docker/seccomp.json")
    runtime: str | None = Field(default=None, description="OCI runtime, for example runsc")


class KubernetesSettings(Section):
    """A namespace of a Kubernetes cluster (1.28 or newer)."""

    kubeconfig: Path | None = Field(default=None, description="absent: the service account of the gateway's own pod")
    context: str | None = Field(default=None, description="of the kubeconfig; absent: its current one")
    namespace: str = Field(default="doorward-workspaces", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    agent_image: str = Field(
        pattern=r"^\S+@sha256:[0-9a-f]{64}$", description="by digest; backends/kubernetes/agent.Dockerfile makes it"
    )
    pod_pids_limit: int | None = Field(
        default=None, ge=8, description="podPidsLimit of the kubelets; a permit that wants less processes is refused"
    )
    enforces_network_policy: bool | None = Field(
        default=None, description="absent: found out by trying, at start and later"
    )
    start_seconds: float = Field(default=30, gt=0, le=300, description="until a pod must run, its images pulled")


class SandboxSettings(Section):
    """bubblewrap on this machine."""

    agent: Path | None = Field(default=None, description="agent binary; absent: the one that came with us")
    roots: dict[ClientName, Path] = Field(
        default_factory=dict, description="image name to root folder; `host` is always there: this machine's own /usr"
    )
    tools: tuple[Path, ...] = Field(default=(), description="extra folders bound read-only and put on the PATH")


class BackendsSettings(Offered):
    """The runtimes a permit can name, by their keys here."""

    group = plugins.BACKENDS

    docker: DockerSettings | None = None
    kubernetes: KubernetesSettings | None = None
    sandbox: SandboxSettings | None = None
    sshproxy: SshProxySettings | None = None


class TelemetrySettings(Section):
    """Where traces and metrics go.  A trace is not evidence: an exporter that is down changes nothing."""

    exporter: Literal["none", "file", "otlp_http", "otlp_grpc"] = "none"
    endpoint: str | None = Field(default=None, description="for otlp_*: for example http://127.0.0.1:4318")
    file: Path | None = Field(default=None, description="for file: absent means traces.jsonl in state_dir")
    service_name: str = "doorward"
    metrics: bool = Field(default=False, description="also metrics, by the same exporter")
    metrics_seconds: float = Field(default=60, gt=0, description="how often")


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", env_ignore_empty=True
    )

    state_dir: Path = Path("~/.local/state/doorward")
    instance: str = Field(default="doorward", pattern=r"^[A-Za-z0-9._-]{1,63}$", description="this gateway's own name")
    ssh: SshSettings = SshSettings()
    policy: PolicySettings = PolicySettings()
    authn: AuthnSettings = AuthnSettings()
    door: DoorSettings = DoorSettings()
    hooks: dict[ClientName, HookSettings] = Field(default_factory=dict)
    audit: AuditSettings = AuditSettings()
    credentials: CredentialsSettings = CredentialsSettings()
    redis: RedisSettings = RedisSettings()
    backends: BackendsSettings = BackendsSettings()
    pools: dict[ClientName, PoolSettings] = Field(default_factory=dict, description="by backend")
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
    return built(values)


def built(values: Mapping[str, Any]) -> Settings:
    """The tree of `values`, and of the environment over them.  Raises SettingsError that names each bad key."""
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError("; ".join(map(_explained, error.errors()))) from error
    except UnreadableVariable as error:
        raise SettingsError(f"environment: {error}") from error


def _explained(error: ErrorDetails) -> str:
    key = ".".join(map(str, error["loc"])) or "settings"
    return f"{key}{'.' if error['type'] == PLUGIN else ': '}{error['msg']}"


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
