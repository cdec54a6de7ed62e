"""OPA over its REST API (https://www.openpolicyagent.org/docs/rest-api), adapted from opa-python-client's async client.

What the library lacks and is added here: a private CA, headers per request (trace context), no retry, a deadline on
each call, OPA's own error bodies in the log, and errors that are ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from opa_client.opa_async import AsyncOpaClient
from pydantic import SecretStr

from gateway.errors import PolicyUnavailable
from gateway.settings import PolicySettings
from gateway.trust import trusting

log = logging.getLogger(__name__)

ANSWER_BYTES = 64 * 2**20
"""The longest answer that is read: all grants at once are the longest there is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What OPA said.  `result` is None when the rule is undefined; `revision` names the bundles that were active."""

    result: Any
    defined: bool
    decision_id: str
    revision: str


class Opa:
    """One OPA.  Every method raises PolicyUnavailable on anything but a usable answer in time."""

    def __init__(self, client: AsyncOpaClient, timeout: float) -> None:
        self._client = client
        self._timeout = timeout

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: PolicySettings) -> AsyncIterator[Opa]:
        async with _client(settings, settings.token.read() if settings.token else None) as client:
            yield cls(client, settings.timeout_seconds)

    async def query(self, path: str, question: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        """Evaluate `data.<path>` on `question`; a builtin that fails is an error, never silently undefined."""
        params = {"strict-builtin-errors": "true", "provenance": "true"}
        body = await self._call("POST", f"data/{path}", json={"input": question}, params=params, headers=headers)
        return Answer(
            result=body.get("result"),
            defined="result" in body,
            decision_id=str(body.get("decision_id", "")),
            revision=_revision(body),
        )

    async def read(self, *path: str) -> Any:
        """The base document at `path`, or None where there is none."""
        return (await self._call("GET", _document(path))).get("result")

    async def modules(self) -> dict[str, str]:
        """The Rego that it has loaded, by its name there.  For studies; the gateway's own token may not."""
        listed = (await self._call("GET", "policies")).get("result")
        if not isinstance(listed, list):
            raise PolicyUnavailable("the policy engine answered nonsense", code="policy_malformed")
        return {str(module["id"]): str(module["raw"]) for module in listed}

    async def write(self, *path: str, value: Any) -> None:
        """Create or overwrite the base document at `path`."""
        await self._call("PUT", _document(path), json=value)

    async def create(self, *path: str, value: Any) -> bool:
        """Create the base document at `path`; False, and nothing is changed, where there is one.  OPA sees to it."""
        told = await self._call("PUT", _document(path), json=value, headers={"if-none-match": "*"}, told={304})
        return not told

    async def patch(self, *path: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Add and remove documents two segments or more below `path`: all or none."""
        if await self._call("PATCH", _document(path), json=operations, told={404}):
            # Kept in memory, OPA adds nothing below what is not there; on disk, by partitions, it does.
            for above in sorted({tuple(str(operation["path"]).split("/")[1:-1]) for operation in operations}):
                for length in range(len(above) + 1):
                    await self.create(*path, *above[:length], value={})
            await self._call("PATCH", _document(path), json=operations)

    async def remove(self, *path: str) -> None:
        """Remove the base document at `path`; none there is fine."""
        await self._call("DELETE", _document(path), told={404})

    async def status(self) -> dict[str, Any] | None:
        """What OPA tells of itself, its bundles among it; None where its configuration has no `status`."""
        return (await self._call("GET", "status", told={500})).get("result")

    async def check(self) -> None:
        """Raises PolicyUnavailable when OPA does not answer or refuses our token."""
        await self._call("POST", "data/gateway/nothing", json={"input": {}})

    async def _call(self, method: str, path: str, *, told: Collection[int] = (), **kwargs: Any) -> dict[str, Any]:
        """The body.  An answer of one of the statuses in `told` is one too: `{"status": ...}`."""
        try:
            async with asyncio.timeout(self._timeout):
                status, text = await self._send(method, f"{self._client.root_url}/{path}", **kwargs)
            if status in told:
                return {"status": status}
            if status == 204:
                return {}
            if status != 200:
                raise _refused(status, text)
            body = json.loads(text)
        except TimeoutError as error:
            raise PolicyUnavailable("the policy engine did not answer in time", code="policy_timeout") from error
        except (aiohttp.ClientError, OSError) as error:
            raise PolicyUnavailable("the policy engine cannot be reached", code="policy_unreachable") from error
        except (ValueError, RecursionError) as error:
            raise PolicyUnavailable("the policy engine answered nonsense", code="policy_malformed") from error
        if not isinstance(body, dict):
            raise PolicyUnavailable("the policy engine answered nonsense", code="policy_malformed")
        return body

    async def _send(self, method: str, url: str, **kwargs: Any) -> tuple[int, str]:
        try:
            async with self._client._request(method, url, **kwargs) as response:
                return response.status, await _text(response)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError):
            # A kept-alive connection that OPA closed (it restarted) says nothing about OPA: once more, on a new one.
            async with self._client._request(method, url, **kwargs) as response:
                return response.status, await _text(response)


def _refused(status: int, text: str) -> PolicyUnavailable:
    # OPA's error body holds file, line and message of the policy's failure: for the operator, not for the engineer.
    log.error("opa_refused", extra={"status": status, "body": text[:2000]})
    if status in (401, 403):
        return PolicyUnavailable("the policy engine refused the gateway's token", code="policy_token_refused")
    return PolicyUnavailable("the policy failed while it was evaluated", code="policy_failed")


async def _text(response: aiohttp.ClientResponse) -> str:
    """The whole body.  Raises ValueError for what no OPA of ours would say."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES:
            raise ValueError("the answer is too long")
    return body.decode()


def _revision(body: dict[str, Any]) -> str:
    """Of every bundle by its name: `policies=v42,tokens=7c1d`."""
    try:
        bundles = body.get("provenance", {}).get("bundles") or {}
        return ",".join(f"{name}={bundle.get('revision', '')}" for name, bundle in sorted(bundles.items()))
    except AttributeError as error:
        raise PolicyUnavailable("the policy engine answered nonsense", code="policy_malformed") from error


def _document(path: tuple[str, ...]) -> str:
    # A URL's `.` and `..` are resolved on the way, quoted or not: they would name another document.
    if not {"", ".", ".."}.isdisjoint(path):
        raise PolicyUnavailable(f"there is no document {'/'.join(path)}", code="policy_path")
    return "/".join(["data", *(quote(segment, safe="") for segment in path)])


class _PrivateCaClient(AsyncOpaClient):  # type: ignore[misc]  # the library ships no types
    tls: ssl.SSLContext | None = None

    async def _init_session(self) -> None:
        self._connector = aiohttp.TCPConnector(ssl=self.tls or True, limit=64)
        self._session = aiohttp.ClientSession(headers=self.headers, connector=self._connector)


def _client(settings: PolicySettings, token: SecretStr | None) -> AsyncOpaClient:
    url = urlsplit(settings.url)
    tls = url.scheme == "https"
    client = _PrivateCaClient(
        host=url.hostname or "127.0.0.1",
        port=url.port or (443 if tls else 80),
        version="v1",
        ssl=tls,
        headers={
            # An answer of 2 KB takes OPA longer to compress than to say.
            "accept-encoding": "identity",
            **({"authorization": f"Bearer {token.get_secret_value()}"} if token else {}),
        },
        retries=0,  # a policy that fails once fails again, and an engineer is waiting
    )
    if tls:
        client.tls = trusting(settings.ca_file, "policy")
    return client
