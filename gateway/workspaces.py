"""What a session's workspace is: something to start, with its limits, beside a service or by itself; or a real host."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.values import Name, Value

ForcedCommand = Annotated[str, Field(max_length=4096, pattern=r"\S")]
"""A command line for the workspace's shell.  A blank one is none, and none must be said by its absence."""
Port = Annotated[int, Field(ge=1, le=65535)]


class WorkspaceUser(Value):
    """The unprivileged account everything in the workspace runs as."""

    name: Name = Field(default="debug", description="the account's name")
    uid: int = Field(default=65532, ge=1, description="its number; never that of root")
    gid: int = Field(default=65532, ge=1, description="the number of its group")


class Limits(Value):
    """What the workspace may use at most.  Every limit is enforced by the runtime, none is advice."""

    memory_bytes: int = Field(ge=16 * 2**20, description="memory, swap included")
    cpus: float = Field(gt=0, le=1024, description="processors, or a part of one")
    pids: int = Field(ge=32, description="processes and threads at once, the agent's (up to 16) among them")
    tmpfs_bytes: int = Field(ge=2**20, description="size of /tmp and of the home directory, each")


NO_LIMITS = Limits.model_construct(memory_bytes=0, cpus=0.0, pids=0, tmpfs_bytes=0)
"""Of a host, which has its own, and of what is started beside a running service, where nothing could keep them."""
STARTED_WITH = frozenset({"image", "limits"})
OF_WHAT_IS_STARTED = STARTED_WITH | {"user", "home", "shell", "network", "pod", "read_only"}
"""What says how a workspace is started, and says nothing of one that is there already."""


class Address(Value):
    """A TCP destination."""

    host: str = Field(min_length=1, max_length=253, description="name or address")
    port: Port = Field(description="TCP port")


class Egress(Value):
    """One destination the workspace may reach: named `host:port` inside, dialled by the gateway at `address`."""

    host: str = Field(
        min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$", description="the name it has in the workspace"
    )
    port: Port = Field(description="TCP port in the workspace")
    address: Address | None = Field(default=None, description="where the gateway dials; host:port when absent")

    @property
    def dial(self) -> Address:
        return self.address or Address(host=self.host, port=self.port)


class Network(Value):
    """Everything the workspace can reach.  Empty: nothing but itself."""

    egress: tuple[Egress, ...] = Field(default=(), description="every destination, one by one")


class Toleration(Value):
    """A taint that the workspace's pod tolerates, in Kubernetes' words."""

    key: str = Field(default="", max_length=316, description="of the taint; empty with Exists: every taint")
    operator: Literal["Equal", "Exists"] = Field(default="Equal", description="how the taint's value is compared")
    value: str = Field(default="", max_length=63, description="of the taint, for Equal")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        default="", description="of the taint; empty: every effect"
    )


# As the API server checks them: what fits them cannot become another selector, or another path.
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
LabelKey = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
        max_length=317,
    ),
]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$")]


class Beside(Value):
    """A running service beside which the workspace is: an ephemeral container of one of its pods."""

    namespace: DnsLabel = Field(description="where the service runs")
    selector: dict[LabelKey, LabelValue] = Field(
        min_length=1, max_length=20, description="labels of its pods, all of which one must have"
    )
    container: str = Field(
        default="",
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$",
        description="the container whose processes are shared; empty: nobody's",
    )
    share_processes: bool = Field(default=False, description="whether it is in the process namespace of `container`")

    @model_validator(mode="after")
    def _shares_with_somebody(self) -> Self:
        if self.share_processes and not self.container:
            raise ValueError("share_processes needs `container`: say whose processes they are")
        if self.container and not self.share_processes:
            raise ValueError("container is for `share_processes` alone: set that, or leave `container` out")
        return self

    @property
    def labels(self) -> str:
        """The selector as Kubernetes' API takes it."""
        return ",".join(f"{key}={value}" for key, value in self.selector.items())


