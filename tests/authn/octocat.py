"""GitHub's device flow and the part of its REST API that the gateway uses, as GitHub's documentation says they answer.

- Device flow, its answers as JSON, its error codes, errors in the body of a 200:
  https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps#device-flow
- GET /user: https://docs.github.com/en/rest/users/users#get-the-authenticated-user
- GET /user/orgs: https://docs.github.com/en/rest/orgs/orgs#list-organizations-for-the-authenticated-user
- GET /user/teams, for the scopes `user`, `repo` or `read:org`:
  https://docs.github.com/en/rest/teams/teams#list-teams-for-the-authenticated-user
- DELETE /applications/{client_id}/token, by Basic authentication with the client's secret, answered by 204:
  https://docs.github.com/en/rest/apps/oauth-applications#delete-an-app-token
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

from aiohttp import encode_basic_auth, web

from gateway.settings_authn import GithubSettings
from tests.policy.servers import serving

CLIENT = "Iv1.8a61f9b3a7aba766"
SECRET = "client-secret-of-the-app"
DEVICE_CODE = "3584d83530557fdd1f46af8289938c8ef79f9dc5"
TOKEN = "gho_16C7e42F292c6912E7710c838347Ae178B4a"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class Github:
    """One GitHub with one person."""

    def __init__(self) -> None:
        self.url = ""
        self.polls: list[str] = ["authorization_pending", "approved"]
        """Error codes of the documentation, the last one for ever; `approved` is none."""
        self.interval: float = 0.1
        self.is_enabled = True
        self.scope = ""
        self.orgs = ["acme"]
        self.teams = [("acme", "oncall"), ("acme", "dba")]
        self.user: dict[str, Any] = {"login": "octocat", "id": 583231, "type": "User", "site_admin": False}
        self.revoked: list[str] = []
        self.paths: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Github]:
        async with serving(self._answer) as self.url:
            yield self

    def settings(self, **changes: Any) -> GithubSettings:
        own = {"client_id": CLIENT, "url": self.url, "api_url": f"{self.url}/api/v3"}
        return GithubSettings(**{**own, **changes})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        if not request.headers.get("user-agent"):
            return web.Response(status=403, text="Request forbidden by administrative rules.")
        if request.path.startswith("/login/"):
            return self._login(request, {n: v[0] for n, v in parse_qs(await request.text()).items()})
        if request.method == "DELETE":
            return await self._revoke(request)
        return self._api(request)

    def _login(self, request: web.Request, form: dict[str, str]) -> web.StreamResponse:
        assert request.method == "POST"
        assert request.headers["accept"] == "application/json", "it would be form-encoded"
        if form.get("client_id") != CLIENT:
            return web.json_response({"error": "incorrect_client_credentials"})
        if request.path == "/login/device/code":
            if not self.is_enabled:
                return web.json_response({"error": "device_flow_disabled"})
            self.scope = form["scope"]
            return web.json_response(
                {
                    "device_code": DEVICE_CODE, "user_code": "WDJB-MJHT",
                    "verification_uri": f"{self.url}/login/device", "expires_in": 900, "interval": self.interval,
                }
            )  # fmt: skip
        assert request.path == "/login/oauth/access_token"
        if form.get("grant_type") != GRANT:
            return web.json_response({"error": "unsupported_grant_type"})
        if form.get("device_code") != DEVICE_CODE:
            return web.json_response({"error": "incorrect_device_code"})
        said = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
        if said == "slow_down":
            return web.json_response({"error": said, "interval": self.interval + 5})
        if said != "approved":
            return web.json_response({"error": said, "error_description": "as the documentation says"})
        return web.json_response({"access_token": TOKEN, "token_type": "bearer", "scope": self.scope})

    def _api(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "Bad credentials"}, status=401)
        assert request.headers["accept"] == "application/vnd.github+json"
        path = request.path.removeprefix("/api/v3")
        if path == "/user":
            return web.json_response(self.user)
        if "read:org" not in self.scope:
            return web.json_response({"message": "You need at least read:org scope"}, status=403)
        size, page = int(request.query["per_page"]), int(request.query["page"])
        if path == "/user/orgs":
            entries: list[dict[str, Any]] = [{"login": org, "id": len(org)} for org in self.orgs]
        else:
            assert path == "/user/teams"
            entries = [{"slug": slug, "name": slug.title(), "organization": {"login": org}} for org, slug in self.teams]
        return web.json_response(entries[size * (page - 1) : size * page])

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        assert request.path == f"/api/v3/applications/{CLIENT}/token"
        if request.headers["authorization"] != encode_basic_auth(CLIENT, SECRET):
            return web.json_response({"message": "Bad credentials"}, status=401)
        self.revoked.append((await request.json())["access_token"])
        return web.Response(status=204)
