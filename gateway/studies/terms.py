"""OPA's syntax trees, as they stand in traces: turned into values and into the words that a policy is written in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

UNDEFINED = object()
"""What a reference comes to that leads nowhere."""

Term = Mapping[str, Any]


def value_of(term: Any) -> Any:
    """The value of a ground term; UNDEFINED of anything else."""
    if not isinstance(term, Mapping):
        return UNDEFINED
    kind, value = term.get("type"), term.get("value")
    match kind:
        case "null":
            return None
        case "string" | "number" | "boolean":
            return value
        case "array" | "set":
            return [_inner(item) for item in value or ()]
        case "object":
            return {_key(key): _inner(item) for key, item in value or ()}
    return UNDEFINED


def _inner(term: Any) -> Any:
    found = value_of(term)
    return None if found is UNDEFINED else found


def _key(term: Any) -> str:
    found = value_of(term)
    return found if isinstance(found, str) else json.dumps(found, default=str)


class Scope:
    """What names mean at one event: its variables, the question, and the data."""

    def __init__(self, event: Mapping[str, Any], question: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        self._values = {one["name"]: value_of(one) for one in event.get("Locals") or ()}
        self._names: dict[str, str] = {key: one["name"] for key, one in (event.get("LocalMetadata") or {}).items()}
        self._roots = {"input": question, "data": data}
        self.rules: dict[str, str] = {}
        """Variables of OPA's own, by the rule whose value they are."""
        self.results: dict[str, str] = {}
        """The same, by the call."""

    def learn(self, node: Any) -> None:
        """`__local7__ = data.gateway.x.y` says that the variable is the rule's value; so does `f(x, __local7__)`."""
        terms = node.get("terms") if isinstance(node, Mapping) else None
        if not isinstance(terms, list) or terms[0].get("type") != "ref":
            return
        if len(terms) == 3 and _is_ref(terms[0], "eq"):
            for one, other in ((terms[1], terms[2]), (terms[2], terms[1])):
                if self._is_unnamed(one) and other.get("type") == "ref":
                    self.rules[_spelt(other, self._names)] = one["value"]
        elif len(terms) > 2 and terms[0]["value"][0].get("value") == "data" and self._is_unnamed(terms[-1]):
            if terms[-1]["value"] in self.rules.values():
                return  # an argument, in place of a result
            said = [self._names.get(term["value"], "") for term in terms[1:-1] if term.get("type") == "var"]
            said = said if len(said) == len(terms) - 2 and not any(map(_is_own, said)) else ["..."]
            self.results[f"{_short(_spelt(terms[0], self._names))}({', '.join(said)})"] = terms[-1]["value"]

    def _is_unnamed(self, term: Term) -> bool:
        return term.get("type") == "var" and _is_own(self._name(str(term["value"])))

    def _name(self, var: str) -> str:
        """What it is called in the policy."""
        return self._names.get(var, var)

    def told(self, node: Any) -> Iterator[tuple[str, Any]]:
        """Every variable and reference in `node`, as it is written, with its value; UNDEFINED where it has none."""
        yield from ((name, self._values[var]) for name, var in self.results.items() if var in self._values)
        for term in _terms(node):
            if term["type"] == "var":
                name = self._name(str(term["value"]))
                if not _is_own(name) and term["value"] in self._values:
                    yield name, self._values[term["value"]]
            else:
                name = _spelt(term, self._names)
                head = str(term["value"][0].get("value"))
                if not _is_own(name):
                    yield _short(name), self._of(term, name, head)
                    yield from self._keys(term)

    def _keys(self, ref: Term) -> Iterator[tuple[str, Any]]:
        for step in ref["value"][1:]:
            name = self._names.get(step["value"], "") if step.get("type") == "var" else ""
            if name and not _is_own(name) and step["value"] in self._values:
                yield name, self._values[step["value"]]

    def _of(self, term: Term, name: str, head: str) -> Any:
        steps = term["value"][1:]
        if name in self.rules:
            return self._values.get(self.rules[name], UNDEFINED)
        if head == "data" and steps and steps[0].get("value") not in self._roots["data"]:
            return UNDEFINED
        found: Any = self._roots[head] if head in self._roots else self._values.get(head, UNDEFINED)
        for step in steps:
            key = self._values.get(step["value"], UNDEFINED) if step.get("type") == "var" else value_of(step)
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return UNDEFINED
        return found


def rules_in(node: Any) -> Iterator[str]:
    """The names of the rules that it refers to, as they end: `is_active` of data.gateway.people.is_active."""
    for term in _terms(node, calls=True):
        path = [step.get("value") for step in term["value"]] if term["type"] == "ref" else []
        if path and path[0] == "data":
            yield from (str(step) for step in path[1:])


def _terms(node: Any, *, calls: bool = False) -> Iterator[Term]:
    """References and variables, from the left; what is called is none unless `calls`."""
    if isinstance(node, Mapping) and "terms" in node:
        terms = node["terms"]
        if isinstance(terms, list):
            for place, term in enumerate(terms):
                if place > 0 or calls:
                    yield from _terms(term, calls=calls)
        else:
            yield from _terms(terms, calls=calls)
    elif isinstance(node, Mapping):
        kind, value = node.get("type"), node.get("value")
        if kind in ("ref", "var"):
            yield node
        elif kind in ("array", "set"):
            for inner in value or ():
                yield from _terms(inner, calls=calls)
        elif kind == "object":
            for pair in value or ():
                for inner in pair:
                    yield from _terms(inner, calls=calls)
        elif kind == "call" and isinstance(value, list):
            for inner in value if calls else value[1:]:
                yield from _terms(inner, calls=calls)
        elif "body" in node:
            for inner in node["body"]:
                yield from _terms(inner, calls=calls)
        elif isinstance(value, Mapping) and "body" in value:
            for inner in value["body"]:
                yield from _terms(inner, calls=calls)
    elif isinstance(node, list):
        for inner in node:
            yield from _terms(inner, calls=calls)


def _is_ref(term: Any, name: str) -> bool:
    return isinstance(term, Mapping) and term.get("type") == "ref" and [s.get("value") for s in term["value"]] == [name]


def _is_own(name: str) -> bool:
    return "__local" in name or name.startswith(("$", "_term"))


def _spelt(ref: Term, names: Mapping[str, str]) -> str:
    """As one would write it."""
    spelt = ""
    for place, step in enumerate(ref["value"]):
        text = str(step.get("value"))
        if step.get("type") == "var":
            text = names.get(text, text)
            spelt += text if place == 0 else f"[{text}]"
        elif step.get("type") == "string":
            spelt += f".{text}" if re.fullmatch(r"[A-Za-z_]\w*", text) else f"[{json.dumps(text)}]"
        else:
            spelt += f"[{text}]"
    return spelt


def _short(name: str) -> str:
    """A rule of a package by its last word."""
    found = re.fullmatch(r"data\.gateway(?:\.\w+)*\.(\w+)", name)
    return found[1] if found else name