class PodOptions(Value):
    """Where and how a workspace's pod runs, in Kubernetes' words; other backends do not look at it."""

    node_selector: dict[str, str] = Field(default_factory=dict, max_length=20, description="labels of its node")
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=20, description="taints that it tolerates")
    runtime_class: str = Field(default="", max_length=253, description="for example gvisor; empty: the cluster's own")
    image_pull_secrets: tuple[Name, ...] = Field(default=(), max_length=5, description="secrets of its namespace")
    priority_class: str = Field(default="", max_length=253, description="empty: the cluster's own")
    isolation: Literal["required", "best_effort"] = Field(
        default="required", description="best_effort: also where the cluster does not enforce NetworkPolicy"
    )
    beside: Beside | None = Field(
        default=None, description="the running service in a pod of which it is; absent: a pod of its own"
    )

    @model_validator(mode="after")
    def _takes_the_pod_as_it_is(self) -> Self:
        if self.beside is not None and (idle := self.model_fields_set - {"beside"}):
            raise ValueError(f"beside a service the pod is as it is: leave {', '.join(sorted(idle))} out")
        return self


class VaultLogin(Value):
    """Logging in with a certificate that Vault's SSH secrets engine signs for this session."""

    role: Name = Field(description="the engine's role")
    principals: tuple[Name, ...] = Field(
        default=(), max_length=16, description="whom the certificate is for; empty: the user that is logged in as"
    )


HostKeyLine = Annotated[
    str,
    Field(
        max_length=4096,
        pattern=r"^(@cert-authority )?(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+=*( [^\r\n]*)?$",
    ),
]


class Host(Value):
    """A real SSH host, as policy pins it: where it is, what it proves itself by, and how one logs in there."""

    address: str = Field(
        max_length=253,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]*$",
        description="name or address, as the gateway reaches it",
    )
    port: Port = Field(default=22, description="TCP port of its SSH server")
    user: Name = Field(description="the account there")
    host_keys: tuple[HostKeyLine, ...] = Field(
        min_length=1,
        max_length=20,
        description="public keys as OpenSSH has them, any one of which it must prove; after `@cert-authority`, the key "
        "of an authority that certified its own for the address",
    )
    vault: VaultLogin | None = Field(default=None, description="log in with a certificate of Vault's; else by key")
    key: Name | None = Field(default=None, description="log in with the key of this name in the gateway's settings")

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if (self.vault is None) == (self.key is None):
            raise ValueError("name exactly one of `vault` and `key`")
        return self

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


class WorkspaceSpec(Value):
    """What to start."""

    backend: Name = Field(description="which of the gateway's backends starts it")
    image: str = Field(
        default="",
        min_length=1,
        description="by digest where the backend has images; a root's name in the sandbox; none on a host",
    )
    user: WorkspaceUser = Field(default=WorkspaceUser(), description="whom everything in it runs as")
    home: str = Field(
        default="/home/debug", pattern=r"^/", description="the home directory, a tmpfs; beside a service the image's"
    )
    shell: str = Field(default="", description="login shell; empty: bash, else sh")
    force_command: ForcedCommand | None = Field(
        default=None,
        description="what the shell runs instead of any shell, command or subsystem that is asked for; absent: those",
    )
    limits: Limits = Field(
        default=NO_LIMITS, description="what it may use at most; none on a host, or beside a service"
    )
    network: Network = Field(default=Network(), description="what it can reach")
    env: dict[str, str] = Field(default_factory=dict, description="visible to every process; never a secret")
    read_only: bool = Field(default=True, description="whether the root file system cannot be written to")
    pod: PodOptions = Field(default=PodOptions(), description="how its pod runs, where the backend is Kubernetes")
    host: Host | None = Field(default=None, description="the real host that it is, where the backend is sshproxy")

    @model_validator(mode="after")
    def _is_started_or_there(self) -> Self:
        said = self.model_fields_set
        needed = STARTED_WITH if self.pod.beside is None else {"image"}
        if self.host is None and (missing := needed - said):
            raise ValueError(f"a workspace that is started needs {' and '.join(sorted(missing))}")
        if self.host is not None and (idle := (said & OF_WHAT_IS_STARTED) - {"" if self.network.egress else "network"}):
            raise ValueError(f"a host is as it is: {', '.join(sorted(idle))} cannot be kept there")
        return self

    @model_validator(mode="after")
    def _is_beside_what_can_be_kept(self) -> Self:
        if self.pod.beside is None:
            return self
        if self.backend != "kubernetes":
            raise ValueError(f"pod.beside is for the backend kubernetes: {self.backend} has no pods, so leave it out")
        if "limits" in self.model_fields_set:
            raise ValueError("limits cannot be kept beside a service, whose pod has its own: leave them out")
        if self.network.egress:
            raise ValueError("network.egress cannot be kept beside a service, whose network it has: leave it out")
        return self
