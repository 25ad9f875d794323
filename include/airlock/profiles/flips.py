"""Which cases are decided differently by candidate and champion: how many, which way, and of which kind.

Both models scored the same rows, so every difference is the model's. People read this before they read any
metric: a model can keep its accuracy and still turn away a tenth of those it accepted before (R-4, A-4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airlock.core.columns import label_text

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CANDIDATE, CHAMPION = "candidate_prediction", "champion_prediction"

_MOVED = 0.05
"""A predicted number has changed when it moved by more than this share of the champion's middle range."""

_PARTS = 4
"""Parts of equal size into which a number is cut, to say where decisions change."""

_KINDS, _MOVES = 6, 6
_LEAST = 20
"""Rows of the smallest kind of case that is named: below, a share says nothing."""

_NAME = 60
"""Characters of a value in a name."""


def flips(
    frame: pd.DataFrame,
    scores: pd.DataFrame,
    *,
    task: str,
    features: Sequence[str],
    target: str,
    sensitive: Mapping[str, Mapping[str, str]],
) -> dict[str, Any] | None:
    """How the decisions of two models on the same rows differ, as plain data; ``None`` without a champion.

    Args:
        frame: the rows that were scored, with features, sensitive columns and the outcome where it is
            known. Of two outcomes, 1 is the favourable one.
        scores: what each model predicted, row by row.
        task: ``classification``, ``multiclass`` or ``regression``.
        features: columns that kinds of cases are told apart by.
        target: column with the true outcome.
        sensitive: protected attribute → its values in words.

    Returns:
        ``rows``, ``changed``; for two outcomes ``to_favourable``, ``to_unfavourable``; ``moves``
        between several classes; ``now_right``, ``now_wrong``: changed decisions whose outcome is known;
        ``groups``, the same by group; and ``kinds``, cases whose decisions change more often than those of
        others, the most striking first.

    Laws: ``changed`` is 0 for equal predictions; without several classes or numbers it is the sum of both
    directions; each attribute's groups add up to it where every row has a group.
    """
    if CHAMPION not in scores:
        return None
    old, new = scores[CHAMPION].to_numpy(), scores[CANDIDATE].to_numpy()
    changed = _changed(old, new, task)
    known = frame.get(target)
    found: dict[str, Any] = {
        "task": task,
        "rows": len(changed),
        "changed": int(changed.sum()),
        **_directions(old, new, changed, task),
        **({} if known is None else _against_truth(known.to_numpy(), old, new, changed, task)),
        "groups": [],
        "kinds": [],
    }
    if task == "multiclass":
        found["moves"] = _moves(old, new, changed)
    for column, names in sensitive.items():
        if column in frame:
            found["groups"] += list(
                _groups(frame[column], names, old=old, new=new, changed=changed, task=task)
            )
    kinds = [kind for name in features if name in frame for kind in _kinds(frame[name], changed)]
    kinds.sort(key=lambda kind: (-kind.pop("weight"), kind["feature"], kind["cases"]))
    found["kinds"] = kinds[:_KINDS]
    return found


def _changed(old: np.ndarray[Any, Any], new: np.ndarray[Any, Any], task: str) -> np.ndarray[Any, Any]:
    import numpy as np

    if task != "regression":
        return np.asarray(old != new)
    low, high = np.quantile(old, [0.1, 0.9])
    return np.asarray(np.abs(new - old) > _MOVED * (high - low))


def _directions(
    old: np.ndarray[Any, Any], new: np.ndarray[Any, Any], changed: np.ndarray[Any, Any], task: str
) -> dict[str, int]:
    if task == "multiclass":
        return {}
    up, down = ("up", "down") if task == "regression" else ("to_favourable", "to_unfavourable")
    return {up: int((changed & (new > old)).sum()), down: int((changed & (new < old)).sum())}


def _against_truth(
    truth: np.ndarray[Any, Any],
    old: np.ndarray[Any, Any],
    new: np.ndarray[Any, Any],
    changed: np.ndarray[Any, Any],
    task: str,
) -> dict[str, int]:
    import numpy as np

    if task == "regression":
        nearer, farther = np.abs(new - truth) < np.abs(old - truth), np.abs(new - truth) > np.abs(old - truth)
    else:
        true, before, after = (_texts(side) for side in (truth, old, new))
        nearer, farther = after == true, before == true
    return {"now_right": int((changed & nearer).sum()), "now_wrong": int((changed & farther).sum())}


def _moves(
    old: np.ndarray[Any, Any], new: np.ndarray[Any, Any], changed: np.ndarray[Any, Any]
) -> list[dict[str, Any]]:
    pairs = Counter(zip(_texts(old[changed]), _texts(new[changed]), strict=True))
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [{"from": before[:_NAME], "to": after[:_NAME], "n": n} for (before, after), n in ordered[:_MOVES]]


def _groups(
    column: pd.Series[Any],
    names: Mapping[str, str],
    *,
    old: np.ndarray[Any, Any],
    new: np.ndarray[Any, Any],
    changed: np.ndarray[Any, Any],
    task: str,
) -> Iterator[dict[str, Any]]:
    values = _texts(column.to_numpy())
    for value, words in names.items():
        inside = values == value
        if inside.any():
            yield {
                "attribute": str(column.name),
                "group": words,
                "rows": int(inside.sum()),
                "changed": int((inside & changed).sum()),
                **_directions(old[inside], new[inside], changed[inside], task),
            }


def _kinds(column: pd.Series[Any], changed: np.ndarray[Any, Any]) -> Iterator[dict[str, Any]]:
    """Kinds of cases of one feature that change more often than others, by how far beyond chance."""
    share = changed.mean()
    if not share:
        return
    for words, inside in _parts(column):
        rows = int(inside.sum())
        if rows < _LEAST or rows == len(changed):
            continue
        n, expected = int((inside & changed).sum()), rows * share
        # Pearson's residual: how many standard deviations there are more than by chance.
        weight = float((n - expected) / (expected * (1 - share * rows / len(changed))) ** 0.5)
        if n > expected and weight > 2:  # noqa: PLR2004  # as usual: two standard deviations
            yield {
                "feature": str(column.name),
                "cases": words,
                "rows": rows,
                "changed": n,
                "weight": round(weight, 9),
            }


def _parts(column: pd.Series[Any]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    import numpy as np
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) and column.nunique() > _PARTS:
        values = column.to_numpy("float64", na_value=np.nan)
        finite = values[np.isfinite(values)]
        cuts = np.quantile(finite, np.linspace(0, 1, _PARTS + 1)) if len(finite) else []
        edges = sorted({float(cut) for cut in cuts})
        for place, (low, high) in enumerate(pairwise(edges)):
            last = place == len(edges) - 2
            with np.errstate(invalid="ignore"):
                yield _range(low, high), (values >= low) & ((values <= high) if last else (values < high))
        yield "missing", ~np.isfinite(values)
        return
    texts = _texts(column.to_numpy())
    for value in sorted(set(texts.tolist())):
        yield value[:_NAME], texts == value


def _texts(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels as people write them: 1 and 1.0 are the same; what is not there is ``missing``."""
    import pandas as pd

    codes, unique = pd.factorize(values)  # a missing value has the code -1, which is the last of the texts
    texts = [*(label_text(value) for value in unique), "missing"]
    return pd.Series(texts, dtype=object).to_numpy()[codes]


def _range(low: float, high: float) -> str:
    return f"{low:,.4g} to {high:,.4g}"
