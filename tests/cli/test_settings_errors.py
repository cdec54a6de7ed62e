"""What a command says about settings that are wrong: the key, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from tests.cli.commands import doorward, written


async def test_the_schema_of_the_settings_is_json_schema_and_takes_what_is_right() -> None:
    ran = await doorward("config", "schema")
    validator = jsonschema.Draft202012Validator(ran.json)

    validator.check_schema(ran.json)
    assert ran.status == 0
    assert validator.is_valid({"ssh": {"listen": "127.0.0.1:2222"}, "policy": {"token": {"file": "/run/token"}}})
    assert not validator.is_valid({"ssh": {"lisen": "127.0.0.1:2222"}})
    assert not validator.is_valid({"policy": {"timeout_seconds": 60}})


async def test_a_wrong_setting_is_named_by_its_key_and_its_value_is_not_shown(tmp_path: Path) -> None:
    ran = await doorward("sessions", "--config", written(tmp_path, {"policy": {"token": "s3cret"}}))

    assert ran.status == 1
    assert ran.out == ""
    assert "doorward: settings: policy.token" in ran.err
    assert "name the `file` or the `env` variable" in ran.err
    assert "what to do:" in ran.err
    assert "s3cret" not in ran.err


async def test_a_wrong_variable_is_named() -> None:
    ran = await doorward("sessions", env={"DOORWARD_POLCY__URL": "http://x"})

    assert ran.status == 1
    assert "doorward: settings: environment variable DOORWARD_POLCY__URL" in ran.err


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("\n", "is empty")])
async def test_a_secret_that_is_missing_or_empty_is_named_by_its_file(
    tmp_path: Path, content: str | None, said: str
) -> None:
    secret = tmp_path / "opa.token"
    if content is not None:
        secret.write_text(content)
    ran = await doorward("grants", "list", "--config", written(tmp_path, {"policy": {"token": {"file": str(secret)}}}))

    assert ran.status == 1
    assert str(secret) in ran.err
    assert said in ran.err


@pytest.mark.parametrize(("text", "said"), [(None, "cannot be read"), ("[ssh\n", "is not TOML")])
async def test_a_settings_file_that_is_missing_or_no_toml_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "doorward.toml"
    if text is not None:
        file.write_text(text)
    ran = await doorward("check", env={"DOORWARD_CONFIG": str(file)})

    assert ran.status == 1
    assert str(file) in ran.err
    assert said in ran.err


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["grants", "add", "alice"]])
async def test_a_command_used_wrongly_exits_with_2_and_says_how(words: list[str]) -> None:
    ran = await doorward(*words)

    assert ran.status == 2
    assert ran.err.startswith("usage: doorward")


async def test_the_version_is_the_packages() -> None:
    from gateway import __version__

    assert (await doorward("--version")).out == f"doorward {__version__}\n"
