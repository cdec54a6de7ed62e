"""The settings: where they come from, what is refused and how it is named, and that secrets are references."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.errors import SettingsError
from gateway.sections import SecretRef
from gateway.settings import ENV_PREFIX, Settings, load
from tests.stack.example import settings_toml


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "doorward.toml"


def test_without_anything_the_defaults_are_the_safe_ones() -> None:
    settings = load(None)

    assert settings.ssh.listen == "127.0.0.1:2222"
    assert settings.door.listen is None
    assert settings.policy.url == "http://127.0.0.1:8181"
    assert settings.policy.timeout_seconds < 3
    assert (settings.backends.docker, settings.backends.sandbox) == (None, None)
    assert (settings.credentials.vault, settings.credentials.embedded) == (None, None)
    assert settings.telemetry.exporter == "none"


def test_a_variable_is_stronger_than_the_file_and_leaves_the_rest_of_its_section(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(settings_toml({"policy": {"url": "http://file:1", "sweep_seconds": 7}, "instance": "file"}))
    monkeypatch.setenv("DOORWARD_POLICY__URL", "http://variable:1")
    settings = load(file)

    assert settings.policy.url == "http://variable:1"
    assert settings.policy.sweep_seconds == 7
    assert settings.instance == "file"


def test_a_deep_variable_reaches_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOORWARD_POLICY__TOKEN__FILE", "/run/token")
    monkeypatch.setenv("DOORWARD_BACKENDS__DOCKER__URL", "unix:///x")
    settings = load(None)

    assert settings.policy.token == SecretRef(file=Path("/run/token"))
    assert settings.backends.docker is not None
    assert settings.backends.docker.url == "unix:///x"


def test_settings_cannot_be_changed() -> None:
    settings = load(None)
    for section, key in ((settings, "instance"), (settings.ssh, "listen"), (settings.policy, "url")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, "x")


WRONG: dict[str, tuple[dict[str, Any] | str, str]] = {
    "unknown section": ({"shh": {"listen": "127.0.0.1:1"}}, "shh"),
    "unknown key": ({"ssh": {"lisen": "127.0.0.1:1"}}, "ssh.lisen"),
    "wrong type": ({"ssh": {"max_connections": "many"}}, "ssh.max_connections"),
    "a timeout that is too long": ({"policy": {"timeout_seconds": 60}}, "policy.timeout_seconds"),
    "a sweep of nothing": ({"policy": {"sweep_seconds": 0}}, "policy.sweep_seconds"),
    "an address without a port": ({"ssh": {"listen": "127.0.0.1"}}, "ssh.listen"),
    "startups that are no three": ({"ssh": {"max_startups": "10"}}, "ssh.max_startups"),
    "startups that fall": ({"ssh": {"max_startups": "100:30:10"}}, "ssh.max_startups"),
    "startups above a hundred per cent": ({"ssh": {"max_startups": "10:101:100"}}, "ssh.max_startups"),
    "a network with an address in it": ({"ssh": {"proxy_from": ["10.0.0.1/8"]}}, "ssh.proxy_from"),
    "a balancer by name": ({"ssh": {"proxy_from": ["balancer"]}}, "ssh.proxy_from"),
    "a network of too many bits": ({"ssh": {"penalties": {"exempt": ["10.0.0.0/33"]}}}, "ssh.penalties.exempt"),
    "an unknown overflow": ({"ssh": {"penalties": {"overflow": "shrug"}}}, "ssh.penalties.overflow"),
    "a penalty that nobody knows": ({"ssh": {"penalties": {"auth_fail": 5}}}, "ssh.penalties.auth_fail"),
    "a prefix of too many bits": ({"ssh": {"source_prefix_v6": 129}}, "ssh.source_prefix_v6"),
    "no time for a channel": ({"ssh": {"channel_grace_seconds": 0}}, "ssh.channel_grace_seconds"),
    "new keys too often": ({"ssh": {"rekey_bytes": 1}}, "ssh.rekey_bytes"),
    "a certificate for no name": (
        {"ssh": {"host_certificate": {"vault": {"principals": []}}}},
        "ssh.host_certificate.vault.principals",
    ),
    "a certificate for nobody": (
        {"ssh": {"host_certificate": {"vault": {"mount": "x"}}}},
        "ssh.host_certificate.vault.principals",
    ),
    "a URL of another kind": ({"policy": {"url": "unix:///x"}}, "policy.url"),
    "a secret in the settings": ({"policy": {"token": "s3cret"}}, "policy.token"),
    "a secret named twice": ({"policy": {"token": {"file": "/x", "env": "s3cret"}}}, "policy.token"),
    "a secret not named": ("[policy.token]\n", "policy.token"),
    "a client without a token": ("[door.clients.ticketing]\n", "door.clients.ticketing"),
    "a client of an odd name": ('[door.clients."a b".token]\nenv = "X"\n', "door.clients.a b"),
    "an unknown backend": ({"backends": {"dokcer": {"url": "x"}}}, "backends.dokcer"),
    "no way into Vault": ({"credentials": {"vault": {"url": "https://v"}}}, "credentials.vault"),
    "two ways into Vault": (
        {"credentials": {"vault": {"url": "https://v", "token": {"env": "s3cret"}, "kubernetes": {"role": "r"}}}},
        "credentials.vault",
    ),
    "a Vault role that is a path": (
        {"credentials": {"vault": {"url": "https://v", "kubernetes": {"role": "../r"}}}},
        "credentials.vault.kubernetes.role",
    ),
    "an unknown exporter": ({"telemetry": {"exporter": "otlp"}}, "telemetry.exporter"),
    "an instance of an odd name": ({"instance": "../x"}, "instance"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_by_its_key_and_never_by_a_secret_value(file: Path, case: str) -> None:
    settings, key = WRONG[case]
    file.write_text(settings if isinstance(settings, str) else settings_toml(settings))
    with pytest.raises(SettingsError) as caught:
        load(file)

    assert key in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.reasons[0].remedy


def test_all_that_is_wrong_is_named_at_once(file: Path) -> None:
    file.write_text(settings_toml({"ssh": {"lisen": "x", "max_auth_tries": 0}, "log_level": "loud"}))
    with pytest.raises(SettingsError) as caught:
        load(file)

    assert all(key in str(caught.value) for key in ("ssh.lisen", "ssh.max_auth_tries", "log_level"))


def test_a_door_in_the_open_needs_tls(file: Path) -> None:
    file.write_text(settings_toml({"door": {"listen": "192.0.2.1:443"}}))
    with pytest.raises(SettingsError, match="tls_certificate"):
        load(file)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DOORWARD_POLCY__URL", "http://x", "DOORWARD_POLCY__URL"),
        ("DOORWARD_SSH_LISTEN", "127.0.0.1:1", "DOORWARD_SSH_LISTEN"),
        ("DOORWARD_POLICY__ULR", "http://x", "policy.ulr"),
        ("DOORWARD_SSH", "{broken", "ssh"),
        ("DOORWARD_LOG_LEVEL", "loud", "log_level"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=said):
        load(None)


@pytest.mark.parametrize("name", ["REQUIRE", "CACHE", "CONFIG", "TOKEN_FILE"])
def test_variables_of_our_commands_are_no_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(ENV_PREFIX + name, "x")
    assert load(None).instance == "doorward"


def test_a_secret_is_read_from_its_file_without_the_last_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" s3cret with blanks \n")

    assert SecretRef(file=tmp_path / "token").read().get_secret_value() == " s3cret with blanks "


def test_a_secret_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cret")

    assert SecretRef(env="SOME_TOKEN").read().get_secret_value() == "s3cret"


def test_a_secret_does_not_show_itself(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    reference = SecretRef(file=tmp_path / "token")

    assert "s3cret" not in f"{reference!r} {reference.read()!r} {reference.read()}"


def unreadable(tmp_path: Path) -> Iterator[tuple[SecretRef, str]]:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    yield SecretRef(file=tmp_path / "missing"), "missing"
    yield SecretRef(file=tmp_path / "empty"), "is empty"
    yield SecretRef(file=tmp_path / "binary"), "cannot be read"
    yield SecretRef(file=tmp_path), "cannot be read"
    yield SecretRef(env="NO_SUCH_VARIABLE_HERE"), "NO_SUCH_VARIABLE_HERE is not set"


def test_a_secret_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    for reference, said in unreadable(tmp_path):
        with pytest.raises(SettingsError, match=said):
            reference.read()


def test_the_schema_shows_no_value_and_knows_every_section() -> None:
    schema = Settings.model_json_schema()

    assert schema["additionalProperties"] is False
    assert {"ssh", "policy", "door", "audit", "credentials", "backends", "telemetry"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [("rotate_bytes", 1000), ("rotate_seconds", 1), ("keep_segments", 0), ("keep_days", 0), ("compress", "gzip")],
)
def test_a_rotation_that_would_never_end_or_keep_nothing_is_refused(file: Path, name: str, value: object) -> None:
    file.write_text(settings_toml({"audit": {name: value}}))

    with pytest.raises(SettingsError, match=rf"audit\.{name}"):
        load(file)
