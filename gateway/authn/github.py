"""GitHub: the device flow at GitHub's own addresses, and who it is from its REST API, for GitHub has no ID token.

https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps#device-flow
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import JsonValue, SecretStr

from gateway.authn.claims import facts
from gateway.authn.device_flow import Invitation, Tokens, granted, invite, refused
from gateway.authn.web import Malformed, Web
from gateway.settings_authn import GithubSettings

PAGES = 5
"""Of a hundred; a person in more organisations or teams than that cannot be told in full, and so not at all."""
API = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}


class Github:
    """See `oidc.Provider`."""

    def __init__(self, settings: GithubSettings, web: Web) -> None:
        self._settings = settings
        self._secret = settings.client_secret.read() if settings.client_secret else None
        self._web = web
        self._url = settings.url.rstrip("/")
        self._api = settings.api_url.rstrip("/")

    @classmethod
    @asynccontextmanager
    async def open(cls, name: str, settings: GithubSettings) -> AsyncIterator[Github]:
        """Raises SettingsError."""
        async with Web.open(f"authn.github.{name}", settings.ca_file, settings.timeout_seconds) as web:
            yield cls(settings, web)

    async def login(self) -> GithubLogin:
        form = {"client_id": self._settings.client_id, "scope": " ".join(self._settings.scopes)}
        return GithubLogin(self, await invite(self._web, f"{self._url}/login/device/code", form, {}))

    async def granted(self, invitation: Invitation) -> Tokens:
        form = {"client_id": self._settings.client_id}
        return await granted(self._web, f"{self._url}/login/oauth/access_token", form, {}, invitation)

    async def facts(self, tokens: Tokens) -> Mapping[str, JsonValue]:
        """Organisations and teams as `org` and `org/team`, by the names that stand in addresses."""
        user = await self._get(f"{self._api}/user", tokens.access)
        if not isinstance(user, dict) or not isinstance(user.get("id"), int) or not isinstance(user.get("login"), str):
            raise Malformed("GitHub does not say who it is")
        orgs = await self._all("/user/orgs", tokens.access, lambda org: org["login"])
        teams = await self._all(
            "/user/teams", tokens.access, lambda team: f"{team['organization']['login']}/{team['slug']}"
        )
        claims = {"sub": str(user["id"]), "preferred_username": user["login"], "groups": [*orgs, *teams]}
        more = {"login": user["login"], "id": user["id"], "orgs": orgs, "teams": teams}
        return {"issuer": self._url, **facts({**claims, **more}, "groups", more)}

    async def forget(self, tokens: Tokens) -> None:
        """GitHub ends a token only for who has the client's secret; without one it stays, unknown to anybody."""
        if self._secret is None:
            return
        url = f"{self._api}/applications/{self._settings.client_id}/token"
        pair = f"{self._settings.client_id}:{self._secret.get_secret_value()}".encode()
        login = f"Basic {base64.b64encode(pair).decode()}"
        answer = await self._web.call(
            "DELETE",
            url,
            json={"access_token": tokens.access.get_secret_value()},
            headers={**API, "authorization": login},
        )
        if answer.status != 204:
            raise refused("revocation", answer)

    async def _all(self, path: str, access: SecretStr, name: Callable[[Any], str]) -> list[JsonValue]:
        found: list[JsonValue] = []
        for page in range(1, PAGES + 1):
            entries = await self._get(f"{self._api}{path}?per_page=100&page={page}", access)
            try:
                found += [str(name(entry)) for entry in entries]
            except (TypeError, KeyError) as error:
                raise Malformed("GitHub answered nonsense") from error
            if len(entries) < 100:
                return found
        raise Malformed(f"GitHub names more than {PAGES * 100} organisations or teams")

    async def _get(self, url: str, access: SecretStr) -> Any:
        headers = {**API, "authorization": f"Bearer {access.get_secret_value()}"}
        answer = await self._web.call("GET", url, headers=headers)
        if answer.status != 200:
            raise refused("api", answer)
        return answer.body


class GithubLogin:
    """See `oidc.Login`."""

    def __init__(self, provider: Github, invitation: Invitation) -> None:
        self.invitation = invitation
        self._provider = provider

    async def granted(self) -> Tokens:
        return await self._provider.granted(self.invitation)

    async def facts(self, tokens: Tokens) -> Mapping[str, JsonValue]:
        return await self._provider.facts(tokens)

    async def forget(self, tokens: Tokens) -> None:
        await self._provider.forget(tokens)
