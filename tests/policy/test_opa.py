"""The OPA client: every way that OPA can fail is PolicyUnavailable with its own code, within the timeout."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.errors import PolicyUnavailable, SettingsError
from gateway.policy.contract import Decision, LiveSession
from gateway.policy.opa import Opa
from gateway.sections import SecretRef
from gateway.settings import PolicySettings
from tests.policy.servers import Conversation, Handler, always, http, never, read_request, serving, talking
from tests.policy.world import asking, settings_for
from tests.stack.opa import POLICIES, start_opa
from tests.stack.opa import Opa as Server
from tests.stack.process import Processes, free_port

QUESTION = {"now_ns": 1}
TIMEOUT = 0.3
LATE = 10.0


@pytest.fixture
async def opa(opa_server: Server) -> AsyncIterator[Opa]:
    async with Opa.open(settings_for(opa_server)) as opened:
        yield opened


def at(url: str, **changes: Any) -> AbstractAsyncContextManager[Opa]:
    return Opa.open(PolicySettings(**{"url": url, "timeout_seconds": TIMEOUT, **changes}))


async def refusal(opa: Opa, decision: str = Decision.AUTHZ) -> str:
    """The code of the refusal; fails when it comes late."""
    started = time.monotonic()
    with pytest.raises(PolicyUnavailable) as caught:
        await opa.query(decision, QUESTION, {})
    assert time.monotonic() - started < LATE
    return caught.value.reasons[0].code


# -- a real OPA -----------------------------------------------------------------------------------------------------


async def test_an_answer_names_opas_decision_id_and_the_bundles_revision(opa: Opa) -> None:
    answer = await opa.query(Decision.AUTHZ, QUESTION, {})

    assert answer.defined
    assert answer.result["allow"] is False
    assert len(answer.decision_id) == 36
    assert re.fullmatch(r"tokens=[0-9a-f]{12}", answer.revision)


async def test_a_wrong_token_is_told_apart_from_a_policy_that_fails(opa_server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    async with Opa.open(settings_for(opa_server, token=SecretRef(file=tmp_path / "token"))) as stranger:
        assert await refusal(stranger) == "policy_token_refused"
        with pytest.raises(PolicyUnavailable, match="refused the gateway's token"):
            await stranger.check()


async def test_no_token_is_refused_too(opa_server: Server) -> None:
    async with at(opa_server.url) as nobody:
        assert await refusal(nobody) == "policy_token_refused"


async def test_what_is_undefined_is_not_an_answer(opa: Opa) -> None:
    answer = await opa.query("gateway/no/such/rule", QUESTION, {})

    assert not answer.defined
    assert answer.result is None


async def test_a_builtin_that_fails_is_an_error_and_never_undefined(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    rego = "package gateway.broken\nx := time.parse_rfc3339_ns(input.now)\n"
    (tmp_path / "policies" / "broken.rego").write_text(rego)
    (tmp_path / "policies" / "authz.rego").write_text("package system.authz\nallow := true\n")
    processes = Processes(tmp_path / "opa")
    try:
        server = start_opa(processes, policies=tmp_path / "policies")
        async with Opa.open(settings_for(server)) as opa:
            with pytest.raises(PolicyUnavailable) as caught:
                await opa.query("gateway/broken/x", {"now": "tomorrow"}, {})
            assert caught.value.reasons[0].code == "policy_failed"
            assert "rego" not in str(caught.value), "OPA's own words are for the operator"
    finally:
        processes.end()


@pytest.mark.parametrize(
    "name", ["a b", "a/b", "..", ".", "%2F", "é", "a?b#c", "a+b&c=d", "a\nb", "~", "[0]", "a;b", "\\", "x" * 200]
)
async def test_a_document_is_written_read_and_removed_under_its_own_name_or_not_at_all(
    opa_server: Server, name: str
) -> None:
    """`system.authz` lets our gateway name plain documents only, so this asks as the administrator."""
    async with Opa.open(settings_for(opa_server, token=SecretRef(file=opa_server.token_files["admin"]))) as admin:
        await admin.write("odd", "beside", value=1)
        try:
            try:
                await admin.write("odd", name, value=2)
            except PolicyUnavailable:
                assert await admin.read("odd") == {"beside": 1}, "refused, so nothing was written"
                return
            assert await admin.read("odd") == {"beside": 1, name: 2}
            assert await admin.read("odd", name) == 2
            await admin.remove("odd", name)
            assert await admin.read("odd") == {"beside": 1}
            await admin.remove("odd", name)
        finally:
            await admin.remove("odd")


@pytest.mark.parametrize("path", [("grants", "..", "tokens"), ("grants", ""), ("grants", "a/b"), ("grants", ".")])
async def test_the_gateways_token_opens_nothing_by_a_strange_path(opa: Opa, path: tuple[str, ...]) -> None:
    with pytest.raises(PolicyUnavailable):
        await opa.read(*path)


async def test_a_document_that_is_not_there_reads_as_none(opa: Opa) -> None:
    assert await opa.read("grants", "nobody", "nothing") is None


async def test_after_a_restart_of_opa_the_next_call_works_on_a_new_connection(tmp_path: Path) -> None:
    port = free_port()
    processes = Processes(tmp_path / "opa")
    try:
        first = start_opa(processes, port=port)
        async with Opa.open(settings_for(first)) as opa:
            await opa.write("grants", "alice", "INC-1", value={"a": 1})
            processes.end()
            assert await refusal(opa) == "policy_unreachable"
            start_opa(processes, port=port)
            assert await opa.read("grants", "alice", "INC-1") == {"a": 1}
    finally:
        processes.end()


# -- servers that are no good OPA ----------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[Handler, str]] = {
    "slow": (never, "policy_timeout"),
    "500": (always({"code": "internal_error", "message": "x"}, 500), "policy_failed"),
    "404": (always({}, 404), "policy_failed"),
    "302": (always(b"", 302), "policy_failed"),
    "401": (always({}, 401), "policy_token_refused"),
    "403": (always({}, 403), "policy_token_refused"),
    "not JSON": (always(b"<html>it works</html>"), "policy_malformed"),
    "empty": (always(b""), "policy_malformed"),
    "half a JSON": (always(b'{"result": {"allow": tr'), "policy_malformed"),
    "not UTF-8": (always(b'{"result": "\xff\xfe"}'), "policy_malformed"),
    "not an object": (always([{"result": True}]), "policy_malformed"),
    "null": (always(b"null"), "policy_malformed"),
    "nested too deeply": (always(b'{"result":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "policy_malformed"),
    "a number too long": (always(b'{"result":' + b"9" * 5000 + b"}"), "policy_malformed"),
    "provenance of a wrong type": (always({"result": {}, "provenance": ["x"]}), "policy_malformed"),
    "no provenance": (always({"result": {}, "provenance": None}), "policy_malformed"),
    "bundles of a wrong type": (always({"result": {}, "provenance": {"bundles": ["x"]}}), "policy_malformed"),
    "a bundle of a wrong type": (always({"result": {}, "provenance": {"bundles": {"a": 1}}}), "policy_malformed"),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_a_bad_answer_is_a_refusal_with_its_code_in_time(case: str) -> None:
    handler, code = ANSWERS[case]
    async with serving(handler) as url, at(url) as opa:
        assert await refusal(opa) == code


async def _hangs_up(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def _truncates(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(http(b'{"result": {"allow": true}}', length=4000))
    await writer.drain()


async def _speaks_another_language(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    await writer.drain()


async def _stops_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(http(b'{"result": ', length=4000))
    await writer.drain()
    await reader.read()


CONVERSATIONS: dict[str, tuple[Conversation, str]] = {
    "hangs up": (_hangs_up, "policy_unreachable"),
    "truncates": (_truncates, "policy_unreachable"),
    "speaks another language": (_speaks_another_language, "policy_unreachable"),
    "stops in the middle": (_stops_in_the_middle, "policy_timeout"),
}


@pytest.mark.parametrize("case", CONVERSATIONS)
async def test_a_bad_connection_is_a_refusal_with_its_code_in_time(case: str) -> None:
    conversation, code = CONVERSATIONS[case]
    async with talking(conversation) as url, at(url) as opa:
        assert await refusal(opa) == code


async def test_nobody_listening_is_a_refusal() -> None:
    async with at(f"http://127.0.0.1:{free_port()}") as opa:
        assert await refusal(opa) == "policy_unreachable"


async def test_an_answer_without_end_is_not_kept_in_memory() -> None:
    """What arrives before the timeout is bounded by more than the machine's memory."""
    sent = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(http(b'{"result": "', length=2**40))
        while True:
            writer.write(b"x" * 2**20)
            await writer.drain()
            sent += 1

    async with talking(counting) as url, at(url, timeout_seconds=2.5) as opa:
        assert await refusal_code(opa) == "policy_malformed"
    assert sent < 256, "MiB"


