"""How well features tell who belongs to a group: one by one, and all together.

The measure is the AUC: the chance that, of one member and one other, the feature puts the member on the right
side. 0.5 is a coin, 1 is a copy. A feature becomes integers once, so that every question about it is
answered by counting; the interval comes from the same counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    Integers = npt.NDArray[np.int64]
    Booleans = npt.NDArray[np.bool_]

_FOLDS = 5
_TEXTS = 20
"""Texts of a column that get a coefficient of their own."""


@dataclass(frozen=True)
class Auc:
    """An AUC with its interval; ``value`` is at least 0.5, whichever way the feature points."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound."""
        return self.low, self.high


@dataclass(frozen=True)
class Feature:
    """A column as integers.

    Attributes:
        levels: place of each row's value among the distinct values in order; -1 where it is missing.
        count: how many distinct values there are.
        ordered: whether the order of values means something; it does not for text.
    """

    name: str
    levels: npt.NDArray[np.int32]
    count: int
    ordered: bool


def feature_of(series: pd.Series[Any], name: str) -> Feature:
    """A column of any type as integers."""
    import numpy as np
    import pandas as pd

    ordered = series.dtype.kind in "iufbmM"
    if ordered:
        levels, numbers = series.factorize(sort=True)
        return Feature(name, levels.astype("int32"), len(numbers), ordered)
    try:
        codes, values = series.factorize()
    except TypeError:  # lists and other things without a hash
        codes, values = pd.factorize(series.map(_text, na_action="ignore"))
    # Each distinct value once, and those that are the same text together.
    words, places = np.unique([_text(value) for value in values], return_inverse=True)
    levels = np.append(places, -1)[codes] if len(words) else np.full(len(series), -1)
    return Feature(name, levels.astype("int32"), len(words), ordered)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def single_auc(
    feature: Feature, member: Booleans, known: Booleans, minimum_rows: int, confidence: float
) -> Auc:
    """How well one feature tells who belongs to a group: by its value, or by whether it has one.

    A feature that goes down where membership goes up tells as much, so the larger of AUC and 1 - AUC counts.
    """
    import numpy as np

    present = known & (feature.levels >= 0)
    inside, outside = (int((group & present).sum()) for group in (member, ~member))
    all_inside, all_outside = int(member.sum()), int((known & ~member).sum())
    missing = all_inside - inside, all_outside - outside
    auc = Auc(0.5, 0.5, 0.5)
    if any(missing):
        auc = auc_of_counts(np.array([missing[0], inside]), np.array([missing[1], outside]), confidence)
    if min(inside, outside) < minimum_rows:
        return auc
    levels, belongs = feature.levels[present], member[present]
    if feature.ordered:
        counts = [np.bincount(levels[rows], minlength=feature.count) for rows in (belongs, ~belongs)]
        found = auc_of_counts(counts[0], counts[1], confidence)
    else:
        found = _text_auc(levels, feature.count, belongs, confidence)
    return max(auc, found, key=lambda one: one.value)


def auc_of_counts(inside: Integers, outside: Integers, confidence: float, *, either_way: bool = True) -> Auc:
    """Area under the ROC curve from counts by level, lowest level first; never below 0.5.

    Formula: share of pairs (member, other) in which the member has the higher level, ties half; this is
    Mann-Whitney's U / (n m). Law: the larger of scikit-learn's ``roc_auc_score`` for the rows and 1 minus
    it. Pairs are counted in integers, so a value on its limit is exactly on it.

    Interval: DeLong's variance of U, from the placements of each level (DeLong, DeLong and Clarke-Pearson,
    Biometrics 44 (1988)), on the scale of log-odds, which keeps it inside of 0 and 1 (Pepe, The Statistical
    Evaluation of Medical Tests, 2003, section 5.2).
    """
    below, above = outside.cumsum() - outside, inside.sum() - inside.cumsum()
    members, others = int(inside.sum()), int(outside.sum())
    twice = int((inside * (2 * below + outside)).sum())
    pairs = 2 * members * others
    larger = max(twice, pairs - twice if either_way else pairs / 2)
    first = _variance((below + outside / 2) / others, inside)
    second = _variance((above + inside / 2) / members, outside)
    low, high = _interval(larger / pairs, first / members + second / others, confidence)
    return Auc(larger / pairs, low, high)


