"""Judges a suite of expectations on all rows of a file: the common ones in one pass of DuckDB.

What is not common, or is asked in an uncommon way, goes to Great Expectations on a frame of the columns it
needs. Great Expectations is also what the answers here are tested against, and their form is its form:
``success``, ``result`` with counts, ``exception_info``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airlock.core.suite import Expectation, Suite
from airlock.profiles.batch import Batch

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20
"""Distinct unexpected values kept as examples."""

_DIGITS = 12
"""Digits of observed means and sums: more would depend on the order in which threads add."""


class SuiteError(Exception):
    """The suite cannot be run as it is written."""


@dataclass(frozen=True)
class Outcome:
    """What became of one expectation.

    Attributes:
        data: ``success``, ``result`` and ``exception_info``, as Great Expectations writes them.
        engine: who judged, ``duckdb`` or ``great_expectations``.
    """

    data: dict[str, Any]
    engine: str


@dataclass(frozen=True)
class _Question:
    """What to ask DuckDB about one expectation, and what to make of the answers."""

    aggregates: list[str]
    answer: Callable[[list[Any]], dict[str, Any]]


def run_suite(suite: Suite, batch: Batch) -> list[Outcome]:
    """Judge every expectation; outcomes in the order of the suite.

    Raises:
        SuiteError: an expectation is unknown, cannot be built or was not evaluated.
        InvalidInputError: the data cannot be read.
    """
    questions = [_question(expectation, batch) for expectation in suite.expectations]
    wanted = [one for question in questions if question for one in question.aggregates]
    batch.ask(wanted)  # all in one pass; the answers are remembered
    others = [index for index, question in enumerate(questions) if question is None]
    asked = _great(suite, others, batch) if others else {}
    outcomes = []
    for index, question in enumerate(questions):
        if question is None:
            outcomes.append(Outcome(asked[index], "great_expectations"))
            continue
        answered = question.answer(batch.ask(question.aggregates))
        info = {"raised_exception": False, "exception_message": None, "exception_traceback": None}
        outcomes.append(Outcome({"exception_info": info, **answered}, "duckdb"))
    return outcomes


def _question(expectation: Expectation, batch: Batch) -> _Question | None:
    """How DuckDB can judge the expectation; ``None`` where Great Expectations must."""
    kwargs, name = expectation.kwargs, expectation.type.removeprefix("expect_")
    mostly = kwargs.get("mostly", 1)
    if isinstance(mostly, bool) or not isinstance(mostly, int | float) or not 0 < mostly <= 1:
        return None
    if name == "table_row_count_to_be_between":
        known = _only(kwargs, _BOUNDS) and _numeric_bounds(kwargs)
        return _Question(["count(*)"], lambda found: _observed(found[0], kwargs)) if known else None
    column = kwargs.get("column")
    if not isinstance(column, str) or column not in batch.columns:
        return None
    if name in _MAPS:
        wrong = _MAPS[name](kwargs, batch.column(column), batch.columns[column].kind)
        return None if wrong is None else _map(expectation, batch, wrong)
    return _aggregate(kwargs, name, column, batch)


def _aggregate(kwargs: dict[str, Any], name: str, column: str, batch: Batch) -> _Question | None:
    numeric = batch.columns[column].kind == "number" and _numeric_bounds(kwargs)
    if name not in _AGGREGATES or not numeric or not _only(kwargs, {"column", *_BOUNDS}):
        return None
    inside = batch.column(column)
    return _Question(
        ["count(*)", f"count({inside})", _AGGREGATES[name].format(inside)],
        lambda found: _observed(found[2], kwargs, empty=not found[1], rows=found[0]),
    )


_BOUNDS = {"min_value", "max_value", "strict_min", "strict_max"}


def _only(kwargs: dict[str, Any], known: set[str]) -> bool:
    return set(kwargs) <= known


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numeric_bounds(kwargs: dict[str, Any]) -> bool:
    bounds = [kwargs.get("min_value"), kwargs.get("max_value")]
    return all(bound is None or _is_number(bound) for bound in bounds) and all(
        isinstance(kwargs.get(key, False), bool) for key in ("strict_min", "strict_max")
    )


def _literal(value: Any) -> str:
    """A value as SQL; a text's quotes are doubled, a negative number stands in brackets."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"({float(value)!r})::DOUBLE" if isinstance(value, float) else f"({value})"


def _outside(kwargs: dict[str, Any], inside: str, kind: str) -> str | None:
    known = {"column", "mostly", *_BOUNDS}
    if kind != "number" or not _only(kwargs, known) or not _numeric_bounds(kwargs):
        return None
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    parts = []
    if low is not None:
        parts.append(f"{inside} {'<=' if kwargs.get('strict_min') else '<'} {_literal(low)}")
    if high is not None:
        parts.append(f"{inside} {'>=' if kwargs.get('strict_max') else '>'} {_literal(high)}")
    return " OR ".join(parts) or None


def _listed(kwargs: dict[str, Any], inside: str, kind: str) -> str | None:
    values = kwargs.get("value_set")
    if not _only(kwargs, {"column", "mostly", "value_set"}) or not isinstance(values, list) or not values:
        return None
    fits = {"number": _is_number, "text": lambda value: isinstance(value, str)}.get(kind)
    if fits is None or not all(map(fits, values)):
        return None
    return f"{inside} IN ({', '.join(map(_literal, values))})"


def _not_listed(kwargs: dict[str, Any], inside: str, kind: str) -> str | None:
    listed = _listed(kwargs, inside, kind)
    return None if listed is None else f"NOT ({listed})"


