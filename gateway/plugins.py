"""Backends and issuers that are not ours: Python entry points that the settings name.

A package offers one in its `pyproject.toml`:

    [project.entry-points."doorward.backends"]
    runc = "doorward_runc:Runc"

and is used when, and only when, the settings have the section of that name, `[backends.runc]` or
`[credentials.NAME]`.  What is installed and not named is never imported.  A plugin is code in the gateway's own
process: it sees what the gateway sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from gateway.sections import Section

BACKENDS = "doorward.backends"
ISSUERS = "doorward.issuers"

Part = TypeVar("Part", covariant=True)


@dataclass(frozen=True, slots=True)
class Place:
    """What the gateway lends to what it opens.

    `instance` is to be put on whatever is started, and is the same at the next start, so that a reaper finds its own
    and no other's.  `agent` is the static binary that a workspace's first process is.  `state` is a folder of the
    plugin's own, mode 0700.
    """

    instance: str
    agent: Path
    state: Path


class Plugin(Protocol[Part]):
    """What an entry point names: usually a class of this shape."""

    Settings: type[Section]
    """The settings below its name; unknown keys are refused, by name, when the gateway starts."""

    def open(self, settings: Any, place: Place, /) -> AbstractAsyncContextManager[Part]:
        """Open it for as long as the gateway runs.  What it gives has the section's name as its `name`.

        Entering must not wait for the runtime: one that is down refuses sessions, not the start.
        """
        ...


def validated(group: str, sections: Mapping[str, Any]) -> dict[str, Section]:
    """Each section as its plugin's settings.  Raises ValueError that says by name and key what is wrong with one."""
    return {name: _validated(group, name, values) for name, values in sections.items()}


def find(group: str, name: str) -> Plugin[Any]:
    """The plugin of this name.  Raises ValueError where there is none, there are several, or it cannot be imported."""
    found = list(entry_points(group=group, name=name))
    if not found:
        offered = sorted({entry.name for entry in entry_points(group=group)})
        known = f"installed packages offer {', '.join(offered)}" if offered else "no installed package offers any"
        raise ValueError(f"{name}: not one of ours, and no entry point of the group {group} ({known})")
    if len(found) > 1:
        packages = " and ".join(sorted(map(_package, found)))
        raise ValueError(f"{name}: offered by {packages}; uninstall one")
    try:
        plugin = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: {found[0].value} of {_package(found[0])} cannot be loaded: {error!r}") from error
    if not (isinstance(getattr(plugin, "Settings", None), type) and callable(getattr(plugin, "open", None))):
        raise ValueError(f"{name}: {found[0].value} of {_package(found[0])} has no `Settings` and `open`")
    return plugin  # type: ignore[no-any-return]


def _validated(group: str, name: str, values: Any) -> Section:
    settings = find(group, name).Settings
    if isinstance(values, settings):
        return values
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join([name, *map(str, first['loc'])])}: {first['msg']}") from error


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed package"
