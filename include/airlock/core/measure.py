"""A condition that a number decides, such as ``data_drift <= 0.1`` (requirement A-7)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Final, Literal

from airlock.core.base import Value
from airlock.core.errors import InvalidInputError
from airlock.core.signals import SIGNALS

_TEXT = re.compile(r"\s*([A-Za-z][\w.-]*)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)\s*")
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {"<=": le, ">=": ge, "<": lt, ">": gt}


class Measure(Value):
    """A signal of production, and where it has to lie."""

    signal: str
    comparison: Literal["<=", ">=", "<", ">"]
    limit: float

    def holds(self, value: float) -> bool:
        """Whether a measured value is as it has to be."""
        return _COMPARE[self.comparison](value, self.limit)

    def check(self) -> None:
        """Make sure that it is about something that is measured.

        Raises:
            InvalidInputError: production has no such signal.
        """
        if self.signal not in SIGNALS:
            near = difflib.get_close_matches(self.signal, SIGNALS, n=1)
            raise InvalidInputError(
                f"{self.signal[:60]!r} is not measured in production"
                + (f"; did you mean {near[0]!r}?" if near else ""),
                fix=f"name one of {', '.join(SIGNALS)}, or say the condition in words",
            )


def measure_of(text: str) -> Measure | None:
    """What a condition measures; ``None`` for one in words, which a person confirms."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    signal, comparison, limit = found.groups()
    return Measure.model_validate({"signal": signal, "comparison": comparison, "limit": float(limit)})
