"""Performance: is the candidate good enough, and not worse than what is in production.

Why it matters: every wrong decision costs money or harms somebody. A model that looks good by itself
can still be a step back from the one it replaces, so both are measured on the same rows.

What good looks like: every metric reaches its floor, the primary metric is not worse than the
champion's by more than the allowed share, and the interval around the difference is narrow enough
that this is not luck.

How to fix it: look at the slices for the group of rows where it loses; compare the training data and
features with the champion's; tune or retrain. If the interval is wide, evaluate on more rows.
Helpful tools: scikit-learn's metrics and inspection modules, SHAP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.statistics import exceeds, percent
from airlock.gates.base import GateContext, Need, Stage, group_names, unusable_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

STAGE = Stage.AFTER_SCORING
NEEDS = (Need.CURRENT, Need.PREDICTIONS)

MetricName = Literal["accuracy", "precision", "recall", "f1", "roc_auc", "brier", "log_loss"]

_SMALLER_IS_BETTER = {"brier", "log_loss"}
_WORDS = {"f1": "F1", "roc_auc": "ROC AUC", "brier": "Brier score", "log_loss": "log loss"}
_SEED = 20_240_601
_OUTSIDE = 10
"""Replicates that must lie outside an interval, else its ends are single draws."""
_CELLS_AT_ONCE = 4_000_000
"""Bootstrap weights held in memory at a time: 32 MB."""


class Config(Value):
    """Limits of the performance gate.

    Attributes:
        primary_metric: the metric that is compared with the champion's.
        minimum_rows: fewer evaluation rows than this cannot be judged.
        floors: metric → the value it must reach; for ``brier`` and ``log_loss``, where smaller is
            better, the value it must not exceed.
        maximum_worsening: share of the champion's primary metric the candidate may lose.
        confidence: confidence of the bootstrap intervals.
        bootstrap_replicates: how often the rows are redrawn for the intervals.
    """

    primary_metric: MetricName
    minimum_rows: Annotated[int, Field(ge=2)]
    floors: Annotated[dict[MetricName, float], Field(min_length=1)]
    maximum_worsening: Annotated[float, Field(ge=0, le=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap_replicates: Annotated[int, Field(ge=100, le=100_000)]

    @model_validator(mode="after")
    def _intervals_need_replicates(self) -> Self:
        if self.bootstrap_replicates * (1 - self.confidence) < _OUTSIDE:
            raise ValueError("too few bootstrap_replicates for intervals at this confidence")
        return self


@dataclass(frozen=True)
class _Model:
    """Outcomes, scores and decisions of one model on the evaluation batch."""

    name: str
    outcome: Floats
    score: Floats
    decision: Floats

    def where(self, rows: npt.NDArray[np.bool_]) -> _Model:
        return _Model(self.name, self.outcome[rows], self.score[rows], self.decision[rows])


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Measure candidate and champion on the same rows and compare them."""
    target = context.label
    frame, scores = context.evaluation(), context.scores().frame
    has_champion = context.has_champion
    problem = unusable_scores(
        frame, scores, minimum_rows=config.minimum_rows, champion=has_champion, target=target
    )
    if problem:
        return problem
    outcome = frame[target].to_numpy("float64")
    models = [
        _Model(
            name,
            outcome,
            scores[f"{name}_score"].to_numpy("float64"),
            scores[f"{name}_prediction"].to_numpy("float64"),
        )
        for name in (["candidate", "champion"] if has_champion else ["candidate"])
    ]
    values = {model.name: measure(model.outcome, model.score, model.decision) for model in models}
    spread = _Spread(models, config)
    slices = _slices(context, models, config.primary_metric)
    change = _change(values, config.primary_metric) if has_champion else None
    findings = [
        *_floor_findings(values["candidate"], config),
        *_change_findings(values, change, spread, config),
    ]
    table = {"rows": len(frame), "metrics": values, "change": change, "slices": slices, **spread.table()}
    context.attach("performance.json", canonical_json(table))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(values, change, findings, config),
        findings=findings,
        metrics=[
            *_metrics(values, spread, len(frame), config),
            *_slice_metrics(slices),
        ],
        engines=_engines(),
        details={"primary_metric": config.primary_metric} | ({"change": change} if change else {}),
    )


