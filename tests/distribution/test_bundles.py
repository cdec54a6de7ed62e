"""Policies as signed bundles: a running gateway gets the next revision without losing anybody, and a bad one changes
nothing and is noticed."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import doorward
from tests.distribution.opas import POLL_SECONDS, prepared, published_opa, start
from tests.distribution.publisher import (
    Publisher,
    copied,
    make_key,
    publisher,
    serving,
    token_file,
)
from tests.door.engineer import connected, granted
from tests.door.running import Running
from tests.stack.opa import Opa
from tests.stack.process import Processes
from tests.stack.require import require
from tests.stack.s3 import bucket
from tests.stack.tools import OPA, find_or_build
from tests.waiting import eventually, until

PATIENCE = 60


@dataclass(frozen=True)
class World:
    """A site whose OPA polls its publisher."""

    site: Publisher
    opa: Opa
    directory: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("published")
    with publisher(directory) as site, serving(site) as url:
        site.publish("p1")
        site.publish_tokens(prepared(directory / "opa"))
        sets = {"services.bundles.credentials.bearer.token_path": str(token_file(directory))}
        with published_opa(directory / "opa", "http.yaml", site.public_key, url, sets) as server:
            yield World(site, server, directory)


@pytest.fixture
async def door(world: World, tmp_path: Path) -> AsyncIterator[Running]:
    """A gateway with alice's grant, on the good revision `p1`."""
    world.site.publish("p1")
    await active(world.opa, "p1")
    async with granted(tmp_path, world.opa, policy={"bundles_seconds": 0.1}) as opened:
        yield opened


def status(server: Opa, name: str = "policies") -> dict[str, Any]:
    """What OPA itself says of a bundle."""
    with server.client() as client:
        told: dict[str, Any] = client.get("/v1/status").json()["result"]["bundles"][name]
        return told


async def active(server: Opa, revision: str) -> None:
    await until(lambda: status(server).get("active_revision") == revision and "code" not in status(server), PATIENCE)


async def failing(server: Opa, why: str) -> dict[str, Any]:
    await until(lambda: why in str(status(server)), PATIENCE)
    return status(server)


def revisions(door: Running) -> list[str]:
    """The revision of the policies on each decision's record, in their order."""
    found = (record.get("policy_revision", "") for record in door.records())
    return [dict(part.split("=", 1) for part in text.split(","))["policies"] for text in found if text]


# -- the good -------------------------------------------------------------------------------------------------------


async def test_a_new_revision_decides_within_the_polling_delay_and_nobody_is_dropped(
    world: World, door: Running
) -> None:
    """The only sign is on the record: the decisions' revision, first the old one, then the new."""
    async with connected(door) as connection:
        process = await connection.create_process("echo up; cat")
        assert await process.stdout.readline() == "up\n"
        assert set(revisions(door)) == {"p1"}
        published = time.monotonic()
        world.site.publish("p2")
        while revisions(door)[-1] != "p2":
            assert time.monotonic() - published < PATIENCE
            async with connected(door) as another:
                await another.run("true")
        took = time.monotonic() - published
        process.stdin.write("still here\n")
        assert await process.stdout.readline() == "still here\n"
        process.stdin.write_eof()
        assert (await process.wait()).exit_status == 0

    seen = [revision for revision in revisions(door) if revision]  # none while OPA's disk storage takes a bundle in
    assert seen == ["p1"] * seen.count("p1") + ["p2"] * seen.count("p2"), (
        "a decision was of an older policy than the one before"
    )
    print(f"polled every {POLL_SECONDS} s: the new revision decided {took:.2f} s after it was published")


async def test_a_changed_rule_is_what_the_next_request_is_judged_by(
    world: World, door: Running, tmp_path: Path
) -> None:
    stricter = copied(tmp_path, "stricter")
    rule = stricter / "gateway" / "authz" / "authz.rego"
    text = rule.read_text()
    assert RESTRICTED in text
    rule.write_text(text.replace(RESTRICTED, f'_is_restricted if input.request.kind == "exec"\n\n{RESTRICTED}', 1))

    async with connected(door) as connection:
        assert (await connection.run("echo in")).stdout == "in\n"
        world.site.publish("closed", stricter)
        await active(world.opa, "closed")
        assert (await connection.run("echo in")).exit_status == 254
        world.site.publish("p1")  # rolled back: the same content as before
        await active(world.opa, "p1")
        assert (await connection.run("echo in")).stdout == "in\n"


