"""Bias: whether protected groups get the favourable outcome equally often.

Why it matters: a model can disadvantage people by race, sex or age without ever seeing these
attributes, because other features stand in for them. That harms people, and in credit, housing and
employment it is unlawful whether or not anybody intended it.

What good looks like: every group gets the favourable outcome at least four fifths as often as the group
that gets it most often (the four-fifths rule of the US Uniform Guidelines on Employee Selection
Procedures, 29 CFR 1607.4 D), the difference between groups is small, errors fall on all groups alike,
and every group has enough rows for this to be more than chance. Crossed groups (such as older women) are
compared too. Every number has an interval; where it lies on both sides of a limit the answer is "cannot
tell", with the number of rows that would settle it.

How to fix it: find the features that carry the difference (explainability and privacy gates) and ask
whether the business needs them; lower the decision threshold if it cuts off one group; then mitigate
and submit again. Helpful tools: fairlearn's ThresholdOptimizer (thresholds), ExponentiatedGradient
(training under a constraint) and CorrelationRemover (features); reweighting the training rows. Put what you
tried into `mitigation.json` beside the model, with the numbers before and after.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airlock.core.canonical import canonical_json
from airlock.core.columns import Task, label_text
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.held import HeldLimit
from airlock.core.judgement import judged
from airlock.core.statistics import exceeds, percent
from airlock.gates._config import Uncertain
from airlock.gates._fairness import CROSS, MOST_GROUPS, Fairness, Gap, Sampling, error_gap, measure
from airlock.gates._mitigation import MITIGATION, mitigation_findings
from airlock.gates._predictions import Groups, Predictions, groups_of, read_predictions
from airlock.gates.base import GateContext, Need, Stage, cannot_judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

STAGE = Stage.AFTER_SCORING
NEEDS = (Need.CURRENT, Need.PREDICTIONS)

_FIX = (
    "see in the explainability gate which features carry the difference and whether the business needs "
    "them; try a lower decision threshold; or mitigate with fairlearn's ThresholdOptimizer or "
    "ExponentiatedGradient, or by reweighting the training rows, and submit the new version"
)

Share = Annotated[float, Field(ge=0, le=1)]


class Config(Uncertain):
    """Limits of the bias gate. A limit of ``null`` is not judged; its metric is still reported.

    Attributes:
        minimum_group_rows: a group with fewer rows is reported, but cannot be judged.
        exclude_below: share of the rows below which a category is left out of the impact ratio; Local
            Law 144 allows it under 2 %.
        four_fifths: smallest allowed demographic parity ratio: lowest over highest selection rate.
        parity_difference: largest demographic parity difference.
        equalized_odds_difference: largest difference of true or of false positive rates.
        equal_opportunity_difference: largest difference of true positive rates.
        accuracy_gap: largest difference of accuracy between groups.
        error_gap: for regression, largest difference of the mean absolute error as a share of the whole.
        failing: limits that fail the gate; the others warn.
        intersections: what is done about crossed groups beyond ``four_fifths``.
        mitigation: whether a record of what was tried must come with the model: always, when the gate
            fails, or never.
    """

    minimum_group_rows: Annotated[int, Field(ge=1)]
    exclude_below: Annotated[float, Field(ge=0, lt=0.5)]
    four_fifths: Annotated[float, Field(gt=0, le=1)]
    parity_difference: Share | None
    equalized_odds_difference: Share | None
    equal_opportunity_difference: Share | None
    accuracy_gap: Share | None
    error_gap: Annotated[float, Field(ge=0)] | None
    failing: list[
        Literal[
            "four_fifths",
            "parity_difference",
            "equalized_odds_difference",
            "equal_opportunity_difference",
            "accuracy_gap",
            "error_gap",
        ]
    ]
    intersections: Literal["inform", "warn", "fail"]
    mitigation: Literal["always", "failed", "never"]


_LIMITS = {
    "demographic_parity_ratio": "four_fifths",
    "demographic_parity_difference": "parity_difference",
    "equalized_odds_difference": "equalized_odds_difference",
    "equal_opportunity_difference": "equal_opportunity_difference",
    "accuracy_gap": "accuracy_gap",
    "error_gap": "error_gap",
}
"""Metric → the limit it is held against, which is also the id of its finding."""

HELD = tuple(
    HeldLimit(
        limit,
        limit,
        metric=metric,
        no_effect=1.0 if metric.endswith("ratio") else 0.0,
        failing="failing",
        follow_ups=MITIGATION,
        follow_up_when="mitigation",
    )
    for metric, limit in _LIMITS.items()
)

_RATE_OF = {
    "equalized_odds_difference": "true and false positive rates",
    "equal_opportunity_difference": "true positive rates",
    "accuracy_gap": "shares of right decisions",
    "error_gap": "mean errors",
}


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Compare selection rates and errors of the protected groups."""
    sensitive = context.columns.sensitive
    if not sensitive:
        return _nothing_declared(protected=context.protected_class_data)
    models = read_predictions(context, minimum_rows=1, outcomes=False)
    if isinstance(models, GateResult):
        return models
    frame = context.evaluation()
    if problem := _absent(frame, list(sensitive)):
        return problem
    groups = {column: groups_of(frame[column], words) for column, words in sorted(sensitive.items())}
    crossings = _crossings(groups)
    single, crossed = (_measure(models[0], chosen, context, config) for chosen in (groups, crossings))
    champion = _measure(models[1], groups, context, config) if len(models) > 1 else []
    findings = [found for fairness in single for found in _findings(fairness, models[0], config)]
    findings += [found for fairness in crossed for found in _crossed_findings(fairness, config)]
    findings += _not_judged(models[0])
    findings += mitigation_findings(context, config.mitigation, findings, _ratios(single))
    table = {"candidate": [*single, *crossed], **({"champion": champion} if champion else {})}
    context.attach(
        "bias.json",
        canonical_json(
            {
                "confidence": config.confidence,
                **{model: [one.table() for one in values] for model, values in table.items()},
            }
        ),
    )
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(single, findings, config),
        findings=findings,
        metrics=[
            metric for model, values in table.items() for f in values for metric in _metrics(f, model, config)
        ],
        engines=_engines(),
        details={
            "attributes": list(groups),
            "ratios": {
                name: _ratios(values)
                for name, values in (("candidate", [*single, *crossed]), ("champion", champion))
                if values
            },
        },
    )