def _variance(values: Any, counts: Integers) -> float:
    """Variance of values that occur so often, with n - 1."""
    rows = int(counts.sum())
    if rows < 2:  # noqa: PLR2004 - one value has no variance
        return 0.0
    mean = float((values * counts).sum()) / rows
    return float((counts * (values - mean) ** 2).sum()) / (rows - 1)


def _interval(auc: float, variance: float, confidence: float) -> tuple[float, float]:
    if auc >= 1 or variance <= 0:
        return auc, auc
    centre = log(auc / (1 - auc))
    spread = NormalDist().inv_cdf(0.5 + confidence / 2) * sqrt(variance) / (auc * (1 - auc))
    return tuple(round(1 / (1 + exp(-centre - sign * spread)), 12) for sign in (-1, 1))  # type: ignore[return-value]


def _text_auc(levels: npt.NDArray[np.int32], count: int, member: Booleans, confidence: float) -> Auc:
    """AUC of text: each value stands for the share of members among rows of the other folds that have it.

    Shares over the same rows would make every column of distinct texts look like a copy.
    """
    import numpy as np

    cells = levels.astype("int64") * _FOLDS + np.arange(len(levels)) % _FOLDS
    shape = (count, _FOLDS)
    inside = np.bincount(cells[member], minlength=count * _FOLDS).reshape(shape)
    every = np.bincount(cells, minlength=count * _FOLDS).reshape(shape)
    others_inside, others = (table.sum(axis=1, keepdims=True) - table for table in (inside, every))
    share = (others_inside + member.mean()) / (others + 1)
    _, place = np.unique(share, return_inverse=True)
    pooled = [
        np.bincount(place.ravel(), weights=table.ravel()).astype("int64")
        for table in (inside, every - inside)
    ]
    return auc_of_counts(pooled[0], pooled[1], confidence, either_way=False)


def matrix_of(features: Sequence[Feature], rows: Integers) -> npt.NDArray[np.float64]:
    """Features as numbers between 0 and 1: ranks, missing marks, and the most frequent texts."""
    import numpy as np

    columns = []
    for feature in features:
        present = feature.levels >= 0
        counts = np.bincount(feature.levels[present], minlength=max(feature.count, 1))
        if feature.ordered:
            ranks = (counts.cumsum() - counts / 2) / max(int(counts.sum()), 1)
            columns.append(np.where(present, ranks[feature.levels], 0.5)[rows])
        else:
            frequent = np.argsort(-counts, kind="stable")[:_TEXTS]
            columns += [(feature.levels == level)[rows].astype("float64") for level in frequent]
        if not present.all():
            columns.append((~present)[rows].astype("float64"))
    return np.column_stack(columns)


def joint_auc(matrix: npt.NDArray[np.float64], member: Booleans, confidence: float) -> Auc | None:
    """Cross-validated AUC of a logistic regression on all features; ``None`` for too few rows to fold.

    Rounded, because the last digits of a fitted model depend on the machine.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    if min(int(member.sum()), int((~member).sum())) < _FOLDS:
        return None
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=1000)
    with threadpool_limits(1):  # on matrices this narrow other threads mostly wait, and they wait in a loop
        scores = cross_val_predict(model, matrix, member, cv=folds, method="decision_function")
    _, place = np.unique(scores, return_inverse=True)
    counts = [np.bincount(place[rows], minlength=int(place.max()) + 1) for rows in (member, ~member)]
    found = auc_of_counts(counts[0], counts[1], confidence, either_way=False)
    return Auc(*(round(value, 4) for value in (found.value, found.low, found.high)))
