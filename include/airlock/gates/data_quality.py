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
import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.statistics import exceeds, percent
from airlock.gates.base import GateContext, Need, Stage, cannot_judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

STAGE = Stage.BEFORE_SCORING
NEEDS = (Need.CURRENT, Need.REFERENCE, Need.SUITE)

_EXAMPLES = 3
_NAMED = 4
"""Findings named in the summary; all are in the evidence."""

_LISTED = 12
_KINDS = {"i": "number", "u": "number", "f": "number", "b": "boolean", "M": "time", "m": "duration"}
_CONTROLS = {"batch_id", "catch_exceptions", "id", "meta", "result_format", "severity"}
"""Arguments of every expectation that say how it is run, not what is expected."""


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


class Expectation(Value):
    """One line of a suite. What would pass on any data is refused."""

    type: Annotated[str, Field(pattern=r"^expect_[a-z0-9_]+$", description="name in Great Expectations")]
    kwargs: Annotated[dict[str, Any], Field(description="its arguments, such as column and min_value")]
    severity: Annotated[Literal["fail", "warn"], Field(description="verdict when it does not hold")] = "fail"
    why: Annotated[str, Field(min_length=1, description="why it is expected, for the one it blocks")]

    @model_validator(mode="after")
    def _can_fail(self) -> Self:
        if control := sorted(_CONTROLS & set(self.kwargs)):
            raise ValueError(f"{self.type} must not set {control[0]!r}")
        if self.mostly <= 0:
            raise ValueError(f"{self.type} with mostly {self.mostly:g} accepts anything")
        bounds = [self.kwargs.get("min_value"), self.kwargs.get("max_value")]
        if self.type.endswith("_to_be_between") and bounds == [None, None]:
            raise ValueError(f"{self.type} without min_value and max_value accepts anything")
        return self

    @property
    def mostly(self) -> float:
        """The share of values that must be right."""
        mostly = self.kwargs.get("mostly", 1)
        return float(mostly) if isinstance(mostly, int | float) else 1.0

    @property
    def columns(self) -> list[str]:
        """The columns it is about; none when it is about the table."""
        named = [self.kwargs.get(key) for key in ("column", "column_A", "column_B")]
        return [str(column) for column in named if column] or list(
            map(str, self.kwargs.get("column_list", []))
        )

    @property
    def subject(self) -> str:
        """The columns it is about, or ``table``, in words."""
        return ", ".join(self.columns) or "table"


