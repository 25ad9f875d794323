"""Performance: is the candidate good enough, and not worse than what is in production.

Why it matters: every wrong decision costs money or harms somebody. A model that looks good by itself
can still be a step back from the one it replaces, so both are measured on the same rows.

What good looks like: every metric reaches its floor, the primary metric is not worse than the
champion's by more than the allowed share, and the interval around both is narrow enough that this is not
luck: where it lies on both sides of a limit the answer is "cannot tell", with the number of rows that would
settle it. No slice of the rows is far behind, and probabilities mean what they say.

How to fix it: look at the slices for the group of rows where it loses; compare the training data and
features with the champion's; tune or retrain. If the interval is wide, evaluate on more rows.
Helpful tools: scikit-learn's metrics and inspection modules, SHAP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from airlock.core.canonical import canonical_json
from airlock.core.columns import Task
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.held import HeldLimit
from airlock.core.judgement import CANNOT_TELL, judged
from airlock.core.statistics import percent
from airlock.gates._calibration import Calibration, calibration
from airlock.gates._config import Uncertain
from airlock.gates._measures import METRICS, OF_SCORES, SMALLER_IS_BETTER, MetricName, Uncertainty, measure
from airlock.gates._predictions import Predictions, groups_of, read_predictions
from airlock.gates.base import GateContext, Need, Stage, cannot_judge

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGE = Stage.AFTER_SCORING
NEEDS = (Need.CURRENT, Need.PREDICTIONS)

_WORDS = {
    "f1": "F1",
    "f1_macro": "macro F1",
    "roc_auc": "ROC AUC",
    "brier_score": "Brier score",
    "log_loss": "log loss",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
}


def _for_each_task(value: Any) -> Any:
    """One name stands for every task that has such a metric."""
    if not isinstance(value, str):
        return value
    tasks = [str(task) for task, names in METRICS.items() if value in names]
    if not tasks:
        raise ValueError(
            f"{value!r} is no metric; there are {', '.join(sorted(set().union(*METRICS.values())))}"
        )
    return dict.fromkeys(tasks, value)


class Config(Uncertain):
    """Limits of the performance gate.

    Attributes:
        primary_metric: the metric that is compared with the champion's: one, or one for each task.
        minimum_rows: fewer evaluation rows than this cannot be judged.
        floors: metric → the value it must reach; for losses and errors, where smaller is better, the value it
            must not exceed. Those of another task are not applied, and the gate says so.
        maximum_worsening: share of the champion's primary metric the candidate may lose.
        slices: columns whose values are slices, beside the protected attributes.
        minimum_slice_rows: a slice with fewer rows is reported, but cannot be judged.
        maximum_slice_worsening: share of its primary metric a slice may lie below all rows before it warns;
            ``null`` to report only.
        calibration_bins: bins of equal size that probabilities are compared in.
        maximum_calibration_error: expected calibration error from which it warns; ``null`` to report only.
    """

    primary_metric: Annotated[
        dict[Task, MetricName],
        Field(min_length=1),
        BeforeValidator(_for_each_task, json_schema_input_type=MetricName | dict[Task, MetricName]),
    ]
    minimum_rows: Annotated[int, Field(ge=2)]
    floors: Annotated[dict[MetricName, float], Field(min_length=1)]
    maximum_worsening: Annotated[float, Field(ge=0, le=1)]
    slices: list[Annotated[str, Field(min_length=1)]]
    minimum_slice_rows: Annotated[int, Field(ge=2)]
    maximum_slice_worsening: Annotated[float, Field(ge=0, le=1)] | None
    calibration_bins: Annotated[int, Field(ge=2, le=1000)]
    maximum_calibration_error: Annotated[float, Field(ge=0, le=1)] | None

    def primary(self, task: Task) -> str | None:
        """The primary metric of a task; ``None`` where none is named that it has."""
        name = self.primary_metric.get(task)
        return name if name in METRICS[task] else None


HELD = (
    HeldLimit("floors.*", "floor", may_be_absent=True),
    HeldLimit(
        "maximum_worsening",
        "worse_than_champion",
        metric="change",
        sign=-1,
        no_effect=0.0,
        may_be_absent=True,
    ),
    HeldLimit("maximum_calibration_error", "calibration", metric="calibration_error", verdict=Verdict.WARNED),
)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Measure candidate and champion on the same rows and compare them."""
    models = read_predictions(context, minimum_rows=config.minimum_rows)
    if isinstance(models, GateResult):
        return models
    task = context.task
    primary = config.primary(task)
    floors = [str(name) for name in sorted(config.floors) if name in METRICS[task]]
    if problem := _not_applicable(config, task, primary, floors, champion=len(models) > 1):
        return problem
    values = [measure(model) for model in models]
    sure = config.shared_by(len(floors) + len(models) - 1)
    spread = Uncertainty(models, values, sure, config.bootstrap_replicates)
    metrics = _model_metrics(spread, config)
    change = _change_metric(spread, primary, config) if primary and len(models) > 1 else None
    slices = _slices(context, models, primary or floors[0], config)
    reliability = _calibration(models, config)
    effect = _threshold_effect(context, models)
    findings = [
        *_floor_findings(metrics, floors, config),
        *(_change_findings(change, values, config) if change else []),
        *_slice_findings(slices, values[0], primary or floors[0], config),
        *_calibration_findings(reliability, config),
        *_told(config, task, floors, effect, models[0]),
    ]
    facts = _change_facts(change) if change else None
    table = {
        "rows": len(models[0].decision),
        "task": str(task),
        "confidence": config.confidence,
        "metrics": {model.model: measured for model, measured in zip(models, values, strict=True)},
        "intervals": {
            model.model: {name: spread.interval(name, place) for name in values[place]}
            for place, model in enumerate(models)
        },
        "change": facts,
        "change_interval": change.interval if change else None,
        "slices": slices,
        "calibration": None if reliability is None else vars(reliability),
        "threshold": effect,
    }
    context.attach("performance.json", canonical_json(table))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(values, primary or floors[0], facts, findings),
        findings=findings,
        metrics=[
            *metrics,
            *([change] if change else []),
            *_test_metrics(spread, primary),
            *_calibration_metrics(reliability, config),
            *_slice_metrics(slices),
        ],
        engines=_engines(),
        details={"primary_metric": primary, "task": str(task)}
        | ({"change": facts} if facts else {})
        | ({"threshold": effect} if effect else {}),
    )


