"""Quality of predictions: values by scikit-learn, and their uncertainty without drawing rows again.

Three kinds of metric have three ways to their uncertainty, whose time grows with the rows alone:

- counts of decisions (accuracy, precision, recall, F1 …): rows are counted into cells of outcome and both
  models' decisions, and the bootstrap draws cells;
- the area under the ROC curve: DeLong's variance, by ranks (Sun and Xu, IEEE Signal Processing Letters 21,
  2014), in O(n log n);
- means over rows and functions of them (Brier score, log loss, errors, R²): the delta method.

Both models are always measured on the same rows, so that their difference is a paired one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from airlock.core.columns import Task
from airlock.core.statistics import wilson_interval
from airlock.gates._intervals import SEED, percentile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from airlock.gates._intervals import Floats, Interval
    from airlock.gates._predictions import Predictions

MetricName = Literal[
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "f1_macro",
    "roc_auc",
    "brier_score",
    "log_loss",
    "rmse",
    "mae",
    "r2",
]

METRICS: dict[Task, list[str]] = {
    Task.BINARY: [
        "accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "brier_score", "log_loss",
    ],
    Task.MULTICLASS: ["accuracy", "balanced_accuracy", "f1_macro", "log_loss"],
    Task.REGRESSION: ["rmse", "mae", "r2"],
}  # fmt: skip
SMALLER_IS_BETTER = {"brier_score", "log_loss", "rmse", "mae"}
OF_SCORES = {"roc_auc", "brier_score", "log_loss"}
_COUNTED = {"accuracy", "balanced_accuracy", "precision", "recall", "f1", "f1_macro"}
_CELLS_AT_ONCE = 4_000_000


def measure(model: Predictions) -> dict[str, float | None]:
    """Every metric of the task by scikit-learn; ``None`` where one is undefined for these rows.

    Undefined are: roc_auc and balanced accuracy when all outcomes are the same, precision when nobody is
    decided 1, recall when no outcome is 1, F1 when neither occurs, R² when the outcome does not vary, and
    what asks for scores when there are none.
    """
    import numpy as np

    by_task = {Task.BINARY: _binary, Task.MULTICLASS: _multiclass, Task.REGRESSION: _regression}
    with np.errstate(over="ignore", invalid="ignore"):  # squares of very large numbers are undefined here
        values = by_task[model.task](model)
    return {name: value if value is not None and isfinite(value) else None for name, value in values.items()}


def _binary(model: Predictions) -> dict[str, float | None]:
    from sklearn import metrics

    outcome, decision, score = _known(model), model.decision, model.score
    some_true, some_false, some_selected = outcome.any(), (outcome == 0).any(), decision.any()
    values: dict[str, float | None] = {
        "accuracy": float(metrics.accuracy_score(outcome, decision)),
        "balanced_accuracy": float(metrics.balanced_accuracy_score(outcome, decision))
        if some_true and some_false
        else None,
        "precision": float(metrics.precision_score(outcome, decision)) if some_selected else None,
        "recall": float(metrics.recall_score(outcome, decision)) if some_true else None,
        "f1": float(metrics.f1_score(outcome, decision)) if some_true or some_selected else None,
    }
    if score is None:
        return values | dict.fromkeys(OF_SCORES)
    return values | {
        "roc_auc": float(metrics.roc_auc_score(outcome, score)) if some_true and some_false else None,
        "brier_score": float(metrics.brier_score_loss(outcome, score, pos_label=1)),
        "log_loss": float(metrics.log_loss(outcome, score, labels=[0, 1])),
    }


def _multiclass(model: Predictions) -> dict[str, float | None]:
    import numpy as np
    from sklearn import metrics

    outcome, decision = _known(model), model.decision
    several = len(np.unique(outcome)) > 1
    loss = None
    if model.score is not None and len(model.classes) > 1:
        share = model.score / model.score.sum(axis=1, keepdims=True)
        if np.isfinite(share).all():
            loss = float(metrics.log_loss(outcome, share, labels=np.arange(len(model.classes))))
    return {
        "accuracy": float(metrics.accuracy_score(outcome, decision)),
        "balanced_accuracy": float(_recall_macro(outcome, decision)) if several else None,
        "f1_macro": float(metrics.f1_score(outcome, decision, average="macro", zero_division=0))
        if several
        else None,
        "log_loss": loss,
    }


def _recall_macro(outcome: Floats, decision: Floats) -> float:
    """Mean recall over the classes that occur, as scikit-learn's balanced accuracy without its warning."""
    import numpy as np

    classes = np.unique(outcome)
    return float(np.mean([(decision[outcome == name] == name).mean() for name in classes]))


def _regression(model: Predictions) -> dict[str, float | None]:
    from sklearn import metrics

    outcome, decision = _known(model), model.decision
    varies = bool((outcome != outcome[0]).any())
    return {
        "rmse": float(metrics.root_mean_squared_error(outcome, decision)),
        "mae": float(metrics.mean_absolute_error(outcome, decision)),
        "r2": float(metrics.r2_score(outcome, decision)) if varies else None,
    }