def _missing(kwargs: dict[str, Any], inside: str, kind: str) -> str | None:
    del kind
    return f"{inside} IS NULL" if _only(kwargs, {"column", "mostly"}) else None


_MAPS: dict[str, Callable[[dict[str, Any], str, str], str | None]] = {
    "column_values_to_be_between": _outside,
    "column_values_to_be_in_set": _not_listed,
    "column_values_to_not_be_in_set": _listed,
    "column_values_to_not_be_null": _missing,
}
"""Expectation about each value → when a value is wrong, in SQL."""

_AGGREGATES = {
    "column_min_to_be_between": "min({})",
    "column_max_to_be_between": "max({})",
    "column_mean_to_be_between": "avg({}::DOUBLE)",
    "column_sum_to_be_between": "sum({}::DOUBLE)",
    "column_stdev_to_be_between": "stddev_samp({}::DOUBLE)",
    "column_unique_value_count_to_be_between": "count(DISTINCT {})",
}
"""Expectation about a column → the number it is about, in SQL."""


def _map(expectation: Expectation, batch: Batch, wrong: str) -> _Question:
    inside = batch.column(expectation.kwargs["column"])
    about_nulls = wrong.endswith("IS NULL")

    def answer(found: list[Any]) -> dict[str, Any]:
        rows, present, unexpected = found
        checked = rows if about_nulls else present
        result: dict[str, Any] = {"element_count": rows, "unexpected_count": unexpected}
        if not about_nulls:
            examples = batch.examples(wrong, inside, _SHOWN) if unexpected else []
            result |= {
                "missing_count": rows - present,
                "partial_unexpected_list": [value for value, _ in examples],
                "partial_unexpected_counts": [{"value": value, "count": count} for value, count in examples],
            }
        right = (checked - unexpected) / checked if checked else 1.0
        return {"success": right >= expectation.mostly, "result": result}

    wanted = f"count(*) FILTER (WHERE {wrong})"
    if "value_set" in expectation.kwargs and batch.columns[expectation.kwargs["column"]].kind == "text":
        # Each text is looked up in the list once, however many rows have it.
        texts = f"SELECT {inside}, count(*) AS often FROM rows GROUP BY ALL"  # noqa: S608
        wanted = f"(SELECT coalesce(sum(often), 0)::BIGINT FROM ({texts}) WHERE {wrong})"  # noqa: S608
    return _Question(["count(*)", f"count({inside})", wanted], answer)


def _observed(
    value: Any, kwargs: dict[str, Any], *, empty: bool = False, rows: int | None = None
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if empty:  # as the gate knows a column that holds nothing
        return {"success": False, "result": {"element_count": rows, "missing_count": rows}}
    if isinstance(value, float):
        value = float(f"{value:.{_DIGITS}g}")
    result["observed_value"] = value
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    undefined = value is None or (isinstance(value, float) and math.isnan(value))
    below = low is not None and (
        undefined or value < low or (kwargs.get("strict_min", False) and value == low)
    )
    above = high is not None and (
        undefined or value > high or (kwargs.get("strict_max", False) and value == high)
    )
    return {"success": not below and not above, "result": result}


def _great(suite: Suite, indices: Sequence[int], batch: Batch) -> dict[int, dict[str, Any]]:
    """The outcomes of these expectations by Great Expectations, on the columns they need."""
    chosen = {index: suite.expectations[index] for index in indices}
    about_table = any(not expectation.columns for expectation in chosen.values())
    named = {column for expectation in chosen.values() for column in expectation.columns}
    columns = [name for name in batch.columns if about_table or name in named]
    return great_expectations(suite.name, chosen, batch.frame(columns or list(batch.columns)))


def great_expectations(
    name: str, expectations: dict[int, Expectation], frame: pd.DataFrame
) -> dict[int, dict[str, Any]]:
    """Let Great Expectations judge a frame; outcomes by index.

    Great Expectations drops what it does not know and calls an empty suite a success, so this
    checks that every expectation came back.

    Raises:
        SuiteError: an expectation is unknown, cannot be built or was not evaluated.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    built = [_build(index, expectation) for index, expectation in expectations.items()]
    in_memory = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    gx_context = gx.get_context(project_config=in_memory, mode="ephemeral")
    asset = gx_context.data_sources.add_pandas("airlock").add_dataframe_asset("evaluation")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    result = batch.validate(
        gx.ExpectationSuite(name=name, expectations=built),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": _SHOWN},
    ).to_json_dict()
    outcomes = {item["expectation_config"]["meta"]["index"]: item for item in result["results"]}
    evaluated = result["statistics"]["evaluated_expectations"]
    if not evaluated == len(outcomes) == len(expectations) > 0:
        raise SuiteError(f"only {evaluated} of {len(expectations)} expectations were evaluated")
    return {index: outcomes[index] for index in expectations}


def _build(index: int, expectation: Expectation) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl

    try:
        return get_expectation_impl(expectation.type)(**expectation.kwargs, meta={"index": index})
    except ExpectationNotFoundError as error:
        raise SuiteError(f"Great Expectations knows no {expectation.type}") from error
    except (TypeError, ValueError) as error:
        raise SuiteError(f"{expectation.type} on {expectation.subject}: {plain(error)}") from error


def plain(error: Exception) -> str:
    """What went wrong, without addresses and links."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'suite'}: {first['msg'].removeprefix('Value error, ')}"
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))