def measure(outcome: Floats, score: Floats, decision: Floats) -> dict[str, float | None]:
    """The seven metrics by scikit-learn; ``None`` where one is undefined for these rows.

    Undefined are: roc_auc when all outcomes are the same, precision when nobody is decided 1,
    recall when no outcome is 1, f1 when neither occurs.
    """
    from sklearn import metrics

    some_true, some_false, some_selected = outcome.any(), (outcome == 0).any(), decision.any()
    return {
        "accuracy": float(metrics.accuracy_score(outcome, decision)),
        "precision": float(metrics.precision_score(outcome, decision)) if some_selected else None,
        "recall": float(metrics.recall_score(outcome, decision)) if some_true else None,
        "f1": float(metrics.f1_score(outcome, decision)) if some_true or some_selected else None,
        "roc_auc": float(metrics.roc_auc_score(outcome, score)) if some_true and some_false else None,
        "brier": float(metrics.brier_score_loss(outcome, score, pos_label=1)),
        "log_loss": float(metrics.log_loss(outcome, score, labels=[0, 1])),
    }


def _change(values: dict[str, dict[str, float | None]], primary: str) -> dict[str, Any] | None:
    """Size and direction of the primary metric's change, relative to the champion's value.

    ``relative`` is rounded to 12 decimals: policy rules compare it with their limits.
    """
    relative = _relative(values["candidate"][primary], values["champion"][primary], primary)
    if relative is None:
        return None
    direction = "same" if relative == 0 else ("better" if relative > 0 else "worse")
    return {"metric": primary, "relative": abs(relative), "direction": direction}


def _relative(candidate: float | None, champion: float | None, metric: str) -> float | None:
    """Signed improvement over the champion as a share of its value; positive is better."""
    if candidate is None or champion is None or champion <= 0:
        return None
    sign = -1 if metric in _SMALLER_IS_BETTER else 1
    return round(sign * (candidate - champion) / champion, 12)


def _floor_findings(values: dict[str, float | None], config: Config) -> Iterator[Finding]:
    for metric, floor in sorted(config.floors.items()):
        value = values[metric]
        if value is None:
            yield _undefined(metric, "candidate")
        elif metric in _SMALLER_IS_BETTER and exceeds(value, floor):
            yield _finding("floor", f"{_word(metric)} is {value:.4g}, above its limit of {floor:.4g}", metric)
        elif metric not in _SMALLER_IS_BETTER and exceeds(floor, value):
            yield _finding("floor", f"{_word(metric)} is {value:.4g}, below its floor of {floor:.4g}", metric)


def _change_findings(
    values: dict[str, dict[str, float | None]],
    change: dict[str, Any] | None,
    spread: _Spread,
    config: Config,
) -> Iterator[Finding]:
    metric, limit = config.primary_metric, config.maximum_worsening
    if "champion" not in values:
        return
    if change is None:
        undefined = "candidate" if values["candidate"][metric] is None else "champion"
        yield _undefined(metric, undefined)
        return
    lost = change["relative"] if change["direction"] == "worse" else 0.0
    if exceeds(lost, limit):
        moved = "rises" if metric in _SMALLER_IS_BETTER else "falls"
        pair = f"{values['champion'][metric]:.4g} to {values['candidate'][metric]:.4g}"
        worse = f"{percent(lost)} worse than the champion, limit {percent(limit)}"
        yield _finding("worse_than_champion", f"{_word(metric)} {moved} from {pair}: {worse}", metric)
    elif (interval := spread.change) and exceeds(-interval[0], limit):
        between = f"{_signed(interval[0])} and {_signed(interval[1])}"
        yield Finding(
            id="uncertain_change",
            verdict=Verdict.PASSED,
            message=f"the change of {_word(metric)} lies between {between} at {percent(config.confidence)} "
            f"confidence: a loss beyond the limit of {percent(limit)} cannot be ruled out with so few rows",
            where=metric,
            fix="evaluate on more rows to be sure",
        )


