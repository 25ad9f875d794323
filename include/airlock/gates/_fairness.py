"""What fairlearn says about groups, from counted cells instead of rows, with intervals.

Rows are counted once into (group, outcome, decision) cells, and fairlearn gets the few hundred cells with
their counts as ``sample_weight``. The values are those fairlearn gives for the rows, to the last bit;
at a million rows they come some hundred times sooner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airlock.core.statistics import wilson_interval
from airlock.gates._intervals import largest_gap, normal_draws, redraw

if TYPE_CHECKING:
    import numpy.typing as npt

    from airlock.gates._intervals import Floats, Integers, Interval
    from airlock.gates._predictions import Groups

CROSS = " x "
SMALL_GROUPS = 20
"""Groups under the minimum size that are described one by one."""
MOST_GROUPS = 1000
"""Groups that are compared in pairs; an attribute with more is an identifier or a number."""
_ODDS = ("true_positive_rate", "false_positive_rate")


@dataclass(frozen=True)
class Sampling:
    """How groups are compared.

    Attributes:
        minimum_group_rows: smaller groups are described but not compared.
        exclude_below: share of all rows below which a category is left out of impact ratios.
        confidence: of each interval.
        replicates: of the bootstrap.
    """

    minimum_group_rows: int
    exclude_below: float
    confidence: float
    replicates: int


@dataclass(frozen=True)
class Gap:
    """A difference or ratio between groups; ``None`` where it is undefined on this data."""

    value: float | None
    interval: Interval | None = None


@dataclass(frozen=True)
class Fairness:
    """The groups of one attribute (or crossing of attributes) under one model.

    Attributes:
        attribute: column name, or names joined by `` x ``.
        view: class or outcome it is about; empty for the only one.
        groups: group → n, selection rate with Wilson interval, accuracy, true and false positive rate
            (``None`` where a group has no such outcomes), impact ratio, whether it is large enough to be
            judged, and whether it counts for the impact ratio.
        gaps: metric name → gap over the judged groups.
        hidden: how many more groups there are that are too small and not among ``groups``.
    """

    attribute: str
    groups: dict[str, dict[str, Any]]
    gaps: dict[str, Gap] = field(default_factory=dict)
    view: str = ""
    hidden: int = 0

    @property
    def crossed(self) -> bool:
        """Whether it is about an intersection of attributes."""
        return CROSS in self.attribute

    @property
    def judged(self) -> dict[str, dict[str, Any]]:
        """The groups that are large enough."""
        return {name: group for name, group in self.groups.items() if group["judged"]}

    @property
    def where(self) -> str:
        """Attribute and class in words."""
        return f"{self.attribute} [{self.view}]" if self.view else self.attribute

    def extremes(self, rate: str = "selection_rate") -> tuple[str, str]:
        """Names of the judged groups with the lowest and the highest rate."""
        rates = {name: group[rate] for name, group in self.judged.items() if group[rate] is not None}
        return min(rates, key=lambda name: rates[name]), max(rates, key=lambda name: rates[name])

    def table(self) -> dict[str, Any]:
        """For ``bias.json``."""
        gaps = {name: {"value": gap.value, "interval": gap.interval} for name, gap in self.gaps.items()}
        return {
            "attribute": self.attribute,
            "view": self.view,
            "groups": self.groups,
            "gaps": gaps,
            "hidden": self.hidden,
        }


def measure(
    attribute: str,
    groups: Groups,
    outcome: npt.NDArray[Any] | None,
    decision: npt.NDArray[Any],
    sampling: Sampling,
    *,
    view: str = "",
) -> Fairness:
    """Compare the groups of one attribute; ``outcome`` and ``decision`` hold 0 and 1.

    Without outcomes only selection rates are compared. Laws: values equal fairlearn's on the rows;
    neither the order of the rows nor the names of the groups matter; an identical copy of the
    data changes no value.
    """
    import numpy as np

    truth = np.zeros(len(decision)) if outcome is None else outcome
    cell = groups.codes * 4 + (truth * 2 + decision).astype("int64")
    counts = np.bincount(cell, minlength=4 * len(groups.names)).reshape(len(groups.names), 2, 2)
    rows = counts.sum(axis=(1, 2))
    large = rows >= sampling.minimum_group_rows
    shown = [*np.flatnonzero(large), *np.flatnonzero(~large)[:SMALL_GROUPS]]
    described = {
        groups.names[index]: _describe(
            counts[index], outcomes=outcome is not None, confidence=sampling.confidence
        )
        | {"judged": bool(large[index]), "excluded": bool(rows[index] < sampling.exclude_below * rows.sum())}
        for index in sorted(shown)
    }
    _impact(described)
    hidden = int((~large).sum()) - min(SMALL_GROUPS, int((~large).sum()))
    if not 1 < large.sum() <= MOST_GROUPS:  # a comparison takes two; of very many, each pair is too much
        return Fairness(attribute, described, {}, view, hidden)
    gaps = _gaps(counts[large], sampling, outcomes=outcome is not None)
    included = {name: group for name, group in described.items() if not group["excluded"]}
    ratios = [group["impact_ratio"] for group in included.values() if group["impact_ratio"] is not None]
    gaps["impact_ratio"] = Gap(min(ratios) if len(ratios) > 1 else None)
    return Fairness(attribute, described, gaps, view, hidden)


def _describe(counts: Integers, *, outcomes: bool, confidence: float) -> dict[str, Any]:
    """A group's numbers from its 2 by 2 table, outcome by decision."""
    n, selected = int(counts.sum()), int(counts[:, 1].sum())
    negatives, positives = (int(row.sum()) for row in counts)
    return {
        "n": n,
        "selection_rate": selected / n,
        "interval": wilson_interval(selected, n, confidence),
        "accuracy": int(counts[0, 0] + counts[1, 1]) / n if outcomes else None,
        "true_positive_rate": int(counts[1, 1]) / positives if outcomes and positives else None,
        "false_positive_rate": int(counts[0, 1]) / negatives if outcomes and negatives else None,
    }


