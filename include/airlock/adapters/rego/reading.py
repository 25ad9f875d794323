"""What a policy's Rego asks for, and whether a policy may ask for that.

Rego lets a rule be silent where a fact is missing. A rule about a release must not: so every fact is named in
full, and one that is missing is an error. Functions that look at the clock, the network or chance have no
place in a rule; the engine would answer some of them with silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airlock.core.cel_types import unknown_fact
from airlock.core.facts import FACTS, fact_named
from airlock.core.policy import Policy

PACKAGE = "airlock"

_NAMESPACES = ("array.", "bits.", "glob.", "object.", "regex.", "semver.", "strings.", "units.")
_BUILTINS = frozenset(
    {"abs", "all", "any", "ceil", "concat", "contains", "count", "endswith", "floor", "format_int", "indexof"}
    | {"indexof_n", "intersection", "is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set"}
    | {"is_string", "lower", "max", "min", "numbers.range", "numbers.range_step", "product", "replace"}
    | {"round", "sort", "split", "sprintf", "startswith", "substring", "sum", "to_number", "trim"}
    | {"trim_left", "trim_prefix", "trim_right", "trim_space", "trim_suffix", "type_name", "union", "upper"}
    | {"walk"}
)
"""Functions of Rego that depend on their arguments alone, https://www.openpolicyagent.org/docs/policy-reference"""


@dataclass(frozen=True)
class Objection:
    """Something in a Rego file that a policy may not do."""

    id: str
    what: str
    file: str
    line: int
    fix: str


@dataclass(frozen=True)
class Reading:
    """What the Rego of one policy asks for.

    Attributes:
        facts: names of the facts that must be there, or of whole groups of them.
        objections: what it may not do; with any of them it is not run.
    """

    facts: tuple[str, ...]
    objections: tuple[Objection, ...]


def is_test(file: str) -> bool:
    """Whether a file holds tests, which no decision runs."""
    return file.endswith("_test.rego")


def rules_of(rego: Mapping[str, str]) -> dict[str, str]:
    """The files that judge."""
    return {file: text for file, text in rego.items() if not is_test(file)}


def judge_reading(found: Mapping[str, Any], policy: Policy) -> Reading:
    """What was found in the files, against what a policy may do."""
    objections = [
        *_packages(found),
        *_imports(found),
        *_calls(found),
        *(objection for entry in found["reads"] for objection in _read(entry, policy)),
    ]
    facts = dict.fromkeys(
        path.removeprefix("input.") for _, _, path, _ in found["reads"] if path.startswith("input.")
    )
    return Reading(tuple(facts), tuple(objections))


def _packages(found: Mapping[str, Any]) -> Iterator[Objection]:
    for file, package in found["packages"]:
        if package != PACKAGE and not package.startswith(f"{PACKAGE}."):
            fix = f"write `package {PACKAGE}`, or `package {PACKAGE}.name` for helpers"
            yield Objection("package", f"package {package} is not read by anybody", file, 1, fix)
    answers = {name for _, package, name, _ in found["rules"] if package == PACKAGE}
    if not answers & {"deny", "warn", "track"}:
        file = found["packages"][0][0] if found["packages"] else ""
        what = f"no rule deny, warn or track in package {PACKAGE}: these files judge nothing"
        yield Objection("empty", what, file, 1, "add one of them, or take the files out")


def _imports(found: Mapping[str, Any]) -> Iterator[Objection]:
    for file, line, path, _ in found["imports"]:
        own = path == f"data.{PACKAGE}" or path.startswith(f"data.{PACKAGE}.")
        if not own and path != "rego.v1" and not path.startswith("future.keywords"):
            yield Objection(
                "import", f"{path} cannot be imported", file, line, "name facts in full: input.group.fact"
            )


def _calls(found: Mapping[str, Any]) -> Iterator[Objection]:
    own = {name for _, _, name, function in found["rules"] if function}
    aliases = {alias for _, _, path, alias in found["imports"] if path.startswith("data.")}
    for file, line, name in found["calls"]:
        ours = name in own or name.split(".")[0] in aliases or name.startswith(f"data.{PACKAGE}.")
        if not ours and name not in _BUILTINS and not name.startswith(_NAMESPACES):
            yield Objection(
                "function",
                f"there is no function {name!r} for policies: it would read a clock, chance or the world, "
                "or is unknown",
                file,
                line,
                "use functions that depend on their arguments alone; docs/policy.md lists them",
            )


def _read(entry: tuple[str, int, str, bool], policy: Policy) -> Iterator[Objection]:
    file, line, path, open_end = entry
    root, _, name = path.partition(".")
    if root == "data":
        if not (path == f"data.{PACKAGE}" or path.startswith(f"data.{PACKAGE}.")):
            yield Objection("data", f"there is no {path} in a policy", file, line, "put numbers into limits")
        return
    fix = "name the fact in full: input.group.fact"
    if not name:
        yield Objection("whole-input", "the whole input hides which facts are needed", file, line, fix)
    elif problem := unknown_fact(name, limits=policy.limits, gates=policy.gates):
        yield Objection("unknown-fact", problem, file, line, "see the list of facts in docs/policy.md")
    elif fact_named(name) is None and f"{name}.*" not in FACTS:
        what = f"input.{name} is a group of facts" + (" with a computed name" if open_end else "")
        yield Objection("group", f"{what}: a missing one would pass in silence", file, line, fix)
