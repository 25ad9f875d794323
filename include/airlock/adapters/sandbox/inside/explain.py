"""SHAP values in terms of the original features, with a check that does not believe shap.

shap explains what the last step of a pipeline sees. Each column of that is traced back to the feature
it is made of by changing one feature after the other and looking which columns change; that holds for
every transformer, whatever it calls its columns. Where a column is made of several features, or where
the values do not add up to what the model says, the whole model is explained as a black box instead.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from .score import Model

    Array = np.ndarray[Any, Any]

_TOLERANCE = 1e-4
"""Additivity error from which another explainer is tried; float32 thresholds of trees stay below it."""

_BLACK_BOX_BACKGROUND = 30
"""Rows that stand for a missing feature in the black box: its time is proportional to it."""


@dataclass
class Explanation:
    """SHAP values of one model.

    Attributes:
        table: a column per feature, ``_base`` and ``_margin``; index ``row``.
        explainer: ``linear``, ``tree`` or ``permutation``.
        space: what the values add up to: ``log-odds``, ``probability`` or ``prediction``.
        error: largest ``|sum + base - margin|``, with the margin taken from the model itself; predictions
            in units of their standard deviation, if that is above 1.
        rejected: explainers that were tried before, and why they were given up.
        estimated_seconds: what explaining from outside was said to take before it began; ``None`` elsewhere.
    """

    table: pd.DataFrame
    explainer: str
    space: str
    error: float
    rejected: list[str] = field(default_factory=list)
    estimated_seconds: float | None = None


class TooSlowError(Exception):
    """Explaining would take longer than the policy allows; the text says how long."""


class _NotExplainedError(Exception):
    """This explainer does not fit this model; the text says why."""


def explain(
    model: Model, frame: pd.DataFrame, background: pd.DataFrame, seed: int, seconds: float | None = None
) -> Explanation:
    """SHAP values of every row of ``frame``, by the first explainer whose values add up.

    Raises:
        TooSlowError: only the black box fits the model, and it would take more than ``seconds``.
    """
    frame, background = frame[model.features], background[model.features]
    rejected: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap warns about its own internals; its result is checked here
        try:
            explanation = _native(model, frame, background)
            if explanation.error <= _TOLERANCE:
                return explanation
            rejected.append(
                f"{explanation.explainer}: values miss the model's output by {explanation.error:.3g}"
            )
        except _NotExplainedError as error:
            rejected.append(str(error))
        small = background.head(_BLACK_BOX_BACKGROUND)
        estimate = _estimate(model, frame, small)
        why = f"no exact explainer: {'; '.join(rejected) or 'none fits'}"
        told = f"explaining {len(frame)} rows from outside would take about {estimate:.0f} s"
        if seconds is not None and estimate > seconds:
            raise TooSlowError(f"{told}, and {seconds:g} s are allowed ({why})")
        sys.stdout.write(f"{told} ({why})\n")
        sys.stdout.flush()
        explanation = _black_box(model, frame, small, seed)
    explanation.rejected, explanation.estimated_seconds = rejected, round(estimate, 1)
    return explanation


def _estimate(model: Model, frame: pd.DataFrame, background: pd.DataFrame) -> float:
    """Seconds that the black box will take: it asks the model about every row many times.

    A row takes 2 · features + 1 questions, each about every background row; the model's own speed is measured
    on one such batch.
    """
    import pandas as pd

    questions = (2 * frame.shape[1] + 1) * len(background)
    batch = pd.concat([frame.head(1)] * questions, ignore_index=True)
    model.raw(batch)  # the first call also loads what it needs
    started = time.perf_counter()
    model.raw(batch)
    return len(frame) * (time.perf_counter() - started)


def _native(model: Model, frame: pd.DataFrame, background: pd.DataFrame) -> Explanation:
    """Exact values of linear models and trees, from the inside of the model."""
    steps = getattr(model.estimator, "steps", None)
    final = steps[-1][1] if steps else model.estimator
    if model.task == "multiclass" and hasattr(model.estimator, "decision_function"):
        raise _NotExplainedError("several classes share their probability: no score of one class adds up")
    before = model.estimator[:-1] if steps and len(steps) > 1 else None
    make, name = _explainer(final, model.place)
    margin, space = _margin(model, frame)
    columns = _transform(before, frame)
    origin = [*range(columns.shape[1])] if before is None else _origins(before, frame, background, columns)
    values, base = make(columns, _transform(before, background))
    if space == "log-odds" and model.place == 0:
        values, base = -values, -base  # the inside of the model speaks of its second class
    return _table(model, _Parts(_by_feature(values, origin, len(model.features)), base, margin), name, space)


def _explainer(final: Any, place: int) -> tuple[Callable[[Array, Array], tuple[Array, Array]], str]:
    module = type(final).__module__
    trees = ("sklearn.tree.", "sklearn.ensemble._forest", "sklearn.ensemble._gb")
    if (
        hasattr(final, "coef_")
        and hasattr(final, "intercept_")
        and module.startswith("sklearn.linear_model.")
    ):
        return (lambda columns, background: _linear(final, columns, background)), "linear"
    if module.startswith((*trees, "sklearn.ensemble._hist_gradient_boosting.")):
        return (lambda columns, _: _tree(final, columns, place)), "tree"
    raise _NotExplainedError(f"no exact explainer for {type(final).__name__}")


def _linear(final: Any, columns: Array, background: Array) -> tuple[Array, Array]:
    import numpy as np
    import shap

    explainer = shap.LinearExplainer(final, shap.maskers.Independent(background, max_samples=len(background)))
    values = np.asarray(explainer.shap_values(columns), dtype="float64")
    return values, np.full(len(columns), float(np.ravel(explainer.expected_value)[-1]))


def _tree(final: Any, columns: Array, place: int) -> tuple[Array, Array]:
    """Path-dependent values; with a background shap compares thresholds in float32 and misses by 1.0."""
    import numpy as np
    import shap

    try:
        explainer = shap.TreeExplainer(final, feature_perturbation="tree_path_dependent")
        values = np.asarray(explainer.shap_values(columns, check_additivity=False), dtype="float64")
    except Exception as error:  # shap raises anything on models it does not know
        raise _NotExplainedError(
            f"tree: shap cannot read the model ({type(error).__name__}: {error})"
        ) from error
    several = values.ndim == 3  # noqa: PLR2004 - rows, columns, classes
    base = np.ravel(explainer.expected_value)[place if several else -1]
    return values[:, :, place] if several else values, np.full(len(columns), float(base))


def _margin(model: Model, frame: pd.DataFrame) -> tuple[Array, str]:
    """What values must add up to: the model's own log-odds, or its output where it has none."""
    import numpy as np

    probability = model.output(frame)
    if model.task == "regression":
        return probability, "prediction"
    if not hasattr(model.estimator, "decision_function"):
        return probability, "probability"
    margin = np.asarray(model.estimator.decision_function(frame), dtype="float64")
    margin = -margin if model.place == 0 else margin
    if margin.shape != probability.shape or not np.allclose(
        1 / (1 + np.exp(-margin)), probability, atol=1e-9
    ):
        raise _NotExplainedError("the model's decision_function is not the log-odds of its probability")
    return margin, "log-odds"


