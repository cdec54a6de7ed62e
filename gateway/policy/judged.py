"""What became of live sessions: each is judged by its own part of the answer, and by nothing else in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from gateway.errors import PolicyUnavailable
from gateway.policy.contract import Answer, Decision, Judgement, LiveSession

log = logging.getLogger(__name__)


class Judgements(Answer):
    """A LiveAnswer whose judgements are not read yet."""

    sessions: dict[str, JsonValue] = Field(description="by session id")


@dataclass(frozen=True, slots=True)
class Judged:
    """How it was asked, and what became of those sessions, by id, whose judgement can be used."""

    sessions: Mapping[str, Judgement]
    question: Mapping[str, Any]
    facts: Mapping[str, str]

    @property
    def decision_id(self) -> str:
        return self.facts["decision_id"]

    def record(self, session: LiveSession) -> dict[str, Any]:
        """One session's share: its own question and answer, so that it can be asked again."""
        judgement = self.sessions[session.id].model_dump(mode="json", exclude_defaults=True)
        return {
            "decision": Decision.LIVE.value,
            **self.facts,
            "input": {**self.question, "sessions": [session.model_dump()]},
            "answer": judgement,
        }

    @property
    def unjudged(self) -> PolicyUnavailable:
        """What is wrong with a session that was asked about and is not in `sessions`."""
        return PolicyUnavailable(
            "the policy did not judge this session", code="policy_malformed", decision_id=self.decision_id
        )


def usable(answer: Judgements, asked: Iterable[LiveSession]) -> dict[str, Judgement]:
    """The judgements of those asked about that keep the contract: one that does not must not hold up another's end."""
    found: dict[str, Judgement] = {}
    for session in asked:
        try:
            found[session.id] = Judgement.model_validate_json(json.dumps(answer.sessions[session.id]))
        except KeyError:
            log.error("policy_malformed", extra={"decision": Decision.LIVE, "error": f"{session.id} was left out"})
        except ValidationError as error:
            log.error("policy_malformed", extra={"decision": Decision.LIVE, "error": str(error)})
    return found
