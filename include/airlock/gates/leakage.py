"""Leakage: whether the model was shown the answer, or the rows it is judged on.

Why it matters: a column that holds the answer, or rows that stand in training and evaluation alike, make a
model look brilliant until the day it is used. All other figures of the release are then about nothing.

What good looks like: no single feature tells the outcome almost perfectly; no row of the evaluation batch was
trained on; and where time matters, the model is judged on rows later than all it was trained on.

How to fix it: ask when each suspicious feature is known: what is written down after the decision, or because
of it, must go. Split before anything else, by person and not by row, and remove duplicates first. For
forecasts split by time. Helpful tools: scikit-learn's GroupKFold and TimeSeriesSplit; DuckDB for overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.columns import Task, label_text
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.held import HeldLimit
from airlock.core.statistics import exceeds, percent
from airlock.gates.base import GateContext, Need, Stage, cannot_judge

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

STAGE = Stage.BEFORE_SCORING
NEEDS = (Need.CURRENT, Need.REFERENCE)

_SHOWN = 20


class Config(Value):
    """Limits of the leakage gate."""

    target_auc: Annotated[
        float,
        Field(gt=0.5, le=1, description="a single feature that tells the outcome better is a leak: FAILED"),
    ]
    suspicious_auc: Annotated[
        float, Field(gt=0.5, le=1, description="a single feature that tells the outcome better is WARNED")
    ]
    maximum_overlap: Annotated[
        float, Field(ge=0, le=1, description="largest share of evaluation rows that also stand in training")
    ]
    minimum_rows: Annotated[int, Field(ge=2, description="rows with a known outcome that are needed")]
    time_order: Annotated[
        Literal["fail", "warn", "ignore"],
        Field(description="what evaluation rows older than training rows are"),
    ]


HELD = (HeldLimit("maximum_overlap", "overlap", metric="overlap_share"),)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Look for the answer in the features, training rows in the evaluation, and time that runs back."""
    current, reference = context.evaluation(), context.training()
    label, features = context.label, context.columns.features
    if not features:
        return cannot_judge("features.none", "no features are named", fix="name them in columns.features")
    for name, frame in (("evaluation batch", current), ("training data", reference)):
        if missing := [column for column in (label, *features) if column not in frame]:
            return cannot_judge(
                "missing_column",
                f"the {name} has no column {', '.join(missing)}",
                fix="add it, or correct the names",
            )
        known = int(frame[label].notna().sum())
        if known < config.minimum_rows:
            return cannot_judge(
                "rows.too_few",
                f"the {name} has {known} rows with a known outcome, but {config.minimum_rows} are needed",
                fix="choose data with more rows",
            )
        if frame[label].nunique() < 2:  # noqa: PLR2004  # with one outcome nothing can be told apart
            return cannot_judge(
                "outcome.one",
                f"the {name} has only one outcome",
                fix="choose data with more than one",
                where=label,
            )
    power = {name: _power(reference[name], reference[label], context.task) for name in features}
    rows, share = _overlap(current, reference, [*features, label])
    order = _time_order(current, reference, context.columns.time)
    findings = [*_target_findings(power, config), *_overlap_findings(rows, share, len(current), config)]
    findings += list(_time_findings(order, context.columns.time, config))
    context.attach("leakage.json", canonical_json({"auc": power, "overlap": rows, "time": order}))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(findings, power),
        findings=findings,
        metrics=list(_metrics(power, share, len(current), len(reference), config)),
    )


def _power(feature: pd.Series[Any], label: pd.Series[Any], task: Task) -> float:
    """How well one feature alone tells the outcome: 0.5 nothing, 1 everything.

    Of two outcomes: area under the ROC curve of the feature, or of the share of positives at each of its
    values where these are few; of several: the largest of one against the rest; of a quantity: concordance,
    from Spearman's rank correlation as (1 + |rho|) / 2.
    """
    import numpy as np

    known = label.notna().to_numpy()
    values = _ranks_of(feature)[known]
    outcome = label[label.notna()]
    if task is Task.REGRESSION:
        return _concordance(values, outcome.to_numpy("float64"))
    texts = np.array([label_text(value) for value in outcome], dtype=object)
    classes = sorted(set(texts))
    return max(_auc(values, texts == name) for name in (classes[-1:] if len(classes) <= 2 else classes))  # noqa: PLR2004  # two classes mirror each other


def _ranks_of(feature: pd.Series[Any]) -> npt.NDArray[np.float64]:
    """Numbers as they are; texts as codes; missing is a value of its own, below all others."""
    import numpy as np
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(feature):
        moments = pd.Series(feature.to_numpy("datetime64[ns]").astype("int64"), index=feature.index)
        feature = moments.where(feature.notna())
    numbers = pd.to_numeric(feature, errors="coerce").to_numpy("float64", na_value=np.nan)
    if np.isnan(numbers).sum() > feature.isna().sum():  # texts among them
        return pd.Series(feature.factorize()[0]).to_numpy("float64")
    return np.where(np.isnan(numbers), -np.inf, numbers)


