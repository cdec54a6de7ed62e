"""What can be proven about who is at the door, as values: facts for Rego, and the ways of proving that Rego may name.

Rego judges, Python proves.  An `Attempt` is what policy sees; it never holds a secret.  A `Verification` is how policy
says that an attempt is to be proven: the gateway does so (`gateway/authn/`) and asks again with what it found.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from gateway.model import Name, Value

Username = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]
Mount = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$")]
Seconds = Annotated[float, Field(ge=0, le=30 * 86400)]


class Key(Value):
    """A public key as facts.

    `touched` and `pin_verified` are the flags that a hardware key signed (user presence and user verification in
    OpenSSH's PROTOCOL.u2f); None for other keys, and for a key that is only offered.
    """

    type: str = Field(description="the algorithm, as in authorized_keys")
    fingerprint: str = Field(description="SHA256:..., as `ssh-keygen -l` shows it")
    public_key: str = Field(description="type and base64, as in authorized_keys")
    bits: int | None = Field(default=None, description="the length, of keys that have different ones; else null")
    touched: bool | None = Field(default=None, description="hardware keys: the signature says that it was touched")
    pin_verified: bool | None = Field(
        default=None, description="hardware keys: the signature says that a PIN was given"
    )


class Certificate(Value):
    """An OpenSSH user certificate (PROTOCOL.certkeys) as facts.  That the named CA signed it was verified; nothing else
    was judged: validity, principals and options are for policy.
    """

    key_id: str = Field(description="what the authority called it")
    serial: int = Field(description="the number that the authority gave it")
    ca: Key = Field(description="the authority's key")
    principals: tuple[str, ...] = Field(description="whom it names; none is for nobody")
    valid_after: int = Field(description="seconds since 1970")
    valid_before: int = Field(description="seconds since 1970; 2^64-1 means for ever, and is sent as -1")
    critical_options: dict[str, str] = Field(default_factory=dict, description="unknown ones included, as text")
    extensions: dict[str, str] = Field(default_factory=dict, description="what it permits: permit-pty and the like")


class Attempt(Value):
    """One authentication method tried; `proven` only after what proves it was verified.  Holds no secret.

    A key that is only offered can be verified (it is on a list) and is still not proven: nobody signed.
    """

    method: str = Field(description="as SSH names it: none, publickey, password, keyboard-interactive")
    proven: bool = Field(description="whether what proves it was verified: a signature, a password, a code")
    key: Key | None = Field(default=None, description="publickey: the key, or the key that a certificate certifies")
    certificate: Certificate | None = Field(default=None, description="publickey: the certificate, where one was used")
    verified_by: str = Field(default="", description="kind of the verification that policy named and that was made")
    verified: bool = Field(
        default=False,
        description="whether that verification found what it looked for; a key that is only offered can be verified"
        " and is not proven",
    )
    claims: dict[str, JsonValue] = Field(default_factory=dict, description="what that verification brought, as facts")


class VaultPassword(Value):
    """A password, proven by logging in to Vault's `userpass` or `ldap` auth method at `mount`."""

    kind: Literal["vault_password"] = Field(description="this way of proving")
    backend: Literal["userpass", "ldap"] = Field(default="userpass", description="which of Vault's auth methods")
    mount: Mount = Field(default="userpass", description="where that method is mounted")
    username: Username = Field(description="whose password or key it is")


class HashedPassword(Value):
    """A password, proven by the argon2 hash that the gateway's own file holds for `username`."""

    kind: Literal["argon2"] = Field(description="this way of proving")
    username: Username = Field(description="whose password or key it is")


class Webhook(Value):
    """A password or a key, proven by a ContainerSSH-protocol server of the gateway's settings."""

    kind: Literal["webhook"] = Field(description="this way of proving")
    name: Name = Field(description="which of the gateway's webhooks")
    username: Username = Field(description="whose password or key it is")
    authz: bool = Field(default=False, description="also ask /authz, as facts")
    config: bool = Field(default=False, description="also ask /config, as facts")


class KeyList(Value):
    """A key, proven to be listed at an address like https://github.com/alice.keys."""

    kind: Literal["key_list"] = Field(description="this way of proving")
    url: str = Field(max_length=2000, pattern=r"^https?://", description="where the keys are listed")
    fresh_seconds: Seconds = Field(default=300, description="younger copies are not fetched again")
    stale_seconds: Seconds = Field(default=0, description="how old a copy may be when the address does not answer")


class Totp(Value):
    """A one-time code (RFC 6238), asked for and proven by Vault's TOTP engine or by a secret of the gateway's own."""

    kind: Literal["totp"] = Field(description="this way of proving")
    source: Literal["vault", "local"] = Field(description="who knows the secret")
    mount: Mount = Field(default="totp", description="where Vault's TOTP engine is mounted")
    account: Username = Field(description="whose secret it is")
    prompt: str = Field(default="One-time code: ", min_length=1, max_length=200, description="what is asked")


class Oidc(Value):
    """A person, proven by an OIDC provider (or GitHub) of the gateway's settings, by the device flow (RFC 8628)."""

    kind: Literal["oidc"] = Field(description="this way of proving")
    provider: Name = Field(description="which of the gateway's providers")
    within_seconds: float = Field(default=300, gt=0, le=900, description="how long the person has")
    prompt: str = Field(
        default="",
        max_length=200,
        description="empty: a text is shown and the gateway waits; else a question that is answered once approved,"
        " for clients that hide texts (ssh -q)",
    )


class Question(Value):
    """One question; its answer is echoed, and becomes a fact: never ask for a secret with it."""

    name: Name = Field(description="what the answer is called among the claims")
    prompt: str = Field(min_length=1, max_length=200, description="what is asked")


class Questions(Value):
    """Questions, proven by having been answered; the answers are `claims`, by name."""

    kind: Literal["questions"] = Field(description="this way of proving")
    instruction: str = Field(default="", max_length=1000, description="shown above the questions")
    questions: tuple[Question, ...] = Field(min_length=1, max_length=10, description="in this order")


class Anything(Value):
    """Whatever is answered: it proves nothing.  For a honeypot that wants to hear what people type."""

    kind: Literal["anything"] = Field(description="this way of proving")
    prompt: str = Field(default="Password: ", min_length=1, max_length=200, description="what is asked")


Verification = Annotated[
    VaultPassword | HashedPassword | Webhook | KeyList | Totp | Oidc | Questions | Anything,
    Field(discriminator="kind"),
]
"""How an attempt is to be proven, in policy's words."""
