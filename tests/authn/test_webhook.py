"""ContainerSSH's webhook protocol, against a server that speaks it over real HTTP."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import traceback
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.authn.webhook import WebhookVerifier, without_secrets
from gateway.contracts.verifier import (
    MakeTry,
    Outage,
    Try,
    VerifierContract,
    assert_hidden,
    everything_in,
    evidence,
    found,
    refusal,
    with_key,
    with_password,
)
from gateway.errors import SettingsError
from gateway.proofs import Webhook
from gateway.settings_authn import WebhookSettings
from tests.authn.containerssh import Directory, values
from tests.authn.serving import Answer, Served, never, serving
from tests.stack.process import write_secret

PASSWORD = "correct horse"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
OTHER = KEY.replace("BAgME", "BAgMF")


def asking(**changes: Any) -> Webhook:
    return Webhook(**{"kind": "webhook", "name": "old", "username": "alice", **changes})


@pytest.fixture
def directory() -> Directory:
    return Directory({"alice": PASSWORD}, {"alice": KEY}, {"alice"}, config={"backend": "docker"})


@pytest.fixture
async def server(directory: Directory) -> AsyncIterator[Served]:
    async with serving(directory.answer) as served:
        yield served


@asynccontextmanager
async def verifying(url: str, **changes: Any) -> AsyncIterator[WebhookVerifier]:
    settings = {"url": url, "config_url": f"{url}/config", "timeout_seconds": 3, **changes}
    async with WebhookVerifier.open({"old": WebhookSettings.model_validate(settings)}) as verifier:
        yield verifier


@asynccontextmanager
async def answering(answer: Answer, **changes: Any) -> AsyncIterator[WebhookVerifier]:
    async with serving(answer) as served, verifying(served.url, **changes) as verifier:
        yield verifier


@pytest.fixture
async def verifier(server: Served) -> AsyncIterator[WebhookVerifier]:
    async with verifying(server.url) as opened:
        yield opened


class TestPasswords(VerifierContract):
    @pytest.fixture
    def right(self) -> MakeTry:
        return lambda: with_password(asking(), PASSWORD)

    @pytest.fixture
    def wrong(self) -> MakeTry:
        return lambda: with_password(asking(), "wrong horse")

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: with_password(asking(username="mallory"), "wrong horse")

    @pytest.fixture
    def outage(self, server: Served) -> Outage:
        return server.stop


class TestKeys(VerifierContract):
    @pytest.fixture
    def right(self) -> MakeTry:
        return lambda: with_key(asking(), KEY)

    @pytest.fixture
    def wrong(self) -> MakeTry:
        return lambda: with_key(asking(), OTHER)

    @pytest.fixture
    def unknown(self) -> MakeTry:
        return lambda: with_key(asking(username="mallory"), OTHER)

    @pytest.fixture
    def outage(self, server: Served) -> Outage:
        return server.stop


async def test_the_requests_are_as_containerssh_sends_them(verifier: WebhookVerifier, directory: Directory) -> None:
    await found(verifier, with_password(asking(), "pässwörd"))
    await found(verifier, with_key(asking(), KEY))

    about = {
        "username": "alice",
        "remoteAddress": "192.0.2.7:4711",
        "connectionId": "s-1",
        "clientVersion": "SSH-2.0-OpenSSH_9.2",
    }
    assert directory.asked == [
        ("/password", {**about, "passwordBase64": "cMOkc3N3w7ZyZA=="}),
        ("/pubkey", {**about, "publicKey": KEY}),
    ]


async def test_an_ipv6_address_is_written_with_brackets(verifier: WebhookVerifier, directory: Directory) -> None:
    attempt = Try(asking(), evidence(password=with_password(0, "x").evidence.password, client_address="2001:db8::7"))
    await found(verifier, attempt)

    assert directory.asked[0][1]["remoteAddress"] == "[2001:db8::7]:4711"


async def test_authz_and_config_are_facts_beside_the_proof(verifier: WebhookVerifier, directory: Directory) -> None:
    directory.also = {"authenticatedUsername": "alice@corp", "metadata": values(team="payments")}
    directory.config = {"backend": "kubernetes", "kubernetes": {"connection": {"host": "k8s", "bearerToken": "t0k3n"}}}
    answer = await found(verifier, with_password(asking(authz=True, config=True), PASSWORD))

    assert answer.proven
    assert answer.claims == {
        "webhook": "old",
        "authenticated_username": "alice@corp",
        "metadata": {"team": "payments"},
        "authz": False,
        "config": {"backend": "kubernetes", "kubernetes": {"connection": {"host": "k8s"}}},
    }
    assert [path for path, _ in directory.asked] == ["/password", "/authz", "/config"]
    assert directory.asked[2][1]["authenticatedUsername"] == "alice@corp"
    assert directory.asked[2][1]["metadata"] == values(team="payments")


async def test_nobody_who_failed_is_asked_about_further(verifier: WebhookVerifier, directory: Directory) -> None:
    answer = await found(verifier, with_password(asking(authz=True, config=True), "wrong"))

    assert not answer.proven
    assert [path for path, _ in directory.asked] == ["/password"]


async def test_what_is_sensitive_is_no_fact_and_goes_to_no_other_webhook(
    verifier: WebhookVerifier, directory: Directory
) -> None:
    directory.also = {
        "metadata": {**values(team="payments"), **values(sensitive=True, ticket="s3cret-1")},
        "environment": {**values(LANG="C"), **values(sensitive=True, DB="s3cret-2")},
        "files": {"/etc/app.conf": {"value": "czNjcmV0LTM=", "sensitive": True}},
    }
    answer = await found(verifier, with_password(asking(authz=True, config=True), PASSWORD))

    assert answer.claims["metadata"] == {"team": "payments"}
    assert answer.claims["environment"] == {"LANG": "C"}
    assert "s3cret" not in json.dumps(dict(answer.claims)) + json.dumps(directory.asked[1:])
    assert "czNjcmV0" not in json.dumps(dict(answer.claims)) + json.dumps(directory.asked[1:])
    assert PASSWORD not in json.dumps(directory.asked[1:])
    assert "passwordBase64" not in directory.asked[1][1]


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        ({"sshproxy": {"server": "h", "password": "x", "privateKey": "x"}}, {"sshproxy": {"server": "h"}}),
        (
            {"docker": {"execution": {"container": {"image": "i", "env": ["A=secret"]}}}},
            {"docker": {"execution": {"container": {"image": "i"}}}},
        ),
        ({"docker": {"connection": {"host": "h", "key": "PEM", "cacert": "c"}}},
         {"docker": {"connection": {"host": "h", "cacert": "c"}}}),
        ({"list": [{"clientSecret": "x", "id": 1}]}, {"list": [{"id": 1}]}),
        ({"kubernetes": {"connection": {"keyData": "x", "bearer_token": "x", "qps": 5.0}}},
         {"kubernetes": {"connection": {"qps": 5.0}}}),
    ],
)  # fmt: skip
def test_a_configuration_is_a_fact_without_its_secrets(config: Any, facts: Any) -> None:
    assert without_secrets(config) == facts


async def test_a_server_says_who_it_is_and_is_told_who_we_are(
    directory: Directory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = write_secret(tmp_path / "token", "t0k3n-of-ours\n")
    async with serving(directory.answer) as served, verifying(served.url, token={"file": token}) as verifier:
        assert (await found(verifier, with_password(asking(), PASSWORD))).proven
        await served.stop()
        error = await refusal(verifier, with_password(asking(), PASSWORD))

    assert directory.headers[0]["Authorization"] == "Bearer t0k3n-of-ours"
    assert "t0k3n" not in everything_in(error) + caplog.text


@pytest.mark.parametrize("token", ["t0k3n\r\nX-Evil: 1", "t0k3n-ä", "t0k3n\0"])
async def test_a_token_that_cannot_be_sent_is_not_quoted(server: Served, tmp_path: Path, token: str) -> None:
    file = write_secret(tmp_path / "token", token)
    async with verifying(server.url, token={"file": file}) as verifier:
        error = await refusal(verifier, with_password(asking(), PASSWORD))

    assert "t0k3n" not in "".join(traceback.format_exception(error)) + everything_in(error)


# -- no answer, and nonsense ------------------------------------------------------------------------------------------


def saying(body: Any, status: int = 200) -> Answer:
    text = body if isinstance(body, str | bytes) else json.dumps(body)

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=text)

    return answer


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(10_000):
        await response.write(b'{"success": true, "x": "' + b"x" * 65536)
    return response


BOMB = zlib.compress(b'{"success": true, "x": "' + b"x" * 10 * 2**20)
"""A few kilobytes, until somebody unpacks them."""


async def bomb(_request: web.Request) -> web.StreamResponse:
    return web.Response(body=BOMB, headers={"content-encoding": "deflate"})


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (saying({"success": True}, 500), "verifier_unavailable"),
        (saying({"success": True}, 403), "verifier_unavailable"),
        (saying({"success": True}, 201), "verifier_unavailable"),
        (saying("", 302), "verifier_unavailable"),
        (saying(""), "verifier_malformed"),
        (saying("<html>"), "verifier_malformed"),
        (saying([]), "verifier_malformed"),
        (saying({}), "verifier_malformed"),
        (saying({"success": "true"}), "verifier_malformed"),
        (saying({"success": 1}), "verifier_malformed"),
        (saying({"success": None}), "verifier_malformed"),
        (saying({"success": True, "metadata": {"a": "b"}}), "verifier_malformed"),
        (saying('{"success": ' + "[" * 100_000), "verifier_malformed"),
        (saying(b"\xff\xfe"), "verifier_malformed"),
        (endless, "verifier_unavailable"),
        (bomb, "verifier_malformed"),
        (drip, "verifier_timeout"),
        (never, "verifier_timeout"),
    ],
)
async def test_whatever_is_no_clear_answer_proves_nothing(answer: Answer, code: str) -> None:
    async with answering(answer, timeout_seconds=1) as verifier:
        attempt = with_password(asking(), PASSWORD)
        error = await refusal(verifier, attempt)

    assert error.reasons[0].code == code
    assert_hidden(attempt, everything_in(error))


async def test_an_answer_that_does_not_fit_is_in_no_error() -> None:
    secret = {"value": "s3cr3t", "sensitive": True}
    async with answering(saying({"success": 1, "metadata": {"token": secret}})) as verifier:
        error = await refusal(verifier, with_password(asking(), PASSWORD))

    assert error.reasons[0].code == "verifier_malformed"
    # What pydantic complains with holds all that came, whether or not its text shows it.
    assert error.__cause__ is None
    assert error.__context__ is None


async def test_a_redirect_is_not_followed(directory: Directory) -> None:
    async with serving(directory.answer) as real:

        async def elsewhere(_request: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(f"{real.url}/password")

        async with answering(elsewhere) as verifier:
            await refusal(verifier, with_password(asking(), PASSWORD))

    assert directory.asked == []


async def test_authz_that_cannot_tell_proves_nothing(directory: Directory) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503) if request.path == "/authz" else await directory.answer(request)

    async with answering(answer) as verifier:
        assert (await found(verifier, with_password(asking(), PASSWORD))).proven
        await refusal(verifier, with_password(asking(authz=True), PASSWORD))


async def test_what_the_settings_do_not_have_is_named(server: Served) -> None:
    async with verifying(server.url, config_url=None) as verifier:
        unknown = await refusal(verifier, with_password(asking(name="new"), PASSWORD))
        no_config = await refusal(verifier, with_password(asking(config=True), PASSWORD))
        neither = await refusal(verifier, Try(asking(), evidence()))

    assert "authn.webhooks.new" in unknown.reasons[0].remedy
    assert "authn.webhooks.old.config_url" in no_config.reasons[0].remedy
    assert "neither" in str(neither)


async def test_the_check_asks_without_logging_anybody_in(
    verifier: WebhookVerifier, server: Served, directory: Directory
) -> None:
    await verifier.check()
    assert directory.asked == []
    await server.stop()
    with pytest.raises(Exception, match="the webhook server old cannot be reached"):
        await verifier.check()


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client"):
        request = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={name}"
        files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
        words = [*request.split(), *files, "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(words, check=True, capture_output=True)
    return folder


@pytest.fixture
def mutual(certificates: Path) -> ssl.SSLContext:
    """TLS that wants a certificate of the client."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "client.pem"))
    tls.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    return tls


async def test_both_sides_show_a_certificate(directory: Directory, certificates: Path, mutual: ssl.SSLContext) -> None:
    ours = {"client_certificate": certificates / "client.pem", "client_key": certificates / "client.key"}
    trusted = {"ca_file": certificates / "server.pem"}
    attempts: list[tuple[dict[str, Path], Callable[..., Any]]] = [
        ({**trusted, **ours}, found), (ours, refusal), (trusted, refusal)
    ]  # fmt: skip
    async with serving(directory.answer, mutual) as served:
        for changes, expected in attempts:
            async with verifying(served.url, **changes) as verifier:
                await expected(verifier, with_password(asking(), PASSWORD))

    assert len(directory.asked) == 1


@pytest.mark.parametrize("name", ["ca_file", "client_certificate"])
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match=f"authn.webhooks.old.{name}: .*x.pem"):
        async with verifying("http://127.0.0.1:1", **{name: tmp_path / "x.pem"}):
            pass


@pytest.mark.parametrize(
    "url", ["http://example.org", "https://user:word@example.org", "https://example.org/?x=1", "ftp://127.0.0.1"]
)
def test_secrets_do_not_travel_in_the_clear(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        WebhookSettings.model_validate({"url": url})