def _finding(kind: str, message: str, metric: str) -> Finding:
    fix = (
        "compare the slices in performance.json to find where it loses, then review training data and "
        "features against the champion's and retrain"
    )
    return Finding(id=kind, verdict=Verdict.FAILED, message=message, where=metric, fix=fix)


def _undefined(metric: str, model: str) -> Finding:
    return Finding(
        id="undefined",
        verdict=Verdict.ERROR,
        message=f"{_word(metric)} of the {model} is undefined or zero on this batch, so it cannot be judged",
        where=metric,
        fix="evaluate on a batch that holds both outcomes, and on which the model decides both ways",
    )


def _word(metric: str) -> str:
    return _WORDS.get(metric, metric)


def _signed(share: float) -> str:
    return f"{100 * share:+.1f} %"


class _Spread:
    """Paired bootstrap: both models on the same redrawn rows, all metrics from the same weights.

    Attributes:
        intervals: (model, metric) → percentile interval.
        change: percentile interval of the signed relative change, when there is a champion.
    """

    def __init__(self, models: list[_Model], config: Config) -> None:
        import numpy as np

        draws = _bootstrap(models, config.bootstrap_replicates)
        tails = [(1 - config.confidence) / 2, (1 + config.confidence) / 2]

        def interval(values: Floats) -> tuple[float, float] | None:
            defined = values[np.isfinite(values)]
            if len(defined) < len(values) / 2:
                return None
            low, high = np.quantile(defined, tails)
            return round(float(low), 9), round(float(high), 9)

        self.confidence = config.confidence
        self.intervals = {key: interval(values) for key, values in draws.items()}
        self.change: tuple[float, float] | None = None
        if len(models) > 1:
            candidate, champion = (draws[model.name, config.primary_metric] for model in models)
            sign = -1 if config.primary_metric in _SMALLER_IS_BETTER else 1
            with np.errstate(divide="ignore", invalid="ignore"):
                self.change = interval(sign * (candidate - champion) / champion)

    def table(self) -> dict[str, Any]:
        """For ``performance.json``."""
        nested: dict[str, dict[str, Any]] = {}
        for (model, metric), interval in self.intervals.items():
            nested.setdefault(model, {})[metric] = interval
        return {"confidence": self.confidence, "intervals": nested, "change_interval": self.change}


def _bootstrap(models: list[_Model], replicates: int) -> dict[tuple[str, str], Floats]:
    """Every metric of every model on ``replicates`` redraws of the rows; NaN where undefined."""
    import numpy as np

    rng = np.random.default_rng(_SEED)
    rows = len(models[0].outcome)
    chunk = max(1, _CELLS_AT_ONCE // rows)
    parts: dict[tuple[str, str], list[Floats]] = {}
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        drawn = rng.integers(0, rows, (size, rows)) + np.arange(size)[:, None] * rows
        weights = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype("float64")
        for model in models:
            for metric, values in weighted_metrics(
                model.outcome, model.score, model.decision, weights
            ).items():
                parts.setdefault((model.name, metric), []).append(values)
    return {key: np.concatenate(values) for key, values in parts.items()}


def weighted_metrics(outcome: Floats, score: Floats, decision: Floats, weights: Floats) -> dict[str, Floats]:
    """The metrics of :func:`measure` for many weightings of the same rows at once.

    Law: each row of the result equals scikit-learn's metric with that row as ``sample_weight``.
    """
    import numpy as np

    inside = np.clip(score, np.finfo("float64").eps, 1 - np.finfo("float64").eps)
    log_loss = -(outcome * np.log(inside) + (1 - outcome) * np.log(1 - inside))
    columns = [
        np.ones_like(outcome),
        outcome,
        decision,
        outcome * decision,
        outcome == decision,
        (score - outcome) ** 2,
        log_loss,
    ]
    total, positive, selected, hit, right, brier, loss = (weights @ np.column_stack(columns)).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "accuracy": right / total,
            "precision": hit / selected,
            "recall": hit / positive,
            "f1": 2 * hit / (positive + selected),
            "roc_auc": _weighted_auc(outcome, score, weights) / (positive * (total - positive)),
            "brier": brier / total,
            "log_loss": loss / total,
        }