def _impact(groups: dict[str, dict[str, Any]]) -> None:
    """Impact ratios: a category's selection rate over that of the most selected category.

    Source: New York City, Local Law 144 of 2021 and 6 RCNY § 5-300 ("impact ratio"); § 5-301 lets an
    auditor leave out a category with less than 2 % of the data, whose rows and rate are still shown.
    """
    highest = max((group["selection_rate"] for group in groups.values() if not group["excluded"]), default=0)
    for group in groups.values():
        left_out = group["excluded"] or highest == 0
        group["impact_ratio"] = None if left_out else group["selection_rate"] / highest


def _gaps(counts: Integers, sampling: Sampling, *, outcomes: bool) -> dict[str, Gap]:
    """Differences and ratios by fairlearn, with simultaneous bootstrap intervals over the groups."""
    import numpy as np

    frame = _ask(counts, outcomes=outcomes)
    drawn = redraw(counts, sampling.replicates)
    parts = {name: _parts(counts, name) for name in frame}
    known = {name: bool((total > 0).all()) for name, (_, total) in parts.items()}
    differences, ratios = {}, {}
    for name, (difference, ratio) in frame.items():
        if not known[name]:
            continue  # fairlearn would count the missing rate as 0
        hits, total = _parts(drawn, name)
        rates = (hits + 0.5) / (total + 1)  # a redraw may leave a group without rows, and logs need no 0
        own_hits, own_total = parts[name]
        centre = own_hits / own_total
        # Both error rates make equalized odds, so each of them gets half of what may go wrong.
        sure = 1 - (1 - sampling.confidence) / 2 if name in _ODDS else sampling.confidence
        differences[name] = Gap(difference, largest_gap(centre, rates, sure))
        low, high = largest_gap(np.log((own_hits + 0.5) / (own_total + 1)), np.log(rates), sure)
        interval = (float(np.exp(-high)), float(np.exp(-low)))
        ratios[name] = Gap(ratio, _around(interval, ratio) if ratio is not None else None)
    return _named(differences, ratios)


