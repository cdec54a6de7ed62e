"""An OPA of our own, on whatever policies and data a study is about.

It is a child process that ends with us, reached over a Unix socket in a folder that only we may enter; nothing it is
told leaves this machine.  A builtin that fails is an error here as it is for the gateway.

    async with studied(read_policies(folder), read_data(file)) as opa:
        answer = await opa.ask(Decision.CONFIG, question)          # one question
        answers = await opa.ask_each(Decision.CONFIG, questions)   # ten thousand
        async with opa.changed([Change(("people", "alice", "disabled"))]):
            ...                                                    # asked as if it were so

Whoever needs another batch than `ask_each` brings a module in a package under `studies` and asks for its rules:

    await opa.teach("studies/mine", text)
    await opa.evaluate("studies/mine/answers", question)
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from gateway.concurrency import each, to_the_end
from gateway.embedded.children import ChildUnavailable, Command, child
from gateway.embedded.tools import OPA, find_or_build
from gateway.studies.errors import PolicyFailed, StudyError
from gateway.studies.sources import Data, Policies

START_SECONDS = 60.0
ANSWER_SECONDS = 300.0
ANSWER_BYTES = 256 * 2**20
GARBAGE = ("env", "GOGC=800", "GOMEMLIMIT=1GiB")
"""A study asks much and ends soon: memory is spent where OPA would spend a third of its time on giving it back."""
BATCH = 500
"""Questions in one request: long enough to be fast, short enough to be heard of now and then."""

_EACH = """package studies.each.{name}

answers := {{string: answer |
	some number, question in input.questions
	string := sprintf("%d", [number])
	answer := data.{path} with input as question
}}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What OPA said.  `result` is None when the rule is undefined."""

    result: Any
    defined: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One edit of the base documents: `value` at `path`, or, where `remove`, nothing there."""

    path: tuple[str, ...]
    value: Any = None
    remove: bool = False


class Names:
    """What the policies are called while they are studied: short, whatever the folder is called."""

    def __init__(self, folder: Path, policies: Policies) -> None:
        self._folder = folder
        self._names = list(policies.files)
        # OPA calls a file by its path, and without the first slash once it was taught something.
        self._short = re.compile(rf"/?{re.escape(str(folder).lstrip('/'))}/p/(\d+)\.rego")

    def write(self, policies: Policies) -> None:
        (self._folder / "p").mkdir()
        for number, content in enumerate(policies.files.values()):
            (self._folder / "p" / f"{number}.rego").write_bytes(content)

    def translated(self, words: str) -> str:
        named = self._short.sub(lambda found: self._names[int(found[1])], words)
        return named.replace(f"{self._folder}{os.sep}", "")


