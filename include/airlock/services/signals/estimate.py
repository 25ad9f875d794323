"""How well the model probably does while outcomes are not known: an estimate, always marked as one.

If a score means what it says, a row with score p has the favourable outcome with probability p, and every
metric of decisions has an expected value (confidence-based performance estimation). That assumption is
checked where it can be: scores are calibrated on the release's evaluation, and the estimate for the window is
held against the same estimate for that evaluation, so that what the method gets wrong on both cancels. It
cannot see concept drift, by construction.
"""

from __future__ import annotations

from typing import Any

from airlock.core import logged
from airlock.core.columns import Task
from airlock.core.signals import Signal, failed, judged, off, unsure
from airlock.gates._intervals import percentile, redraw
from airlock.services.signals.scene import Scene

_CELLS = 200
"""Bins of scores the estimate is computed on, by the release's quantiles."""
_STEPS = 50


def performance_estimate(scene: Scene) -> list[Signal]:
    """The primary metric's expected value in this window, against its expected value at the release."""
    name = "performance_estimate"
    if scene.task is not Task.BINARY:
        return [off(name, "estimated for two outcomes alone")]
    own = scene.answered(name)
    if isinstance(own, Signal):
        return [own]
    n = own.rows()
    if logged.SCORE not in own.columns():
        return [failed(name, "the log has no score", n=n)]
    release = scene.release.scored.dropna(subset=["score", "label"])
    now = scene.rows_of(own, [logged.SCORE])[logged.SCORE].dropna()
    if not now.between(0, 1).all():
        return [failed(name, "some scores are no probabilities", fix="log the probability as the score", n=n)]
    metric = scene.metric if scene.metric in ("roc_auc", "accuracy", "brier_score") else "accuracy"
    threshold = _threshold(scene)
    estimate = _Estimate(
        release["score"].to_numpy("float64"), release["label"].to_numpy("float64"), threshold
    )
    before = estimate.of(estimate.counts(release["score"].to_numpy("float64")), metric)
    counts = estimate.counts(now.to_numpy("float64"))
    value = estimate.of(counts, metric)
    if before <= 0:
        return [unsure(name, f"{metric} cannot be estimated from these scores", n=n)]
    sign = -1 if metric == "brier_score" else 1
    change = sign * (value - before) / before
    draws = estimate.of(redraw(counts, scene.replicates), metric)
    # The release's own estimate varies as well, with its own number of rows.
    spread = percentile(draws, scene.confidence) or (value, value)
    half = (spread[1] - spread[0]) / 2 * (1 + len(now) / len(release)) ** 0.5 / before
    return [
        judged(
            name,
            value=change,
            limit=-scene.limits.performance_loss,
            direction="higher",
            interval=(change - half, change + half),
            no_effect=0.0,
            text=f"{metric} is estimated at {value:.3f} from the scores alone, {before:.3f} for the release "
            f"({100 * change:+.1f} %)",
            fix="wait for outcomes to confirm it; an estimate cannot see that scores mean something else now",
            n=n,
            confidence=scene.confidence,
            method="confidence-based estimation, scores calibrated on the release's evaluation",
            estimated=True,
        )
    ]


def _threshold(scene: Scene) -> float:
    """The score from which the champion decides 1, as its decisions at the release show it."""
    decided = scene.release.scored
    chosen = decided.loc[decided["decision"] == 1, "score"]
    return float(chosen.min()) if len(chosen) else 1.0


class _Estimate:
    """Expected metrics over bins of scores."""

    def __init__(self, score: Any, label: Any, threshold: float) -> None:
        import numpy as np

        inner = np.quantile(score, np.linspace(0, 1, _CELLS + 1)[1:-1])
        self._edges = np.unique(np.append(inner, threshold))
        middles = np.concatenate(
            [[self._edges[0]], (self._edges[1:] + self._edges[:-1]) / 2, [self._edges[-1]]]
        )
        self._likely = _calibrated(score, label, middles)
        self._chosen = np.concatenate([[-np.inf], self._edges]) >= threshold

    def counts(self, score: Any) -> Any:
        """Rows in each bin."""
        import numpy as np

        place = np.searchsorted(self._edges, score, side="right")
        return np.bincount(place, minlength=len(self._edges) + 1)

    def of(self, counts: Any, metric: str) -> Any:
        """The expected metric of counts (…, bins)."""
        import numpy as np

        rows, p = np.asarray(counts, dtype="float64"), self._likely
        if metric == "roc_auc":
            positive, negative = rows * p, rows * (1 - p)
            below = np.cumsum(negative, axis=-1) - negative
            won = (positive * (below + negative / 2)).sum(axis=-1)
            return won / np.maximum(positive.sum(axis=-1) * negative.sum(axis=-1), 1e-12)
        right = np.where(self._chosen, p, 1 - p) if metric == "accuracy" else p * (1 - p)
        return (rows * right).sum(axis=-1) / np.maximum(rows.sum(axis=-1), 1)


def _calibrated(score: Any, label: Any, at: Any) -> Any:
    """Probability of the favourable outcome at scores, by Platt's scaling of the release's evaluation.

    Source: Platt, Advances in Large Margin Classifiers (1999). Two numbers by Newton's method, with a little
    ridge, so that a perfect ranking does not run away.
    """
    import numpy as np

    def logit(values: Any) -> Any:
        inside = np.clip(values, 1e-6, 1 - 1e-6)
        return np.log(inside / (1 - inside))

    x = np.column_stack([np.ones(len(score)), logit(score)])
    weights = np.array([0.0, 1.0])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (label - p) - 1e-3 * weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if float(np.abs(step).max()) < 1e-9:  # noqa: PLR2004  # nothing moves any more
            break
    return 1 / (1 + np.exp(-np.clip(np.column_stack([np.ones(len(at)), logit(at)]) @ weights, -30, 30)))