def _weighted_auc(outcome: Floats, score: Floats, weights: Floats) -> Floats:
    """Weight of (positive, negative) pairs that are ranked right, ties counting half."""
    import numpy as np

    _, place = np.unique(score, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    positive = np.add.reduceat((weights * outcome)[:, order], starts, axis=1)
    negative = np.add.reduceat((weights * (1 - outcome))[:, order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    result: Floats = (positive * (below + negative / 2)).sum(axis=1)
    return result


def _slices(context: GateContext, models: list[_Model], primary: str) -> list[dict[str, Any]]:
    """Accuracy and the primary metric of each protected group, for both models."""
    import numpy as np

    slices: list[dict[str, Any]] = []
    frame = context.evaluation()
    for column, words in sorted(context.columns.sensitive.items()):
        if column not in frame:
            continue
        names = np.array(group_names(frame[column], words), dtype=object)
        for name in sorted(set(names)):
            rows = names == name
            entry: dict[str, Any] = {"attribute": column, "group": name, "n": int(rows.sum())}
            for model in (model.where(rows) for model in models):
                values = measure(model.outcome, model.score, model.decision)
                entry[model.name] = {metric: values[metric] for metric in sorted({"accuracy", primary})}
            slices.append(entry)
    return slices


def _metrics(
    values: dict[str, dict[str, float | None]], spread: _Spread, rows: int, config: Config
) -> list[Metric]:
    result = []
    for model, measured in values.items():
        for metric, value in measured.items():
            interval = spread.intervals[model, metric] if value is not None else None
            result.append(
                Metric(
                    name=metric if model == "candidate" else f"champion.{metric}",
                    value=value,
                    threshold=config.floors.get(metric) if model == "candidate" else None,  # type: ignore[call-overload]
                    direction="lower" if metric in _SMALLER_IS_BETTER else "higher",
                    interval=interval,
                    confidence=config.confidence if interval else None,
                    n=rows,
                    engine=f"scikit-learn {_engines()['scikit-learn']}",
                )
            )
    if "champion" in values:
        primary = config.primary_metric
        result.append(
            Metric(
                name="change",
                value=_relative(values["candidate"][primary], values["champion"][primary], primary),
                threshold=-config.maximum_worsening,
                direction="higher",
                interval=spread.change,
                confidence=config.confidence if spread.change else None,
                n=rows,
                where=primary,
                engine=f"scikit-learn {_engines()['scikit-learn']}",
            )
        )
    return result


def _slice_metrics(slices: list[dict[str, Any]]) -> list[Metric]:
    return [
        Metric(
            name=f"slice.{metric}",
            value=value,
            direction="lower" if metric in _SMALLER_IS_BETTER else "higher",
            n=entry["n"],
            where=f"{entry['attribute']}: {entry['group']}",
            engine=f"scikit-learn {_engines()['scikit-learn']}",
        )
        for entry in slices
        for metric, value in entry["candidate"].items()
    ]


def _summary(
    values: dict[str, dict[str, float | None]],
    change: dict[str, Any] | None,
    findings: list[Finding],
    config: Config,
) -> str:
    serious = [finding for finding in findings if finding.verdict is not Verdict.PASSED]
    if serious:
        first = max(serious, key=lambda finding: finding.verdict is Verdict.ERROR)
        more = f" (and {len(serious) - 1} more)" if len(serious) > 1 else ""
        return f"{first.message[0].upper()}{first.message[1:]}{more}."
    metric = config.primary_metric
    value = values["candidate"][metric]
    has = f"{_word(metric)} is {'undefined here' if value is None else format(value, '.4g')}"
    if change is None:
        return f"Every floor is reached; {has}, and there is no champion to compare with."
    if change["direction"] == "same":
        return f"Every floor is reached; {has}, the same as the champion's."
    return (
        f"Every floor is reached; {has}, {percent(change['relative'])} {change['direction']} than the "
        f"champion's {values['champion'][metric]:.4g} on the same rows."
    )


def _engines() -> dict[str, str]:
    from importlib.metadata import version

    return {"scikit-learn": version("scikit-learn"), "numpy": version("numpy")}