def _ratios(values: list[Fairness]) -> dict[str, float | None]:
    return {one.where: one.gaps.get("demographic_parity_ratio", Gap(None)).value for one in values}


def _nothing_declared(*, protected: bool) -> GateResult:
    if protected:
        return cannot_judge(
            "attributes.undeclared",
            "the workload says that its data holds protected attributes, but names none",
            fix="name the columns and their values under data.sensitive in the workload file",
        )
    return GateResult(
        verdict=Verdict.PASSED,
        summary="No protected attributes declared: the data of this workload holds none, so there is no "
        "group to compare.",
        details={"attributes": []},
    )


def _absent(frame: pd.DataFrame, columns: list[str]) -> GateResult | None:
    if missing := [column for column in columns if column not in frame]:
        return cannot_judge(
            "attributes.missing",
            f"the evaluation batch has no column {', '.join(map(repr, missing))}, a protected attribute",
            fix="add the protected attributes to the evaluation batch; the model never sees them",
        )
    return None


def _crossings(groups: dict[str, Groups]) -> dict[str, Groups]:
    """Intersections of two attributes each, and of all of them."""
    columns = list(groups)
    result = {}
    for size in sorted({2, len(columns)}) if len(columns) > 1 else []:
        for first, *rest in combinations(columns, size):
            crossed = groups[first]
            for name in rest:
                crossed = crossed.crossed(groups[name])
            result[CROSS.join((first, *rest))] = crossed
    return result


def _measure(
    model: Predictions, groups: dict[str, Groups], context: GateContext, config: Config
) -> list[Fairness]:
    """Every attribute in every view: the favourable outcome, each class, or a score above the median."""
    views = _views(model, context)
    sampling = Sampling(
        minimum_group_rows=config.minimum_group_rows,
        exclude_below=config.exclude_below,
        confidence=config.shared_by(len(groups) * len(views)),
        replicates=config.bootstrap_replicates,
    )
    result = []
    for attribute, chosen in groups.items():
        for view, (outcome, decision) in views.items():
            fairness = measure(attribute, chosen, outcome, decision, sampling, view=view)
            if model.task is Task.REGRESSION and model.outcome is not None and len(fairness.judged) > 1:
                fairness.gaps["error_gap"] = error_gap(chosen, abs(model.decision - model.outcome), sampling)
            result.append(fairness)
    return result


def _views(model: Predictions, context: GateContext) -> dict[str, tuple[Any, Any]]:
    """What counts as favourable, as 0 and 1: view → outcome and decision.

    For regression it is a prediction above the median of all, the "scoring rate" of 6 RCNY § 5-300. For
    several classes it is the favourable one where it is named, else each of them in turn.
    """
    import numpy as np

    outcome, decision = model.outcome, model.decision
    if model.task is Task.REGRESSION:
        return {"above median": (None, (decision > np.median(decision)).astype("float64"))}
    if model.task is Task.BINARY:
        return {"": (outcome, decision)}
    favourable = None if context.positive is None else label_text(context.positive)
    chosen = [favourable] if favourable in model.classes else model.classes
    return {
        str(name): (None if outcome is None else (outcome == code) * 1.0, (decision == code) * 1.0)
        for code, name in enumerate(model.classes)
        if name in chosen
    }


