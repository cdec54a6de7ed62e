"""What `doorward policy check` can find, by code, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass

REMEDIES = {
    "does_not_compile": "See the line; `opa check --strict` says the same.",
    "misspelt_field": "Use one of the names that OPA lists, or look in schemas/ for what a question holds.",
    "unknown_builtin": "There is no builtin or rule of this name: mind the spelling, the import, and OPA's version.",
    "recursive": "A rule cannot need itself, also by way of others or of an import: split what both need into a third.",
    "own_clock": "Compare with input.now_ns: a decision has to come out the same when it is asked again.",
    "outside_world": "Let the gateway verify it, or write it into the data: a decision waits for nobody.",
    "walks_everything": "Look the entry up by its name, as in data.grants[person][id]; a loop costs every decision.",
    "undefined": "Give the decision an `else`, or a `default`, that refuses with a reason.",
    "fails": "Check the type before a builtin is called, and write rules that exclude each other as one `else` chain.",
    "outside_contract": "Answer as schemas/answer.*.json says; to the gateway anything else is a deny.",
    "data_misfit": "Mend the entry: what does not fit its schema has no effect, or is a deny.",
    "code_unreachable": "Take the code out of the catalogue, or write the rule that gives it.",
    "code_undocumented": "Add the code to the catalogue, README.md beside the policies, under `## Codes`.",
    "test_fails": "`opa test --var-values` shows what the rule saw.",
    "untested": "Add a line to a table of tests for what is not covered.",
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong, and where."""

    file: str
    line: int
    code: str
    message: str

    @property
    def remedy(self) -> str:
        return REMEDIES[self.code]

    def told(self) -> dict[str, str | int]:
        return {
            "file": self.file, "line": self.line, "code": self.code, "message": self.message, "remedy": self.remedy,
        }  # fmt: skip