class Suite(Value):
    """A versioned suite of expectations, a YAML file in ``config/expectations/``; an empty one is invalid.

    The name of the file stands in the workload's ``data.expectations``. It looks like this::

        name: mortgage-approval
        version: 1.0.0
        description: What an application must look like before a model may see it.
        expectations:
          - type: expect_column_values_to_be_in_set
            kwargs: {column: gdlin, value_set: [0, 1]}
            severity: fail
            why: gdlin says whether guidelines are met, yes or no; 666 is a code

    ``type`` is any expectation of Great Expectations, ``severity`` may be ``warn``, and ``why`` is
    read by the person whose release it blocks.
    """

    name: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    description: Annotated[str, Field(min_length=1)]
    expectations: Annotated[list[Expectation], Field(min_length=1)]


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Check the evaluation batch against its contract and its suite."""
    frame, training = context.evaluation(), context.training()
    if not len(frame):
        return cannot_judge("rows.none", "the evaluation batch has no rows", fix="choose another batch")
    try:
        suite = Suite.model_validate(context.suite())
        outcomes = run_suite(suite, frame)
    except (ValidationError, _SuiteError) as error:
        return cannot_judge(
            "suite.invalid",
            f"the expectation suite cannot be used: {_plain(error)}",
            fix="correct the suite in config/expectations/",
            where="" if context.workload is None else context.workload.data.expectations,
        )
    secret = set(context.columns.identifiers)
    findings = [
        *_row_findings(frame, context, config),
        *_schema_findings(frame, training, context),
        *_null_findings(frame, context, config),
        *_expectation_findings(suite, outcomes, frame, secret),
    ]
    records = [_record(expectation, outcome, secret) for expectation, outcome in _pairs(suite, outcomes)]
    table = {"suite": {"name": suite.name, "version": suite.version}, "expectations": records}
    context.attach("expectations.json", canonical_json(table))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(findings, suite, frame),
        findings=findings,
        metrics=list(_metrics(frame, context, config, outcomes)),
        engines=_engines(),
        details={"suite": {"name": suite.name, "version": suite.version}, "rows": len(frame)},
    )


class _SuiteError(Exception):
    """The suite cannot be run as it is written."""


def run_suite(suite: Suite, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Let Great Expectations judge the frame once; outcomes in the order of the suite.

    Great Expectations drops what it does not know and calls an empty suite a success, so this
    checks that every expectation came back.

    Raises:
        _SuiteError: an expectation is unknown, cannot be built or was not evaluated.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    built = [_build(index, expectation) for index, expectation in enumerate(suite.expectations)]
    in_memory = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    gx_context = gx.get_context(project_config=in_memory, mode="ephemeral")
    asset = gx_context.data_sources.add_pandas("airlock").add_dataframe_asset("evaluation")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    result = batch.validate(
        gx.ExpectationSuite(name=suite.name, expectations=built),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": 20},
    ).to_json_dict()
    outcomes = {item["expectation_config"]["meta"]["index"]: item for item in result["results"]}
    evaluated = result["statistics"]["evaluated_expectations"]
    if not evaluated == len(outcomes) == len(suite.expectations):
        raise _SuiteError(f"only {evaluated} of {len(suite.expectations)} expectations were evaluated")
    return [outcomes[index] for index in range(len(outcomes))]


def _build(index: int, expectation: Expectation) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl

    try:
        return get_expectation_impl(expectation.type)(**expectation.kwargs, meta={"index": index})
    except ExpectationNotFoundError as error:
        raise _SuiteError(f"Great Expectations knows no {expectation.type}") from error
    except (TypeError, ValueError) as error:
        raise _SuiteError(f"{expectation.type} on {expectation.subject}: {_plain(error)}") from error


def _plain(error: Exception) -> str:
    """What went wrong, without addresses and links."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'suite'}: {first['msg'].removeprefix('Value error, ')}"
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))


def _row_findings(frame: pd.DataFrame, context: GateContext, config: Config) -> Iterator[Finding]:
    if len(frame) < config.minimum_rows:
        yield Finding(
            id="rows.too_few",
            verdict=Verdict.ERROR,
            message=f"the evaluation batch has {len(frame)} rows, but {config.minimum_rows} are needed",
            fix="choose an evaluation batch with more rows",
        )
    if duplicates := int(frame.duplicated().sum()):
        yield Finding(
            id="rows.duplicated",
            verdict=Verdict.PASSED,
            message=f"{duplicates} of {len(frame)} rows repeat an earlier row in every column",
            fix="check whether an upstream job delivers rows twice",
        )
    target = context.columns.label
    if target in frame and (unknown := int(frame[target].isna().sum())):
        yield Finding(
            id="target.missing",
            verdict=Verdict.ERROR,
            message=f"{target}: the outcome of {unknown} of {len(frame)} rows is missing",
            where=target,
            fix="evaluate on rows whose outcome is known",
        )


