"""Who is known at the grants door: hashes of tokens, JWTs, client certificates; and what becomes of everybody else."""

from __future__ import annotations

import datetime
import hashlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.authn.provider import KEY, KID, published, rsa
from tests.door.running import TOKEN, Running, running
from tests.door.test_grants import INC
from tests.policy.servers import serving
from tests.policy.test_opa import certificates
from tests.policy.world import grant, inhabited
from tests.stack.opa import Opa
from tests.stack.vault import bare_vault

ISSUER, AUDIENCE = "https://login.test/realms/ops", "doorward-grants"
URL = f"/v1/data/grants/{INC}"
RIGHTS = {"roots": ["grants"], "verbs": ["GET", "PUT", "PATCH", "DELETE"]}


@pytest.fixture(scope="module")
def world(opa_server: Opa) -> Iterator[Opa]:
    with inhabited(opa_server):
        for name in ("login:ticketing", "by-name", "vault:robot", "login:sub/x"):
            opa_server.put(f"automations/{name.replace('/', '%2F')}", RIGHTS)
        yield opa_server
        opa_server.put("automations", {})


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def refusals(door: Running) -> list[str]:
    return [record["why"] for record in door.records("grant") if record["outcome"] == "refused"]


# -- hashes of tokens -----------------------------------------------------------------------------------------------


async def test_a_client_is_known_by_the_hash_of_its_token_and_by_two_while_one_is_replaced(
    world: Opa, tmp_path: Path
) -> None:
    known = [hashlib.sha256(token.encode()).hexdigest() for token in ("old-token", "new-token")]
    async with running(tmp_path, world, door={"clients": {"by-name": {"token_sha256": known}}}) as door:
        answers = [
            await door.http.put(URL, json=grant(reason=f"try {turn}"), headers=bearer(token))
            for turn, token in enumerate(("old-token", "new-token", known[0], "other"))
        ]

        assert [answer.status_code for answer in answers] == [204, 204, 401, 401]
        assert answers[0].headers["doorward-client"] == "by-name"
        decision = door.records("admission")[0]
        assert decision["input"]["client"] == {"name": "by-name", "proof": "token"}
        assert "old-token" not in door.settings.audit_file.read_text()


