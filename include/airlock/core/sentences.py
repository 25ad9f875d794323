"""Sentences with facts in them: ``performance changes by {change|percent}``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from airlock.core.errors import ConfigurationError

_FIELD = re.compile(r"\{([a-z_][A-Za-z0-9_.]*)(?:\|([a-z]+))?\}")

FORMATS: dict[str, Callable[[Any], str]] = {
    "percent": lambda value: f"{100 * float(value):.1f} %",
    "number": lambda value: f"{float(value):,.6g}",
    "list": lambda value: ", ".join(str(item) for item in value) or "none",
}
"""What may stand behind the bar, and how a fact is written then."""

_TYPES: dict[str, type] = {"percent": float, "number": float, "list": list}
"""What a fact is for which writing it in a format cannot fail."""

Part = str | tuple[str, Callable[[Any], str]]


@lru_cache(maxsize=4096)
def parts_of(template: str) -> tuple[Part, ...]:
    """The sentence as text and facts in turn: a fact is its name and how it is written.

    Raises:
        ConfigurationError: for an unknown format name.
    """
    parts: list[Part] = []
    at = 0
    for match in _FIELD.finditer(template):
        if match[2] is not None and match[2] not in FORMATS:
            raise ConfigurationError(
                f"unknown format {match[2]!r} in {template!r}", fix=f"use one of {sorted(FORMATS)}"
            )
        parts += [template[at : match.start()], (match[1], FORMATS.get(match[2] or "", str))]
        at = match.end()
    return (*parts, template[at:])


def facts_in(template: str) -> list[str]:
    """Names of the facts a sentence shows.

    Raises:
        ConfigurationError: for an unknown format name.
    """
    return [part[0] for part in parts_of(template) if not isinstance(part, str)]


def formats_in(template: str) -> list[tuple[str, type]]:
    """Facts that a sentence shows in a format, with the type that the format is made for.

    Raises:
        ConfigurationError: for an unknown format name.
    """
    parts_of(template)
    return [(match[1], _TYPES[match[2]]) for match in _FIELD.finditer(template) if match[2] is not None]


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Insert facts, given by their dotted names. A missing fact reads "unknown".

    Raises:
        ConfigurationError: for an unknown format name.
        TypeError: a fact cannot be written in the format that is asked for.
        ValueError: the same.
    """
    parts = parts_of(template)
    if len(parts) == 1:
        return template
    return "".join(
        [
            part if isinstance(part, str) else part[1](facts[part[0]]) if part[0] in facts else "unknown"
            for part in parts
        ]
    )
