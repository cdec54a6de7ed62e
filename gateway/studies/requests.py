"""What people do at a target, as the requests that policy judges: typical ones, and those that somebody names."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.studies.errors import StudyError

Facts = dict[str, Any]

SIMPLE: Mapping[str, Facts] = {
    "shell": {"kind": "shell"},
    "exec": {"kind": "exec", "command": "true"},
    "sftp": {"kind": "subsystem", "name": "sftp"},
    "pty": {"kind": "pty-req", "term": "xterm-256color", "columns": 80, "rows": 24},
    "env": {"kind": "env", "name": "LANG", "value": "C.UTF-8"},
    "agent": {"kind": "auth-agent-req@openssh.com"},
    "x11": {"kind": "x11-req", "single_connection": False, "auth_protocol": "MIT-MAGIC-COOKIE-1", "screen": 0},
}
EVERYDAY = ("shell", "exec", "sftp", "pty", "env", "agent", "x11")
WORDS = "shell, exec [COMMAND], sftp [read|write PATH], subsystem NAME, pty, env NAME=VALUE, forward HOST:PORT, " \
        "listen HOST:PORT, socket PATH, agent, x11, or JSON with a `kind`"  # fmt: skip


def typical(target: Any) -> dict[str, Facts]:
    """By name: what people do every day, and what the target's own entry names, each to be asked of policy."""
    found = {name: SIMPLE[name] for name in EVERYDAY}
    allow = target.get("allow") if isinstance(target, Mapping) else None
    if not isinstance(allow, Mapping):
        return found
    for word, key in (("forward", "forwards"), ("listen", "listen")):
        for place in _objects(allow.get(key)):
            name = f"{word} {place.get('host')}:{place.get('port')}"
            found[name] = _address(word, str(place.get("host")), place.get("port"))
    sftp = allow.get("sftp")
    for verb in ("read", "write") if isinstance(sftp, Mapping) else ():
        for pattern in _texts(sftp.get(verb) if isinstance(sftp, Mapping) else None):
            found[f"sftp {verb} {pattern}"] = _file(verb, _example(pattern))
    return found


def named(text: str) -> tuple[str, Facts]:
    """One request as somebody types it (`WORDS`).  Raises StudyError."""
    word, _, rest = text.strip().partition(" ")
    try:
        if text.lstrip().startswith("{"):
            return text, _of_json(text)
        if not rest and word in SIMPLE:
            return text, SIMPLE[word]
        return text, _SAID[word](rest.strip())
    except (KeyError, ValueError) as error:
        raise StudyError(f"--request {text!r} is none", remedy=f"Say one of: {WORDS}.") from error


def all_named(texts: Sequence[str]) -> dict[str, Facts]:
    return dict(named(text) for text in texts)


def _of_json(text: str) -> Facts:
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise ValueError("no kind")
    return found


def _sftp(rest: str) -> Facts:
    verb, path = shlex.split(rest)
    return _file(verb, path)


def _file(verb: str, path: str) -> Facts:
    if verb not in ("read", "write") or not path.startswith("/"):
        raise ValueError(verb)
    return {"kind": "sftp", "operation": "open", "path": path, "read": verb == "read", "write": verb == "write"}


def _example(place: str) -> str:
    """A path that the place means."""
    return place.replace("**", "example").replace("*", "example").replace("?", "x")


def _host_and_port(word: str) -> Callable[[str], Facts]:
    def parsed(rest: str) -> Facts:
        host, _, port = rest.rpartition(":")
        return _address(word, host.strip("[]"), int(port))

    return parsed


def _address(word: str, host: str, port: Any) -> Facts:
    if word == "listen":
        return {"kind": "tcpip-forward", "host": host, "port": port}
    return {"kind": "direct-tcpip", "host": host, "port": port, "originator_host": "127.0.0.1", "originator_port": 0}


def _env(rest: str) -> Facts:
    name, sign, value = rest.partition("=")
    if not name or not sign:
        raise ValueError(rest)
    return {"kind": "env", "name": name, "value": value}


def _path(rest: str) -> Facts:
    if not rest:
        raise ValueError("no path")
    return {"kind": "direct-streamlocal@openssh.com", "path": rest}


_SAID: Mapping[str, Callable[[str], Facts]] = {
    "exec": lambda rest: {"kind": "exec", "command": rest},
    "sftp": _sftp,
    "subsystem": lambda rest: {"kind": "subsystem", "name": rest},
    "env": _env,
    "forward": _host_and_port("forward"),
    "listen": _host_and_port("listen"),
    "socket": _path,
}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