def _findings(fairness: Fairness, model: Predictions, config: Config) -> Iterator[Finding]:
    """What is said about one protected attribute."""
    yield from _small_groups(fairness, config)
    if not fairness.gaps:
        yield _nothing_to_compare(fairness, config)
        return
    if fairness.gaps["demographic_parity_ratio"].value is None:
        yield Finding(
            id="ratio_undefined",
            verdict=Verdict.ERROR,
            message=f"{fairness.where} cannot be judged: nobody in any group gets the favourable outcome",
            where=fairness.where,
            fix="check the decision threshold and the scores: the candidate decides 0 for every row",
        )
        return
    for metric in _metrics(fairness, "candidate", config):
        name = _LIMITS.get(metric.name)
        if metric.threshold is None or name is None or not _applies(metric.name, model):
            continue
        verdict = Verdict.FAILED if name in config.failing else Verdict.WARNED
        for found in judged(
            metric,
            config.judge,
            finding_id=name,
            failed=_wrong(fairness, metric),
            fix=_FIX,
            label=f"the {metric.name.replace('_', ' ')} of {fairness.where}",
            no_effect=1.0 if metric.direction == "higher" else 0.0,
            verdict=verdict,
        ):
            undefined = found.verdict is Verdict.ERROR and verdict is not Verdict.FAILED
            yield found.model_copy(update={"verdict": Verdict.WARNED}) if undefined else found


def _applies(metric: str, model: Predictions) -> bool:
    """Whether a metric can be asked for: errors need outcomes, and some are for numbers alone."""
    if metric.startswith("demographic_parity"):
        return True
    return model.outcome is not None and (metric == "error_gap") == (model.task is Task.REGRESSION)


def _not_judged(model: Predictions) -> list[Finding]:
    """What this data cannot say, so that nobody takes silence for a pass."""
    if model.outcome is None:
        missing = "errors by group, because no true outcome is given"
    elif model.task is Task.REGRESSION:
        missing = (
            "equalized odds and accuracy by group, because a regression has none; predictions above the "
            "median and mean errors are compared instead"
        )
    else:
        return []
    return [Finding(id="not_judged", verdict=Verdict.PASSED, message=f"not judged: {missing}")]


def _small_groups(fairness: Fairness, config: Config) -> Iterator[Finding]:
    for name, group in fairness.groups.items():
        if not group["judged"]:
            yield Finding(
                id="group_too_small",
                verdict=Verdict.WARNED,
                message=f"cannot tell for {fairness.attribute}: {name}, which has {group['n']} rows of the "
                f"{config.minimum_group_rows} that are needed",
                where=f"{fairness.attribute}: {name}",
                fix="add rows of this group to the evaluation batch; until then nothing is known about it",
            )
    if fairness.hidden:
        yield Finding(
            id="group_too_small",
            verdict=Verdict.WARNED,
            message=f"cannot tell for {fairness.hidden} more groups of {fairness.attribute}: as few rows",
            where=fairness.attribute,
            fix="put the values of this attribute into fewer groups",
        )


def _nothing_to_compare(fairness: Fairness, config: Config) -> Finding:
    judged_groups = len(fairness.judged)
    if judged_groups > MOST_GROUPS:
        return Finding(
            id="too_many_groups",
            verdict=Verdict.ERROR,
            message=f"{fairness.attribute} cannot be judged: it has {judged_groups} groups, and at most "
            f"{MOST_GROUPS} are compared",
            where=fairness.attribute,
            fix="put its values into groups, such as ages into ranges",
        )
    return Finding(
        id="nothing_to_compare",
        verdict=Verdict.ERROR,
        message=f"{fairness.attribute} cannot be judged: {judged_groups} of "
        f"{len(fairness.groups) + fairness.hidden} groups "
        f"{'has' if judged_groups == 1 else 'have'} at least {config.minimum_group_rows} rows, and a "
        "comparison needs two",
        where=fairness.attribute,
        fix="evaluate on a batch with enough rows of at least two groups",
    )


def _crossed_findings(fairness: Fairness, config: Config) -> Iterator[Finding]:
    """Intersections are judged by the four-fifths limit alone: their groups are small and many."""
    ratio = fairness.gaps.get("demographic_parity_ratio", Gap(None))
    if ratio.value is None or not exceeds(config.four_fifths, ratio.value):
        return
    severity = {"inform": Verdict.PASSED, "warn": Verdict.WARNED, "fail": Verdict.FAILED}
    metric = Metric(
        name="demographic_parity_ratio",
        value=ratio.value,
        threshold=config.four_fifths,
        direction="higher",
        interval=ratio.interval,
        confidence=config.confidence,
        n=sum(group["n"] for group in fairness.judged.values()),
        where=fairness.where,
    )
    text = f"{_comparison(fairness)}: ratio {ratio.value:.3f} between these crossed groups"
    for found in judged(
        metric,
        config.judge,
        finding_id="intersection",
        failed=text,
        fix=_FIX,
        no_effect=1.0,
        label=f"the demographic parity ratio of {fairness.where}",
        verdict=severity[config.intersections],
    ):
        yield (
            found
            if config.intersections != "inform"
            else found.model_copy(update={"verdict": Verdict.PASSED})
        )


