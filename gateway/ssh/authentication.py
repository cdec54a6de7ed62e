"""The story of one person's authentication: offer -> judged -> verified, where policy asks for it -> judged again.

Rego says how an attempt is to be proven and what the proofs are worth; here it is proven, and nothing is admitted that
was not.  Proofs belong to one login name, and what was typed stays here until the permit says what becomes of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr

from gateway.audit.journal import Journal
from gateway.authn import Ask, Evidence, Prompt, Verified, Verifiers
from gateway.errors import PolicyUnavailable
from gateway.model import Permit
from gateway.policy import Outcome, Policy, Subject
from gateway.policy.contract import AuthnAnswer, Connection
from gateway.proofs import Attempt, Verification
from gateway.ssh.userauth import Offer, Reply, Word
from gateway.telemetry import Step
from gateway.words import printable

PASSWORDS = frozenset({"vault_password", "argon2", "webhook"})
SUITS = {
    "publickey": frozenset({"key_list", "webhook"}),
    "password": PASSWORDS,
    "keyboard-interactive": PASSWORDS | {"totp", "oidc", "questions", "anything"},
}
"""Which kinds of verification a method can be proven by.  A password can be asked for over keyboard-interactive too."""
MAX_CLAIMS = 64 * 1024
"""Bytes of claims, as JSON: they are facts in every question that follows."""
MAX_TRIED = 32


@dataclass(frozen=True, slots=True)
class Tried:
    """Something that was typed."""

    method: str
    prompt: str
    secret: SecretStr = field(repr=False)

    def clear(self) -> dict[str, str]:
        return {"method": self.method, "prompt": self.prompt, "typed": self.secret.get_secret_value()}


class Authentication:
    """One connection's way in.  Once `subject` is set they are."""

    def __init__(
        self, policy: Policy, verifiers: Verifiers, journal: Journal, show: Callable[[str], None] = lambda _: None
    ) -> None:
        self._policy = policy
        self._show_banner = show
        self._verifiers = verifiers
        self._journal = journal
        self._login: str | None = None
        self._methods: tuple[str, ...] | None = None
        """Those that policy let go on with; None until it was asked."""
        self._proofs: tuple[Attempt, ...] = ()
        self._tried: list[Tried] = []
        self._banner_is_shown = False
        self.subject: Subject | None = None

    async def attempt(self, connection: Connection, offer: Offer, ask: Ask) -> Reply:
        """What becomes of one offer.  Raises PolicyUnavailable, VerifierUnavailable or AuditUnavailable.

        Whatever is not a success leaves nothing behind when cancelled half-way.
        """
        if offer.login != self._login:
            # No proof counts for two names (RFC 4252 section 5), nor does what one may go on with.
            self._login, self._methods, self._proofs = offer.login, None, ()
        if self._methods is not None and offer.method not in self._methods:
            return Reply(Word.FAILURE, self._methods)
        self._remember(offer.method, "", offer.password)
        subject = Subject(connection, offer.login)
        attempt = Attempt(
            method=offer.method[:64], proven=bool(offer.signed), key=offer.key, certificate=offer.certificate
        )
        if offer.signed is False:
            why = {"code": "bad_signature" if offer.key else "unreadable_key"}
            await self._journal.record(Step.VERIFY, "failed", method=offer.method, reasons=[why])
            return Reply(Word.FAILURE, self._methods or ("publickey",))
        answer = await self._policy.authenticate(self._journal, subject, attempt, self._proofs)
        self._show(answer.banner)
        if answer.verify is not None:
            attempt = await self._verified(attempt, answer.verify, subject, offer, ask)
            answer = await self._policy.authenticate(self._journal, subject, attempt, self._proofs)
            if answer.verify is not None:
                raise PolicyUnavailable("the policy asks again for what was verified", code="verification_loop")
        return self._settled(answer, attempt, subject, offer)

    def _show(self, banner: str) -> None:
        """What policy wants everybody to read first: once, and before anything is asked of them."""
        if banner and not self._banner_is_shown:
            self._banner_is_shown = True
            self._show_banner("\n".join(map(printable, banner.rstrip("\n").split("\n"))) + "\n")

    def _settled(self, answer: AuthnAnswer, attempt: Attempt, subject: Subject, offer: Offer) -> Reply:
        if offer.is_question:
            # An offered key admits nobody, and what is said of it says nothing of other methods.
            if answer.outcome is not Outcome.REJECT:
                return Reply(Word.WELCOME)
        elif answer.outcome is Outcome.ACCEPT:
            return self._admitted(answer, attempt, subject)
        elif answer.outcome is Outcome.CONTINUE and attempt.proven:
            self._proofs += (attempt,)
            self._methods = answer.methods
            return Reply(Word.PARTIAL, answer.methods)
        self._methods = answer.methods
        # A stranger is told nothing; who signed holds the key, and may hear what is wrong with it or its certificate.
        return Reply(Word.FAILURE, answer.methods, answer.reasons if answer.tell and offer.signed else ())

    def _admitted(self, answer: AuthnAnswer, attempt: Attempt, subject: Subject) -> Reply:
        identity = answer.identity
        assert identity is not None, "the contract has it"
        if not attempt.proven and not identity.honeypot:
            # The second lock on this door: a rule that forgets to look at `proven` admits nobody.
            raise PolicyUnavailable("the policy accepts what was not proven", code="accepts_unproven")
        self._proofs += (attempt,)
        self.subject = Subject(subject.connection, subject.login, identity, self._proofs)
        return Reply(Word.SUCCESS)

    async def _verified(
        self, attempt: Attempt, verification: Verification, subject: Subject, offer: Offer, ask: Ask
    ) -> Attempt:
        """The attempt as its verification left it."""
        kind = verification.kind
        if kind not in SUITS.get(offer.method, ()):
            raise PolicyUnavailable(f"the policy wants {offer.method} verified by {kind}", code="policy_malformed")
        async with self._journal.step(Step.VERIFY, method=offer.method, verification=verification.model_dump()) as step:
            evidence = await self._evidence(kind, subject, offer, ask)
            found = await self._look(verification, evidence)
            step.note(outcome="verified" if found.proven else "failed")
        if len(json.dumps(dict(found.claims))) > MAX_CLAIMS:
            raise PolicyUnavailable("a verification brought more claims than fit", code="claims_too_large")
        return Attempt(
            method=attempt.method,
            # Verifying a key does not replace its signature.
            proven=found.proven and (attempt.proven or offer.method != "publickey"),
            key=attempt.key,
            certificate=attempt.certificate,
            verified_by=kind,
            verified=found.proven,
            claims=dict(found.claims),
        )

    async def _look(self, verification: Verification, evidence: Evidence) -> Verified:
        if evidence.password is not None and not evidence.password.get_secret_value():
            return Verified(False)  # LDAP calls a bind without a password anonymous, and a success
        return await self._verifiers.verify(verification, evidence)

    async def _evidence(self, kind: str, subject: Subject, offer: Offer, ask: Ask) -> Evidence:
        async def asking(instruction: str, prompts: Sequence[Prompt]) -> Sequence[SecretStr]:
            answers = await ask(instruction, prompts)
            for prompt, answer in zip(prompts, answers, strict=True):
                self._remember(offer.method, prompt.text, answer)
            return answers

        password = offer.password
        is_dialogue = offer.method == "keyboard-interactive"
        if is_dialogue and kind in PASSWORDS:
            [password] = await asking("", [Prompt("Password: ", echo=False)])
        return Evidence(
            login=subject.login,
            connection_id=subject.connection.id,
            client_address=subject.connection.client_address,
            client_port=subject.connection.client_port,
            client_software=subject.connection.client_software,
            password=password,
            key=offer.key,
            ask=asking if is_dialogue else None,
        )

    # -- what was typed --------------------------------------------------------------------------------------------

    def _remember(self, method: str, prompt: str, secret: SecretStr | None) -> None:
        if secret is not None and len(self._tried) < MAX_TRIED:
            self._tried.append(Tried(method, printable(prompt)[:200], secret))

    async def remember(self, permit: Permit) -> None:
        """The one place where what was typed can reach the record, in clear: a honeypot's permit says so."""
        tried, self._tried = self._tried, []
        if permit.capture_credentials:
            await self._journal.record(Step.CAPTURE, "captured", typed=[one.clear() for one in tried])
