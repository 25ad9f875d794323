"""One row against a profile: out of range, unknown, missing, or as the training data was.

This runs in the model server for each request (requirement G-10), so it is the standard library alone, and
what can be worked out beforehand is.

    checker = RowChecker(TableProfile.from_bytes(profile), RowLimits(...))
    problems = checker.check({"income": 4.2, "region": "north"})
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.errors import InvalidInputError
from airlock.profiles.profile import ColumnProfile, TableProfile


class RowLimits(Value):
    """What one row may be.

    Attributes:
        margin: how far beyond the range of the training data a number may lie, as a share of that range.
        missing_share: a value may be missing where at least this share of the training data misses it.
        rare_share: a text counts as unknown when a smaller share of the training data has it.
    """

    margin: Annotated[float, Field(ge=0)]
    missing_share: Annotated[float, Field(gt=0, le=1)]
    rare_share: Annotated[float, Field(ge=0, le=1)]


Reason = Literal["no such column", "missing", "wrong type", "not finite", "out of range", "unknown value"]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a value of the row; the value itself is not repeated, as it may be personal."""

    column: str
    reason: Reason
    text: str


@dataclass(frozen=True)
class _Rule:
    optional: bool
    numeric: bool
    low: float
    high: float
    known: frozenset[str] | None
    text: str


class RowChecker:
    """Holds rows against a profile. Make one when the model is loaded; it can be shared between threads.

    Args:
        profile: of the training data; a profile without columns is refused, as it would accept anything.
        limits: from the policy.

    Raises:
        InvalidInputError: the profile is empty.
    """

    def __init__(self, profile: TableProfile, limits: RowLimits) -> None:
        if not profile.columns or not profile.rows:
            raise InvalidInputError(
                "the profile is empty and would accept anything", fix="profile the training data"
            )
        self._rules = {name: _rule(column, limits) for name, column in profile.columns.items()}

    def check(self, row: Mapping[str, object]) -> list[Problem]:
        """Everything that is wrong with the row; nothing when it is as the training data was.

        Columns the profile does not know are left alone: the model does not see them.
        """
        problems = []
        for column, rule in self._rules.items():
            if column not in row:
                problems.append(Problem(column, "no such column", f"{column} is not in the row"))
            elif (reason := _judge(row[column], rule)) is not None:
                problems.append(Problem(column, reason, f"{column}: {reason}; {rule.text}"))
        return problems


def _rule(column: ColumnProfile, limits: RowLimits) -> _Rule:
    numeric = column.kind in ("number", "time", "duration") and column.low is not None
    low, high, known = -math.inf, math.inf, None
    if numeric and column.low is not None and column.high is not None:
        reach = limits.margin * (column.high - column.low)
        low, high = column.low - reach, column.high + reach
        text = f"the training data lies between {column.low:g} and {column.high:g}"
    elif column.categories is not None:
        least = limits.rare_share * column.rows
        known = frozenset(text for text, count in column.categories.items() if count >= least)
        text = f"the training data has {len(known)} values"
    else:
        text = "the training data has very many values"
    share = column.missing / column.rows if column.rows else 0.0
    return _Rule(share >= limits.missing_share, numeric, low, high, known, text)


def _judge(value: object, rule: _Rule) -> Reason | None:
    if value is None or value != value:  # noqa: PLR0124  # NaN is not itself
        return None if rule.optional else "missing"
    if not rule.numeric:
        return None if rule.known is None or _text(value) in rule.known else "unknown value"
    if isinstance(value, bool | str | bytes):
        return "wrong type"
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever is a number
    except (TypeError, ValueError, OverflowError):
        return "wrong type"
    if not math.isfinite(number):
        return "not finite"
    return None if rule.low <= number <= rule.high else "out of range"


def _text(value: object) -> str:
    """As the profile writes it: a whole number without its fraction, a boolean as ``True``."""
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
