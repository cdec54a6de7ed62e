"""A site whose policy obliges to whatever a test wants: what targets say, and what a rule of its own adds."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ssh.test_desk import command
from tests.ssh.world import ALICE, Site
from tests.stack.opa import POLICIES, Opa, opa

FIRST = {
    # Each is what a security engineer would change: one line of a decision.
    "config/permit.rego": (
        '"obligations": _obligations,',
        '"obligations": array.concat(_obligations, _more),',
        "_more := data.more.permit if data.more.permit\n\nelse := []\n",
    ),
    "authz/authz.rego": (
        "\tobligations.of_request(input.permit.target, input.request.kind),\n)",
        "\tarray.concat(obligations.of_request(input.permit.target, input.request.kind), _more),\n)",
        "_more := data.more[input.request.kind] if data.more[input.request.kind]\n\nelse := []\n",
    ),
}


@contextmanager
def obliging(directory: Path) -> Iterator[Opa]:
    """An OPA whose `data.more` are obligations: `permit` those of permits, any other key those of such requests."""
    policies = directory / "policies"
    shutil.copytree(POLICIES, policies)
    for name, (before, after, rule) in FIRST.items():
        file = policies / "gateway" / name
        text = file.read_text()
        assert before in text, name
        file.write_text(f"{text.replace(before, after)}\n{rule}")
    with opa(directory / "opa", policies=policies) as server:
        yield server


async def ssh(site: Site, *words: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """The stock client, to its end."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(site, ALICE, *words, options=options),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return await asyncio.to_thread(run)


def codes(site: Site, event: str) -> list[str]:
    """The reasons of what failed or was refused, from the record."""
    return [reason["code"] for record in site.audit(event) for reason in record.get("reasons", [])]


def on_disk(site: Site) -> str:
    """All that the gateway wrote: its record, and the traces."""
    files = (site.directory / "state").glob("*.jsonl")
    return "\n".join(file.read_text() for file in files)


Obliged = list[dict[str, Any]]
