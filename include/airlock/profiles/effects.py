"""From distances to an answer for each column: moved far, not far, or nobody can tell yet.

Two things must come together. The distance is beyond a limit: PSI and the other effects do not grow
with the number of rows, so a shift nobody would notice never counts, however many rows there are. And
it is not chance: Pearson's test on the same bins, corrected for the number of columns, so a few rows
that differ by luck do not count either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any

from airlock.core.evidence import Metric
from airlock.core.statistics import adjusted, exceeds, percent
from airlock.profiles.compare import Comparison, Table

_LARGE = 1000.0
"""Above it the non-central chi-square distribution is a normal one for all that can be told."""


class Moved(StrEnum):
    """Whether a column has drifted."""

    FAR = "far"
    NO = "no"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Limits:
    """What decides about a column.

    Attributes:
        effects: name of a distance → its limit, or ``None``.
        significance: level of the corrected tests.
        confidence: of the intervals.
        minimum_rows: values both sides must have.
    """

    effects: Mapping[str, float | None]
    significance: float
    confidence: float
    minimum_rows: int


@dataclass(frozen=True)
class Effect:
    """One column's answer.

    Attributes:
        comparison: what was measured.
        measured: whether there were enough values to compare.
        moved: the answer.
        text: it in words.
        needed: rows of current data that would settle it, where it is unsure.
        p_values: corrected p-values by what was tested, ``psi`` and ``missing_psi``.
        intervals: of these two.
    """

    comparison: Comparison
    measured: bool
    moved: Moved
    text: str
    needed: int | None
    p_values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]

    @property
    def name(self) -> str:
        """The column."""
        return self.comparison.column

    @property
    def judged(self) -> bool:
        """Whether there is an answer: values were compared, or it is plain that they disappeared."""
        return self.measured or self.moved is Moved.FAR

    def metrics(self, limits: Limits, engine: str) -> Iterator[Metric]:
        """All numbers of the column, with limits and intervals where they have any."""
        one = self.comparison
        shown = ["psi", "psi_deciles", "jensenshannon", "ks", "wasserstein"] if self.measured else ["psi"]
        for name in shown + ["missing_psi"] * (one.missing_psi is not None):
            value = getattr(one, name) if self.measured or name == "missing_psi" else None
            if value is None and name != "psi":
                continue
            interval = self.intervals.get(name)
            yield Metric(
                name=name,
                value=value,
                threshold=limits.effects.get(name),
                direction="lower",
                interval=interval,
                confidence=limits.confidence if interval else None,
                n=one.rows[1] if name == "missing_psi" else one.n[1],
                where=self.name,
                engine=engine,
                method="non-central chi-square" if interval else "",
            )
        yield Metric(
            name="missing_share", value=one.missing[1], n=one.rows[1], where=self.name, engine=engine
        )
        if self.measured and one.chi_square is not None:
            yield Metric(
                name="chi_square", value=one.chi_square[0], n=one.n[1], where=self.name, engine=engine,
                method=f"{one.chi_square[1]} degrees of freedom",
            )  # fmt: skip
        for name, value in self.p_values.items():
            yield Metric(
                name="p_value" if name == "psi" else "missing_p_value",
                value=value,
                n=one.n[1],
                where=self.name,
                engine=engine,
                method="chi-square, Benjamini-Hochberg",
            )

    def to_table(self) -> dict[str, Any]:
        """Plain data of the column for a file, reference before current."""
        one = self.comparison
        counts = one.table
        bins: dict[str, Any] | None = None
        if isinstance(counts, Table) and self.measured:
            bins = {
                "labels": counts.labels,
                "reference": counts.reference.tolist(),
                "current": counts.current.tolist(),
            }
        return {
            "feature": self.name,
            "moved": str(self.moved),
            "text": self.text,
            "bins": one.bins,
            "counts": bins,
            "n": list(one.n),
            "missing": list(one.missing),
            **{
                name: getattr(one, name)
                for name in ("psi", "psi_deciles", "jensenshannon", "ks", "wasserstein", "missing_psi")
            },
            "chi_square": None if one.chi_square is None else list(one.chi_square),
            "p_values": dict(self.p_values),
        }


def effects_of(comparisons: list[Comparison], limits: Limits) -> list[Effect]:
    """The answer for each column. All tests of all columns are corrected together.

    Laws: the order of the columns changes no answer; a column that has not moved beyond a limit is never
    called far, whatever its p-value.
    """
    tests: list[tuple[int, str, float]] = []
    for place, one in enumerate(comparisons):
        if _measured(one, limits) and one.chi_square is not None:
            tests.append((place, "psi", one.chi_square[2]))
        if one.missing_chi_square is not None:
            tests.append((place, "missing_psi", one.missing_chi_square[2]))
    corrected: list[dict[str, float]] = [{} for _ in comparisons]
    for (place, name, _), p_value in zip(tests, adjusted([p for _, _, p in tests]), strict=True):
        corrected[place][name] = p_value
    return [_effect(one, corrected[i], limits, len(tests)) for i, one in enumerate(comparisons)]


def _measured(one: Comparison, limits: Limits) -> bool:
    return min(one.n) >= limits.minimum_rows and one.psi is not None


def _effect(one: Comparison, p_values: dict[str, float], limits: Limits, tests: int) -> Effect:
    measured = _measured(one, limits)
    answers: list[tuple[Moved, str, int | None]] = []
    intervals: dict[str, tuple[float, float]] = {}
    for name, limit in limits.effects.items():
        value = getattr(one, name)
        if value is None or (name != "missing_psi" and not measured):
            continue
        test = "missing_psi" if name == "missing_psi" else "psi"
        chi_square = one.missing_chi_square if name == "missing_psi" else one.chi_square
        if name in ("missing_psi", "psi_deciles") and chi_square is not None:
            sizes = one.rows if name == "missing_psi" else one.n
            intervals[name] = psi_interval(value, chi_square[1], sizes, limits.confidence)
        if limit is None:
            continue
        far = exceeds(value, limit)
        sure = not exceeds(p_values.get(test, 1.0), limits.significance)
        moved = (Moved.FAR if sure else Moved.UNSURE) if far else Moved.NO
        if not far and name in intervals and exceeds(intervals[name][1], limit):
            moved = Moved.UNSURE
        if moved is not Moved.NO:
            needed = None if moved is Moved.FAR else _needed(one, name, chi_square, limits, tests)
            answers.append((moved, _words(one, name, limit, intervals.get(name), moved), needed))
    order = [Moved.FAR, Moved.UNSURE, Moved.NO]
    moved = min((answer[0] for answer in answers), key=order.index, default=Moved.NO)
    chosen = [answer for answer in answers if answer[0] is moved]
    sizes_needed = [answer[2] for answer in chosen if answer[2]]
    return Effect(
        comparison=one,
        measured=measured,
        moved=moved,
        text="; ".join(answer[1] for answer in chosen),
        needed=max(sizes_needed, default=None),
        p_values=p_values,
        intervals=intervals,
    )


_WORDS = {
    "psi": "the distribution of its values moved, PSI",
    "psi_deciles": "the distribution of its values moved, PSI over deciles",
    "jensenshannon": "the distribution of its values moved, Jensen-Shannon distance",
    "ks": "its values moved, Kolmogorov-Smirnov statistic",
    "wasserstein": "its values moved, Wasserstein distance in standard deviations",
}


def _words(
    one: Comparison, name: str, limit: float, interval: tuple[float, float] | None, moved: Moved
) -> str:
    value = getattr(one, name)
    if name == "missing_psi":
        before, now = map(percent, one.missing)
        text = f"{one.column}: missing values went from {before} to {now}, PSI {value:.3f}, limit {limit:g}"
    else:
        text = f"{one.column}: {_WORDS[name]} {value:.3f}, limit {limit:g}"
    if moved is Moved.FAR:
        return text
    reach = f"; it could be {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    if exceeds(value, limit):
        return f"cannot tell for {text}; with so few rows that can be chance{reach}"
    return f"cannot tell for {text}{reach}"


def _needed(
    one: Comparison, name: str, chi_square: tuple[float, int, float] | None, limits: Limits, tests: int
) -> int | None:
    """Current rows at which the answer would be sure, if the shares stay as they are.

    Pearson's statistic grows in proportion to the rows of both sides.
    """
    from scipy.special import chdtri

    if chi_square is None or chi_square[0] <= 0 or chi_square[1] < 1:
        return None
    n, value, limit = one.n[1], getattr(one, name), limits.effects.get(name)
    if limit is None:
        return None
    if exceeds(value, limit):
        enough = float(chdtri(chi_square[1], limits.significance / max(tests, 1)))
        return math.ceil(n * max(1.0, enough / chi_square[0]))
    for factor in (2, 4, 8, 16, 32, 64, 128, 256):
        # Part of a small PSI is chance, and shrinks; what stays is at least what chance does not explain.
        stays = max(0.0, value - chi_square[1] * (1 / one.n[0] + 1 / one.n[1]) * (1 - 1 / factor))
        sizes = one.n[0] * factor, one.n[1] * factor
        if not exceeds(psi_interval(stays, chi_square[1], sizes, limits.confidence)[1], limit):
            return n * factor
    return None


def psi_interval(value: float, freedom: int, n: tuple[int, int], confidence: float) -> tuple[float, float]:
    """Interval of a PSI over ``freedom`` + 1 bins.

    With n and m rows, PSI · nm/(n + m) follows a non-central chi-square distribution whose
    non-centrality is the true PSI · nm/(n + m), as PSI and Pearson's statistic agree to second order; the
    interval inverts it. Source: Yurdakul and Naranjo, Statistical properties of the population stability
    index, Journal of Risk Model Validation 14 (2020), for the distribution where nothing moved.
    """
    scale = n[0] * n[1] / (n[0] + n[1])
    statistic, tail = value * scale, (1 - confidence) / 2
    if freedom < 1:
        return value, value
    if statistic > _LARGE:
        spread = NormalDist().inv_cdf(1 - tail) * math.sqrt(2 * (2 * statistic - freedom))
        low, high = statistic - freedom - spread, statistic - freedom + spread
    else:
        low, high = _noncentrality(statistic, freedom, 1 - tail), _noncentrality(statistic, freedom, tail)
    return max(0.0, low / scale), max(0.0, high / scale)


def _noncentrality(statistic: float, freedom: int, probability: float) -> float:
    """The non-centrality at which the statistic is this quantile; 0 where none is."""
    from scipy.special import chndtr

    if chndtr(statistic, freedom, 0) <= probability:
        return 0.0
    low, high = 0.0, max(4.0, 4 * statistic + 40)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chndtr(statistic, freedom, middle) > probability else (low, middle)
    return low
