"""Why decisions change between two models, and what such cases look like without showing anybody (R-4).

Reasons are differences of SHAP values of the same rows. Examples are ranges that many cases share, never a
row: nobody can be found again in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airlock.core.columns import label_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Numbers = np.ndarray[Any, Any]
    Explained = tuple[pd.DataFrame, pd.DataFrame] | None
    """SHAP values of the model that decided before and of the one that decides now: a column per feature and
    a row per case, index its place among the cases. ``None`` where one of them was not explained."""

CROWD = 20
"""Cases that an example stands for at least. The usual least cell of published statistics is 10 to 20."""

_REASONS, _EXAMPLES, _FEATURES, _PARTS = 5, 5, 3, 4
_NAME = 60


def reasons(explained: Explained, old: Numbers, new: Numbers) -> list[dict[str, Any]]:
    """The features that moved changed decisions most, each way apart.

    Args:
        explained: SHAP values of both models.
        old: decisions before, of all cases. Of several classes every change counts as one way.
        new: decisions now.

    Returns:
        For each way ``way``, ``cases`` explained, and ``features`` with the mean ``shift`` of their
        attribution, the one that pushes most that way first. Empty where nothing changed or was explained.

    Laws: two equal explanations shift nothing; swapping the models turns each shift round.
    """
    if explained is None:
        return []
    before, after = explained
    rows = before.index.intersection(after.index)
    features = sorted({*before.columns, *after.columns} - {"_base", "_margin"})
    shift = after.reindex(index=rows, columns=features, fill_value=0.0) - before.reindex(
        index=rows, columns=features, fill_value=0.0
    )
    places = rows.to_numpy()
    found = []
    for way, chosen in ways(old, new).items():
        inside = chosen[places]
        if not inside.any():
            continue
        means = shift[inside].mean()
        order = sorted(features, key=lambda name: (-_push(means[name], way), name))
        found.append(
            {
                "way": way,
                "cases": int(inside.sum()),
                "features": [
                    {"feature": name, "shift": round(float(means[name]), 6)}
                    for name in order[:_REASONS]
                    if _push(means[name], way) > 0
                ],
            }
        )
    return found


def _push(shift: float, way: str) -> float:
    """How far a shift pushes that way."""
    return abs(shift) if way == "changed" else shift if way == "up" else -shift


def ways(old: Numbers, new: Numbers) -> dict[str, Numbers]:
    """Which cases changed which way: ``up`` and ``down`` of numbers, ``changed`` of classes."""
    import numpy as np

    if not np.issubdtype(np.asarray(old).dtype, np.number):
        return {"changed": np.asarray(old != new)}
    return {"up": np.asarray(new > old), "down": np.asarray(new < old)}


def examples(
    frame: pd.DataFrame, features: Sequence[str], explained: Explained, old: Numbers, new: Numbers
) -> list[dict[str, Any]]:
    """Kinds of cases that are decided differently: ranges of the features that moved them.

    Each stands for at least ``CROWD`` cases, of which at least half as many changed; a kind that fewer share
    is told by fewer features, or not at all.

    Args:
        frame: the cases, in the order of ``old`` and ``new``.
        features: columns that may be told: neither identifiers nor protected attributes.
        explained: SHAP values of both models; without them the features are taken in their own order.
        old: decisions before.
        new: decisions now.
    """
    import numpy as np

    told = [name for name in features if name in frame]
    parts = {name: _parts(frame[name]) for name in told}
    found: dict[str, dict[str, Any]] = {}
    for way, chosen in ways(old, new).items():
        for row in _typical(chosen, explained):
            kind = _kind(row, _moved(row, told, explained), parts, chosen)
            if kind is not None:
                text = ", ".join(f"{name} {words}" for name, words in kind["where"].items())
                found.setdefault(f"{way} {text}", {"way": way, **kind})
            if sum(one["way"] == way for one in found.values()) >= _EXAMPLES:
                break
    order = np.argsort([-one["changed"] for one in found.values()], kind="stable")
    return [list(found.values())[place] for place in order]


def _typical(chosen: Numbers, explained: Explained) -> list[int]:
    """Cases to start from: explained ones where there are any, spread evenly."""
    import numpy as np

    places = np.flatnonzero(chosen)
    if explained is not None:
        known = np.zeros(len(chosen), dtype=bool)
        known[explained[0].index.intersection(explained[1].index).to_numpy()] = True
        places = np.flatnonzero(chosen & known) if (chosen & known).any() else places
    if len(places) > _EXAMPLES * 4:
        places = places[np.linspace(0, len(places) - 1, _EXAMPLES * 4).astype(int)]
    return [int(place) for place in places]


def _moved(row: int, told: Sequence[str], explained: Explained) -> list[str]:
    """The features that moved one case most."""
    if explained is None or any(row not in table.index for table in explained):
        return list(told[:_FEATURES])
    two, one = (table[table.index == row].iloc[0].to_dict() for table in explained)
    size = {name: abs(one.get(name, 0.0) - two.get(name, 0.0)) for name in told}
    return sorted(told, key=lambda name: (-size[name], name))[:_FEATURES]


def _kind(
    row: int, names: Sequence[str], parts: dict[str, list[tuple[str, Numbers]]], chosen: Numbers
) -> dict[str, Any] | None:
    """The kind of case that a row is one of, by as many of the features as a crowd shares."""
    import numpy as np

    where: dict[str, str] = {}
    inside = np.ones(len(chosen), dtype=bool)
    for name in names:
        part = next(((words, mask) for words, mask in parts[name] if mask[row]), None)
        if part is None:
            continue
        words, mask = part
        both = inside & mask
        if int(both.sum()) < CROWD or int((both & chosen).sum()) < CROWD // 2:
            continue
        inside, where[name] = both, words
    if not where:
        return None
    return {"where": where, "cases": int(inside.sum()), "changed": int((inside & chosen).sum())}


def _parts(column: pd.Series[Any]) -> list[tuple[str, Numbers]]:
    """A feature cut into parts that a crowd shares: quarters of a number, or its frequent values."""
    import numpy as np
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) and column.nunique() > _PARTS:
        values = column.to_numpy("float64", na_value=np.nan)
        finite = values[np.isfinite(values)]
        edges = sorted({float(cut) for cut in np.quantile(finite, np.linspace(0, 1, _PARTS + 1))})
        last = len(edges) - 2
        with np.errstate(invalid="ignore"):
            return [
                (
                    # The ends are those of somebody: they are not told.
                    f"below {high:,.4g}" if place == 0 else f"{low:,.4g} or more" if place == last
                    else f"{low:,.4g} to {high:,.4g}",
                    (values >= low) & ((values <= high) if place == last else (values < high)),
                )
                for place, (low, high) in enumerate(pairwise(edges))
            ]  # fmt: skip
    codes, unique = pd.factorize(column)
    return [
        (label_text(value)[:_NAME], codes == code)
        for code, value in enumerate(unique)
        if int((codes == code).sum()) >= CROWD
    ]
