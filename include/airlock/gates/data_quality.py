"""Data quality: whether the evaluation data is what everybody believes it is.

Why it matters: every other number about a model is measured on data. Codes that pose as measurements,
missing columns and changed units make good models look bad and bad models look good, and in
production they become wrong decisions about people.

What good looks like: columns and their types are those of the training data, few values are missing,
there are enough rows, and every expectation of the workload's suite holds.

How to fix it: repair the data at its source, so that it stays repaired. If a value is right and the
expectation is wrong, change the suite in config/expectations/ and say why; the change is
versioned. Helpful tools: Great Expectations; the rows are named in expectations.json.
"""

from __future__ import annotations

import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.held import HeldLimit
from airlock.core.statistics import exceeds, percent
from airlock.core.suite import Expectation, Freshness, Suite
from airlock.gates.base import GateContext, Need, Stage, cannot_judge
from airlock.profiles.batch import Batch, open_batch
from airlock.profiles.expectations import Outcome, SuiteError, plain, run_suite
from airlock.profiles.source import Column, ParquetSource, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGE = Stage.BEFORE_SCORING
NEEDS = (Need.CURRENT, Need.REFERENCE, Need.SUITE)

_EXAMPLES = 3
_NAMED = 4
"""Findings named in the summary; all are in the evidence."""

_LISTED = 12


class Config(Value):
    """Limits of the data quality gate.

    Attributes:
        minimum_rows: a batch with fewer rows cannot be judged.
        maximum_null_share: largest allowed share of missing values in a feature.
        nullable_columns: features that may miss any number of values.
    """

    minimum_rows: Annotated[int, Field(ge=1)]
    maximum_null_share: Annotated[float, Field(ge=0, le=1)]
    nullable_columns: list[str]