async def refusal_code(opa: Opa) -> str:
    with pytest.raises(PolicyUnavailable) as caught:
        await opa.query(Decision.AUTHZ, QUESTION, {})
    return caught.value.reasons[0].code


async def test_a_kept_alive_connection_that_was_closed_costs_no_decision() -> None:
    """OPA closed it while it was idle, as it does when it restarts: the call goes out once more, on a new one."""
    requests: list[bytes] = []

    async def once_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(http(b'{"result": 1}'))
        await writer.drain()
        requests.append(await read_request(reader))  # the second on this connection goes unanswered

    async with talking(once_each) as url, at(url) as opa:
        assert (await opa.query("a", QUESTION, {})).result == 1
        assert (await opa.query("a", QUESTION, {})).result == 1
    assert [bool(request) for request in requests[:3]] == [True, True, True]


async def test_a_failing_policy_is_not_asked_again() -> None:
    asked = 0

    async def failing(_request: Any) -> Any:
        nonlocal asked
        asked += 1
        return await always({}, 500)(_request)

    async with serving(failing) as url, at(url) as opa:
        assert await refusal(opa) == "policy_failed"
    assert asked == 1


async def test_the_question_carries_token_trace_and_strictness(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def noting(request: Any) -> Any:
        seen.append((request.method, request.path_qs, request.headers, await request.json()))
        return await always({"result": 1})(request)

    (tmp_path / "token").write_text("s3cret\n")
    async with serving(noting) as url, at(url, token=SecretRef(file=tmp_path / "token")) as opa:
        await opa.query(Decision.AUTHZ, QUESTION, {"traceparent": "00-a-b-01"})
    [(method, path, headers, body)] = seen
    assert (method, body) == ("POST", {"input": QUESTION})
    assert path == "/v1/data/gateway/authz/decision?strict-builtin-errors=true&provenance=true"
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["traceparent"] == "00-a-b-01"
    assert headers["accept-encoding"] == "identity"


# -- answers outside the contract -----------------------------------------------------------------------------------

OUTSIDE: dict[str, Any] = {
    "undefined": {},
    "not an object": {"result": True},
    "a verdict that nobody knows": {"result": {"sessions": {"a": {"verdict": "maybe", "reasons": []}}}},
    "an end without a reason": {"result": {"sessions": {"a": {"verdict": "end", "reasons": []}}}},
    "a key more": {"result": {"sessions": {"a": {"verdict": "keep", "reasons": []}}, "more": 1}},
    "a session that was not judged": {"result": {"sessions": {}}},
    "a reason without a message": {"result": {"sessions": {"a": {"verdict": "end", "reasons": [{"code": "x"}]}}}},
}


@pytest.mark.parametrize("case", OUTSIDE)
async def test_an_answer_outside_the_contract_judges_nobody(case: str, tmp_path: Path) -> None:
    session = LiveSession(id="a", person="alice", grant="g", target="t", started_at="x", expires_at="x", idle_seconds=0)
    async with (
        serving(always(OUTSIDE[case])) as url,
        asking(PolicySettings(url=url, timeout_seconds=TIMEOUT), tmp_path / "audit.jsonl") as asked,
    ):
        with pytest.raises(PolicyUnavailable) as caught:
            await asked.policy.judge(asked.journal(), [session])
    code = "policy_undefined" if case == "undefined" else "policy_malformed"
    assert caught.value.reasons[0].code == code


@pytest.mark.parametrize(
    "answer",
    [
        {"allow": True, "permit": None, "reasons": []},
        {"allow": "true", "permit": None, "reasons": []},
        {"allow": 1, "permit": None, "reasons": []},
        {"allow": True, "permit": {"grant": "g"}, "reasons": []},
        {"permit": None, "reasons": []},
    ],
)
async def test_an_allow_outside_the_contract_allows_nothing(answer: Any, tmp_path: Path) -> None:
    from tests.policy.test_contract import SUBJECT

    async with (
        serving(always({"result": answer})) as url,
        asking(PolicySettings(url=url, timeout_seconds=TIMEOUT), tmp_path / "audit.jsonl") as asked,
    ):
        with pytest.raises(PolicyUnavailable) as caught:
            await asked.policy.configure(asked.journal(), SUBJECT, {"kind": "session"})
        [record] = asked.records("config")
    assert caught.value.reasons[0].code == "policy_malformed"
    assert record["outcome"] == "failed"
    assert record["input"]["login"] == {"user": "alice"}
    assert caught.value.decision_id


@pytest.mark.parametrize(
    "obligations",
    [
        ["record"],
        [{"kind": "record"}],
        [{"kind": "judge_sftp", "how": "a little"}],
        [{}],
        "judge_sftp",
        None,
        [{"kind": "judge_sftp"}],  # known, but not of a shell
        [{"kind": "judge_sftp"}, {"kind": "record"}],
    ],
)
async def test_an_allow_on_a_condition_that_cannot_be_kept_is_a_deny(obligations: Any, tmp_path: Path) -> None:
    from tests.live.world import permit
    from tests.policy.test_contract import SUBJECT

    answer = {"result": {"allow": True, "obligations": obligations, "reasons": []}}
    async with (
        serving(always(answer)) as url,
        asking(PolicySettings(url=url, timeout_seconds=TIMEOUT), tmp_path / "audit.jsonl") as asked,
    ):
        with pytest.raises(PolicyUnavailable) as caught:
            await asked.policy.authorize(asked.journal(), SUBJECT, permit(1), {"kind": "shell"})
    assert caught.value.reasons[0].code == "policy_malformed"


# -- TLS ------------------------------------------------------------------------------------------------------------


def certificates(directory: Path) -> tuple[Path, Path, Path]:
    """A CA of our own, and a certificate of it for 127.0.0.1 and server.test: (CA, certificate, key) as PEM files."""
    now = datetime.datetime.now(datetime.UTC)
    names, keys = ("ca", "server"), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    files = []
    for name, own in zip(names, keys, strict=True):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        local = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("server.test")]
        )
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
            .add_extension(identifier, critical=False)
            .add_extension(local, critical=False)
            .sign(keys[0], hashes.SHA256())
        )
        files.append(directory / f"{name}.pem")
        files[-1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = directory / "server.key"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(keys[1].private_bytes(*form))
    return files[0], files[1], key_file


def test_certificates_are_for_us_alone(tmp_path: Path) -> None:
    authority, certificate, key = certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(authority))

    assert len(context.get_ca_certs()) == 1
    assert certificate != key


async def test_an_opa_behind_a_private_ca_is_trusted_only_by_that_ca(tmp_path: Path) -> None:
    authority, certificate, key = certificates(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with serving(always({"result": 1}), tls) as url:
        async with at(url, ca_file=authority) as opa:
            assert (await opa.query("a", QUESTION, {})).result == 1
        async with at(url) as opa:
            assert await refusal(opa) == "policy_unreachable"
        async with at(url.replace("127.0.0.1", "localhost"), ca_file=authority) as opa:
            assert await refusal(opa) == "policy_unreachable", "the certificate is for another name"


async def test_a_ca_file_that_is_missing_or_no_certificate_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(SettingsError, match=r"policy\.ca_file"):
            async with at("https://127.0.0.1:1", ca_file=tmp_path / name):
                pass


def test_the_policies_of_the_tests_are_those_of_the_product() -> None:
    from gateway.assets import folder

    assert folder("policies") == POLICIES
    assert json.loads((POLICIES / ".manifest").read_text())["roots"] == ["gateway", "system/authz"]