class Studied:
    """A running OPA.  Every method raises StudyError, in OPA's own words, where it has no answer."""

    def __init__(self, session: aiohttp.ClientSession, policies: Policies, names: Names) -> None:
        self.policies = policies
        self._session = session
        self._names = names
        self._taught: set[str] = set()

    async def ask(self, decision: str, question: Mapping[str, Any]) -> Answer:
        """Evaluate `data.<decision>`, a path with slashes, on `question`."""
        body = await self._call("POST", _document(decision.split("/")), {"input": question}, strict=True)
        return Answer(body.get("result"), "result" in body)

    async def evaluate(self, path: str, question: Mapping[str, Any]) -> Any:
        """The same where it has to be defined."""
        answer = await self.ask(path, question)
        if not answer.defined:
            raise StudyError(f"the policy has no answer: {path} is undefined", remedy="Is it the right folder?")
        return answer.result

    async def ask_each(self, decision: str, questions: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """The same for many questions, in their order, some hundreds at a time."""
        name = decision.replace("/", "_")
        await self.teach(f"studies/each/{name}", _EACH.format(name=name, path=decision.replace("/", ".")))

        async def batch(first: int) -> list[Answer]:
            part = questions[first : first + BATCH]
            found = await self.evaluate(f"studies/each/{name}/answers", {"questions": part})
            return [Answer(found.get(str(number)), str(number) in found) for number in range(len(part))]

        batches = await each(batch, range(0, len(questions), BATCH), at_once=os.cpu_count() or 1)
        return [answer for answers in batches for answer in answers]

    async def teach(self, name: str, text: str) -> None:
        """Add a module of the study's own, once; its package is to be under `studies`."""
        if name not in self._taught:
            await self._call("PUT", f"policies/{quote(name)}", text)
            self._taught.add(name)

    async def read(self, *path: str) -> Any:
        """The document at `path`, or None where there is none."""
        return (await self._call("GET", _document(path))).get("result")

    async def apply(self, change: Change) -> None:
        """Make the change, for good."""
        if change.remove:
            await self._call("DELETE", _document(change.path), absent_is_fine=True)
        else:
            await self._call("PUT", _document(change.path), change.value)

    @asynccontextmanager
    async def changed(self, changes: Sequence[Change]) -> AsyncIterator[None]:
        """The documents are as changed while the body runs, and as they were afterwards.  One at a time."""
        before = [await self._before(change) for change in changes]
        try:
            for change in changes:
                await self.apply(change)
            yield
        finally:
            await to_the_end(self._all_of(before[::-1]))

    async def _before(self, change: Change) -> Change:
        """What undoes it: the shortest part of its path that is not there yet goes again."""
        for length in range(1, len(change.path) + 1):
            found = await self.read(*change.path[:length])
            if found is None:
                return Change(change.path[:length], remove=True)
        return Change(change.path, found)

    async def _all_of(self, changes: Sequence[Change]) -> None:
        for change in changes:
            await self.apply(change)

    async def _call(
        self,
        method: str,
        path: str,
        value: Any = None,
        params: Mapping[str, str] | None = None,
        *,
        absent_is_fine: bool = False,
        strict: bool = False,
    ) -> dict[str, Any]:
        params = {**(params or {}), **({"strict-builtin-errors": "true"} if strict else {})}
        body = value if isinstance(value, str) and path.startswith("policies/") else json.dumps(value)
        content = None if method in ("GET", "DELETE") else body.encode()
        try:
            async with self._session.request(method, f"http://opa/v1/{path}", data=content, params=params) as response:
                text = await _bounded(response)
        except TimeoutError as error:
            raise StudyError(f"the policy took longer than {ANSWER_SECONDS:g} s to answer") from error
        except aiohttp.ClientError as error:
            raise StudyError(f"the OPA of this study ended: {error}", remedy="Is there enough memory?") from error
        if response.status == 204 or (response.status == 404 and absent_is_fine):
            return {}
        if response.status != 200:
            raise PolicyFailed(
                _in_words(text, self._names), remedy="Mend the policy, or the data that it stumbles over."
            )
        found: dict[str, Any] = json.loads(text or b"{}")
        return found


@asynccontextmanager
async def studied(policies: Policies, data: Data) -> AsyncIterator[Studied]:
    """An OPA that holds exactly this, gone on exit.  Raises StudyError with file and line where it cannot be loaded."""
    binary = await asyncio.to_thread(find_or_build, OPA)
    with tempfile.TemporaryDirectory(prefix="doorward-", dir=_short()) as place:
        folder = Path(place)
        names = Names(folder, policies)
        await asyncio.to_thread(names.write, policies)
        documents = folder / f"data{data.suffix}"
        await asyncio.to_thread(documents.write_bytes, data.content)
        command = Command(
            "opa",
            [
                *GARBAGE, str(binary), "run", "--server", "--skip-version-check", "--addr", f"unix://{folder}/socket",
                "--log-level", "error", "--log-format", "json", "--shutdown-grace-period", "1",
                str(folder / "p"), str(documents),
            ],
            folder / "log",
        )  # fmt: skip
        connector = aiohttp.UnixConnector(str(folder / "socket"))
        limits = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=limits) as session:
            try:
                async with child(command, lambda: _is_ready(session), seconds=START_SECONDS):
                    yield Studied(session, policies, names)
            except ChildUnavailable as error:
                raise await _not_loaded(folder, names, error) from error


def _short() -> str | None:
    """A folder with a short name: a socket's path has 107 characters at most, and OPA's traces cut names of over 64."""
    return None if len(tempfile.gettempdir()) < 24 else "/tmp"  # noqa: S108  mkdtemp makes it ours alone


async def _is_ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("http://opa/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _not_loaded(folder: Path, names: Names, error: ChildUnavailable) -> StudyError:
    """Why OPA ended: its log's last words, with the names that the reader knows."""
    words = await asyncio.to_thread((folder / "log").read_text, errors="replace")
    said = names.translated(words.strip() or str(error))
    return StudyError(
        f"OPA cannot load this: {_first_error(said)}",
        remedy="`opa check --strict` on the policies, and a look at the data file, say more.",
    )


def _first_error(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [re.sub(r"^(error: |\d+ errors? occurred(?: during loading)?: )", "", line) for line in lines]
    return "; ".join(error for error in errors[:4] if error)[:450]


def _in_words(text: bytes, names: Names) -> str:
    """OPA's error body in one line: what failed, and where."""
    try:
        body = json.loads(text)
        found = [body["message"], *(_one_error(error) for error in body.get("errors", []))]
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"OPA said: {text[:300].decode(errors='replace')}"
    return names.translated("; ".join(found))[:480]


def _one_error(error: Mapping[str, Any]) -> str:
    at = error.get("location") or {}
    return f"{at.get('file', '')}:{at.get('row', '')}: {error.get('message', '')}"


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise StudyError("OPA's answer is too long to be read", remedy="Study fewer questions at once.")
    return bytes(body)


def _document(path: Sequence[str]) -> str:
    if not path or not {"", ".", ".."}.isdisjoint(path):
        raise StudyError(f"there is no document {'/'.join(path)!r}", remedy="Its parts are names.")
    return "/".join(["data", *(quote(segment, safe="") for segment in path)])
