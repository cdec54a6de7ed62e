"""What every value that crosses the border to policy is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._-]+$")]


class Value(BaseModel):
    """A frozen value that refuses keys it does not know and types it was not promised."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_timedelta="float")


class Reason(Value):
    """Why: a stable code for machines, one sentence for the engineer, and what to do next."""

    code: str = Field(
        min_length=1, max_length=64, pattern=r"^[a-z0-9_]+$", description="for machines; policies/README.md lists them"
    )
    message: str = Field(min_length=1, max_length=500, description="one sentence for the engineer")
    remedy: str = Field(default="", max_length=500, description="what to do next")
    field: str = Field(default="", max_length=200, description="the field at fault, where one is (grants door)")
