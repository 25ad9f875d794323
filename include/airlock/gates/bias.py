"""Bias: whether protected groups get the favourable outcome equally often.

Why it matters: a model can disadvantage people by race, sex or age without ever seeing these
attributes, because other features stand in for them. That harms people, and in credit, housing and
employment it is unlawful whether or not anybody intended it.

What good looks like: every group gets the favourable outcome at least four fifths as often as the group
that gets it most often (the four-fifths rule of the US Uniform Guidelines on Employee Selection
Procedures, 29 CFR 1607.4 D), the difference between groups is small, errors fall on all groups alike,
and every group has enough rows for this to be more than chance.

How to fix it: find the features that carry the difference (explainability and privacy gates) and ask
whether the business needs them; lower the decision threshold if it cuts off one group; then mitigate
and submit again. Helpful tools: fairlearn's ThresholdOptimizer (thresholds), ExponentiatedGradient
(training under a constraint) and CorrelationRemover (features); reweighting the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.statistics import exceeds, percent, wilson_interval
from airlock.gates.base import GateContext, Stage, cannot_judge, group_names, unusable_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    Floats = npt.NDArray[np.float64]
    Interval = tuple[float, float]

STAGE = Stage.AFTER_SCORING

_SEED = 20_240_602
_OUTSIDE = 10
"""Replicates that must lie outside an interval, else its ends are single draws."""
_CROSS = " x "
_FIX = (
    "see in the explainability gate which features carry the difference and whether the business needs "
    "them; try a lower decision threshold; or mitigate with fairlearn's ThresholdOptimizer or "
    "ExponentiatedGradient, or by reweighting the training rows, and submit the new version"
)


class Config(Value):
    """Limits of the bias gate.

    Attributes:
        minimum_group_rows: a group with fewer rows is reported, but cannot be judged.
        four_fifths: smallest allowed ratio of the lowest to the highest selection rate; FAILED below.
        parity_difference: largest difference of selection rates without a warning.
        confidence: confidence of the intervals.
        bootstrap_replicates: how often the rows are redrawn for the intervals.
    """

    minimum_group_rows: Annotated[int, Field(ge=1)]
    four_fifths: Annotated[float, Field(gt=0, le=1)]
    parity_difference: Annotated[float, Field(ge=0, le=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap_replicates: Annotated[int, Field(ge=100, le=100_000)]

    @model_validator(mode="after")
    def _intervals_need_replicates(self) -> Self:
        if self.bootstrap_replicates * (1 - self.confidence) < _OUTSIDE:
            raise ValueError("too few bootstrap_replicates for intervals at this confidence")
        return self


@dataclass(frozen=True)
class Fairness:
    """What fairlearn says about one attribute (or crossing of attributes) and one model.

    Attributes:
        attribute: column name, or names joined by `` x ``.
        groups: group → n, selection rate with Wilson interval, accuracy, true and false positive rate
            (``None`` where a group has no such outcomes), and whether it is large enough to be judged.
        ratio: demographic parity ratio over the judged groups, ideal 1.
        difference: demographic parity difference, ideal 0.
        equalized_odds: equalized odds difference, ideal 0; ``None`` when a judged group has only one
            outcome (fairlearn would count its rate as 0).
        accuracy_gap: largest difference of accuracy between judged groups, ideal 0.
        ratio_interval: bootstrap interval of the ratio.
        difference_interval: bootstrap interval of the difference.
    """

    attribute: str
    groups: dict[str, dict[str, Any]]
    ratio: float | None
    difference: float | None
    equalized_odds: float | None
    accuracy_gap: float | None
    ratio_interval: Interval | None = None
    difference_interval: Interval | None = None

    @property
    def crossed(self) -> bool:
        """Whether it is about an intersection of attributes."""
        return _CROSS in self.attribute

    @property
    def judged(self) -> dict[str, dict[str, Any]]:
        """The groups that are large enough."""
        return {name: group for name, group in self.groups.items() if group["judged"]}

    def extremes(self) -> tuple[str, str]:
        """Names of the judged groups with the lowest and the highest selection rate."""
        rates = {name: group["selection_rate"] for name, group in self.judged.items()}
        return min(rates, key=lambda name: rates[name]), max(rates, key=lambda name: rates[name])


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Compare selection rates and errors of the protected groups."""
    sensitive = context.columns.sensitive
    if not sensitive:
        return _nothing_declared(protected=context.protected_class_data)
    frame, scores = context.evaluation(), context.scores().frame
    has_champion = context.has_champion
    problem = unusable_scores(
        frame, scores, minimum_rows=1, champion=has_champion, target=context.label
    ) or _absent(frame, list(sensitive))
    if problem:
        return problem
    labels = {column: group_names(frame[column], words) for column, words in sorted(sensitive.items())}
    outcome = frame[context.label].to_numpy("int64")
    models = ["candidate", "champion"] if has_champion else ["candidate"]
    groupings = {"candidate": {**labels, **_crossings(labels)}, "champion": labels}
    measured = {
        model: [
            measure(attribute, names, outcome, scores[f"{model}_prediction"].to_numpy("int64"), config)
            for attribute, names in groupings[model].items()
        ]
        for model in models
    }
    single, crossed = measured["candidate"][: len(labels)], measured["candidate"][len(labels) :]
    findings = [finding for fairness in single for finding in _findings(fairness, config)]
    findings += [finding for fairness in crossed for finding in _crossed_findings(fairness, config)]
    table = {model: [vars(fairness) for fairness in values] for model, values in measured.items()}
    context.attach("bias.json", canonical_json({"confidence": config.confidence, **table}))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(single, findings, config),
        findings=findings,
        metrics=[
            metric for model in models for f in measured[model] for metric in _metrics(f, model, config)
        ],
        engines=_engines(),
        details={
            "attributes": list(labels),
            "ratios": {model: {f.attribute: f.ratio for f in values} for model, values in measured.items()},
        },
    )


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