def _not_applicable(
    config: Config, task: Task, primary: str | None, floors: list[str], *, champion: bool
) -> GateResult | None:
    if not floors:
        return cannot_judge(
            "floors.none_apply",
            f"none of the floors ({', '.join(sorted(config.floors))}) is a metric of a {task} model",
            fix=f"give at least one of {', '.join(METRICS[task])} a floor in the policy",
        )
    if champion and primary is None:
        return cannot_judge(
            "primary.none_applies",
            f"policy names no primary metric of a {task} model to compare with the champion's",
            fix=f"name one of {', '.join(METRICS[task])} under primary_metric",
        )
    return None


def _model_metrics(spread: Uncertainty, config: Config) -> list[Metric]:
    result = []
    for place, (model, values) in enumerate(zip(spread.models, spread.values, strict=True)):
        for name, value in values.items():
            interval = spread.interval(name, place)
            result.append(
                Metric(
                    name=name if place == 0 else f"champion.{name}",
                    value=value,
                    threshold=config.floors.get(name) if place == 0 else None,  # type: ignore[call-overload]
                    direction="lower" if name in SMALLER_IS_BETTER else "higher",
                    interval=interval,
                    confidence=config.confidence if interval else None,
                    n=len(model.decision),
                    engine=f"scikit-learn {_engines()['scikit-learn']}",
                    method=spread.method(name) if interval else "",
                )
            )
    return result


def _change_metric(spread: Uncertainty, primary: str, config: Config) -> Metric:
    value, interval = spread.change(primary)
    return Metric(
        name="change",
        value=value,
        threshold=-config.maximum_worsening,
        direction="higher",
        interval=interval,
        confidence=config.confidence if interval else None,
        n=len(spread.models[0].decision),
        where=primary,
        engine=f"scikit-learn {_engines()['scikit-learn']}",
        method=f"paired {spread.method(primary)}" if interval else "",
    )