def _auc(values: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve of the best scoring of single values; ties count half.

    For a feature with few values each is scored by its share of positives, so that a text, or a number
    whose middle value is the answer, is found too; else the values themselves are the score, in the better
    direction.
    """
    import numpy as np
    from scipy.stats import rankdata

    codes, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    few = len(codes) <= max(20, len(values) // 50)
    score = (np.bincount(places, positive) / counts)[places] if few else values
    ones = int(positive.sum())
    zeros = len(positive) - ones
    area = (rankdata(score)[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros)
    return float(max(area, 1 - area))


def _concordance(values: npt.NDArray[np.float64], outcome: npt.NDArray[np.float64]) -> float:
    import numpy as np
    from scipy.stats import rankdata

    if len(np.unique(values)) < 2 or not np.isfinite(outcome).all():  # noqa: PLR2004  # a constant tells nothing
        return 0.5
    rho = np.corrcoef(rankdata(values), rankdata(outcome))[0, 1]
    return float((1 + abs(rho)) / 2)


def _overlap(current: pd.DataFrame, reference: pd.DataFrame, columns: list[str]) -> tuple[int, float]:
    """How many evaluation rows stand in training too, in features and outcome, and their share.

    Rows are compared by DuckDB, a hash join; missing equals missing.
    """
    import duckdb

    with duckdb.connect() as connection:
        connection.register("evaluated", _named(current, columns))
        connection.register("trained", _named(reference, columns))
        same = " AND ".join(f"e.c{n} IS NOT DISTINCT FROM t.c{n}" for n in range(len(columns)))
        found = connection.execute(
            f"SELECT count(*) FROM evaluated e SEMI JOIN (SELECT DISTINCT * FROM trained) t ON {same}"  # noqa: S608  # names are ours
        ).fetchone()
    rows = 0 if found is None else int(found[0])
    return rows, rows / len(current)


def _named(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Only these columns, under plain names and comparable types: 1 and 1.0 are the same."""
    import pandas as pd

    named = frame[columns].copy()
    named.columns = pd.Index([f"c{number}" for number in range(len(columns))])
    for name in named:
        if pd.api.types.is_numeric_dtype(named[name]) and not pd.api.types.is_complex_dtype(named[name]):
            named[name] = named[name].astype("float64")
        else:
            named[name] = named[name].map(str, na_action="ignore").astype("object")
    return named


def _time_order(current: pd.DataFrame, reference: pd.DataFrame, time: str | None) -> dict[str, Any] | None:
    import pandas as pd

    if time is None or time not in current or time not in reference:
        return None
    try:
        now, before = (_moments(frame[time]) for frame in (current, reference))
    except (ValueError, TypeError):
        return {"problem": "holds values that are no time"}
    if now.isna().all() or before.isna().all():
        return {"problem": "holds no time"}
    last = before.max()
    early = int((now <= last).sum())
    return {"last_trained": str(pd.Timestamp(last)), "early": early, "rows": len(now)}


def _moments(column: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column.astype("float64")
    return pd.to_datetime(column, utc=True)


def _target_findings(power: dict[str, float], config: Config) -> Iterator[Finding]:
    for name, auc in sorted(power.items(), key=lambda item: (-item[1], item[0])):
        if exceeds(auc, config.target_auc):
            verdict, word, limit = Verdict.FAILED, "it holds the answer", config.target_auc
        elif exceeds(auc, config.suspicious_auc):
            verdict, word, limit = Verdict.WARNED, "ask when it is known", config.suspicious_auc
        else:
            return
        yield Finding(
            id="target",
            verdict=verdict,
            message=f"{name} alone tells the outcome with an AUC of {auc:.4f}, above {limit:g}: {word}",
            where=name,
            fix="train without it, unless it is known before the decision and not because of it",
        )


def _overlap_findings(rows: int, share: float, total: int, config: Config) -> Iterator[Finding]:
    if rows:
        yield Finding(
            id="overlap",
            verdict=Verdict.FAILED if exceeds(share, config.maximum_overlap) else Verdict.PASSED,
            message=f"{rows} of {total} evaluation rows ({percent(share)}) stand in the training data too, "
            f"{percent(config.maximum_overlap)} are allowed",
            fix="remove duplicates before splitting, and split by person instead of by row",
        )


def _time_findings(order: dict[str, Any] | None, time: str | None, config: Config) -> Iterator[Finding]:
    if time is None or config.time_order == "ignore":
        return
    verdict = Verdict.FAILED if config.time_order == "fail" else Verdict.WARNED
    if order is None:
        yield Finding(
            id="time.missing",
            verdict=Verdict.ERROR,
            message=f"column {time} is not in both data sets",
            where=time,
            fix="add the column to training and evaluation data",
        )
    elif "problem" in order:
        yield Finding(
            id="time.unusable",
            verdict=Verdict.ERROR,
            message=f"column {time} {order['problem']}",
            where=time,
            fix="write dates as 2026-01-31, or as numbers",
        )
    elif order["early"]:
        yield Finding(
            id="time.order",
            verdict=verdict,
            message=f"{order['early']} of {order['rows']} evaluation rows are as old as training rows",
            where=time,
            fix="train on the earlier rows and evaluate on the later ones",
        )


def _metrics(
    power: dict[str, float], share: float, rows: int, trained: int, config: Config
) -> Iterator[Metric]:
    for name, auc in sorted(power.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]:
        yield Metric(
            name="single_feature_auc",
            value=auc,
            threshold=config.target_auc,
            direction="lower",
            n=trained,
            where=name,
            method="ROC of one feature",
        )
    yield Metric(
        name="overlap_share",
        value=share,
        threshold=config.maximum_overlap,
        direction="lower",
        n=rows,
        method="hash join",
    )


def _summary(findings: list[Finding], power: dict[str, float]) -> str:
    bad = [finding.message for finding in findings if finding.verdict is not Verdict.PASSED]
    if bad:
        return f"{'; '.join(bad[:3])}{f'; and {len(bad) - 3} more' if len(bad) > 3 else ''}."  # noqa: PLR2004  # three fit into a sentence
    name = max(sorted(power), key=lambda name: power[name])
    return f"No feature holds the answer: {name} alone tells most, with an AUC of {power[name]:.3f}."