def _crossings(labels: dict[str, list[str]]) -> dict[str, list[str]]:
    """Intersections of two attributes each, and of all of them."""
    columns = list(labels)
    sizes = sorted({2, len(columns)}) if len(columns) > 1 else []
    return {
        _CROSS.join(chosen): [" & ".join(row) for row in zip(*(labels[name] for name in chosen), strict=True)]
        for size in sizes
        for chosen in combinations(columns, size)
    }


def measure(
    attribute: str,
    names: list[str],
    outcome: npt.NDArray[np.int64],
    decision: npt.NDArray[np.int64],
    config: Config,
) -> Fairness:
    """Ask fairlearn about the groups of one attribute.

    Rows are counted into (group, outcome, decision) cells first, and fairlearn gets the cells with
    their counts as ``sample_weight``. Law: the values are those fairlearn gives for the rows.
    """
    import numpy as np
    from fairlearn import metrics

    groups = sorted(set(names))
    place = {name: index for index, name in enumerate(groups)}
    cell = np.array([place[name] for name in names]) * 4 + outcome * 2 + decision
    counts = np.bincount(cell, minlength=4 * len(groups)).reshape(len(groups), 2, 2)
    large = counts.sum(axis=(1, 2)) >= config.minimum_group_rows
    described = {
        name: _describe(counts[index], judged=bool(large[index]), confidence=config.confidence)
        for name, index in place.items()
    }
    if large.sum() <= 1:  # a comparison takes two
        return Fairness(attribute, described, None, None, None, None)
    asked = _ask(counts[large])
    both = bool((counts[large].sum(axis=2) > 0).all())
    ratio, difference = asked(metrics.demographic_parity_ratio), asked(metrics.demographic_parity_difference)
    ratios, differences = _redraw(counts, large, config)
    return Fairness(
        attribute,
        described,
        ratio,
        difference,
        asked(metrics.equalized_odds_difference) if both else None,
        asked(_accuracy_gap),
        ratios if ratio is not None else None,
        differences,
    )


def _accuracy_gap(
    outcome: Floats, decision: Floats, *, sensitive_features: Floats, sample_weight: Floats
) -> float:
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import accuracy_score

    frame = MetricFrame(
        metrics=accuracy_score,
        y_true=outcome,
        y_pred=decision,
        sensitive_features=sensitive_features,
        sample_params={"sample_weight": sample_weight},
    )
    return float(frame.difference())