def _test_metrics(spread: Uncertainty, primary: str | None) -> Iterator[Metric]:
    tested = spread.paired_test(primary) if primary else None
    if tested is not None:
        yield Metric(
            name="p_value",
            value=tested[0],
            n=len(spread.models[0].decision),
            where=primary or "",
            method=tested[1],
        )


def _change_facts(change: Metric) -> dict[str, Any] | None:
    """Size and direction of the primary metric's change, for the rules of the policy."""
    if change.value is None:
        return None
    direction = "same" if change.value == 0 else ("better" if change.value > 0 else "worse")
    return {"metric": change.where, "relative": abs(change.value), "direction": direction}


def _floor_findings(metrics: list[Metric], floors: list[str], config: Config) -> Iterator[Finding]:
    for metric in metrics:
        if metric.name not in floors:
            continue
        if metric.value is None:
            yield _undefined(metric.name, "candidate")
            continue
        beyond = "above its limit" if metric.direction == "lower" else "below its floor"
        text = f"{_word(metric.name)} is {metric.value:.4g}, {beyond} of {metric.threshold:.4g}"
        for found in judged(
            metric, config.judge, finding_id="floor", failed=text, fix=_FIX, label=_word(metric.name)
        ):
            yield found.model_copy(update={"where": metric.name})


def _change_findings(
    change: Metric, values: list[dict[str, float | None]], config: Config
) -> Iterator[Finding]:
    name, limit = change.where, config.maximum_worsening
    if change.value is None:
        yield _undefined(name, "candidate" if values[0][name] is None else "champion")
        return
    moved = "rises" if name in SMALLER_IS_BETTER else "falls"
    pair = f"{values[1][name]:.4g} to {values[0][name]:.4g}"
    worse = f"{percent(-change.value)} worse than the champion, limit {percent(limit)}"
    yield from judged(
        change,
        config.judge,
        finding_id="worse_than_champion",
        failed=f"{_word(name)} {moved} from {pair}: {worse}",
        fix=_FIX,
        label=f"the change of {_word(name)} against the champion",
        no_effect=0.0,
    )


_FIX = (
    "compare the slices in performance.json to find where it loses, then review training data and "
    "features against the champion's and retrain"
)


def _undefined(metric: str, model: str) -> Finding:
    scores = " or no score is given for it" if metric in OF_SCORES else ""
    return Finding(
        id="undefined",
        verdict=Verdict.ERROR,
        message=f"{_word(metric)} of the {model} is undefined or zero on this batch{scores}, so it cannot be "
        "judged",
        where=metric,
        fix="evaluate on a batch that holds both outcomes, and on which the model decides both ways"
        + ("; name the column with the scores" if scores else ""),
    )


def _word(metric: str) -> str:
    return _WORDS.get(metric, metric.replace("_", " "))


def _slices(
    context: GateContext, models: list[Predictions], primary: str, config: Config
) -> list[dict[str, Any]]:
    """The primary metric (and accuracy) of each slice, for both models; intervals hold all together."""
    import numpy as np

    frame, columns = context.evaluation(), context.columns
    chosen = {name: columns.sensitive.get(name, {}) for name in sorted({*columns.sensitive, *config.slices})}
    groups = {name: groups_of(frame[name], words) for name, words in chosen.items() if name in frame}
    sizes = {name: np.bincount(group.codes, minlength=len(group.names)) for name, group in groups.items()}
    sure = config.shared_by(sum(int((size >= config.minimum_slice_rows).sum()) for size in sizes.values()))
    slices: list[dict[str, Any]] = []
    for column, group in groups.items():
        small = np.flatnonzero(sizes[column] < config.minimum_slice_rows)
        left_out = set(small.tolist()) if len(small) > _SMALL_SLICES else set()
        for code, name in enumerate(group.names):
            if code in left_out:
                continue
            rows = np.flatnonzero(group.codes == code)
            parts = [model.where(rows) for model in models]
            values = [measure(part) for part in parts]
            large = len(rows) >= config.minimum_slice_rows
            spread = Uncertainty(parts[:1], values[:1], sure, config.bootstrap_replicates)
            shown = [metric for metric in dict.fromkeys(("accuracy", primary)) if metric in values[0]]
            entry: dict[str, Any] = {
                "attribute": column,
                "group": name,
                "n": len(rows),
                "judged": large,
                "interval": spread.interval(primary) if large else None,
            }
            for part, measured in zip(parts, values, strict=True):
                entry[part.model] = {metric: measured[metric] for metric in shown}
            slices.append(entry)
        if len(small) > _SMALL_SLICES:
            rest = {model.model: dict.fromkeys(("accuracy",)) | {primary: None} for model in models}
            about = {
                "attribute": column,
                "group": f"{len(small)} small groups",
                "n": int(sizes[column][small].sum()),
            }
            slices.append({**about, "judged": False, "interval": None, **rest})
    return slices


