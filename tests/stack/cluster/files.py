"""What the node's programs read and how they are started."""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODE = "node1"
API, OLDER_API, ETCD, ETCD_PEER, KUBELET, KUBELET_HEALTH = 16443, 16444, 16449, 16450, 16250, 16248
BRIDGE, PODS, SERVICES = "kubetest0", "10.244.77.0/24", "10.96.77.0/24"
NODE_IP = "10.244.77.1"
"""The bridge's own address: nothing depends on the machine's network."""
CGROUP = "kubetest"
POD_PIDS = 256
PAUSE = "localhost/pause:1"
USERS = {
    "admin": ("admin", "system:masters"),
    "kcm": ("system:kube-controller-manager", "system:masters"),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is, below one folder whose path is short (a Unix socket's name has room for 107 bytes)."""

    directory: Path
    hyperkube: Path

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def containerd(self) -> Path:
        return self.directory / "containerd.sock"

    def kubeconfig(self, user: str) -> Path:
        return self.directory / f"{user}.kubeconfig"

    def write(self) -> None:
        """All files but the images."""
        self.pki.mkdir(parents=True, exist_ok=True)
        _keys(self.pki)
        self._users()
        _json(self.directory / "kubelet.json", self._kubelet())
        _json(self.directory / "cni" / "10-bridge.conflist", _cni(self.directory))
        (self.directory / "containerd.toml").write_text(_CONTAINERD.format(d=self.directory, pause=PAUSE))
        _json(self.directory / "commands.json", self.commands())

    def _users(self) -> None:
        lines = []
        for file, (user, group) in USERS.items():
            token = secrets.token_hex(16)
            lines.append(f'{token},{user},{user},"{group}"' if group else f"{token},{user},{user}")
            _json(self.kubeconfig(file), kubeconfig(self.pki / "apiserver.crt", token))
        (self.pki / "tokens.csv").write_text("\n".join(lines) + "\n")

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self.containerd}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "failSwapOn": False,
            "enforceNodeAllocatable": ["pods"],
            "podPidsLimit": POD_PIDS,
            "address": NODE_IP,
            "port": KUBELET,
            "healthzPort": KUBELET_HEALTH,
            "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self.pki / "client.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "evictionHard": {
                "memory.available": "50Mi",
                **dict.fromkeys(
                    ("nodefs.available", "imagefs.available", "nodefs.inodesFree", "imagefs.inodesFree"), "0%"
                ),
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "makeIPTablesUtilChains": False,
            "registerNode": True,
            "resolvConf": "",
            "podLogsDir": str(self.directory / "podlogs"),
            "volumePluginDir": str(self.directory / "volumeplugins"),
            "serializeImagePulls": False,
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
        }

    def commands(self) -> dict[str, list[str]]:
        d, pki, hyper = self.directory, self.pki, str(self.hyperkube)
        clients, peers = f"http://127.0.0.1:{ETCD}", f"http://127.0.0.1:{ETCD_PEER}"
        return {
            "containerd": ["containerd", "--config", f"{d}/containerd.toml"],
            "etcd": [
                hyper, "etcd", f"--data-dir={d}/etcd", "--unsafe-no-fsync", "--log-level=warn",
                f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}",
                f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
            ],
            "kube-apiserver": [
                hyper, "kube-apiserver", f"--etcd-servers={clients}",
                "--bind-address=127.0.0.1", f"--secure-port={API}", f"--cert-dir={pki}",
                # No default route is needed, and no endpoints of the API server are kept.
                f"--advertise-address={NODE_IP}", "--endpoint-reconciler-type=none",
                f"--token-auth-file={pki}/tokens.csv",
                "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={pki}/sa.key", f"--service-account-key-file={pki}/sa.key",
                f"--service-cluster-ip-range={SERVICES}",
                f"--kubelet-client-certificate={pki}/client.crt", f"--kubelet-client-key={pki}/client.key",
                "--kubelet-preferred-address-types=InternalIP",
            ],
            "kube-controller-manager": [
                hyper, "kube-controller-manager", f"--kubeconfig={d}/kcm.kubeconfig", "--leader-elect=false",
                "--secure-port=0", f"--service-account-private-key-file={pki}/sa.key",
                f"--root-ca-file={pki}/apiserver.crt",
            ],
            "kube-scheduler": [
                hyper, "kube-scheduler", f"--kubeconfig={d}/scheduler.kubeconfig", "--leader-elect=false",
                "--secure-port=0",
            ],
            "kubelet": [
                hyper, "kubelet", f"--config={d}/kubelet.json", f"--kubeconfig={d}/kubelet.kubeconfig",
                f"--root-dir={d}/kubelet", f"--cert-dir={d}/kubelet-pki", f"--hostname-override={NODE}",
                f"--node-ip={NODE_IP}",
            ],
        }  # fmt: skip


def kubeconfig(ca_file: Path, token: str, namespace: str = "default") -> dict[str, Any]:
    """For `token`, at this cluster."""
    cluster = {"server": f"https://127.0.0.1:{API}", "certificate-authority": str(ca_file)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
    }


def _keys(pki: Path) -> None:
    """One EC key signs the service accounts' tokens; one self-signed client certificate, its own CA, is the API
    server's at the kubelet."""
    curve = "prime256v1"
    key = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", str(pki / "sa.key")]
    subprocess.run(key, check=True)
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes",
            "-days", "3650", "-subj", "/O=system:masters/CN=kube-apiserver", "-addext", "extendedKeyUsage=clientAuth",
            "-keyout", str(pki / "client.key"), "-out", str(pki / "client.crt"),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip


def _cni(directory: Path) -> dict[str, Any]:
    address = {
        "type": "host-local",
        "dataDir": str(directory / "ipam"),
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": address,
    }  # fmt: skip
    # `firewall` is needed beside Docker's policy for FORWARD.
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}, {"type": "firewall"}]
    return {"cniVersion": "0.4.0", "name": "kubetest", "plugins": plugins}


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))


# restrict_oom_score_adj: without CAP_SYS_RESOURCE nobody may lower it.
_CONTAINERD = """version = 2
root = "{d}/containerd"
state = "{d}/containerd-state"
[grpc]
  address = "{d}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{d}/cni"
"""
