"""Bundles as OPA makes and checks them: built from a copy of what was judged, tried, signed, and verified.

OPA's own `opa build` writes the archive and the signature.  The archive of the same files and revision is the same,
byte for byte; so is a signature by RS256, while one by ES256 is different each time (ECDSA draws a number for each).
`content` names what is in it, signed or not, by whomever.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded.opa import write_secret
from gateway.embedded.tools import OPA, find_or_build
from gateway.policy.contract import Decision
from gateway.studies.bundle_keys import PublicKey, SigningKey
from gateway.studies.bundle_sources import REVISION, BundleRefused, Source, permitted_roots, read_source
from gateway.studies.errors import StudyError

SECONDS = 120
BUNDLE_BYTES = 64 * 2**20
SIGNATURES = ".signatures.json"
ASKED = (Decision.AUTHN, Decision.CONFIG, Decision.AUTHZ, Decision.LIVE, Decision.ADMISSION, Decision.ADMIN)
"""Without an answer to one of these, nobody gets in: no such bundle is built."""


@dataclass(frozen=True, slots=True)
class Signature:
    """How a bundle is to be signed.  OPA's configuration has the same `key_id` and `scope`."""

    key: SigningKey
    key_id: str
    scope: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a bundle turned out to be."""

    file: str
    revision: str
    roots: tuple[str, ...]
    content: str
    """SHA-256 of the files and the revision, without the signature."""
    sha256: str
    signed: bool
    public_key: str = ""
    """The fingerprint of the key that it verifies with."""


def build(folder: Path, output: Path, revision: str, signature: Signature | None) -> Bundle:
    """Make `output`, whole or not at all.  Raises BundleRefused for what is in `folder`, StudyError for the rest."""
    if not REVISION.fullmatch(revision):
        raise StudyError(
            f"--revision {revision[:200]!r}: is no revision",
            remedy="1 to 128 letters, digits and . _ + : / @ - ; it is on every record.",
        )
    source = read_source(folder)
    with tempfile.TemporaryDirectory(prefix="doorward-") as place:
        here = Path(place)
        _copy(source, here / "bundle")
        _tried(here / "bundle", source)
        _opa(["build", "--bundle", ".", "--revision", revision, "--output", str(here / "plain")], here / "bundle")
        made = here / "plain"
        if signature is not None:
            made = _signed(here, revision, signature)
            verified(made, signature.key.public, signature.scope)
        _put(made, output)
        key = signature.key.public.fingerprint if signature else ""
        return Bundle(str(output), revision, source.roots, _content(made), _digest(made), bool(signature), key)


def verify(file: Path, key: PublicKey, scope: str) -> Bundle:
    """What a signed bundle is.  Raises BundleRefused where its signature or one of its roots is not as it must be."""
    try:
        if file.stat().st_size > BUNDLE_BYTES:
            raise BundleRefused(f"{file}: is larger than {BUNDLE_BYTES // 2**20} MiB")
    except OSError as error:
        raise StudyError(f"{file}: cannot be read: {error}", remedy="Name a bundle (.tar.gz).") from error
    with tempfile.TemporaryDirectory(prefix="doorward-") as place:
        here = Path(place)
        held = here / "bundle.tar.gz"
        held.write_bytes(file.read_bytes())  # what is verified is what is told of
        verified(held, key, scope)
        manifest = json.loads(_opa(["inspect", "--format", "json", str(held)], here))["manifest"]
        roots = permitted_roots(manifest, str(file))
        revision = str(manifest.get("revision", ""))
        return Bundle(str(file), revision, roots, _content(held), _digest(held), True, key.fingerprint)


def verified(bundle: Path, key: PublicKey, scope: str) -> None:
    """Raises BundleRefused unless OPA itself accepts the signature."""
    with tempfile.TemporaryDirectory(prefix="doorward-") as place:
        pem = Path(place) / "key.pem"
        pem.write_bytes(key.pem)
        _opa(
            [
                "build", "--bundle", str(bundle), "--verification-key", str(pem), "--verification-key-id", "key",
                "--signing-alg", key.algorithm, "--scope", scope, "--output", str(Path(place) / "out"),
            ],
            Path(place),
            "the bundle's signature",
        )  # fmt: skip


def _copy(source: Source, folder: Path) -> None:
    for name, content in source.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _tried(folder: Path, source: Source) -> None:
    """It compiles, and what the gateway asks is answered."""
    _opa(["check", "--strict", "--bundle", "."], folder)
    if not source.holds_rules:
        return
    asked = [f"data.{decision.value.replace('/', '.')}" for decision in ASKED if _owned(decision.value, source.roots)]
    if _owned("system/authz/allow", source.roots):
        asked.append("data.system.authz.allow")
    for rule in asked:
        found = json.loads(_opa(["eval", "--bundle", ".", "--format", "json", rule], folder))
        if not found.get("result"):
            raise BundleRefused(
                f"{rule} is undefined: whoever asks would be refused",
                remedy="Is it the right folder? It has a default.",
            )


def _owned(path: str, roots: Sequence[str]) -> bool:
    return any(path == root or path.startswith(f"{root.strip('/')}/") for root in roots)


def _signed(here: Path, revision: str, signature: Signature) -> Path:
    claims = here / "claims.json"
    claims.write_text(json.dumps({"keyid": signature.key_id, "scope": signature.scope}))
    key = here / "key"
    write_secret(key, signature.key.pem.get_secret_value())
    try:
        _opa(
            [
                "build", "--bundle", ".", "--revision", revision, "--output", str(here / "signed"), "--signing-key",
                str(key), "--signing-alg", signature.key.public.algorithm, "--claims-file", str(claims),
            ],
            here / "bundle",
        )  # fmt: skip
    finally:
        key.unlink()
    return here / "signed"


def _put(made: Path, output: Path) -> None:
    try:
        temporary = output.with_name(f".{output.name}.new")
        temporary.write_bytes(made.read_bytes())
        temporary.rename(output)
    except OSError as error:
        raise StudyError(
            f"--output {output}: {error}", remedy="Name a file in a folder that you may write to."
        ) from error


def _content(bundle: Path) -> str:
    """The same for the same files and manifest, whoever packed or signed them."""
    digest = hashlib.sha256()
    with tarfile.open(bundle) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            stream = archive.extractfile(member)
            if stream is not None and member.name.lstrip("/") != SIGNATURES:
                text = stream.read()
                digest.update(f"{member.name.lstrip('/')}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _opa(words: Sequence[str], folder: Path, what: str = "") -> str:
    """Run OPA's own command; its output.  Raises BundleRefused in OPA's words."""
    command = [str(find_or_build(OPA)), *words]
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StudyError(f"opa {words[0]} took longer than {SECONDS} s") from error
    if ran.returncode != 0:
        said = " ".join((ran.stderr.strip() or ran.stdout.strip()).replace(f"{folder}/", "").split())
        raise BundleRefused(f"{what or 'opa ' + words[0]}: {said.removeprefix('error: ')[:400]}")
    return ran.stdout
