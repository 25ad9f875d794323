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
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, cast

from airlock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from airlock.gates.base import GateModule

_NOT_GATES = {"base"}


@dataclass(frozen=True)
class GateText:
    """What a gate says about itself."""

    title: str
    why: str
    good: str
    fix: str


@cache
def gate_names() -> list[str]:
    """Names of all gates there are, sorted."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules(__path__)
        if module.name not in _NOT_GATES and not module.name.startswith("_")
    )


@cache
def load_gate(name: str) -> GateModule:
    """Import a gate by name.

    Raises:
        ConfigurationError: there is no such gate.
    """
    if name not in gate_names():
        raise ConfigurationError(f"there is no gate {name!r}", fix=f"use one of {', '.join(gate_names())}")
    # A module is checked against the protocol by the contract tests; type checkers cannot see into it.
    return cast("GateModule", importlib.import_module(f"{__name__}.{name}"))


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
