"""Images for a node without a registry: a root file system as the archive that containerd takes in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.assets import agent_binary
from gateway.embedded.tools import cache
from tests.stack.cluster.files import PAUSE, Layout
from tests.stack.images import busybox, debug_root, tiny_root

CONFIG = {"User": "65532:65532", "WorkingDir": "/", "Cmd": ["/bin/false"]}


class NodeImages:
    """The node's own images, by what a pod says.  Each is imported when it is first asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._known: dict[str, str] = {}

    def pause(self) -> None:
        """What holds a pod's namespaces."""
        layer = _layer({"bin/busybox": (busybox().read_bytes(), 0o755)})
        archive = _archive("pause", layer, {"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]})
        self._ctr("images", "import", str(archive))
        self._ctr("images", "tag", "--force", "localhost/doorward-pause:1", PAUSE)

    def agent(self) -> str:
        """The agent, and nothing else: what the init container runs."""
        layer = _layer({"doorward-agent": (agent_binary().read_bytes(), 0o755)})
        return self._imported("agent", layer, {"Entrypoint": ["/doorward-agent"], "User": "65532:65532"})

    def workspace(self, kind: str) -> str:
        """`full`, `shonly` or `noshell`, by digest."""
        tar = debug_root() if kind == "full" else tiny_root(has_shell=kind == "shonly")
        return self._imported(kind, tar, CONFIG)

    def _imported(self, name: str, layer: Path | bytes, config: Mapping[str, Any]) -> str:
        if name not in self._known:
            self._ctr("images", "import", str(_archive(name, layer, config)))
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


def _archive(name: str, layer: Path | bytes, config: Mapping[str, Any]) -> Path:
    """A docker-archive of one layer, in the cache by its content."""
    data = layer if isinstance(layer, bytes) else None
    digest = hashlib.sha256(data).hexdigest() if data is not None else _digest(Path(str(layer)))
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    text = json.dumps(described).encode()
    own = hashlib.sha256(text).hexdigest()
    path = cache() / "images" / f"node-{name}-{own[:16]}.tar"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.new")
    manifest = [{"Config": f"{own}.json", "RepoTags": [f"localhost/doorward-{name}:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(partial, "w") as tar:
        for where, blob in ((f"{own}.json", text), ("manifest.json", json.dumps(manifest).encode())):
            _add(tar, where, io.BytesIO(blob), len(blob))
        if data is not None:
            _add(tar, "layer.tar", io.BytesIO(data), len(data))
        else:
            with Path(str(layer)).open("rb") as content:
                _add(tar, "layer.tar", content, Path(str(layer)).stat().st_size)
    partial.rename(path)
    return path


def _add(tar: tarfile.TarFile, name: str, content: Any, size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    tar.addfile(entry, content)


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
