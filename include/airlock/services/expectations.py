"""Writes a first suite of expectations from data, for a person to correct (requirement G-1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airlock.adapters.evidence import hash_file
from airlock.core.errors import InvalidInputError
from airlock.core.statistics import percent
from airlock.core.suite import Expectation, Profiled, Suite
from airlock.profiles.profile import ColumnProfile, profile
from airlock.profiles.source import ParquetSource, open_source

FEW_VALUES = 20
"""A column with at most so many distinct values is described by them, any other by its range."""

_MARGIN = 0.1
"""Proposed ranges reach a tenth beyond what was seen; whoever reviews the suite sets the true one."""


def profile_suite(path: Path, name: str) -> Suite:
    """A suite that the data itself meets, marked as not reviewed.

    It describes what is, faults included: codes that pose as numbers widen a range instead of breaking it.
    That is why it warns until a person has read it.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it cannot be read or has no rows.
    """
    with open_source(path) as source:
        rows = source.rows()
        if not rows:
            raise InvalidInputError("the file has no rows", where=str(path), fix="profile the training data")
        measured = profile(source)
        lines = [
            Expectation(
                type="expect_table_row_count_to_be_between",
                kwargs={"min_value": max(1, rows // 10)},
                why=f"the profiled data has {rows:,} rows; a tenth of it says too little",
            )
        ]
        for column, known in measured.columns.items():
            lines += _about(column, known, source)
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    return Suite(
        name=name,
        version="0.1.0",
        description=f"Profiled from {path.name}; every line is to be read and corrected by a person.",
        reviewed=False,
        profiled=Profiled(sha256=_digest(files), rows=rows),
        expectations=lines,
    )


def _digest(files: list[Path]) -> str:
    from airlock.core.canonical import digest_of

    return (
        hash_file(files[0]) if len(files) == 1 else digest_of({file.name: hash_file(file) for file in files})
    )


def _about(column: str, known: ColumnProfile, source: ParquetSource) -> list[Expectation]:
    lines = []
    share = known.missing / known.rows
    if share < 1:
        kwargs: dict[str, Any] = {"column": column}
        why = "no value was missing"
        if share:
            # As many may be missing as were, and as many again: a share of its own is no limit.
            kwargs["mostly"] = round(max(0.01, 1 - 2 * share), 4)
            why = f"{percent(share)} of the values were missing"
        lines.append(_line("column_values_to_not_be_null", why, kwargs))
    if (values := _few(column, known, source)) is not None:
        seen = f"only these {len(values)} values were seen"
        lines.append(_line("column_values_to_be_in_set", seen, {"column": column, "value_set": values}))
    elif known.kind == "number" and known.low is not None and known.high is not None:
        low, high = _range(known.low, known.high)
        lines.append(
            _line(
                "column_values_to_be_between",
                f"values between {known.low:.10g} and {known.high:.10g} were seen; "
                "set the range that makes sense",
                {"column": column, "min_value": low, "max_value": high},
            )
        )
    return lines


def _line(kind: str, why: str, kwargs: dict[str, Any]) -> Expectation:
    return Expectation(type=f"expect_{kind}", kwargs=kwargs, why=why)


def _few(column: str, known: ColumnProfile, source: ParquetSource) -> list[Any] | None:
    """The values of a column that has few, as they would stand in YAML."""
    import numpy as np

    if known.kind == "text":
        few = known.categories is not None and 0 < len(known.categories) <= FEW_VALUES
        return sorted(known.categories or {}) if few else None
    if known.kind != "number" or known.infinite:
        return None
    values = np.unique(source.numbers(column).values).tolist()
    if not 0 < len(values) <= FEW_VALUES or (len(values) > known.n // 2 and not known.whole):
        return None
    return [int(value) if float(value).is_integer() else value for value in values]


def _range(low: float, high: float) -> tuple[float, float]:
    """A little wider than what was seen, never across zero where nothing was, in few digits."""
    reach = _MARGIN * (high - low) or _MARGIN * abs(high) or 1.0
    wide = [low - reach, high + reach]
    if low >= 0:
        wide[0] = max(0.0, wide[0])
    if high <= 0:
        wide[1] = min(0.0, wide[1])
    rounded = [float(f"{value:.6g}") for value in wide]
    return min(rounded[0], low), max(rounded[1], high)


def suite_text(suite: Suite) -> str:
    """The suite as YAML, one expectation after the other, ready to be edited."""
    import yaml

    data = suite.to_data()
    lines = data.pop("expectations")
    head = {key: value for key, value in data.items() if value is not None}
    text = (
        "# Read and correct every line: what is wrong in the profiled data stands here as if it were right.\n"
    )
    text += yaml.safe_dump(head, allow_unicode=True, sort_keys=False, width=110) + "expectations:\n"
    for line in lines:
        kwargs, why = (
            yaml.safe_dump(part, default_flow_style=flow, allow_unicode=True, sort_keys=False, width=10_000)
            for part, flow in ((line["kwargs"], True), ({"why": line["why"]}, False))
        )
        text += f"  - type: {line['type']}\n    kwargs: {kwargs.strip()}\n    {why.strip()}\n"
    return text