def _wrong(fairness: Fairness, metric: Metric) -> str:
    """The sentence for a limit that is not kept."""
    value, limit = metric.value or 0.0, metric.threshold or 0.0
    if metric.name == "demographic_parity_ratio":
        return f"{_comparison(fairness)}: ratio {value:.3f}, below the four-fifths limit {limit:g}"
    if metric.name == "demographic_parity_difference":
        points = f"{100 * value:.1f} percentage points, above {100 * limit:.1f}"
        return f"{_comparison(fairness)}: difference {points}"
    if metric.name == "error_gap":
        return (
            f"mean errors of {fairness.where} differ by {percent(value)} of the whole, above {percent(limit)}"
        )
    points = f"{100 * value:.1f} percentage points, above {100 * limit:.1f}"
    return f"{_RATE_OF[metric.name]} of {fairness.where} differ by {points}"


def _comparison(fairness: Fairness) -> str:
    low, high = fairness.extremes()
    said = {name: _group(fairness, name) for name in (low, high)}
    rates = {name: group["selection_rate"] for name, group in fairness.judged.items()}
    n = fairness.groups[low]["n"], fairness.groups[high]["n"]
    what = f"the outcome {fairness.view!r}" if fairness.view else "the favourable outcome"
    return (
        f"{said[low]} get {what} in {percent(rates[low])} of {n[0]} cases, against "
        f"{percent(rates[high])} of {n[1]} for {said[high]}"
    )


def _group(fairness: Fairness, name: str) -> str:
    """A group in words: a bare number says nothing without its attribute."""
    bare = not fairness.crossed and not any(character.isalpha() for character in name)
    return f"{fairness.attribute} {name}" if bare else name


def _metrics(fairness: Fairness, model: str, config: Config) -> Iterator[Metric]:
    prefix = "" if model == "candidate" else "champion."
    judge = model == "candidate" and not fairness.crossed
    n = sum(group["n"] for group in fairness.judged.values())
    for name, group in fairness.groups.items():
        if fairness.crossed:
            break  # bias.json has them; there are many
        place = f"{fairness.where}: {name}"
        yield Metric(
            name=f"{prefix}selection_rate", value=group["selection_rate"], interval=group["interval"],
            confidence=config.confidence, n=group["n"], where=place, method="Wilson",
        )  # fmt: skip
        yield Metric(
            name=f"{prefix}impact_ratio", value=group["impact_ratio"], direction="higher", n=group["n"],
            where=place, method="excluded: under the smallest share" if group["excluded"] else "",
        )  # fmt: skip
    for metric, gap in fairness.gaps.items():
        limit = getattr(config, _LIMITS[metric]) if metric in _LIMITS and judge else None
        yield Metric(
            name=prefix + metric,
            value=gap.value,
            threshold=limit,
            direction="higher" if metric.endswith("ratio") else "lower",
            interval=gap.interval,
            confidence=config.confidence if gap.interval else None,
            n=n,
            where=fairness.where,
            engine=f"fairlearn {_engines()['fairlearn']}" if metric not in _OWN else "",
            method="simultaneous bootstrap" if gap.interval else "",
        )


_OWN = {"impact_ratio", "error_gap"}
"""Metrics that are not fairlearn's."""


def _summary(single: list[Fairness], findings: list[Finding], config: Config) -> str:
    for verdict in (Verdict.ERROR, Verdict.FAILED):
        if these := [finding for finding in findings if finding.verdict is verdict]:
            return f"{_several(these)}."
    worst = min(single, key=lambda fairness: fairness.gaps["demographic_parity_ratio"].value or 0)
    ratio = worst.gaps["demographic_parity_ratio"].value or 0.0
    kept = "is shown to be" if exceeds(config.four_fifths, ratio) else "is"
    held = (
        f"No protected group {kept} left behind by more than the four-fifths rule allows; the widest gap is "
        f"in {worst.where}: {_comparison(worst)}, ratio {ratio:.3f} (limit {config.four_fifths:g})"
    )
    warned = [finding for finding in findings if finding.verdict is Verdict.WARNED]
    return f"{held}. {_several(warned)}." if warned else f"{held}."


def _several(findings: list[Finding]) -> str:
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{findings[0].message[0].upper()}{findings[0].message[1:]}{more}"


def _engines() -> dict[str, str]:
    from importlib.metadata import version

    return {"fairlearn": version("fairlearn"), "numpy": version("numpy")}