def _schema_findings(frame: pd.DataFrame, training: pd.DataFrame, context: GateContext) -> Iterator[Finding]:
    """The contract: the columns and kinds of the training data, and all columns the workload names."""
    columns = context.columns
    label = [] if columns.label is None else [columns.label]
    required = [*columns.features, *label, *sorted(columns.sensitive)]
    for column in dict.fromkeys([*required, *training.columns]):
        if column not in frame:
            verdict, text = Verdict.FAILED, f"column {column} is missing from the evaluation batch"
        elif column not in training:
            if column in columns.sensitive:
                continue  # protected attributes may be kept away from training
            verdict, text = Verdict.ERROR, f"column {column} is missing from the training data"
        elif (now := _kind(frame[column])) != (before := _kind(training[column])):
            verdict, text = Verdict.FAILED, f"column {column} holds {now}, in the training data {before}"
        else:
            continue
        yield Finding(
            id="schema",
            verdict=verdict,
            message=text,
            where=str(column),
            fix="restore the column at its source, or retrain on the new schema and release that model",
        )
    for column in frame.columns.difference([*training.columns, *required], sort=False):
        yield Finding(
            id="schema.new_column",
            verdict=Verdict.WARNED,
            message=f"column {column} is new: the training data does not have it",
            where=str(column),
            fix="remove it from the batch, or retrain with it",
        )


def _kind(column: pd.Series[Any]) -> str:
    """What a column holds, in words. Whole numbers become decimals when one is missing: both are numbers."""
    if not column.notna().any():
        return "no values"
    return _KINDS.get(getattr(column.dtype, "kind", "O"), "text")


def _missing(column: pd.Series[Any]) -> int:
    """Values that are missing or infinite: a model can use neither."""
    infinite = int(column.isin([math.inf, -math.inf]).sum()) if _kind(column) == "number" else 0
    return int(column.isna().sum()) + infinite


def _null_findings(frame: pd.DataFrame, context: GateContext, config: Config) -> Iterator[Finding]:
    for feature in context.columns.features:
        if feature not in frame or feature in config.nullable_columns:
            continue
        share = (missing := _missing(frame[feature])) / len(frame)
        if exceeds(share, config.maximum_null_share):
            yield Finding(
                id="nulls",
                verdict=Verdict.FAILED,
                message=f"{feature}: {missing} of {len(frame)} values are missing or infinite "
                f"({percent(share)}, limit {percent(config.maximum_null_share)})",
                where=feature,
                fix="find out why the source stopped delivering the value; do not fill it in silently",
            )


def _pairs(suite: Suite, outcomes: list[dict[str, Any]]) -> Iterator[tuple[Expectation, dict[str, Any]]]:
    return zip(suite.expectations, outcomes, strict=True)


def _expectation_findings(
    suite: Suite, outcomes: list[dict[str, Any]], frame: pd.DataFrame, secret: set[str]
) -> Iterator[Finding]:
    for expectation, outcome in _pairs(suite, outcomes):
        error = _error_of(outcome)
        if error:
            absent = [column for column in expectation.columns if column not in frame]
            error = f"column {absent[0]} is missing" if absent else error
            verdict, message = Verdict.ERROR, f"{expectation.subject}: could not be checked: {error}"
        elif not outcome["success"]:
            verdict = Verdict.FAILED if expectation.severity == "fail" else Verdict.WARNED
            message = _describe(expectation, outcome["result"], frame, secret)
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
        return _plain(Exception(raised[0].get("exception_message", "no reason given"))).removeprefix(
            "Error: "
        )
    result = outcome["result"]
    if "missing_count" in result and result["missing_count"] == result["element_count"]:
        return "the column has no values"
    return ""


def _describe(expectation: Expectation, result: dict[str, Any], frame: pd.DataFrame, secret: set[str]) -> str:
    """What was found, with counts and examples: ``term: 5 of 796 values above 480: 999999.4 (5 rows)``."""
    if "unexpected_count" not in result:
        return _describe_table(expectation, result)
    checked = result["element_count"] - result.get("missing_count", 0)
    noun = "values" if "column" in expectation.kwargs else "rows"
    text = (
        f"{expectation.subject}: {result['unexpected_count']} of {checked} {noun} "
        f"{_rule(expectation, result, frame)}"
    )
    if expectation.mostly < 1:
        text += f" (at least {percent(expectation.mostly)} must be right)"
    examples = _examples(expectation, result, frame, secret)
    return f"{text}: {examples}" if examples else text