async def test_check_says_which_revision_each_bundle_has(world: World, door: Running) -> None:
    ran = await doorward("check", "--json", "--config", door.file)

    said = {finding["what"]: (finding["ok"], finding["says"]) for finding in ran.json}
    assert said["bundle policies"] == (True, "revision p1")
    assert said["bundle tokens"] == (True, "revision t1")


# -- the bad ----------------------------------------------------------------------------------------------------------


def by_another_key(site: Publisher, folder: Path) -> None:
    site.publish("bad", key=make_key(folder, "stranger"))


def unsigned(site: Publisher, folder: Path) -> None:
    repacked(site, folder, lambda name, content: None if name == ".signatures.json" else content)


def changed_after_signing(site: Publisher, folder: Path) -> None:
    repacked(site, folder, lambda name, content: content + b"\n" if name.endswith("authz.rego") else content)


def cut_short(site: Publisher, folder: Path) -> None:
    site.publish("bad", name="whole")
    (folder / "cut").write_bytes((site.folder / "whole.tar.gz").read_bytes()[:2000])
    site.place(folder / "cut")


def with_a_root_of_another_bundle(site: Publisher, folder: Path) -> None:
    signed_as_it_is(site, owning(folder, "tokens"))


def that_does_not_compile(site: Publisher, folder: Path) -> None:
    """`opa sign` does not look, as `opa build` does."""
    broken = copied(folder, "broken")
    (broken / "gateway" / "late.rego").write_text(
        "package gateway.late\n\nimport data.gateway.people\n\nx := people.is_nme(1)\n"
    )
    signed_as_it_is(site, broken)