def _transform(before: Any, frame: pd.DataFrame) -> Array:
    """What the last step of the pipeline sees, as numbers."""
    import numpy as np

    columns: Any = frame if before is None else before.transform(frame)
    if hasattr(columns, "toarray"):
        columns = columns.toarray()
    try:
        return np.asarray(columns, dtype="float64")
    except (TypeError, ValueError) as error:
        raise _NotExplainedError("the last step of the model works on text or categories") from error


def _origins(before: Any, frame: pd.DataFrame, background: pd.DataFrame, columns: Array) -> list[int]:
    """The one feature each transformed column is made of; -1 where none of them changes it."""
    import numpy as np
    import pandas as pd

    rows = pd.concat([frame, background], ignore_index=True)
    original = _transform(before, rows)
    made_of = np.zeros((columns.shape[1], frame.shape[1]), dtype=bool)
    for position, name in enumerate(frame.columns):
        for shift in (1, len(rows) // 2):
            moved = rows[name].array.take(np.roll(np.arange(len(rows)), shift))
            changed = rows.copy()
            changed[name] = moved  # not assign(): a column may be named "self"
            different = ~np.isclose(_transform(before, changed), original, rtol=0, atol=0, equal_nan=True)
            made_of[:, position] |= different.any(axis=0)
    if (made_of.sum(axis=1) > 1).any():
        raise _NotExplainedError("the pipeline mixes several features into one column")
    return [int(row.argmax()) if row.any() else -1 for row in made_of]


def _by_feature(values: Array, origin: list[int], features: int) -> Array:
    """Sum the values of all columns that are made of the same feature."""
    import numpy as np

    if any(
        feature < 0 and np.abs(values[:, column]).max() > _TOLERANCE for column, feature in enumerate(origin)
    ):
        raise _NotExplainedError("the pipeline makes a column of no single feature")
    summed = np.zeros((len(values), features))
    for column, feature in enumerate(origin):
        if feature >= 0:
            summed[:, feature] += values[:, column]
    return summed


def _black_box(model: Model, frame: pd.DataFrame, background: pd.DataFrame, seed: int) -> Explanation:
    """Values that explain the probability from outside, for any model.

    Text and categories go through shap as numbers and are turned back before the model sees them.
    """
    import numpy as np
    import pandas as pd
    import shap

    rows = pd.concat([frame, background], ignore_index=True)
    codes = {
        name: pd.factorize(rows[name], use_na_sentinel=False) for name in frame if not _is_number(rows[name])
    }
    numbers = pd.DataFrame({name: codes[name][0] if name in codes else rows[name] for name in frame})
    table = numbers.to_numpy(dtype="float64", na_value=np.nan)

    def probability(values: Array) -> Array:
        columns = {}
        for position, name in enumerate(frame.columns):
            column = values[:, position]
            if name in codes:
                column = np.asarray(codes[name][1], dtype=object)[column.astype(int)]
            columns[name] = pd.Series(column).astype(frame[name].dtype)
        return model.output(pd.DataFrame(columns))

    masker = shap.maskers.Independent(table[len(frame) :], max_samples=len(background))
    explainer = shap.PermutationExplainer(probability, masker, seed=seed)
    explained = explainer(table[: len(frame)], max_evals=2 * frame.shape[1] + 1, silent=True)
    parts = _Parts(explained.values, np.ravel(explained.base_values), model.output(frame))
    space = "prediction" if model.task == "regression" else "probability"
    return _table(model, parts, "permutation", space)


def _is_number(column: pd.Series[Any]) -> bool:
    import pandas as pd

    return pd.api.types.is_numeric_dtype(column.dtype)


@dataclass
class _Parts:
    by_feature: Array
    base: Array
    margin: Array


def _table(model: Model, parts: _Parts, explainer: str, space: str) -> Explanation:
    import numpy as np
    import pandas as pd

    error = float(np.abs(parts.by_feature.sum(axis=1) + parts.base - parts.margin).max())
    if space == "prediction":  # in units of the target, whatever they are
        error /= max(1.0, float(np.std(parts.margin)))
    table = pd.DataFrame(parts.by_feature, columns=model.features)
    table["_base"], table["_margin"] = parts.base, parts.margin
    table.index.name = "row"
    return Explanation(table, explainer, space, error)