_SMALL_SLICES = 20
"""Slices under the minimum size that are measured one by one."""


def _slice_findings(
    slices: list[dict[str, Any]], whole: dict[str, float | None], primary: str, config: Config
) -> Iterator[Finding]:
    if config.maximum_slice_worsening is None or whole[primary] is None:
        return
    smaller = primary in SMALLER_IS_BETTER
    sign = 1 if smaller else -1
    limit = (whole[primary] or 0.0) + sign * config.maximum_slice_worsening * abs(whole[primary] or 0.0)
    for entry in slices:
        value, where = entry["candidate"][primary], f"{entry['attribute']}: {entry['group']}"
        if not entry["judged"] or value is None:
            yield Finding(
                id=f"{CANNOT_TELL}.slice",
                verdict=Verdict.PASSED,
                message=f"{_word(primary)} is not judged for {where}: "
                + (
                    "it is undefined there"
                    if entry["judged"]
                    else f"{entry['n']} rows of the {config.minimum_slice_rows} that are needed"
                ),
                where=where,
            )
            continue
        metric = Metric(
            name=primary,
            value=value,
            threshold=limit,
            direction="lower" if smaller else "higher",
            interval=entry["interval"],
            confidence=config.confidence,
            n=entry["n"],
            where=where,
        )
        against = f"against {whole[primary]:.4g} on all"
        text = f"{_word(primary)} is {value:.4g} for {where} ({entry['n']} rows), {against}"
        label = f"{_word(primary)} of {where}"
        for found in judged(
            metric, config.judge, finding_id="slice", failed=text, fix=_SLICE_FIX, label=label,
            verdict=Verdict.WARNED,
        ):  # fmt: skip
            # With many small slices nobody can tell for some: that is told and does not warn.
            unsure = found.id.startswith(CANNOT_TELL)
            yield found.model_copy(update={"verdict": Verdict.PASSED}) if unsure else found


_SLICE_FIX = (
    "look at the rows of this slice: are they fewer in training, or is a feature missing or measured "
    "differently there?"
)


def _calibration(models: list[Predictions], config: Config) -> Calibration | None:
    candidate = models[0]
    if candidate.task is not Task.BINARY or candidate.score is None or candidate.outcome is None:
        return None
    return calibration(
        candidate.outcome,
        candidate.score,
        bins=config.calibration_bins,
        confidence=config.confidence,
        replicates=config.bootstrap_replicates,
    )


def _calibration_metrics(reliability: Calibration | None, config: Config) -> list[Metric]:
    if reliability is None:
        return []
    return [
        Metric(
            name="calibration_error",
            value=reliability.error,
            threshold=config.maximum_calibration_error,
            direction="lower",
            interval=reliability.interval,
            confidence=config.confidence,
            n=sum(part["rows"] for part in reliability.bins),
            method=f"{len(reliability.bins)} bins of equal size, basic bootstrap",
        )
    ]


