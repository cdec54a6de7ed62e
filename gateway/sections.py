"""What every section of the settings is made of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, StringConstraints, model_validator

from gateway.errors import SettingsError

A_FREE_ADDRESS = "Name an address of this machine, with a port that is free and that this user may use."
"""What to do where nobody can be listened for."""
LARGEST_PORT = 65535


def _a_port(listen: str) -> str:
    # The system takes 65536 more for the same port, so one that is too large would be another, at random.
    if int(listen.rpartition(":")[2]) > LARGEST_PORT:
        raise ValueError(f"a port is at most {LARGEST_PORT}")
    return listen


Listen = Annotated[str, StringConstraints(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$"), AfterValidator(_a_port)]
ClientName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretRef(Section):
    """Where a secret is: exactly one of `file` (whole content, trailing newline dropped) or `env`."""

    file: Path | None = None
    env: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_value(cls, given: object) -> object:
        if isinstance(given, str):
            raise ValueError("a secret is not written here: name the `file` or the `env` variable that holds it")
        return given

    @model_validator(mode="after")
    def _one_of(self) -> SecretRef:
        if (self.file is None) == (self.env is None):
            raise ValueError("name exactly one of `file` and `env`")
        return self

    def read(self) -> SecretStr:
        """Raises SettingsError that names the reference, never the value."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if not value:
                raise SettingsError(f"environment variable {self.env} is not set, but the settings refer to it")
            return SecretStr(value)
        try:
            value = Path(str(self.file)).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"secret file {self.file} cannot be read: {error}") from error
        if not value:
            raise SettingsError(f"secret file {self.file} is empty")
        return SecretStr(value)
