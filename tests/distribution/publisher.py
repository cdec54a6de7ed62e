"""A site that publishes: keys, bundles built by `doorward policy build`, and a server that OPA fetches them from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gateway.studies.bundle_keys import signing_key
from gateway.studies.bundles import Signature, build
from tests.stack.process import write_secret

POLICIES = Path(__file__).parents[2] / "policies"
TOKEN = "bundle-reader"
KINDS: Mapping[str, tuple[str, ...]] = {
    "ES256": ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "RS256": ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "RSA1024": ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "Ed25519": ("genpkey", "-algorithm", "ED25519"),
    "encrypted": ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256", "-pass", "pass:x"),
}


def make_key(folder: Path, name: str = "bundle", kind: str = "ES256") -> Path:
    """`<name>.key`, and its public half as `<name>.pem`, by openssl as in the documents."""
    key = folder / f"{name}.key"
    for words in (
        [*KINDS[kind], "-out", str(key)],
        ["pkey", "-passin", "pass:x", "-in", str(key), "-pubout", "-out", str(folder / f"{name}.pem")],
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    return key


def copied(folder: Path, name: str) -> Path:
    """Policies of one's own to change."""
    place = folder / name
    shutil.copytree(POLICIES, place)
    return place


@dataclass
class Publisher:
    """A folder of bundles and the key that OPA trusts."""

    folder: Path
    key: Path
    asked: list[str] = field(default_factory=list)

    @property
    def public_key(self) -> Path:
        return self.key.with_suffix(".pem")

    def publish(self, revision: str, source: Path = POLICIES, name: str = "policies", key: Path | None = None) -> None:
        """Signed, and in place at once: a reader finds the old one or the new one."""
        signature = Signature(signing_key(f"file:{key or self.key}"), "doorward", "doorward")
        build(source, self.folder / f"{name}.tar.gz", revision, signature)

    def place(self, bundle: Path, name: str = "policies") -> None:
        """Whatever it is."""
        temporary = self.folder / f".{name}.new"
        shutil.copy(bundle, temporary)
        temporary.rename(self.folder / f"{name}.tar.gz")

    def publish_tokens(self, hashes: Path) -> None:
        self.publish("t1", hashes, "tokens")


@contextmanager
def publisher(directory: Path) -> Iterator[Publisher]:
    folder = directory / "published"
    folder.mkdir()
    yield Publisher(folder, make_key(directory))


@contextmanager
def serving(site: Publisher) -> Iterator[str]:
    """The folder over HTTP with a bearer token and ETags, as any web server would; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked.append(self.path)
            file = site.folder / os.path.basename(self.path)
            if self.headers["authorization"] != f"Bearer {TOKEN}" or not file.exists():
                self._answer(401 if file.exists() else 404)
                return
            content = file.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            if self.headers["if-none-match"] == etag:
                self._answer(304, etag=etag)
            else:
                self._answer(200, content, etag)

        def _answer(self, status: int, content: bytes = b"", etag: str = "") -> None:
            self.send_response(status)
            if etag:
                self.send_header("etag", etag)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_words: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def token_file(directory: Path) -> Path:
    return write_secret(directory / "bundle.token", TOKEN)


def manifest(folder: Path, *roots: str) -> None:
    (folder / ".manifest").write_text(json.dumps({"roots": list(roots), "rego_version": 1}))