def error_gap(groups: Groups, errors: Floats, sampling: Sampling) -> Gap:
    """Largest difference between groups' mean errors, as a share of the mean error of all rows.

    Its interval rests on the normal errors of the group means.
    """
    import numpy as np

    rows = np.bincount(groups.codes, minlength=len(groups.names)).astype("float64")
    large = rows >= max(2, sampling.minimum_group_rows)
    whole = float(errors.mean())
    if large.sum() <= 1 or whole <= 0:
        return Gap(None if large.sum() <= 1 else 0.0)
    means = np.bincount(groups.codes, errors, minlength=len(rows))[large] / rows[large]
    squares = np.bincount(groups.codes, errors * errors, minlength=len(rows))[large] / rows[large]
    spread = np.sqrt(np.maximum(squares - means * means, 0) / (rows[large] - 1))
    draws = normal_draws(means, spread, sampling.replicates)
    low, high = largest_gap(means, draws, sampling.confidence)
    return Gap(float(means.max() - means.min()) / whole, (low / whole, high / whole))


def _around(interval: Interval, value: float) -> Interval:
    return round(min(interval[0], value), 9), round(max(interval[1], value), 9)


def _named(differences: dict[str, Gap], ratios: dict[str, Gap]) -> dict[str, Gap]:
    """Under the names the field uses; equalized odds are the worse of both error rates."""
    none = Gap(None)
    gaps = {
        "demographic_parity_ratio": ratios.get("selection_rate", none),
        "demographic_parity_difference": differences.get("selection_rate", none),
        "equal_opportunity_difference": differences.get("true_positive_rate", none),
        "equal_opportunity_ratio": ratios.get("true_positive_rate", none),
        "accuracy_gap": differences.get("accuracy", none),
        "accuracy_ratio": ratios.get("accuracy", none),
    }
    for name, source, worse in (
        ("equalized_odds_difference", differences, max),
        ("equalized_odds_ratio", ratios, min),
    ):
        both = [source[rate] for rate in _ODDS if rate in source]
        values = [gap.value for gap in both if gap.value is not None]
        ends = [gap.interval for gap in both if gap.interval is not None]
        whole = len(values) == len(ends) == len(_ODDS)
        interval = (worse(low for low, _ in ends), worse(high for _, high in ends)) if whole else None
        gaps[name] = Gap(worse(values), interval) if whole else none
    return gaps


def _parts(counts: Integers, rate: str) -> tuple[Floats, Floats]:
    """Numerator and denominator of a rate, from tables (…, group, outcome, decision)."""
    import numpy as np

    table = counts.astype("float64")
    if rate == "selection_rate":
        return table[..., 1].sum(axis=-1), table.sum(axis=(-1, -2))
    if rate == "accuracy":
        return np.trace(table, axis1=-2, axis2=-1), table.sum(axis=(-1, -2))
    outcome = 1 if rate == "true_positive_rate" else 0
    return table[..., outcome, 1], table[..., outcome, :].sum(axis=-1)


def _ask(counts: Integers, *, outcomes: bool) -> dict[str, tuple[float | None, float | None]]:
    """Difference and ratio between groups of each rate, by fairlearn's MetricFrame over the cells."""
    import numpy as np
    from fairlearn import metrics
    from sklearn.metrics import accuracy_score

    asked = {"selection_rate": metrics.selection_rate}
    if outcomes:
        asked |= {
            "true_positive_rate": metrics.true_positive_rate,
            "false_positive_rate": metrics.false_positive_rate,
            "accuracy": accuracy_score,
        }
    group, outcome, decision = np.nonzero(counts)
    weight = counts[group, outcome, decision]
    frame = metrics.MetricFrame(
        metrics=asked,
        y_true=outcome,
        y_pred=decision,
        sensitive_features=group,
        sample_params={name: {"sample_weight": weight} for name in asked},
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        differences = frame.difference(method="between_groups")
        ratios = frame.ratio(method="between_groups")
    return {name: (_finite(differences[name]), _finite(ratios[name])) for name in asked}


def _finite(value: object) -> float | None:
    from math import isfinite

    number = float(value)  # type: ignore[arg-type]
    return number if isfinite(number) else None
