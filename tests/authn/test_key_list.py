"""Keys that are listed elsewhere, against servers that are slow, huge, wrong, elsewhere or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gateway.authn.key_list import COPIES, KeyListVerifier
from gateway.contracts.verifier import MakeTry, Outage, Try, VerifierContract, evidence, found, refusal, with_key
from gateway.proofs import KeyList
from gateway.settings_authn import KeyListsSettings
from tests.authn.serving import Answer, Served, never, serving

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
OTHER = KEY.replace("BAgME", "BAgMF")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lists:
    """Like GitHub: plain text at /<name>.keys."""

    def __init__(self) -> None:
        self.listed = {"/alice.keys": f"{OTHER}\n{KEY} alice@laptop\n", "/bob.keys": ""}
        self.down: Answer | None = None
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.down is not None:
            return await self.down(request)
        if request.path not in self.listed:
            return web.Response(status=404, text="Not Found")
        return web.Response(text=self.listed[request.path])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
async def server(lists: Lists) -> AsyncIterator[Served]:
    async with serving(lists.answer) as served:
        yield served


@asynccontextmanager
async def verifying(clock: Clock, *origins: str, **changes: Any) -> AsyncIterator[KeyListVerifier]:
    settings = {"origins": origins, "timeout_seconds": 2, **changes}
    async with KeyListVerifier.open(KeyListsSettings.model_validate(settings), clock) as verifier:
        yield verifier


@pytest.fixture
async def verifier(server: Served, clock: Clock) -> AsyncIterator[KeyListVerifier]:
    async with verifying(clock, server.url) as opened:
        yield opened


def attempt(url: str, key: str = KEY, **changes: Any) -> Try:
    words = {"kind": "key_list", "url": url, "fresh_seconds": 0, **changes}
    return with_key(KeyList.model_validate(words), key)


@pytest.fixture
def alice(server: Served) -> str:
    return f"{server.url}/alice.keys"


class TestContract(VerifierContract):
    @pytest.fixture
    def right(self, alice: str) -> MakeTry:
        return lambda: attempt(alice)

    @pytest.fixture
    def wrong(self, alice: str) -> MakeTry:
        return lambda: attempt(alice, KEY.replace("BAgME", "BAgMG"))

    @pytest.fixture
    def unknown(self, server: Served) -> MakeTry:
        return lambda: attempt(f"{server.url}/mallory.keys")

    @pytest.fixture
    def outage(self, server: Served) -> Outage:
        return server.stop


async def test_a_key_is_listed_whatever_its_comment(verifier: KeyListVerifier, alice: str) -> None:
    answer = await found(verifier, attempt(alice, f"{KEY} another-comment"))

    assert answer.claims == {"url": alice, "listed": True, "age_seconds": 0.0, "stale": False}


@pytest.mark.parametrize("path", ["/bob.keys", "/nobody.keys"])
async def test_no_key_and_no_such_person_are_answers(verifier: KeyListVerifier, server: Served, path: str) -> None:
    answer = await found(verifier, attempt(server.url + path))

    assert not answer.proven
    assert answer.claims["listed"] is False


# -- what is kept -----------------------------------------------------------------------------------------------------


async def test_a_fresh_copy_is_not_fetched_again_and_an_older_one_is(
    verifier: KeyListVerifier, lists: Lists, clock: Clock, alice: str
) -> None:
    await found(verifier, attempt(alice, fresh_seconds=60))
    clock.now += 59
    answer = await found(verifier, attempt(alice, fresh_seconds=60))
    assert (answer.proven, answer.claims["age_seconds"], len(lists.asked)) == (True, 59.0, 1)

    lists.listed["/alice.keys"] = OTHER
    clock.now += 2
    answer = await found(verifier, attempt(alice, fresh_seconds=60))
    assert (answer.proven, answer.claims["age_seconds"], len(lists.asked)) == (False, 0.0, 2)


async def test_down_the_copy_is_good_for_as_long_as_policy_says_and_no_longer(
    verifier: KeyListVerifier, server: Served, clock: Clock, alice: str
) -> None:
    await found(verifier, attempt(alice))
    await server.stop()
    clock.now += 3599

    answer = await found(verifier, attempt(alice, stale_seconds=3600))
    assert answer.proven
    assert answer.claims == {"url": alice, "listed": True, "age_seconds": 3599.0, "stale": True}
    assert not (await found(verifier, attempt(alice, KEY.replace("BAgME", "BAgMG"), stale_seconds=3600))).proven
    await refusal(verifier, attempt(alice))
    clock.now += 1
    await refusal(verifier, attempt(alice, stale_seconds=3600))


async def test_a_key_that_was_taken_off_the_list_is_no_longer_proven_by_the_stale_copy(
    verifier: KeyListVerifier, lists: Lists, alice: str
) -> None:
    assert (await found(verifier, attempt(alice, stale_seconds=3600))).proven
    del lists.listed["/alice.keys"]

    assert not (await found(verifier, attempt(alice, stale_seconds=3600))).proven


async def test_many_who_ask_at_once_are_one_request(verifier: KeyListVerifier, lists: Lists, alice: str) -> None:
    answers = await asyncio.gather(*(found(verifier, attempt(alice, fresh_seconds=60)) for _ in range(20)))

    assert all(answer.proven for answer in answers)
    assert lists.asked == ["/alice.keys"]


async def test_who_waits_for_one_that_is_cancelled_gets_an_answer(
    verifier: KeyListVerifier, lists: Lists, alice: str
) -> None:
    held, arrived = asyncio.Event(), asyncio.Event()

    async def hold(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await held.wait()
        return web.Response(text=KEY)

    lists.down = hold
    first = asyncio.ensure_future(found(verifier, attempt(alice)))
    await arrived.wait()
    second = asyncio.ensure_future(found(verifier, attempt(alice)))
    await asyncio.sleep(0)
    first.cancel()
    held.set()

    assert (await second).proven
    assert first.cancelled()


async def test_who_waits_for_one_that_fails_does_not_ask_again(
    verifier: KeyListVerifier, lists: Lists, alice: str
) -> None:
    async def broken(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=500)

    lists.down = broken
    tries = [verifier.verify(attempt(alice).verification, attempt(alice).evidence) for _ in range(20)]
    answers = await asyncio.gather(*tries, return_exceptions=True)

    assert not any(getattr(answer, "proven", False) for answer in answers)
    assert lists.asked == ["/alice.keys"]


async def test_who_waits_behind_a_server_that_hangs_waits_no_longer_than_the_first(
    server: Served, lists: Lists, clock: Clock, alice: str
) -> None:
    lists.down = never
    async with verifying(clock, server.url, timeout_seconds=0.5) as verifier:
        tries = [verifier.verify(attempt(alice).verification, attempt(alice).evidence) for _ in range(40)]
        async with asyncio.timeout(10):  # in turn they would need 20 s
            answers = await asyncio.gather(*tries, return_exceptions=True)

    assert {type(answer).__name__ for answer in answers} == {"VerifierUnavailable"}


async def test_what_is_kept_is_bounded_and_made_up_names_push_nobody_out(
    verifier: KeyListVerifier, lists: Lists, server: Served, alice: str
) -> None:
    await found(verifier, attempt(alice))
    for number in range(COPIES + 50):
        await found(verifier, attempt(f"{server.url}/made-up-{number}.keys"))

    assert len(verifier._copies) == COPIES
    await server.stop()
    assert (await found(verifier, attempt(alice, stale_seconds=60))).proven


# -- answers that are none --------------------------------------------------------------------------------------------


def saying(text: str, status: int = 200) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text)

    return answer


async def huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(f"{KEY}\n".encode())
    for _ in range(10_000):
        await response.write(b"# more\n" * 10_000)
    return response


@pytest.mark.parametrize(
    "answer",
    [
        saying("<html>Sign in</html>"),
        saying("ssh-ed25519 nonsense"),
        saying(f"ssh-rsa {KEY.split()[1]}"),
        saying(KEY, 500),
        saying(KEY, 429),
        saying(KEY, 403),
        saying(KEY, 204),
        huge,
        never,
    ],
)
async def test_what_is_no_list_is_no_answer_and_the_copy_stands_in(
    server: Served, lists: Lists, clock: Clock, alice: str, answer: Answer
) -> None:
    async with verifying(clock, server.url, timeout_seconds=1) as verifier:
        lists.down = answer
        await refusal(verifier, attempt(alice))
        lists.down = None
        await found(verifier, attempt(alice))
        lists.down = answer
        clock.now += 5

        assert (await found(verifier, attempt(alice, stale_seconds=60))).claims["stale"] is True


async def test_a_line_with_options_is_no_key(verifier: KeyListVerifier, lists: Lists, alice: str) -> None:
    lists.listed["/alice.keys"] = f'{OTHER}\nfrom="10.0.0.0/8" {KEY}\n'

    assert not (await found(verifier, attempt(alice))).proven


# -- where it may lead ------------------------------------------------------------------------------------------------


def moved(where: str) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(where)

    return answer


async def test_a_redirect_is_followed_where_it_may_lead_and_only_there(
    verifier: KeyListVerifier, server: Served, lists: Lists
) -> None:
    async with serving(moved(f"{server.url}/alice.keys")) as other:
        both = KeyListVerifier(
            KeyListsSettings.model_validate({"origins": [server.url, other.url]}), verifier._site, Clock()
        )
        assert (await found(both, attempt(f"{other.url}/alice.keys"))).proven
        error = await refusal(verifier, attempt(f"{other.url}/alice.keys"))
        assert error.reasons[0].code == "address_not_allowed"
        assert len(other.requests) == 1

        lists.down = moved(f"{other.url}/alice.keys")
        error = await refusal(verifier, attempt(f"{server.url}/alice.keys"))
        assert error.reasons[0].code == "address_not_allowed"
        assert len(other.requests) == 1


@pytest.mark.parametrize("where", ["http://[", "//evil.example/x", "file:///etc/passwd", "\\\\x", "?x"])
async def test_a_redirect_to_what_is_no_address_is_not_followed(
    verifier: KeyListVerifier, lists: Lists, alice: str, where: str
) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": where})

    lists.down = answer
    assert (await refusal(verifier, attempt(alice))).reasons[0].code == "address_not_allowed"
    assert len(lists.asked) == 1


async def test_a_redirect_without_end_ends(verifier: KeyListVerifier, lists: Lists, alice: str) -> None:
    lists.down = moved("/alice.keys")
    await refusal(verifier, attempt(alice))

    assert len(lists.asked) == 4


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/alice.keys",
        "http://169.254.169.254/latest/meta-data/",
        "https://{host}/alice.keys",
        "http://{host}@169.254.169.254/",
        "http://alice@{host}/alice.keys",
        "http://{host}/alice.keys?x=1",
        "http://{host}/alice.keys#x",
        "http://{host}/../alice.keys",
        "http://{host}/a/%2e%2e/../alice.keys",
        "http://{host}\\@evil.example/",
        "http://{host}/a b",
        "http://{host}/a\nb",
        "http://{host}:99999/",
        "http://{host}.evil.example/",
        "http://LOCALHOST/alice.keys",
        "http://[::1",
    ],
)
async def test_no_other_address_is_asked(verifier: KeyListVerifier, server: Served, lists: Lists, url: str) -> None:
    error = await refusal(verifier, attempt(url.replace("{host}", server.url.removeprefix("http://"))))

    assert error.reasons[0].code == "address_not_allowed"
    assert lists.asked == []


async def test_without_a_setting_no_address_is_asked(clock: Clock, alice: str, lists: Lists) -> None:
    async with verifying(clock) as verifier:
        assert (await refusal(verifier, attempt(alice))).reasons[0].code == "address_not_allowed"
    assert lists.asked == []


@pytest.mark.parametrize("origin", ["http://github.com", "https://github.com/", "https://a:b@github.com", "github.com"])
def test_an_origin_is_https_and_nothing_more(origin: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        KeyListsSettings.model_validate({"origins": [origin]})


async def test_the_check_names_who_does_not_answer(verifier: KeyListVerifier, server: Served) -> None:
    await verifier.check()
    await server.stop()
    with pytest.raises(Exception, match=server.url):
        await verifier.check()


async def test_it_needs_a_key(verifier: KeyListVerifier, alice: str) -> None:
    await refusal(verifier, Try(attempt(alice).verification, evidence()))