BAD: dict[str, tuple[Callable[[Publisher, Path], None], str]] = {
    "by another key": (by_another_key, "failed to verify JWT signature"),
    "unsigned": (unsigned, "bundle missing .signatures.json file"),
    "changed after it was signed": (changed_after_signing, "digest mismatch"),
    "cut short": (cut_short, "unexpected EOF"),
    "with a root of another bundle": (with_a_root_of_another_bundle, "overlapping roots"),
    "that does not compile": (that_does_not_compile, "undefined function"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_bundle_changes_nothing_and_is_noticed(
    world: World, door: Running, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    publish, why = BAD[kind]
    async with connected(door) as connection:
        publish(world.site, tmp_path)
        told = await failing(world.opa, why)
        assert (await connection.run("echo as before")).stdout == "as before\n"
    async with connected(door) as another:
        assert (await another.run("echo as before")).stdout == "as before\n"

    assert told["active_revision"] == "p1"
    assert set(revisions(door)) == {"p1"}
    assert await eventually(noticed(caplog, "policy_bundle_failing", why), PATIENCE)
    ran = await doorward("check", "--config", door.file)
    assert ran.status == 1
    [line] = [line for line in ran.out.splitlines() if "bundle policies" in line]
    assert line.startswith("FAIL  bundle policies: revision p1 stays, for the next one fails: ")
    assert why in line
    world.site.publish("p1")
    assert await eventually(noticed(caplog, "policy_bundle_recovered"), PATIENCE)


async def test_a_signed_bundle_that_owns_grants_is_not_built_and_where_somebody_made_one_it_is_said(
    world: World, door: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """OPA has no list of what a bundle may own: whoever has the key can wipe the grants.  So it is at least loud."""
    signed_as_it_is(world.site, owning(tmp_path, "grants"))
    await active(world.opa, "by-hand")

    assert await eventually(noticed(caplog, "policy_bundle_owns_live_data"), PATIENCE)
    ran = await doorward("check", "--config", door.file)
    refused = await doorward("policy", "verify-bundle", world.site.folder / "policies.tar.gz",
                             "--public-key", world.site.public_key)  # fmt: skip
    world.site.publish("p1")
    await active(world.opa, "p1")  # the grants are gone, and can be written again
    assert "FAIL  bundle policies: revision by-hand owns grants" in ran.out
    assert (refused.status, "'grants' is written while OPA runs" in refused.err) == (1, True)


# -- restarts, and S3 ------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_an_opa_that_starts_while_the_server_is_down_has_the_last_good_bundle_and_its_grants(
    tmp_path: Path,
) -> None:
    processes = Processes(tmp_path / "opa")
    sets = {"services.bundles.credentials.bearer.token_path": str(token_file(tmp_path))}
    try:
        with publisher(tmp_path) as site:
            site.publish_tokens(prepared(processes.directory))
            site.publish("p1")
            with serving(site) as url:
                first = start(processes, "http.yaml", site.public_key, url, sets)
                first.put("grants", {})
                first.put("grants/alice/INC-1", {"target": "orders-db"})
                await until((processes.directory / "bundles/bundles/policies/bundle.tar.gz").exists, PATIENCE)
            processes.end()
            again = start(processes, "http.yaml", site.public_key, url, sets)
            told = await failing(again, "connection refused")
            with again.client() as client:
                kept = client.get("/v1/data/grants").json()["result"]
    finally:
        processes.end()

    assert told["active_revision"] == "p1"
    assert kept == {"alice": {"INC-1": {"target": "orders-db"}}}


@pytest.mark.slow
async def test_bundles_from_s3_do_the_same(tmp_path: Path) -> None:
    require("curl")
    (tmp_path / "s3").mkdir()
    with publisher(tmp_path) as site, bucket(tmp_path / "s3") as objects:
        site.publish("s1")
        site.publish_tokens(prepared(tmp_path / "opa"))
        for name in ("policies.tar.gz", "tokens.tar.gz"):
            objects.upload(site.folder / name, name)
        with published_opa(
            tmp_path / "opa", "s3.yaml", site.public_key, objects.url, env=objects.environment
        ) as server:
            async with granted(tmp_path, server) as door, connected(door) as connection:
                assert (await connection.run("echo in")).stdout == "in\n"
                site.publish("s2")
                published = time.monotonic()
                objects.upload(site.folder / "policies.tar.gz", "policies.tar.gz")
                await active(server, "s2")
                print(f"from S3, polled every {POLL_SECONDS} s: active {time.monotonic() - published:.2f} s later")
                assert (await connection.run("echo in")).stdout == "in\n"
                by_another_key(site, tmp_path)
                objects.upload(site.folder / "policies.tar.gz", "policies.tar.gz")
                await failing(server, "failed to verify JWT signature")
                assert (await connection.run("echo in")).stdout == "in\n"
                assert revisions(door)[-1] == "s2"


# -- helpers ------------------------------------------------------------------------------------------------------

RESTRICTED = "_is_restricted if requests."
"""Where a rule of a copy is made stricter."""


def repacked(site: Publisher, folder: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """A good bundle with `change` to each file's content; None leaves it out."""
    site.publish("bad", name="whole")
    with tarfile.open(site.folder / "whole.tar.gz") as whole, tarfile.open(folder / "bad", "w:gz") as made:
        for member in whole.getmembers():
            stream = whole.extractfile(member)
            content = change(member.name.lstrip("/"), stream.read() if stream else b"")
            if content is not None:
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
    site.place(folder / "bad")


def signed_as_it_is(site: Publisher, source: Path) -> None:
    """What `doorward policy build` would refuse, by somebody who has the key and OPA's own commands."""
    claims = source.parent / "claims.json"
    claims.write_text(json.dumps({"keyid": "doorward", "scope": "doorward"}))
    made = source.parent / "signed.tar.gz"
    words: list[str | Path] = [
        "sign",
        "--bundle",
        ".",
        "--signing-key",
        site.key,
        "--signing-alg",
        "ES256",
        "--claims-file",
        claims,
    ]
    subprocess.run([find_or_build(OPA), *words], cwd=source, check=True, capture_output=True)
    with tarfile.open(made, "w:gz") as archive:
        archive.add(source, arcname="/")
    site.place(made)


def owning(folder: Path, *roots: str) -> Path:
    """Policies whose manifest names these roots too."""
    source = copied(folder, "greedy")
    ours = {"revision": "by-hand", "roots": ["gateway", "system/authz", *roots], "rego_version": 1}
    (source / ".manifest").write_text(json.dumps(ours))
    (source / "data.json").write_text(json.dumps({root: {} for root in roots}))
    return source


def noticed(caplog: pytest.LogCaptureFixture, event: str, why: str = "") -> Callable[[], Any]:
    async def found() -> bool:
        return any(record.getMessage() == event and why in getattr(record, "why", why) for record in caplog.records)

    return found
