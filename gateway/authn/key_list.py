"""Keys, proven to be listed at an address like https://github.com/alice.keys.

The address is policy's, but where it may lead is the settings': only to an origin that they name, redirects included.
A name that they name is believed, also when it leads into a private network: that is where a GitLab of one's own is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from gateway.authn import Evidence, Verified
from gateway.authn.fetch import Answer, Site, open_client
from gateway.errors import VerifierUnavailable
from gateway.proofs import KeyList
from gateway.settings_authn import KeyListsSettings

REDIRECTS = 3
COPIES = 1000
"""How many lists are kept; of those without a key the one that was not looked at for longest goes first."""
NOT_THERE = (404, 410)
"""No such person, which is an answer: nothing is listed."""
PLAIN = re.compile(
    r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,4}|:[1-5][0-9]{4}|:6[0-4][0-9]{3})?(/[\w.~%+=,-]*)*", re.ASCII
)
KEY = ("ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-")


@dataclass(slots=True)
class Copy:
    """What is known of one address.  Its lock is held while somebody fetches it."""

    keys: frozenset[bytes] = frozenset()
    fetched: float | None = None
    tries: int = 0
    """How many fetches have ended."""
    failure: VerifierUnavailable | None = None
    """Of the last of them."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class KeyListVerifier:
    """The verifier of kind `key_list`.

    `claims`: `url`, `listed`, `age_seconds` of the copy that was looked at, and `stale`: whether that is older than
    `fresh_seconds` because the address does not answer.  Copies are kept in memory.
    """

    def __init__(self, settings: KeyListsSettings, site: Site, clock: Callable[[], float] = time.monotonic) -> None:
        """`open` makes one."""
        self._settings = settings
        self._origins = frozenset(_origin(origin) for origin in settings.origins)
        self._site = site
        self._clock = clock
        self._copies: OrderedDict[str, Copy] = OrderedDict()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: KeyListsSettings, clock: Callable[[], float] = time.monotonic
    ) -> AsyncIterator[KeyListVerifier]:
        """Raises SettingsError."""
        async with open_client("authn.key_lists", ca_file=settings.ca_file) as http:
            yield cls(settings, Site("the list of keys", http, settings.timeout_seconds), clock)

    async def verify(self, verification: KeyList, evidence: Evidence) -> Verified:
        """See `Verifier.verify`."""
        if evidence.key is None:
            raise VerifierUnavailable("a key is needed, and there is none")
        material = _material(evidence.key.public_key)
        copy, is_stale = await self._looked_up(verification)
        listed = material is not None and material in copy.keys
        age = round(self._age(copy), 3)
        return Verified(listed, {"url": verification.url, "listed": listed, "age_seconds": age, "stale": is_stale})

    async def check(self) -> None:
        """Raises VerifierUnavailable for an origin that does not answer."""
        for origin in self._settings.origins:
            try:
                await self._site.ask("HEAD", f"{origin}/")
            except VerifierUnavailable as error:
                raise VerifierUnavailable(f"{origin}: {error}") from error.__cause__

    async def _looked_up(self, verification: KeyList) -> tuple[Copy, bool]:
        """A copy that policy finds young enough, and whether it is stale.  Who waits for another's fetch takes what
        comes of it.
        """
        self._refuse_unless_allowed(verification.url)
        copy = self._copy(verification.url)
        seen = copy.tries
        try:
            async with asyncio.timeout(self._settings.timeout_seconds), copy.lock:
                if self._age(copy) < verification.fresh_seconds:
                    return copy, False
                if copy.tries == seen:
                    await self._fetch(verification.url, copy)
                failure = copy.failure
        except TimeoutError:
            failure = VerifierUnavailable("the list of keys did not come in time", code="verifier_timeout")
        if failure is not None and self._age(copy) >= verification.stale_seconds:
            raise failure
        return copy, failure is not None

    async def _fetch(self, url: str, copy: Copy) -> None:
        began = self._clock()
        try:
            copy.keys, copy.fetched = await self._listed(url), began
            copy.failure = None
        except VerifierUnavailable as error:
            copy.failure = error
        copy.tries += 1

    async def _listed(self, url: str) -> frozenset[bytes]:
        for _ in range(REDIRECTS + 1):
            self._refuse_unless_allowed(url)
            answer = await self._site.ask("GET", url, headers={"accept": "text/plain"})
            if not (300 <= answer.status < 400 and answer.location):
                return _keys(answer)
            url = _joined(url, answer.location)
        raise VerifierUnavailable("the list of keys is somewhere else, again and again")

    def _refuse_unless_allowed(self, url: str) -> None:
        if not _is_plain(url) or _origin(url) not in self._origins:
            raise VerifierUnavailable(
                "the list of keys is at an address that this gateway may not ask",
                code="address_not_allowed",
                remedy="Tell the platform team: authn.key_lists.origins lacks it, or it is no plain address.",
            ) from PermissionError(f"{url[:300]!r} is not below any of authn.key_lists.origins")

    def _copy(self, url: str) -> Copy:
        copy = self._copies.setdefault(url, Copy())
        self._copies.move_to_end(url)
        if len(self._copies) > COPIES:
            # Those without a key first: names that somebody makes up must not push out the people there are.
            empty = (kept for kept, known in self._copies.items() if not known.keys and kept != url)
            del self._copies[next(empty, next(iter(self._copies)))]
        return copy

    def _age(self, copy: Copy) -> float:
        return float("inf") if copy.fetched is None else self._clock() - copy.fetched


def _keys(answer: Answer) -> frozenset[bytes]:
    """Raises VerifierUnavailable for what is no list of keys: a login page must not look like an empty list."""
    if answer.status in NOT_THERE:
        return frozenset()
    if answer.status != 200:
        raise VerifierUnavailable("the list of keys cannot be had") from OSError(f"status {answer.status}")
    lines = answer.body.decode("utf-8", "replace").splitlines()
    keys = frozenset(found for line in lines if (found := _material(line)) is not None)
    if not keys and any(line.strip() and not line.startswith("#") for line in lines):
        raise VerifierUnavailable("what came is not a list of keys", code="verifier_malformed")
    return keys


def _material(line: str) -> bytes | None:
    """The key itself, without its comment.  A line with options is none: they would be lost."""
    words = line.split()
    if len(words) < 2 or not words[0].startswith(KEY):
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    kind = words[0].encode()
    return blob if blob[4 : 4 + len(kind)] == kind and blob[:4] == len(kind).to_bytes(4, "big") else None


def _joined(url: str, location: str) -> str:
    """Where a redirect leads; no plain address if it is none."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


def _is_plain(url: str) -> bool:
    """Nothing in it that two programs may read as two addresses."""
    return PLAIN.fullmatch(url) is not None and ".." not in url.split("/")


def _origin(url: str) -> tuple[str, str, int]:
    """Of a plain address."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