def _ask(counts: npt.NDArray[np.int64]) -> Callable[[Callable[..., float]], float | None]:
    """A function that hands the occupied cells to a fairlearn metric; ``None`` if undefined."""
    import numpy as np

    group, outcome, decision = np.nonzero(counts)
    weight = counts[group, outcome, decision]

    def ask(metric: Callable[..., float]) -> float | None:
        value = float(metric(outcome, decision, sensitive_features=group, sample_weight=weight))
        return value if np.isfinite(value) else None

    return ask


def _describe(counts: npt.NDArray[np.int64], *, judged: bool, confidence: float) -> dict[str, Any]:
    """A group's numbers from its 2 by 2 table, outcome by decision."""
    n, selected = int(counts.sum()), int(counts[:, 1].sum())
    negatives, positives = (int(row.sum()) for row in counts)
    return {
        "n": n,
        "judged": judged,
        "selection_rate": selected / n,
        "interval": wilson_interval(selected, n, confidence),
        "accuracy": int(counts[0, 0] + counts[1, 1]) / n,
        "true_positive_rate": int(counts[1, 1]) / positives if positives else None,
        "false_positive_rate": int(counts[0, 1]) / negatives if negatives else None,
    }


def _redraw(
    counts: npt.NDArray[np.int64], large: npt.NDArray[np.bool_], config: Config
) -> tuple[Interval | None, Interval | None]:
    """Bootstrap intervals of ratio and difference of the judged groups.

    Redrawing rows with replacement is a multinomial draw over the cells, so its cost does not grow
    with the number of rows.
    """
    import numpy as np

    cells = counts.sum(axis=1)[large]  # group x decision
    rows = int(cells.sum())
    drawn = np.random.default_rng(_SEED).multinomial(rows, cells.ravel() / rows, config.bootstrap_replicates)
    drawn = drawn.reshape(-1, *cells.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = drawn[:, :, 1] / drawn.sum(axis=2)
        low, high = rates.min(axis=1), rates.max(axis=1)
        ratios, differences = low / high, high - low
    tails = [(1 - config.confidence) / 2, (1 + config.confidence) / 2]

    def interval(values: Floats) -> Interval | None:
        defined = values[np.isfinite(values)]
        if len(defined) < len(values) / 2:
            return None
        bottom, top = np.quantile(defined, tails)
        return round(float(bottom), 9), round(float(top), 9)

    return interval(ratios), interval(differences)


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


def _findings(fairness: Fairness, config: Config) -> Iterator[Finding]:
    """What is said about one protected attribute."""
    yield from _small_groups(fairness, config)
    if fairness.difference is None or fairness.ratio is None:
        yield _undefined(fairness, config)
        return
    if exceeds(config.four_fifths, fairness.ratio):
        yield Finding(
            id="four_fifths",
            verdict=Verdict.FAILED,
            message=f"{_comparison(fairness)}: ratio {fairness.ratio:.3f}, below the four-fifths limit "
            f"{config.four_fifths:g}",
            where=fairness.attribute,
            fix=_FIX,
        )
    if exceeds(fairness.difference, config.parity_difference):
        yield Finding(
            id="parity_difference",
            verdict=Verdict.WARNED,
            message=f"{_comparison(fairness)}: difference "
            f"{100 * fairness.difference:.1f} percentage points, above {100 * config.parity_difference:.1f}",
            where=fairness.attribute,
            fix=_FIX,
        )
    if fairness.ratio_interval and _straddles(fairness.ratio_interval, config.four_fifths):
        low, high = fairness.ratio_interval
        yield Finding(
            id="ratio_uncertain",
            verdict=Verdict.PASSED,
            message=f"with these rows the ratio could lie between {low:.3f} and {high:.3f} at "
            f"{percent(config.confidence)} confidence, on either side of the limit {config.four_fifths:g}",
            where=fairness.attribute,
            fix="evaluate on more rows of the smaller groups to be sure",
        )


def _straddles(interval: Interval, limit: float) -> bool:
    return interval[0] < limit <= interval[1]


def _undefined(fairness: Fairness, config: Config) -> Finding:
    if fairness.difference is None:
        judged = len(fairness.judged)
        return Finding(
            id="nothing_to_compare",
            verdict=Verdict.ERROR,
            message=f"{fairness.attribute} cannot be judged: {judged} of {len(fairness.groups)} groups "
            f"{'has' if judged == 1 else 'have'} at least {config.minimum_group_rows} rows, and a comparison "
            "needs two",
            where=fairness.attribute,
            fix="evaluate on a batch with enough rows of at least two groups",
        )
    return Finding(
        id="ratio_undefined",
        verdict=Verdict.ERROR,
        message=f"{fairness.attribute} cannot be judged: nobody in any group gets the favourable outcome",
        where=fairness.attribute,
        fix="check the decision threshold and the scores: the candidate decides 0 for every row",
    )


def _crossed_findings(fairness: Fairness, config: Config) -> Iterator[Finding]:
    """Intersections inform, they do not decide: their groups are small and many."""
    if fairness.ratio is not None and exceeds(config.four_fifths, fairness.ratio):
        yield Finding(
            id="intersection",
            verdict=Verdict.PASSED,
            message=f"{_comparison(fairness)}: ratio {fairness.ratio:.3f} between these crossed groups",
            where=fairness.attribute,
            fix=_FIX,
        )


def _comparison(fairness: Fairness) -> str:
    low, high = fairness.extremes()
    rates = {name: group["selection_rate"] for name, group in fairness.judged.items()}
    n = fairness.groups[low]["n"], fairness.groups[high]["n"]
    return (
        f"{low} get the favourable outcome in {percent(rates[low])} of {n[0]} cases, against "
        f"{percent(rates[high])} of {n[1]} for {high}"
    )


def _metrics(fairness: Fairness, model: str, config: Config) -> Iterator[Metric]:
    prefix = "" if model == "candidate" else "champion."
    judge = model == "candidate" and not fairness.crossed
    engine = f"fairlearn {_engines()['fairlearn']}"
    n = sum(group["n"] for group in fairness.judged.values())
    for name, group in fairness.groups.items():
        if fairness.crossed:
            break  # bias.json has them; there are many
        yield Metric(
            name=f"{prefix}selection_rate",
            value=group["selection_rate"],
            interval=group["interval"],
            confidence=config.confidence,
            n=group["n"],
            where=f"{fairness.attribute}: {name}",
        )
    for metric, value, threshold, direction, interval in (
        ("demographic_parity_ratio", fairness.ratio, config.four_fifths, "higher", fairness.ratio_interval),
        (
            "demographic_parity_difference",
            fairness.difference,
            config.parity_difference,
            "lower",
            fairness.difference_interval,
        ),
        ("equalized_odds_difference", fairness.equalized_odds, None, "lower", None),
        ("accuracy_gap", fairness.accuracy_gap, None, "lower", None),
    ):
        yield Metric(
            name=prefix + metric,
            value=value,
            threshold=threshold if judge else None,
            direction=direction,
            interval=interval,
            confidence=config.confidence if interval else None,
            n=n,
            where=fairness.attribute,
            engine=engine,
        )


def _summary(single: list[Fairness], findings: list[Finding], config: Config) -> str:
    for verdict in (Verdict.ERROR, Verdict.FAILED):
        if these := [finding for finding in findings if finding.verdict is verdict]:
            return f"{_several(these)}."
    worst = min(single, key=lambda fairness: fairness.ratio or 0)
    held = (
        "No protected group is left behind by more than the four-fifths rule allows; the widest gap is in "
        f"{worst.attribute}: {_comparison(worst)}, ratio {worst.ratio:.3f} (limit {config.four_fifths:g})"
    )
    warned = [finding for finding in findings if finding.verdict is Verdict.WARNED]
    return f"{held}. {_several(warned)}." if warned else f"{held}."


def _several(findings: list[Finding]) -> str:
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{findings[0].message[0].upper()}{findings[0].message[1:]}{more}"


def _engines() -> dict[str, str]:
    from importlib.metadata import version

    return {"fairlearn": version("fairlearn"), "numpy": version("numpy")}