def _rule(expectation: Expectation, result: dict[str, Any], frame: pd.DataFrame) -> str:
    """The broken rule in words."""
    kwargs = expectation.kwargs
    match expectation.type.removeprefix("expect_column_values_to_"):
        case "be_in_set":
            return f"outside {{{', '.join(map(_number, kwargs['value_set']))}}}"
        case "not_be_in_set":
            return f"among the forbidden {{{', '.join(map(_number, kwargs['value_set']))}}}"
        case "be_between":
            return _broken_bound(kwargs, result["unexpected_count"], frame)
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


def _broken_bound(kwargs: dict[str, Any], unexpected: int, frame: pd.DataFrame) -> str:
    """``above 480`` or ``below 0`` when all unexpected values lie on that side, else both bounds."""
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    column = frame[kwargs["column"]]
    if low is None or (high is not None and int((column > high).sum()) == unexpected):
        return f"above {_number(high)}"
    if high is None or int((column < low).sum()) == unexpected:
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


def _examples(expectation: Expectation, result: dict[str, Any], frame: pd.DataFrame, secret: set[str]) -> str:
    """Up to three unexpected values with the number of rows they are on; none of identifiers."""
    column = expectation.kwargs.get("column")
    if _is_secret(expectation, secret):
        return ""
    values: list[Any] = []
    for value in result.get("partial_unexpected_list", []):
        if value is not None and value not in values:
            values.append(value)
    shown, covered = [], 0
    for value in values[:_EXAMPLES]:
        rows = int((frame[column] == value).sum()) if column in frame else 1
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


def _record(expectation: Expectation, outcome: dict[str, Any], secret: set[str]) -> dict[str, Any]:
    """One line of expectations.json: what was expected and found, with no ids and times."""
    result = outcome["result"]
    if _is_secret(expectation, secret):
        result = {key: value for key, value in result.items() if not key.startswith("partial_")}
    error = _error_of(outcome)
    record = expectation.to_data() | {"success": bool(outcome["success"]) and not error, "error": error}
    cleaned: dict[str, Any] = _finite(record | {"result": result})
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


def _metrics(
    frame: pd.DataFrame, context: GateContext, config: Config, outcomes: list[dict[str, Any]]
) -> Iterator[Metric]:
    engine = f"great_expectations {_engines()['great_expectations']}"
    rows = len(frame)
    yield Metric(
        name="rows", value=rows, threshold=config.minimum_rows, direction="higher", unit="rows", n=rows
    )
    duplicates = int(frame.duplicated().sum())
    yield Metric(name="duplicate_rows", value=duplicates, direction="lower", unit="rows", n=rows)
    held = sum(bool(outcome["success"]) for outcome in outcomes)
    yield Metric(
        name="expectations_met",
        value=held / len(outcomes),
        direction="higher",
        n=len(outcomes),
        engine=engine,
    )
    for feature in context.columns.features:
        if feature in frame:
            nullable = feature in config.nullable_columns
            yield Metric(
                name="null_share",
                value=_missing(frame[feature]) / rows,
                threshold=None if nullable else config.maximum_null_share,
                direction="lower",
                n=rows,
                where=feature,
            )


def _summary(findings: list[Finding], suite: Suite, frame: pd.DataFrame) -> str:
    serious = [finding for finding in findings if finding.verdict is not Verdict.PASSED]
    if not serious:
        return (
            f"All expectations ({len(suite.expectations)}) hold on {len(frame)} rows, and columns, types and "
            "missing values are as they should be."
        )
    blocking = [finding for finding in serious if not finding.verdict.allows] or serious
    named = "; ".join(finding.message for finding in blocking[:_NAMED])
    more = f"; and {len(blocking) - _NAMED} more" if len(blocking) > _NAMED else ""
    things = "One thing is" if len(blocking) == 1 else f"{len(blocking)} things are"
    return f"{things} wrong with the evaluation data: {named}{more}."


def _engines() -> dict[str, str]:
    from importlib.metadata import version

    return {"great_expectations": version("great_expectations"), "pandas": version("pandas")}