HELD = (HeldLimit("maximum_null_share", "nulls", metric="null_share", some_free=True, may_be_absent=True),)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Check the evaluation batch against its contract and its suite."""
    with ExitStack() as opened:
        current = opened.enter_context(open_source(context.current_path()))
        training = _training(context, opened)
        if not current.rows():
            return cannot_judge("rows.none", "the evaluation batch has no rows", fix="choose another batch")
        batch = opened.enter_context(open_batch(current))
        try:
            suite = Suite.model_validate(context.suite())
            outcomes = run_suite(suite, batch)
        except (ValidationError, SuiteError) as error:
            return cannot_judge(
                "suite.invalid",
                f"the expectation suite cannot be used: {plain(error)}",
                fix="correct the suite in config/expectations/",
                where="" if context.workload is None else context.workload.data.expectations,
            )
        return _judged(_Case(context, config, batch, training, suite, outcomes))


def _training(context: GateContext, opened: ExitStack) -> ParquetSource | None:
    """The training data; ``None`` where plain files are judged without any. A release always has it."""
    if not context.has_reference and context.manifest is None:
        return None
    return opened.enter_context(open_source(context.reference_path()))


@dataclass(frozen=True)
class _Case:
    """What is judged and what came out."""

    context: GateContext
    config: Config
    batch: Batch
    training: ParquetSource | None
    suite: Suite
    outcomes: list[Outcome]

    @cached_property
    def secret(self) -> set[str]:
        return set(self.context.columns.identifiers)

    @cached_property
    def duplicates(self) -> int:
        return self.batch.repeated_rows()

    def unusable(self, column: str) -> int:
        """Values that are missing or infinite: a model can use neither."""
        inside, known = self.batch.column(column), self.batch.columns[column]
        counted = [f"count(*) - count({inside})"]
        if known.type in ("float", "double"):
            counted.append(f"count(*) FILTER (WHERE isinf({inside}))")
        return sum(map(int, self.batch.ask(counted)))


def _judged(case: _Case) -> GateResult:
    findings = [
        *_row_findings(case),
        *_schema_findings(case),
        *_null_findings(case),
        *_suite_findings(case),
        *_expectation_findings(case),
    ]
    suite, context = case.suite, case.context
    records = [_record(expectation, outcome, case.secret) for expectation, outcome in _pairs(case)]
    named = {"name": suite.name, "version": suite.version}
    context.attach("expectations.json", canonical_json({"suite": named, "expectations": records}))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(findings, suite, case.batch.rows),
        findings=findings,
        metrics=list(_metrics(case)),
        engines=_engines(case.outcomes),
        details={"suite": named, "rows": case.batch.rows},
    )


def _row_findings(case: _Case) -> Iterator[Finding]:
    rows, minimum = case.batch.rows, case.config.minimum_rows
    if rows < minimum:
        yield Finding(
            id="rows.too_few",
            verdict=Verdict.ERROR,
            message=f"the evaluation batch has {rows} rows, but {minimum} are needed",
            fix="choose an evaluation batch with more rows",
        )
    if case.duplicates:
        yield Finding(
            id="rows.duplicated",
            verdict=Verdict.PASSED,
            message=f"{case.duplicates} of {rows} rows repeat an earlier row in every column",
            fix="check whether an upstream job delivers rows twice",
        )
    target = case.context.columns.label
    if target in case.batch.columns:
        inside = case.batch.column(target)
        if unknown := int(case.batch.ask([f"count(*) - count({inside})"])[0]):
            yield Finding(
                id="target.missing",
                verdict=Verdict.ERROR,
                message=f"{target}: the outcome of {unknown} of {rows} rows is missing",
                where=target,
                fix="evaluate on rows whose outcome is known",
            )


def _schema_findings(case: _Case) -> Iterator[Finding]:
    """The contract: the columns and kinds of the training data, and all columns the workload names."""
    if case.training is None:
        yield Finding(
            id="schema.no_reference",
            verdict=Verdict.WARNED,
            message="there is no training data, so nobody knows whether columns or types changed",
            fix="give the data the model was trained on as the reference",
        )
        return
    columns, now, before = case.context.columns, case.batch.columns, case.training.columns()
    label = [] if columns.label is None else [columns.label]
    required = [*columns.features, *label, *sorted(columns.sensitive)]
    for column in dict.fromkeys([*required, *before]):
        if column not in now:
            verdict, text = Verdict.FAILED, f"column {column} is missing from the evaluation batch"
        elif column not in before:
            if column in columns.sensitive:
                continue  # protected attributes may be kept away from training
            verdict, text = Verdict.ERROR, f"column {column} is missing from the training data"
        elif (kind := _kind(case, column)) != (was := _words(before[column], case.training.empty(column))):
            verdict, text = Verdict.FAILED, f"column {column} holds {kind}, in the training data {was}"
        else:
            continue
        yield Finding(
            id="schema",
            verdict=verdict,
            message=text,
            where=str(column),
            fix="restore the column at its source, or retrain on the new schema and release that model",
        )
    for column in now:
        if column not in before and column not in required:
            yield Finding(
                id="schema.new_column",
                verdict=Verdict.WARNED,
                message=f"column {column} is new: the training data does not have it",
                where=column,
                fix="remove it from the batch, or retrain with it",
            )


def _kind(case: _Case, column: str) -> str:
    counted = case.batch.ask([f"count({case.batch.column(column)})"])
    return _words(case.batch.columns[column], not counted[0])


def _words(column: Column, empty: bool) -> str:  # noqa: FBT001  # a fact about the column
    """What a column holds, in words. Whole numbers become decimals when one is missing: both are numbers."""
    if empty:
        return "no values"
    zoned = column.kind == "time" and "tz=" in column.type
    return "time with a zone" if zoned else column.kind


def _null_findings(case: _Case) -> Iterator[Finding]:
    for feature in case.context.columns.features:
        if feature not in case.batch.columns or feature in case.config.nullable_columns:
            continue
        share = (missing := case.unusable(feature)) / case.batch.rows
        if exceeds(share, case.config.maximum_null_share):
            yield Finding(
                id="nulls",
                verdict=Verdict.FAILED,
                message=f"{feature}: {missing} of {case.batch.rows} values are missing or infinite "
                f"({percent(share)}, limit {percent(case.config.maximum_null_share)})",
                where=feature,
                fix="find out why the source stopped delivering the value; do not fill it in silently",
            )


def _suite_findings(case: _Case) -> Iterator[Finding]:
    """What the suite asks for besides its expectations: to be read by a person, and fresh data."""
    if not case.suite.reviewed:
        yield Finding(
            id="suite.unreviewed",
            verdict=Verdict.WARNED,
            message=f"nobody has reviewed suite {case.suite.name} {case.suite.version}, which was profiled "
            "from data: it may call faults of that data normal",
            fix="read every expectation, correct it, and set reviewed: true under a new version",
        )
    if case.suite.freshness is not None:
        yield from _freshness_findings(case, case.suite.freshness)


def _freshness_findings(case: _Case, wanted: Freshness) -> Iterator[Finding]:
    column, now = wanted.column, case.context.now_us()
    known = case.batch.columns.get(column)
    problem = ""
    if known is None:
        problem = f"column {column} is missing"
    elif known.kind != "time":
        problem = f"column {column} holds {known.kind}, not times"
    elif (newest := case.batch.newest(column)) is None:
        problem = f"column {column} has no values"
    if problem or known is None or newest is None:
        yield Finding(
            id="freshness", verdict=Verdict.ERROR, where=column, fix="correct freshness in the suite",
            message=f"freshness could not be checked: {problem}",
        )  # fmt: skip
        return
    hours = (now - newest) / 3_600_000_000
    if hours < 0 or exceeds(hours, wanted.maximum_age_hours):
        age = f"{hours:.1f} hours old" if hours >= 0 else f"{-hours:.1f} hours in the future"
        yield Finding(
            id="freshness",
            verdict=Verdict.FAILED,
            message=f"{column}: the newest row is {age}, limit {wanted.maximum_age_hours:g} hours",
            where=column,
            fix="find out why the source stopped delivering, and run it again",
        )


def _pairs(case: _Case) -> Iterator[tuple[Expectation, Outcome]]:
    return zip(case.suite.expectations, case.outcomes, strict=True)


def _expectation_findings(case: _Case) -> Iterator[Finding]:
    for expectation, outcome in _pairs(case):
        error = _error_of(outcome.data)
        if error:
            absent = [column for column in expectation.columns if column not in case.batch.columns]
            error = f"column {absent[0]} is missing" if absent else error
            verdict, message = Verdict.ERROR, f"{expectation.subject}: could not be checked: {error}"
        elif not outcome.data["success"]:
            verdict = Verdict.FAILED if expectation.severity == "fail" else Verdict.WARNED
            message = _describe(expectation, outcome.data["result"], case)
        else:
            continue
        yield Finding(
            id=expectation.type.removeprefix("expect_"),
            verdict=verdict,
            message=message,
            where=expectation.subject,
            fix=f"{expectation.why}; repair the data at its source, or correct the suite if it is wrong",
        )


def _error_of(outcome: dict[str, Any]) -> str:
    """Why an expectation has no answer; empty when it has one.

    Great Expectations reports an exception either flat or under the id of the metric that raised,
    and lets a column without any values pass.
    """
    info = outcome["exception_info"]
    if info.get("raised_exception") is not False:
        raised = [info] if "raised_exception" in info else list(info.values())
        return plain(Exception(raised[0].get("exception_message", "no reason given"))).removeprefix("Error: ")
    result = outcome["result"]
    if "missing_count" in result and result["missing_count"] == result["element_count"]:
        return "the column has no values"
    observed = result.get("observed_value", 0)
    if observed is None or (isinstance(observed, float) and math.isnan(observed)):
        return "it has no value on this data"
    return ""


def _describe(expectation: Expectation, result: dict[str, Any], case: _Case) -> str:
    """What was found, with counts and examples: ``term: 5 of 796 values above 480: 999999.4 (5 rows)``."""
    if "unexpected_count" not in result:
        return _describe_table(expectation, result)
    checked = result["element_count"] - result.get("missing_count", 0)
    noun = "values" if "column" in expectation.kwargs else "rows"
    text = (
        f"{expectation.subject}: {result['unexpected_count']} of {checked} {noun} "
        f"{_rule(expectation, result, case.batch)}"
    )
    if expectation.mostly < 1:
        text += f" (at least {percent(expectation.mostly)} must be right)"
    examples = _examples(expectation, result, case)
    return f"{text}: {examples}" if examples else text


def _rule(expectation: Expectation, result: dict[str, Any], batch: Batch) -> str:
    """The broken rule in words."""
    kwargs = expectation.kwargs
    match expectation.type.removeprefix("expect_column_values_to_"):
        case "be_in_set":
            return f"outside {{{', '.join(map(_number, kwargs['value_set']))}}}"
        case "not_be_in_set":
            return f"among the forbidden {{{', '.join(map(_number, kwargs['value_set']))}}}"
        case "be_between":
            return _broken_bound(kwargs, result["unexpected_count"], batch)
        case "not_be_null":
            return "missing"
        case "be_unique":
            return "not unique"
        case rule:
            return f"break '{rule.removeprefix('expect_').replace('_', ' ')}'{_arguments(expectation)}"


def _arguments(expectation: Expectation) -> str:
    """The arguments other than columns, such as `` (regex ^1)``."""
    kwargs = expectation.kwargs
    shown = [
        f"{key.rstrip('_')} {_number(kwargs[key])}"
        for key in sorted(kwargs)
        if key not in {"column", "column_A", "column_B", "column_list", "mostly"}
    ]
    return f" ({', '.join(shown)})" if shown else ""


def _broken_bound(kwargs: dict[str, Any], unexpected: int, batch: Batch) -> str:
    """``above 480`` or ``below 0`` when all unexpected values lie on that side, else both bounds."""
    low, high, inside = kwargs.get("min_value"), kwargs.get("max_value"), batch.column(kwargs["column"])

    def beyond(sign: str, bound: Any) -> int:
        if not isinstance(bound, int | float) or not math.isfinite(bound):
            return -1  # times and texts are compared by Great Expectations alone
        return int(batch.ask([f"count(*) FILTER (WHERE {inside} {sign} ({bound!r}))"])[0])

    if low is None or (high is not None and beyond(">", high) == unexpected):
        return f"above {_number(high)}"
    if high is None or beyond("<", low) == unexpected:
        return f"below {_number(low)}"
    return f"outside {_number(low)} to {_number(high)}"


def _describe_table(expectation: Expectation, result: dict[str, Any]) -> str:
    """For expectations about a whole column or table: the observed and the expected value."""
    words = re.sub(r"^expect_(column|table|multicolumn)_", "", expectation.type).replace("_", " ")
    observed, kwargs = result.get("observed_value"), expectation.kwargs
    if words.endswith(" to be between"):
        low, high = kwargs.get("min_value"), kwargs.get("max_value")
        limits = [f"at least {_number(low)}"] * (low is not None) + [f"at most {_number(high)}"] * (
            high is not None
        )
        quantity = words.removesuffix(" to be between")
        return f"{expectation.subject}: {quantity} is {_number(observed)}, expected {' and '.join(limits)}"
    differences = result.get("details", {}).get("mismatched", {})
    if isinstance(differences, dict) and differences:
        shown = "; ".join(f"{key} {_number(value)}" for key, value in sorted(differences.items()))
    else:
        shown = f"observed {_number(observed)}"
    return f"{expectation.subject}: expected {words}{_arguments(expectation)}; {shown}"


def _examples(expectation: Expectation, result: dict[str, Any], case: _Case) -> str:
    """Up to three unexpected values with the number of rows they are on; none of identifiers."""
    column = expectation.kwargs.get("column")
    if _is_secret(expectation, case.secret):
        return ""
    counts = {str(one["value"]): one["count"] for one in result.get("partial_unexpected_counts", [])}
    values: list[Any] = []
    for value in result.get("partial_unexpected_list", []):
        if value is not None and value not in values:
            values.append(value)
    shown, covered = [], 0
    for value in values[:_EXAMPLES]:
        rows = case.batch.occurrences(column, value) if column in case.batch.columns else None
        rows = counts.get(str(value), 1) if rows is None else rows
        covered += rows
        shown.append(_number(value) + (f" ({rows} rows)" if rows > 1 else ""))
    if shown and covered < result["unexpected_count"]:
        shown.append("…")
    return ", ".join(shown)


def _is_secret(expectation: Expectation, secret: set[str]) -> bool:
    return not secret.isdisjoint(expectation.columns)


def _number(value: object) -> str:
    """A value as people write it: seven digits, no trailing zeros, long lists cut short."""
    if isinstance(value, dict):
        return _number([f"{key} {_number(item)}" for key, item in value.items()])
    if isinstance(value, list | tuple | set):
        shown = [_number(item) for item in list(value)[:_LISTED]]
        return f"[{', '.join(shown)}{', …' if len(value) > _LISTED else ''}]"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _record(expectation: Expectation, outcome: Outcome, secret: set[str]) -> dict[str, Any]:
    """One line of expectations.json: what was expected and found, with no ids and times."""
    result = outcome.data["result"]
    if _is_secret(expectation, secret):
        result = {key: value for key, value in result.items() if not key.startswith("partial_")}
    error = _error_of(outcome.data)
    found = {"success": bool(outcome.data["success"]) and not error, "error": error, "engine": outcome.engine}
    cleaned: dict[str, Any] = _finite(expectation.to_data() | found | {"result": result})
    return cleaned


def _finite(value: Any) -> Any:
    """Replace by text what canonical JSON has no word for: NaN, infinities, huge integers, dates."""
    if hasattr(value, "item"):
        value = value.item()  # a scalar of numpy
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**53:
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _metrics(case: _Case) -> Iterator[Metric]:
    rows, minimum = case.batch.rows, case.config.minimum_rows
    yield Metric(name="rows", value=rows, threshold=minimum, direction="higher", unit="rows", n=rows)
    yield Metric(name="duplicate_rows", value=case.duplicates, direction="lower", unit="rows", n=rows)
    held = sum(bool(outcome.data["success"]) for outcome in case.outcomes)
    used = _engines(case.outcomes)
    yield Metric(
        name="expectations_met",
        value=held / len(case.outcomes),
        direction="higher",
        n=len(case.outcomes),
        engine=", ".join(f"{name} {version}" for name, version in used.items()),
    )
    for feature in case.context.columns.features:
        if feature in case.batch.columns:
            nullable = feature in case.config.nullable_columns
            yield Metric(
                name="null_share",
                value=case.unusable(feature) / rows,
                threshold=None if nullable else case.config.maximum_null_share,
                direction="lower",
                n=rows,
                where=feature,
            )


def _summary(findings: list[Finding], suite: Suite, rows: int) -> str:
    serious = [finding for finding in findings if finding.verdict is not Verdict.PASSED]
    if not serious:
        return (
            f"All expectations ({len(suite.expectations)}) hold on {rows} rows, and columns, types and "
            "missing values are as they should be."
        )
    blocking = [finding for finding in serious if not finding.verdict.allows] or serious
    named = "; ".join(finding.message for finding in blocking[:_NAMED])
    more = f"; and {len(blocking) - _NAMED} more" if len(blocking) > _NAMED else ""
    things = "One thing is" if len(blocking) == 1 else f"{len(blocking)} things are"
    return f"{things} wrong with the evaluation data: {named}{more}."


def _engines(outcomes: list[Outcome]) -> dict[str, str]:
    """Who judged the expectations, with versions."""
    from importlib.metadata import version

    return {engine: version(engine) for engine in sorted({outcome.engine for outcome in outcomes})}
