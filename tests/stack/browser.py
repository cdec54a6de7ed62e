"""A person's browser, as far as a login page needs one: cookies, redirects, forms."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookiejar import CookieJar, DefaultCookiePolicy


@dataclass
class Form:
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    """What it sends unasked: its hidden inputs."""
    names: set[str] = field(default_factory=set)
    """All inputs and buttons."""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(given.get("action", "")))
        elif self.found and tag in ("input", "button") and "name" in given:
            self.found[-1].names.add(given["name"])
            if given.get("type") == "hidden":
                self.found[-1].fields[given["name"]] = given.get("value", "")


class Browser:
    """One person's; `page` is the HTML that is shown."""

    def __init__(self) -> None:
        # As real browsers do, it takes cookies that are marked Secure from loopback also over plain HTTP.
        jar = CookieJar(DefaultCookiePolicy(secure_protocols=("http", "https")))
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        self.url = ""
        self.page = ""

    def open(self, url: str, data: dict[str, str] | None = None) -> None:
        body = urllib.parse.urlencode(data).encode() if data is not None else None
        try:
            with self._opener.open(url, body, timeout=60) as response:
                self.url, self.page = response.url, response.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{url}: {error.code}: {error.read().decode(errors='replace')[:2000]}") from error

    def submit(self, has: str, **values: str) -> None:
        """Send the form that has a field or button named `has`, with `values` filled in."""
        parser = _Forms()
        parser.feed(self.page)
        forms = [form for form in parser.found if has in form.names]
        assert forms, f"no form with {has!r} on {self.url}:\n{self.page[:3000]}"
        self.open(urllib.parse.urljoin(self.url, forms[0].action), {**forms[0].fields, **values})