@pytest.mark.parametrize(
    ("name", "entry", "code"),
    [("stranger", None, "client_unknown"), ("by-name", {**RIGHTS, "proofs": ["certificate"]}, "proof_refused")],
)
async def test_a_token_opens_nothing_that_data_does_not_say(
    world: Opa, tmp_path: Path, name: str, entry: Any, code: str
) -> None:
    known = hashlib.sha256(b"token").hexdigest()
    if entry:
        world.put(f"automations/{name}", entry)
    async with running(tmp_path, world, door={"clients": {name: {"token_sha256": [known]}}}) as door:
        answers = [
            await door.http.request(verb, URL, headers=bearer("token"), json=body)
            for verb, body in (("PUT", grant()), ("PATCH", [{"op": "add", "path": "", "value": grant()}]),
                               ("DELETE", None), ("GET", None))
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [403] * 4
        assert {answer.json()["errors"][0]["code"] for answer in answers} == {code}
        assert len([record for record in door.records("admission") if record["outcome"] == "deny"]) == 4
    world.put("automations/by-name", RIGHTS)


# -- JWTs -----------------------------------------------------------------------------------------------------------


class Keys:
    """A server that publishes keys, and counts how often it is asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [published(KEY, KID)]
        self.asked = 0
        self.status = 200

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys}, status=self.status)


@asynccontextmanager
async def with_issuer(world: Opa, directory: Path, **changes: Any) -> AsyncIterator[tuple[Running, Keys]]:
    keys = Keys()
    async with serving(keys.answer) as url:
        issuer = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": f"{url}/keys", "timeout_seconds": 1, **changes}
        async with running(directory, world, door={"issuers": {"login": issuer}}) as door:
            yield door, keys


def token(*, key: Any = KEY, algorithm: str = "RS256", kid: str | None = KID, **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ticketing", "iat": now, "exp": now + 300, "team": "ops", **changes,
    }  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else {})


async def test_a_token_of_an_issuer_is_its_client_with_all_claims_for_policy(world: Opa, tmp_path: Path) -> None:
    async with with_issuer(world, tmp_path) as (door, keys):
        offered = token()
        answers = [await door.http.put(URL, json=grant(reason=str(turn)), headers=bearer(offered)) for turn in range(5)]

        assert [answer.status_code for answer in answers] == [204] * 5, answers[0].text
        assert keys.asked == 1, "keys are kept"
        client = door.records("admission")[0]["input"]["client"]
        assert (client["name"], client["proof"], client["claims"]["team"]) == ("login:ticketing", "jwt", "ops")
        assert door.records("grant")[0]["new"]["requested_by"] == "login:ticketing"
        assert offered not in door.settings.audit_file.read_text()
        assert offered.rpartition(".")[2] not in door.settings.audit_file.read_text()


async def test_another_claim_can_name_the_client(world: Opa, tmp_path: Path) -> None:
    async with with_issuer(world, tmp_path, client_claim="azp") as (door, _):
        answer = await door.http.get(URL, headers=bearer(token(azp="ticketing", sub="x")))
        assert answer.status_code == 200
        assert answer.headers["doorward-client"] == "login:ticketing"


OTHER = rsa()
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def unsigned() -> str:
    return jwt.encode(jwt.decode(token(), options={"verify_signature": False}), "", "none")


def confused() -> str:
    """Signed with the public key as if it were a shared secret."""
    import base64
    import hmac

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    head = part({"alg": "HS256", "typ": "JWT", "kid": KID})
    body = part({"iss": ISSUER, "aud": AUDIENCE, "sub": "ticketing", "iat": now, "exp": now + 300})
    seal = hmac.new(PUBLIC, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(seal).rstrip(b'=').decode()}"


def own_key() -> str:
    """A token that brings its own key along."""
    headers = {"kid": KID, "jwk": published(OTHER, KID), "jku": "http://127.0.0.1:1/keys"}
    return jwt.encode(jwt.decode(token(), options={"verify_signature": False}), OTHER, "RS256", headers=headers)


FORGED: dict[str, Any] = {
    "no signature": unsigned,
    "the public key as a secret": confused,
    "a key of its own": own_key,
    "another key of the same name": lambda: token(key=OTHER),
    "an unknown key": lambda: token(key=OTHER, kid="another"),
    "the right key by another name": lambda: token(kid="another"),
    "another audience": lambda: token(aud="another"),
    "no audience": lambda: token(aud=None),
    "another issuer": lambda: token(iss="https://elsewhere.test"),
    "no issuer": lambda: token(iss=None),
    "expired": lambda: token(exp=int(time.time()) - 31),
    "without an end": lambda: token(exp=None),
    "of tomorrow": lambda: token(iat=int(time.time()) + 86400),
    "not yet valid": lambda: token(nbf=int(time.time()) + 3600),
    "no client": lambda: token(sub=None),
    "a client with an odd name": lambda: token(sub="ticketing\n"),
    "a client with a foreign letter": lambda: token(sub="tícketing"),
    "an algorithm that is not allowed": lambda: token(algorithm="RS512"),
    "cut": lambda: token()[:-4],
    "nonsense": lambda: "a.b.c",
    "deep": lambda: token(deep=json.loads("[" * 40 + "]" * 40)),
}


@pytest.mark.parametrize("case", FORGED)
async def test_a_token_that_is_not_the_issuers_for_us_and_of_now_is_nobodys(
    world: Opa, tmp_path: Path, case: str
) -> None:
    async with with_issuer(world, tmp_path) as (door, _):
        offered = FORGED[case]()
        answer = await door.http.put(URL, json=grant(), headers=bearer(offered))

        assert answer.status_code == 401, answer.text
        assert offered not in answer.text
        [why] = refusals(door)
        assert "ticketing" not in why
        assert door.records("admission") == []
        assert (await door.http.put(URL, json=grant(), headers=bearer(token()))).status_code == 204, (
            "the door still works"
        )


@pytest.mark.parametrize("offered", [b"\xff\xfe", b"\xc3\x28", b"a.\xff.c"])
async def test_bytes_that_are_no_text_are_a_wrong_token_like_any(world: Opa, tmp_path: Path, offered: bytes) -> None:
    async with with_issuer(world, tmp_path) as (door, _):
        answer = await door.http.get(URL, headers={b"authorization": b"Bearer " + offered})
        assert answer.status_code == 401
        assert refusals(door) == ["unknown token"]


async def test_an_issuer_that_is_down_is_a_503_and_nobodys_fault(world: Opa, tmp_path: Path) -> None:
    async with with_issuer(world, tmp_path) as (door, keys):
        keys.status = 500
        answers = [await door.http.get(URL, headers=bearer(token())) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {503}
        assert answers[0].json()["errors"][0]["code"] == "provider_unreachable"
        assert (await door.http.get(URL)).status_code == 200, "others are served"
        keys.status = 200
        assert (await door.http.get(URL, headers=bearer(token()))).status_code == 200


async def test_a_key_that_is_new_is_found_and_unknown_ones_make_no_flood(world: Opa, tmp_path: Path) -> None:
    async with with_issuer(world, tmp_path) as (door, keys):
        assert (await door.http.get(URL, headers=bearer(token()))).status_code == 200
        for number in range(20):
            await door.http.get(URL, headers=bearer(token(key=OTHER, kid=f"k{number}")))
        assert keys.asked <= 2


async def test_a_token_that_vault_issued_is_known(world: Opa, tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    with bare_vault(tmp_path / "vault") as vault:
        client = vault.client()
        client.write_data("identity/oidc/config", data={"issuer": vault.url})
        client.write_data("identity/oidc/key/door", data={"algorithm": "RS256", "allowed_client_ids": "*"})
        template = '{"robot": {{identity.entity.name}}}'
        client.write_data("identity/oidc/role/door", data={"key": "door", "template": template, "client_id": AUDIENCE})
        client.sys.enable_auth_method("userpass")
        client.sys.create_or_update_policy("oidc", 'path "identity/oidc/token/door" { capabilities = ["read"] }')
        client.write_data("auth/userpass/users/robot", data={"password": "x", "token_policies": "oidc"})
        accessor = client.sys.list_auth_methods()["userpass/"]["accessor"]
        entity = client.write_data("identity/entity", data={"name": "robot"})["data"]["id"]
        client.write_data(
            "identity/entity-alias", data={"name": "robot", "canonical_id": entity, "mount_accessor": accessor}
        )
        login = client.write_data("auth/userpass/login/robot", data={"password": "x"})
        own = vault.client(login["auth"]["client_token"])
        offered = own.read("identity/oidc/token/door")["data"]["token"]
        issuer = {
            "issuer": f"{vault.url}/v1/identity/oidc", "audience": AUDIENCE, "client_claim": "robot",
            "jwks_url": f"{vault.url}/v1/identity/oidc/.well-known/keys",
        }  # fmt: skip
        async with running(tmp_path, world, door={"issuers": {"vault": issuer}}) as door:
            answer = await door.http.put(URL, json=grant(), headers=bearer(offered))
            assert answer.status_code == 204, (answer.text, refusals(door))
            assert answer.headers["doorward-client"] == "vault:robot"


# -- certificates ---------------------------------------------------------------------------------------------------


def client_certificate(
    directory: Path, authority: ec.EllipticCurvePrivateKey, name: str, *, names: list[x509.GeneralName],
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH, days: int = 1,
) -> tuple[str, str]:  # fmt: skip
    now = datetime.datetime.now(datetime.UTC)
    own = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")]))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file, key = directory / f"{name}.pem", directory / f"{name}.key"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(own.private_bytes(*form))
    return str(file), str(key)


def client_authority(directory: Path) -> tuple[Path, ec.EllipticCurvePrivateKey]:
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=3))
        .not_valid_after(now + datetime.timedelta(days=3))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "clients-ca.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return file, key


@asynccontextmanager
async def with_certificates(world: Opa, directory: Path, **settings: Any) -> AsyncIterator[tuple[Running, Any, Any]]:
    """A door that takes certificates (with more `settings`); how to make one, and a client that shows one."""
    authority, certificate, key = certificates(directory)
    clients, signer = client_authority(directory)
    tree = {
        "tls_certificate": str(certificate), "tls_key": str(key), "client_ca_file": str(clients),
        "clients": {"by-name": {"certificates": ["DNS:ticketing.internal", "URI:spiffe://prod/ticketing"]}},
        **settings,
    }  # fmt: skip

    def made(name: str, by: Any = None, **more: Any) -> tuple[str, str]:
        names = more.pop("names", [x509.DNSName("ticketing.internal")])
        return client_certificate(directory, by or signer, name, names=names, **more)

    async with running(directory, world, door=tree) as door:
        assert door.gateway.door is not None
        base = f"https://127.0.0.1:{door.gateway.door[1]}"

        def client(shown: tuple[str, str] | None, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
            tls = ssl.create_default_context(cafile=str(authority))
            if shown:
                tls.load_cert_chain(*shown)
            return httpx.AsyncClient(base_url=base, verify=tls, headers=headers or {})

        yield door, made, client


async def test_a_certificate_is_its_client(world: Opa, tmp_path: Path) -> None:
    async with with_certificates(world, tmp_path) as (door, made, client):
        uri = [x509.UniformResourceIdentifier("spiffe://prod/ticketing")]
        for shown in (made("one"), made("two", names=uri)):
            async with client(shown) as http:
                answer = await http.put(URL, json=grant())
                assert answer.status_code == 204, (answer.text, refusals(door))
                assert answer.headers["doorward-client"] == "by-name"
        facts = door.records("admission")[0]["input"]["client"]
        assert facts["proof"] == "certificate"
        assert facts["certificate"]["names"] == ["CN:one", "DNS:ticketing.internal"]
        assert len(facts["certificate"]["fingerprint"]) == 64


async def test_with_a_token_a_certificate_is_a_fact_and_no_way_round_it(world: Opa, tmp_path: Path) -> None:
    async with with_certificates(world, tmp_path) as (door, made, client):
        async with client(made("one"), bearer(TOKEN)) as http:
            assert (await http.put(URL, json=grant())).headers["doorward-client"] == "ticketing"
        facts = door.records("admission")[0]["input"]["client"]
        assert (facts["proof"], facts["certificate"]["names"][0]) == ("token", "CN:one")
        async with client(made("one"), bearer("wrong")) as http:
            assert (await http.put(URL, json=grant())).status_code == 401
        async with client(None, bearer(TOKEN)) as http:
            assert (await http.get(URL)).status_code == 200, "a certificate need not be shown"
        async with client(None) as http:
            assert (await http.get(URL)).status_code == 401


async def test_a_certificate_of_another_authority_or_kind_or_day_is_no_connection(world: Opa, tmp_path: Path) -> None:
    async with with_certificates(world, tmp_path) as (door, made, client):
        stranger = ec.generate_private_key(ec.SECP256R1())
        for shown in (
            made("stranger", stranger), made("server", usage=ExtendedKeyUsageOID.SERVER_AUTH), made("old", days=-1),
        ):  # fmt: skip
            async with client(shown) as http:
                with pytest.raises(httpx.TransportError):
                    await http.put(URL, json=grant())
        assert door.records("admission") == []


@pytest.mark.parametrize("name", ["ticketing.internal.example", "*.internal", "TICKETING.internal", "other"])
async def test_a_certificate_of_another_name_is_nobodys(world: Opa, tmp_path: Path, name: str) -> None:
    async with with_certificates(world, tmp_path) as (door, made, client):
        async with client(made("ticketing.internal", names=[x509.DNSName(name)])) as http:
            assert (await http.put(URL, json=grant())).status_code == 401
        assert refusals(door) == ["unknown certificate"]


# -- strangers ------------------------------------------------------------------------------------------------------


async def test_who_guesses_is_refused_after_a_few_and_its_guesses_fill_no_record(world: Opa, tmp_path: Path) -> None:
    async with running(tmp_path, world, ssh={"penalties": {"exempt": []}}) as door:
        codes = [(await door.http.get(URL, headers=bearer(f"guess-{number}"))).status_code for number in range(30)]
        assert codes == [401] * 4 + [429] * 26
        assert len(refusals(door)) == 4
        assert (await door.http.get(URL)).status_code == 429, "the right one is not found by guessing on"


async def test_behind_a_balancer_one_who_guesses_does_not_shut_out_the_others(world: Opa, tmp_path: Path) -> None:
    async with running(tmp_path, world, ssh={"penalties": {"exempt": []}}, door={"plain_http": True}) as door:
        for number in range(10):
            assert (await door.http.get(URL, headers=bearer(f"guess-{number}"))).status_code == 401
        assert (await door.http.get(URL)).status_code == 200


async def test_two_tokens_are_none(door_of_world: Running) -> None:
    head = f"GET {URL} HTTP/1.1\r\nHost: door\r\nConnection: close\r\n"
    both = f"Authorization: Bearer wrong\r\nAuthorization: Bearer {TOKEN}\r\n"
    status, _ = await door_of_world.raw(f"{head}{both}\r\n".encode())
    assert status in (400, 401)


@pytest.fixture
async def door_of_world(world: Opa, tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, world) as opened:
        yield opened


@pytest.mark.parametrize("size", [5000, 9000, 60_000])
async def test_a_token_that_is_too_long_is_in_no_log(
    door_of_world: Running, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"GET {URL} HTTP/1.1\r\nHost: door\r\nConnection: close\r\n"
    status, _ = await door_of_world.raw(f"{head}Authorization: Bearer {'s3cret' * (size // 6)}\r\n\r\n".encode())
    assert status in (400, 401)
    assert "s3cret" not in caplog.text
    assert "s3cret" not in door_of_world.settings.audit_file.read_text()