def _calibration_findings(reliability: Calibration | None, config: Config) -> Iterator[Finding]:
    if config.maximum_calibration_error is None:
        return
    for metric in _calibration_metrics(reliability, config):
        yield from judged(
            metric,
            config.judge,
            finding_id="calibration",
            failed=f"probabilities are off by {metric.value:.3f} on average, above {metric.threshold:g}",
            fix="calibrate the model (scikit-learn's CalibratedClassifierCV), or use scores for ranking only",
            label="the calibration error",
            verdict=Verdict.WARNED,
        )


def _threshold_effect(context: GateContext, models: list[Predictions]) -> dict[str, Any] | None:
    """What a change of the decision threshold does: both thresholds, and the candidate's decisions at each.

    ``None`` without a champion, or where thresholds are not known.
    """
    described = context.scores().details.get("models") or {}
    thresholds = [(described.get(model.model) or {}).get("threshold") for model in models]
    score = models[0].score
    if len(models) == 1 or None in thresholds or score is None or context.task is not Task.BINARY:
        return None
    before = score >= float(thresholds[1] or 0)
    moved = models[0].decision.astype(bool)
    return {
        "candidate": thresholds[0],
        "champion": thresholds[1],
        "selection_rate_before": float(before.mean()),
        "selection_rate": float(moved.mean()),
        "decided_differently": float((before != moved).mean()),
    }


def _told(
    config: Config, task: Task, floors: list[str], effect: dict[str, Any] | None, model: Predictions
) -> Iterator[Finding]:
    """What is good to know and decides nothing."""
    if others := sorted(set(config.floors) - set(floors)):
        message = f"not judged: {', '.join(others)}, because a {task} model has no such metric"
        yield Finding(id="not_applicable", verdict=Verdict.PASSED, message=message)
    if task is Task.BINARY and model.score is None:
        message = "not judged: ROC AUC, Brier score, log loss and calibration, because no score is given"
        yield Finding(id="no_scores", verdict=Verdict.PASSED, message=message)
    if effect and effect["candidate"] != effect["champion"]:
        yield Finding(
            id="threshold_change",
            verdict=Verdict.PASSED,
            message=f"the decision threshold moves from {effect['champion']:g} to {effect['candidate']:g}, "
            f"which by itself decides {percent(effect['decided_differently'])} of the cases differently "
            f"({percent(effect['selection_rate_before'])} to {percent(effect['selection_rate'])} decided 1)",
        )


def _slice_metrics(slices: list[dict[str, Any]]) -> list[Metric]:
    return [
        Metric(
            name=f"slice.{metric}",
            value=value,
            direction="lower" if metric in SMALLER_IS_BETTER else "higher",
            interval=entry["interval"] if place == len(entry["candidate"]) - 1 else None,
            n=entry["n"],
            where=f"{entry['attribute']}: {entry['group']}",
            engine=f"scikit-learn {_engines()['scikit-learn']}",
        )
        for entry in slices
        for place, (metric, value) in enumerate(entry["candidate"].items())
    ]


def _summary(
    values: list[dict[str, float | None]],
    primary: str,
    change: dict[str, Any] | None,
    findings: list[Finding],
) -> str:
    serious = [finding for finding in findings if finding.verdict is not Verdict.PASSED]
    if serious:
        order = [Verdict.WARNED, Verdict.FAILED, Verdict.ERROR]
        first = max(serious, key=lambda finding: order.index(finding.verdict))
        more = f" (and {len(serious) - 1} more)" if len(serious) > 1 else ""
        return f"{first.message[0].upper()}{first.message[1:]}{more}."
    value = values[0][primary]
    has = f"{_word(primary)} is {'undefined here' if value is None else format(value, '.4g')}"
    if change is None:
        return f"Every floor is reached; {has}, and there is no champion to compare with."
    if change["direction"] == "same":
        return f"Every floor is reached; {has}, the same as the champion's."
    return (
        f"Every floor is reached; {has}, {percent(change['relative'])} {change['direction']} than the "
        f"champion's {values[1][primary]:.4g} on the same rows."
    )


def _engines() -> dict[str, str]:
    from importlib.metadata import version

    return {"scikit-learn": version("scikit-learn"), "numpy": version("numpy"), "scipy": version("scipy")}
