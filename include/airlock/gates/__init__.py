"""Gates: one file, one check. Drop a file in and it can be named in a policy; nothing else is edited.

A gate module has

- a docstring that people read in the CLI, the Airflow UI and the docs: a title line, then the
  paragraphs "Why it matters:", "What good looks like:", "How to fix it:" (requirement G-16);
- ``STAGE``: ``Stage.BEFORE_SCORING`` or ``Stage.AFTER_SCORING``;
- ``Config``: a frozen pydantic model, filled from the policy, with no defaults for limits;
- ``evaluate(context, config) -> GateResult``: deterministic; vendor libraries are imported inside.

Laws every gate obeys, tested in ``tests/contract/test_gates.py``: same input, same bytes; the result
survives JSON; what cannot be judged (NaN, too few rows, empty configuration) is ``ERROR``; a value
exactly on its limit passes.

Gates of other distributions load by entry point, group ``airlock.gates``: gate name = module.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from airlock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from airlock.gates.base import GateModule

GROUP = "airlock.gates"
"""Entry point group of gates from other distributions: gate name = module."""

BUILT_IN = "airlock"
_NOT_GATES = {"base"}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_PARTS = ("STAGE", "Config", "evaluate")


@dataclass(frozen=True)
class GateText:
    """What a gate says about itself."""

    title: str
    why: str
    good: str
    fix: str


@cache
def _built_in() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return [name for name in found if name not in _NOT_GATES and not name.startswith("_")]


@cache
def _installed() -> dict[str, EntryPoint]:
    """Gates of other distributions. Nothing of them is imported here.

    Raises:
        ConfigurationError: one has the name of another gate, or a name no policy can use. It is raised
            whichever gate is asked for: nobody may put a gate of theirs in place of a known one.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        earlier = found.get(entry.name)
        if earlier is not None and (earlier.value, _source(earlier)) == (entry.value, _source(entry)):
            continue  # one distribution that is found twice on the path
        if not _NAME.fullmatch(entry.name):
            raise ConfigurationError(
                f"the distribution {_source(entry)} offers a gate called {entry.name!r}",
                where=f"entry point group {GROUP}",
                fix="name it with small letters, digits and underscores",
            )
        if entry.name in _built_in() or earlier is not None:
            owner = BUILT_IN if earlier is None else _source(earlier)
            raise ConfigurationError(
                f"the distribution {_source(entry)} offers a gate {entry.name!r}, which {owner} already has",
                where=f"entry point group {GROUP}",
                fix="rename the gate there, or uninstall that distribution",
            )
        found[entry.name] = entry
    return found


def _source(entry: EntryPoint) -> str:
    return "unknown" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


@cache
def gate_names() -> list[str]:
    """Names of all gates there are, built in and installed, sorted.

    Raises:
        ConfigurationError: two gates have one name.
    """
    return sorted([*_built_in(), *_installed()])


def gate_source(name: str) -> str:
    """Where a gate comes from: ``airlock``, or a distribution with its version."""
    return _source(_installed()[name]) if name in _installed() else BUILT_IN


@cache
def load_gate(name: str) -> GateModule:
    """Import a gate by name.

    Raises:
        ConfigurationError: there is no such gate, or one of another distribution cannot be used.
    """
    if name not in gate_names():
        near = difflib.get_close_matches(name, gate_names(), n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigurationError(f"there is no gate {name!r}", fix=f"{guess}gates: {', '.join(gate_names())}")
    if name in _installed():
        return _load_installed(_installed()[name])
    # A module is checked against the protocol by the contract tests; type checkers cannot see into it.
    return cast("GateModule", importlib.import_module(f"{__name__}.{name}"))


def _load_installed(entry: EntryPoint) -> GateModule:
    try:
        module = entry.load()
    except Exception as error:
        raise ConfigurationError(
            f"gate {entry.name!r} cannot be imported: {type(error).__name__}: {error}",
            where=f"distribution {_source(entry)}, {entry.value}",
            fix="repair or uninstall that distribution, or take the gate out of the policy",
        ) from error
    if missing := [part for part in _PARTS if not hasattr(module, part)]:
        raise ConfigurationError(
            f"gate {entry.name!r} has no {missing[0]}",
            where=f"distribution {_source(entry)}, {entry.value}",
            fix=f"a gate is a module with a docstring and {', '.join(_PARTS)}",
        )
    return cast("GateModule", module)


@cache
def gate_text(name: str) -> GateText:
    """The gate's docstring, taken apart.

    Raises:
        ConfigurationError: a paragraph is missing.
    """
    paragraphs = [" ".join(part.split()) for part in (load_gate(name).__doc__ or "").split("\n\n")]
    labelled = dict(part.split(":", 1) for part in paragraphs[1:] if ":" in part)
    try:
        return GateText(
            title=paragraphs[0].rstrip("."),
            why=labelled["Why it matters"].strip(),
            good=labelled["What good looks like"].strip(),
            fix=labelled["How to fix it"].strip(),
        )
    except KeyError as error:
        raise ConfigurationError(
            f"gate {name!r} does not explain itself: paragraph {error} is missing in its docstring"
        ) from error
