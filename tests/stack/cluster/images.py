"""Images for a node without a registry: a root file system as the archive that containerd takes in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from gateway.assets import agent_binary
from gateway.backends.kubernetes.spec import AGENT
from gateway.embedded.tools import cache
from tests.stack.cluster.files import PAUSE, Layout
from tests.stack.images import busybox, debug_root, tiny_root

Layer = Path | bytes
CONFIG = {"User": "65532:65532", "WorkingDir": "/", "Cmd": ["/bin/false"]}


class NodeImages:
    """The node's own images, by what a pod says.  Each is imported when it is first asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known: dict[str, str] = {}

    def pause(self) -> None:
        """What holds a pod's namespaces."""
        layer = _layer({"bin/busybox": (busybox().read_bytes(), 0o755)})
        archive = _archive("pause", [layer], {"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]})
        self._ctr("images", "import", str(archive))
        self._ctr("images", "tag", "--force", "localhost/doorward-pause:1", PAUSE)

    def agent(self) -> str:
        """The agent, and nothing else: what the init container runs."""
        layer = _layer({"doorward-agent": (agent_binary().read_bytes(), 0o755)})
        return self._imported("agent", [layer], {"Entrypoint": ["/doorward-agent"], "User": "65532:65532"})

    def workspace(self, kind: str) -> str:
        """`full`, `shonly` or `noshell`, by digest."""
        return self._imported(kind, [_root(kind)], CONFIG)

    def beside(self, kind: str) -> str:
        """The same with the agent in it, as backends/kubernetes/debug.Dockerfile makes one."""
        layer = _layer({AGENT.lstrip("/"): (agent_binary().read_bytes(), 0o755)})
        return self._imported(f"beside-{kind}", [_root(kind), layer], CONFIG)

    def _imported(self, name: str, layers: Sequence[Layer], config: Mapping[str, Any]) -> str:
        if name not in self._known:
            self._ctr("images", "import", str(_archive(name, layers, config)))
            repository = f"localhost/doorward-{name}"
            [digest] = [
                line.split()[2] for line in self._ctr("images", "ls").splitlines() if f"{repository}:1 " in line
            ]
            self._ctr("images", "tag", "--force", f"{repository}:1", f"{repository}@{digest}")
            self._known[name] = f"{repository}@{digest}"
        return self._known[name]

    def _ctr(self, *words: str) -> str:
        command = ["ctr", "-a", str(self._layout.containerd), "-n", "k8s.io", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _layer(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path, (data, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def _root(kind: str) -> Path:
    return debug_root() if kind == "full" else tiny_root(has_shell=kind == "shonly")


def _archive(name: str, layers: Sequence[Layer], config: Mapping[str, Any]) -> Path:
    """A docker-archive, in the cache by its content."""
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_digest(layer)}" for layer in layers]},
    }
    text = json.dumps(described).encode()
    own = hashlib.sha256(text).hexdigest()
    path = cache() / "images" / f"node-{name}-{own[:16]}.tar"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.new")
    files = [f"layer{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": f"{own}.json", "RepoTags": [f"localhost/doorward-{name}:1"], "Layers": files}]
    with tarfile.open(partial, "w") as tar:
        for where, blob in ((f"{own}.json", text), ("manifest.json", json.dumps(manifest).encode())):
            _add(tar, where, io.BytesIO(blob))
        for where, layer in zip(files, layers, strict=True):
            with _opened(layer) as content:
                _add(tar, where, content)
    partial.rename(path)
    return path


def _add(tar: tarfile.TarFile, name: str, content: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, os.SEEK_END)
    content.seek(0)
    tar.addfile(entry, content)


def _opened(layer: Layer) -> IO[bytes]:
    return io.BytesIO(layer) if isinstance(layer, bytes) else layer.open("rb")


def _digest(layer: Layer) -> str:
    with _opened(layer) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