def _known(model: Predictions) -> Floats:
    if model.outcome is None:
        raise AssertionError("quality is measured where outcomes are known")
    return model.outcome


@dataclass
class Uncertainty:
    """Intervals of one or two models' metrics on the same rows.

    Attributes:
        models: candidate, and champion if there is one.
        values: what ``measure`` says about each.
        confidence: of each interval.
        replicates: redraws of the cells.
    """

    models: list[Predictions]
    values: list[dict[str, float | None]]
    confidence: float
    replicates: int

    @cached_property
    def _z(self) -> float:
        return NormalDist().inv_cdf(0.5 + self.confidence / 2)

    def interval(self, metric: str, model: int = 0) -> Interval | None:
        """Interval of a metric of one model; ``None`` where it is undefined."""
        value = self.values[model].get(metric)
        if value is None:
            return None
        if metric in _COUNTED:
            return percentile(self._draws[model][metric], self.confidence)
        error = _covariance([self.models[model]], metric)[0][0] ** 0.5
        if metric == "roc_auc":
            return self._area(value, error)
        low, high = value - self._z * error, value + self._z * error
        return round(max(0.0, low) if metric in SMALLER_IS_BETTER else low, 9), round(high, 9)

    def change(self, metric: str) -> tuple[float | None, Interval | None]:
        """Signed relative improvement over the champion, with its paired interval; positive is better.

        Rounded to 12 decimals: policy rules compare it with their limits.
        """
        if len(self.models) == 1:
            return None, None
        new, old = (values.get(metric) for values in self.values)
        if new is None or old is None or old <= 0:
            return None, None
        sign = -1 if metric in SMALLER_IS_BETTER else 1
        value = round(sign * (new - old) / old, 12)
        if metric in _COUNTED:
            import numpy as np

            a, b = (draws[metric] for draws in self._draws)
            with np.errstate(divide="ignore", invalid="ignore"):
                return value, percentile(sign * (a - b) / b, self.confidence)
        covariance = _covariance(self.models, metric)
        slope = (1 / old, -new / old**2)
        variance = sum(slope[i] * slope[j] * covariance[i][j] for i in (0, 1) for j in (0, 1))
        reach = self._z * max(0.0, variance) ** 0.5
        return value, (round(value - reach, 9), round(value + reach, 9))

    def paired_test(self, metric: str) -> tuple[float, str] | None:
        """p-value of "both models are equally good", and the test's name; ``None`` without a test.

        McNemar's exact test for accuracy; DeLong's and the paired z test for areas and means.
        """
        if len(self.models) == 1 or any(values.get(metric) is None for values in self.values):
            return None
        if metric == "accuracy":
            from scipy.stats import binomtest

            right = [model.decision == _known(model) for model in self.models]
            won, lost = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
            p = 1.0 if won + lost == 0 else float(binomtest(won, won + lost).pvalue)
            return p, "McNemar's exact test"
        if metric in _COUNTED:
            return None
        covariance = _covariance(self.models, metric)
        variance = covariance[0][0] + covariance[1][1] - 2 * covariance[0][1]
        difference = (self.values[0][metric] or 0.0) - (self.values[1][metric] or 0.0)
        name = "DeLong's test" if metric == "roc_auc" else "paired z test"
        if variance <= 0:
            return (1.0 if difference == 0 else 0.0), name
        return 2 * NormalDist().cdf(-abs(difference) / variance**0.5), name

    def method(self, metric: str) -> str:
        """How the interval came about."""
        if metric in _COUNTED:
            return f"bootstrap of cells, {self.replicates} replicates"
        return "DeLong" if metric == "roc_auc" else "delta method"

    def _area(self, value: float, error: float) -> Interval:
        """DeLong's interval on the log-odds scale, so that it stays between 0 and 1.

        Where the ranking is perfect the variance is 0, which is no certainty: Wilson's interval of the
        smaller class stands in.
        """
        from math import exp, log

        if error <= 0 or not 0 < value < 1:
            positive = int(_known(self.models[0]).sum())
            few = min(positive, len(self.models[0].decision) - positive)
            return wilson_interval(value * few, few, self.confidence)
        centre, reach = log(value / (1 - value)), self._z * error / (value * (1 - value))
        low, high = (1 / (1 + exp(-min(max(end, -700), 700))) for end in (centre - reach, centre + reach))
        return round(low, 9), round(high, 9)

    @cached_property
    def _draws(self) -> list[dict[str, Floats]]:
        """Counted metrics of each model on redrawn rows."""
        import numpy as np

        columns = np.column_stack([_known(self.models[0]), *(model.decision for model in self.models)])
        kinds = max(2, len(self.models[0].classes))
        code = columns.astype("int64") @ (kinds ** np.arange(columns.shape[1]))
        codes, counts = np.unique(code, return_counts=True)
        cells = [codes // kinds**place % kinds for place in range(columns.shape[1])]
        rng = np.random.default_rng(SEED)
        chunk = max(1, _CELLS_AT_ONCE // len(codes))
        parts: list[list[dict[str, Floats]]] = [[] for _ in self.models]
        for start in range(0, self.replicates, chunk):
            drawn = rng.multinomial(
                len(code), counts / len(code), min(chunk, self.replicates - start)
            ).astype("float64")
            for place, part in enumerate(parts):
                part.append(_counted(cells[0], cells[place + 1], drawn, kinds))
        return [{name: np.concatenate([one[name] for one in part]) for name in part[0]} for part in parts]


def _covariance(models: list[Predictions], metric: str) -> list[list[float]]:
    """Covariance of the models' values of a metric that is not counted."""
    import numpy as np

    outcome = _known(models[0])
    if metric == "roc_auc":
        return delong(outcome, [_score(model) for model in models])[1]
    rows = np.vstack([influence(model, metric) for model in models])
    return [[float(x) for x in row] for row in np.atleast_2d(rows @ rows.T) / len(outcome) ** 2]


def _score(model: Predictions) -> Floats:
    if model.score is None:
        raise AssertionError("metrics of scores are asked for where there are scores")
    return model.score


def _counted(
    outcome: npt.NDArray[np.int64], decision: npt.NDArray[np.int64], drawn: Floats, kinds: int
) -> dict[str, Floats]:
    """Counted metrics for many weightings (rows of ``drawn``) of the cells at once.

    Law: each equals scikit-learn's metric with those weights as ``sample_weight``.
    """
    import numpy as np

    names = np.arange(kinds)
    is_true, is_said = (outcome[:, None] == names) * 1.0, (decision[:, None] == names) * 1.0
    true, said, hit = drawn @ is_true, drawn @ is_said, drawn @ (is_true * is_said)
    with np.errstate(divide="ignore", invalid="ignore"):
        recalls, scores = hit / true, 2 * hit / (true + said)
        result = {
            "accuracy": hit.sum(axis=1) / drawn.sum(axis=1),
            "balanced_accuracy": np.nanmean(np.where(true > 0, recalls, np.nan), axis=1),
            "precision": hit[:, 1] / said[:, 1],
            "recall": recalls[:, 1],
            "f1": scores[:, 1],
        }
        occurs = true + said > 0
        result["f1_macro"] = np.where(occurs, scores, 0).sum(axis=1) / occurs.sum(axis=1)
    return result


def influence(model: Predictions, metric: str) -> Floats:
    """How much each row moves a metric: its mean is 0, and the mean of its square over n is the variance.

    Source: the delta method (van der Vaart, Asymptotic Statistics, 1998, chapter 3).
    """
    import numpy as np

    outcome = _known(model)
    if metric in ("brier_score", "log_loss"):
        loss = _loss(model, metric)
        return np.asarray(loss - loss.mean(), dtype="float64")
    error = model.decision - outcome
    if metric == "mae":
        return np.asarray(np.abs(error) - np.abs(error).mean(), dtype="float64")
    square = error * error
    mean = square.mean()
    if metric == "rmse":
        return np.asarray((square - mean) / (2 * mean**0.5) if mean > 0 else 0 * square, dtype="float64")
    spread = (outcome - outcome.mean()) ** 2
    whole = spread.mean()
    return np.asarray(-(square - mean) / whole + mean / whole**2 * (spread - whole), dtype="float64")


def _loss(model: Predictions, metric: str) -> Floats:
    """Each row's part of a mean loss."""
    import numpy as np

    outcome, score = _known(model), _score(model)
    tiny = np.finfo("float64").eps
    if model.task is Task.MULTICLASS:
        share = score / score.sum(axis=1, keepdims=True)
        chosen = share[np.arange(len(outcome)), outcome.astype("int64")]
        return np.asarray(-np.log(np.clip(chosen, tiny, 1)), dtype="float64")
    if metric == "brier_score":
        return np.asarray((score - outcome) ** 2, dtype="float64")
    inside = np.clip(score, tiny, 1 - tiny)
    return np.asarray(-(outcome * np.log(inside) + (1 - outcome) * np.log(1 - inside)), dtype="float64")


def delong(outcome: Floats, scores: list[Floats]) -> tuple[list[float], list[list[float]]]:
    """Areas under the ROC curves of several scores on the same rows, and their covariance.

    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988); by mid-ranks as in Sun and Xu (2014).
    Ties count half. With one row of a class its part of the variance is taken as 0.

    Law: equals the sum over all pairs of a positive and a negative row.
    """
    import numpy as np
    from scipy.stats import rankdata

    true = outcome == 1
    positives, negatives = int(true.sum()), int((~true).sum())
    above, below = [], []
    for score in scores:
        everywhere = rankdata(score)
        above.append((everywhere[true] - rankdata(score[true])) / negatives)
        below.append(1 - (everywhere[~true] - rankdata(score[~true])) / positives)
    covariance = _cov(np.vstack(above)) / positives + _cov(np.vstack(below)) / negatives
    return [float(part.mean()) for part in above], [[float(x) for x in row] for row in covariance]


def _cov(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import numpy as np

    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.atleast_2d(centred @ centred.T / max(1, rows.shape[1] - 1))
