"""`doorward policy build`: what it makes is what was asked for, and what must not reach an OPA is not made."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.studies import bundles
from gateway.studies.bundle_keys import public_key, signing_key
from gateway.studies.bundle_sources import BundleRefused
from gateway.studies.errors import StudyError
from tests.cli.commands import Ran, doorward
from tests.distribution.publisher import POLICIES, copied, make_key

GIT = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")


@pytest.fixture(scope="module", params=["ES256", "RS256"])
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys"), "bundle", request.param)


async def build(folder: Path, *words: str | Path, **env: str) -> Ran:
    return await doorward("policy", "build", "--json", "--output", folder / "out.tar.gz", *words, env=env)


async def signed(folder: Path, key: Path, *words: str | Path) -> Ran:
    return await build(folder, "--sign", "--key", f"file:{key}", "--revision", "v1", *words)


# -- what is made -----------------------------------------------------------------------------------------------------


async def test_a_signed_bundle_verifies_and_says_what_it_is(tmp_path: Path, key: Path) -> None:
    made = await signed(tmp_path, key)
    checked = await doorward(
        "policy", "verify-bundle", tmp_path / "out.tar.gz", "--public-key", key.with_suffix(".pem"), "--json"
    )

    assert made.status == checked.status == 0
    assert made.json == checked.json
    assert (made.json["revision"], made.json["roots"]) == ("v1", ["gateway", "system/authz"])
    with tarfile.open(tmp_path / "out.tar.gz") as bundle:
        others = {name for name in bundle.getnames() if not name.endswith(".rego")}
        assert others == {"/data.json", "/.manifest", "/.signatures.json"}
        assert json.load(bundle.extractfile("/data.json") or pytest.fail("no data.json")) == {}


def test_the_same_input_makes_the_same_bundle(tmp_path: Path, key: Path) -> None:
    """Byte for byte unsigned, and signed by RSA; ECDSA draws a number for each signature, so there the content is."""
    first, elsewhere = copied(tmp_path, "first"), copied(tmp_path, "elsewhere")
    for file in elsewhere.rglob("*.rego"):
        os.utime(file, (1, 1))
    out, signature = tmp_path / "out.tar.gz", bundles.Signature(signing_key(f"file:{key}"), "doorward", "doorward")
    plain = [bundles.build(place, out, "v1", None) for place in (first, elsewhere)]
    with_key = [bundles.build(place, out, "v1", signature) for place in (first, elsewhere)]

    assert plain[0] == plain[1]
    assert len({made.content for made in [*plain, *with_key]}) == 1
    assert (with_key[0].sha256 == with_key[1].sha256) is _is_rsa(key)
    assert bundles.build(first, out, "v2", None).content != plain[0].content


async def test_a_key_from_the_environment_signs_the_same(tmp_path: Path, key: Path) -> None:
    made = await build(tmp_path, "--sign", "--key", "env:SIGNER", "--revision", "v1", SIGNER=key.read_text())

    assert made.status == 0
    assert made.json["public_key"] == (await signed(tmp_path, key)).json["public_key"]


async def test_the_commit_is_the_revision_and_a_change_of_the_folder_marks_it(tmp_path: Path) -> None:
    policies = copied(tmp_path, "policies")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *GIT, "-C", str(tmp_path), *words], check=True, capture_output=True)
    head = subprocess.run(
        ["git", "-C", str(tmp_path), "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()

    (tmp_path / "beside").write_text("not in the folder")
    clean = await build(tmp_path, "--policies", policies)
    (policies / "README.md").write_text("changed")
    changed = await build(tmp_path, "--policies", policies)

    assert clean.json["revision"] == head
    assert changed.json["revision"] == f"{head}-dirty"


async def test_people_and_targets_may_be_a_bundle_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    (folder / ".manifest").write_text('{"roots": ["people", "targets"]}')
    (folder / "data.json").write_text('{"people": {}, "targets": {}}')

    made = await build(tmp_path, "--policies", folder, "--revision", "v1")

    assert (made.status, made.json["roots"]) == (0, ["people", "targets"])


# -- what is not ------------------------------------------------------------------------------------------------------


def add(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return change


def roots(*names: str) -> Callable[[Path], None]:
    return add(".manifest", json.dumps({"roots": names}))


def without_an_answer(folder: Path) -> None:
    rules = folder / "gateway/config/config.rego"
    rules.write_text(rules.read_text().replace("\ndecision := ", "\nverdict := "))


def with_a_link(folder: Path) -> None:
    (folder / "gateway" / "more.rego").symlink_to("/etc/passwd")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "data": (add("data.json", "{}"), "data.json: a bundle with these roots holds rules"),
    "data below": (add("gateway/x/data.yaml", "a: 1"), "data.yaml: a bundle with these roots holds rules"),
    "a delta": (add("patch.json", '{"data": []}'), "patch.json: a bundle"),
    "wasm": (add("policy.wasm", ""), "policy.wasm: a bundle"),
    "a test": (add("gateway/x_test.rego", "package gateway.x_test"), "a test is no rule"),
    "a link": (with_a_link, "is no plain file"),
    "all roots": (roots(""), "the root '' is none that a bundle may own"),
    "no roots": (add(".manifest", "{}"), "names no roots, so the bundle would own everything"),
    "grants": (roots("gateway", "system/authz", "grants"), "the root 'grants' is written while OPA runs"),
    "one person's grants": (roots("gateway", "/grants/alice"), "'/grants/alice' is written while OPA runs"),
    "people too": (roots("gateway", "system/authz", "people"), "owns rules and data"),
    "a package of nobody's": (add("x.rego", "package elsewhere\n\nx := 1\n"), "do not permit"),
    "a mistake": (add("gateway/x.rego", "package gateway.x\n\nx := y\n"), "rego_unsafe_var_error"),
    "not strict": (add("gateway/x.rego", "package gateway.x\n\nx if {\n\ty := 1\n}\n"), "assigned var y unused"),
    "no answer": (without_an_answer, "config"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_must_not_be_built_is_not(tmp_path: Path, kind: str) -> None:
    change, why = REFUSED[kind]
    policies = copied(tmp_path, "policies")
    (tmp_path / "out.tar.gz").write_text("the last good one")
    change(policies)

    with pytest.raises(BundleRefused, match=re.escape(why)):
        bundles.build(policies, tmp_path / "out.tar.gz", "v1", None)

    assert (tmp_path / "out.tar.gz").read_text() == "the last good one"


async def test_a_bundle_that_is_refused_is_status_1(tmp_path: Path) -> None:
    policies = copied(tmp_path, "policies")
    (policies / "data.json").write_text("{}")

    ran = await build(tmp_path, "--policies", policies, "--revision", "v1")

    assert (ran.status, ran.out) == (1, "")
    assert "data.json: a bundle with these roots holds rules" in ran.err


UNUSABLE: dict[str, tuple[list[str], str]] = {
    "a key on the command line": (["--sign", "--key", "-----BEGIN PRIVATE KEY-----"], "never on a command line"),
    "no key": (["--sign"], "--sign and --key belong together"),
    "a key and no --sign": (["--key", "file:x"], "--sign and --key belong together"),
    "no file": (["--sign", "--key", "file:/nowhere"], "secret file /nowhere cannot be read"),
    "no variable": (["--sign", "--key", "env:NOTHING"], "environment variable NOTHING is not set"),
    "no revision": (["--revision", "a,b"], "is no revision"),
    "no folder": (["--policies", "/nowhere"], "/nowhere"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
async def test_what_cannot_be_asked_has_a_status_of_its_own(tmp_path: Path, kind: str) -> None:
    words, why = UNUSABLE[kind]

    ran = await build(tmp_path, *words)

    assert (ran.status, ran.out) == (2, "")
    assert why in ran.err


@pytest.mark.parametrize("kind", ["RSA1024", "encrypted", "Ed25519", "nonsense"])
def test_an_unfit_key_is_refused_and_not_shown(tmp_path: Path, kind: str) -> None:
    key = tmp_path / "unfit.key"
    if kind == "nonsense":
        key.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0bHk=\n-----END PRIVATE KEY-----\n")
    else:
        make_key(tmp_path, "unfit", kind)

    with pytest.raises(StudyError, match=re.escape(f"--key file:{key}: ")) as refused:
        signing_key(f"file:{key}")

    assert not [line for line in key.read_text().splitlines()[1:-1] if line in f"{refused.value!r} {refused.value}"]


def test_a_bundle_that_is_not_as_signed_does_not_verify(tmp_path: Path, key: Path) -> None:
    out = tmp_path / "out.tar.gz"
    bundles.build(POLICIES, out, "v1", bundles.Signature(signing_key(f"file:{key}"), "doorward", "doorward"))
    stranger = make_key(tmp_path, "stranger", "RS256" if _is_rsa(key) else "ES256").with_suffix(".pem")
    (tmp_path / "nothing.tar.gz").write_text("nothing")
    pem = key.with_suffix(".pem")
    for file, known, scope in (
        (out, stranger, "doorward"),
        (out, pem, "elsewhere"),
        (tmp_path / "nothing.tar.gz", pem, "doorward"),
    ):
        with pytest.raises(BundleRefused, match="the bundle's signature"):
            bundles.verify(file, public_key(known), scope)


def _is_rsa(key: Path) -> bool:
    return len(key.read_text()) > 1000
