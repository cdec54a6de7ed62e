"""Questions over keyboard-interactive: any that policy asks, and the one that only a honeypot asks."""

from __future__ import annotations

from pydantic import SecretStr

from gateway.authn import Evidence, Prompt, Verified
from gateway.errors import VerifierUnavailable
from gateway.proofs import Anything, Questions


class QuestionsVerifier:
    """Proven by having been answered: each answer becomes a claim, so none may be a secret."""

    async def verify(self, verification: Questions, evidence: Evidence) -> Verified:
        if evidence.ask is None:
            raise VerifierUnavailable("questions need keyboard-interactive")
        prompts = [Prompt(question.prompt, echo=True) for question in verification.questions]
        answers = await evidence.ask(verification.instruction, prompts)
        claims = {
            question.name: _text(answer) for question, answer in zip(verification.questions, answers, strict=True)
        }
        return Verified(all(claims.values()), claims)


class AnythingVerifier:
    """Asks, and takes no notice of the answer: nothing is proven by it."""

    async def verify(self, verification: Anything, evidence: Evidence) -> Verified:
        if evidence.ask is None:
            raise VerifierUnavailable("a question needs keyboard-interactive")
        await evidence.ask("", [Prompt(verification.prompt, echo=False)])
        return Verified(False)


def _text(answer: SecretStr) -> str:
    return answer.get_secret_value().strip()
