"""Does production still look as it did: features, scores and what the model rests on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from airlock.core import logged
from airlock.core.columns import Task
from airlock.core.errors import SandboxError
from airlock.core.signals import Reading, Signal, failed, judged, off, unsure
from airlock.core.statistics import exceeds, percent
from airlock.profiles.compare import compare
from airlock.profiles.effects import Effect, Limits, Moved, effects_of
from airlock.profiles.joint import separability
from airlock.profiles.source import FrameSource
from airlock.services.signals.scene import SEED, Explain, Scene

_JOINT_ROWS = 5000
_REDRAWS = 400
_JOINT_AUC = 0.65
"""What the drift gate of the shipped policy has."""
_FIX = "find out whether the population, a unit or a code upstream changed; correct the data or retrain"


def data_drift(scene: Scene) -> list[Signal]:
    """Features one by one on all rows, and together by a classifier on a sample."""
    if (few := scene.too_few("data_drift", scene.logged.rows)) is not None:
        return [few]
    training, now = scene.release.training, scene.everything
    features = [
        name for name in scene.workload.model.features if name in now.columns() and name in training.columns()
    ]
    if not features:
        return [failed("data_drift", "no feature is in both the log and the training data", fix=_FIX)]
    effects = effects_of(compare(training, now, features), _limits(scene, scene.limits.psi))
    judgeable = [effect for effect in effects if effect.judged]
    if not judgeable:
        return [unsure("data_drift", "no feature has enough values to compare", n=scene.logged.rows)]
    drifted = [effect.name for effect in judgeable if effect.moved is Moved.FAR]
    close = [effect.name for effect in judgeable if effect.moved is Moved.UNSURE]
    joint = _joint(scene, [effect.name for effect in judgeable if effect.moved is not Moved.FAR])
    share = len(drifted) / len(judgeable)
    together = joint is not None and exceeds(joint["interval"][0], _JOINT_AUC)
    details = {"drifted": drifted, "close": close, "joint": joint, "features": _table(effects)}
    known: dict[str, Any] = {
        "value": share,
        "limit": scene.limits.drift_share,
        "direction": "lower",
        "n": scene.logged.rows,
        "method": "PSI over deciles, chi-square corrected by Benjamini-Hochberg",
        "details": details,
    }
    if share > scene.limits.drift_share or together:
        text = f"{len(drifted)} of {len(judgeable)} features have drifted ({percent(share)})"
        text += f": {', '.join(drifted[:8])}" if drifted else ""
        text += "; and features moved together: a classifier tells the window apart" if together else ""
        return [Signal(name="data_drift", reading=Reading.RAISED, text=text, fix=_FIX, **known)]
    text = f"{len(judgeable)} features look like the training data"
    if close:
        text += f"; {len(close)} of them could be further than they look: {', '.join(close[:8])}"
    return [Signal(name="data_drift", reading=Reading.CALM, text=text, **known)]


def _limits(scene: Scene, psi: float) -> Limits:
    rate = 1 - scene.confidence
    effects = {"psi_deciles": psi, "missing_psi": psi}
    return Limits(effects, rate, scene.confidence, scene.spec.minimum_rows)


def _table(effects: list[Effect]) -> dict[str, Any]:
    return {
        effect.name: {
            "psi": effect.comparison.psi_deciles,
            "interval": effect.intervals.get("psi_deciles"),
            "moved": str(effect.moved),
            "missing": list(effect.comparison.missing),
        }
        for effect in effects
    }


def _joint(scene: Scene, steady: list[str]) -> dict[str, Any] | None:
    if not steady:
        return None
    sides = [
        source.sample(steady, _JOINT_ROWS, SEED) for source in (scene.release.training, scene.everything)
    ]
    found = separability(sides[0], sides[1], confidence=scene.confidence, seed=SEED)
    return {"auc": found.auc, "interval": list(found.interval), "n": found.n}


def prediction_drift(scene: Scene) -> list[Signal]:
    """The champion's scores against those it gave when it was released."""
    own = scene.answered("prediction_drift")
    if isinstance(own, Signal):
        return [own]
    n = own.rows()
    column = logged.DECISION if scene.task is Task.MULTICLASS else logged.SCORE
    if column not in own.columns():
        fix = "log the score with each prediction, or name its column in monitoring.log.columns"
        return [failed("prediction_drift", f"the log has no column {column}", fix=fix, n=n)]
    name = "decision" if column == logged.DECISION else "score"
    before = FrameSource(scene.release.scored[[name]].set_axis([column], axis=1))
    effect = effects_of(compare(before, own, [column]), _limits(scene, scene.limits.prediction_psi))[0]
    psi, interval = effect.comparison.psi_deciles, effect.intervals.get("psi_deciles")
    reading = {Moved.FAR: Reading.RAISED, Moved.UNSURE: Reading.UNSURE}.get(effect.moved, Reading.CALM)
    if not effect.judged or psi is None:
        return [unsure("prediction_drift", "too few scores to compare", n=n)]
    if reading is Reading.UNSURE and not exceeds(psi, scene.limits.prediction_psi):
        reading = Reading.CALM  # only its interval reaches the limit, which a small window's always does
    return [
        Signal(
            name="prediction_drift",
            reading=reading,
            text=effect.text or f"the scores of {n} predictions look as at the release, PSI {psi:.3f}",
            value=psi,
            limit=scene.limits.prediction_psi,
            direction="lower",
            interval=interval,
            confidence=scene.confidence,
            n=n,
            method="PSI over deciles, chi-square",
            fix="see which features moved; compare decisions by segment"
            if reading is not Reading.CALM
            else "",
        )
    ]


def explanation(scene: Scene) -> list[Signal]:
    """Whether decisions rest on the same features as at the release: rank correlation of attributions."""
    name, before = "explanation", scene.release.attributions
    if scene.explain is None or not scene.limits.explained_rows:
        return [off(name, "not measured: policy explains no rows of production")]
    if before is None:
        return [off(name, "not measured: the release has no attributions to compare with")]
    own = scene.answered(name)
    if isinstance(own, Signal):
        return [own]
    if missing := [column for column in before.columns if column not in own.columns()]:
        return [failed(name, f"the log has no {', '.join(missing)}, which the model reads", fix=_FIX)]
    rows = own.sample(list(scene.workload.model.features), scene.limits.explained_rows, SEED)
    now = _explained(scene.explain, rows)
    if not isinstance(now, Signal):
        now = _compared(scene, before, now)
    return [now]


def _explained(explain: Explain, rows: Any) -> Any:
    """Attributions of rows, or the answer because there are none."""
    with tempfile.TemporaryDirectory(prefix="airlock-explain-") as folder:
        path = Path(folder) / "rows.parquet"
        rows.to_parquet(path, index=False)
        try:
            found = explain(path)
        except SandboxError as error:
            what = f"the champion cannot be explained: {error.what}"
            return failed(
                "explanation", what.splitlines()[0], fix=error.fix.splitlines()[0] if error.fix else ""
            )
    return off("explanation", "not measured: no explainer fits this model") if found is None else found


def _compared(scene: Scene, before: Any, now: Any) -> Signal:
    value, interval = _rank_correlation(scene, before, now)
    text = f"attributions of {len(now)} rows rank the features as at the release"
    return judged(
        "explanation",
        value=value,
        limit=scene.limits.rank_correlation,
        direction="higher",
        interval=interval,
        no_effect=1.0,
        text=f"{text}: correlation {value:.2f}",
        fix="see which features matter now and did not; a leak or a broken feature looks like this",
        n=len(now),
        confidence=scene.confidence,
        method="Spearman over mean |SHAP|, bootstrap of rows",
        details={"now": _importance(now), "release": _importance(before)},
    )


def _importance(frame: Any) -> dict[str, float]:
    return {str(name): float(value) for name, value in frame.abs().mean().items()}


def _rank_correlation(scene: Scene, before: Any, now: Any) -> tuple[float, tuple[float, float]]:
    import numpy as np
    from scipy.stats import rankdata

    names = [name for name in before.columns if name in now.columns]
    own = now[names].abs().to_numpy("float64")
    theirs = rankdata(before[names].abs().to_numpy("float64").mean(axis=0))
    rng = np.random.default_rng(SEED)
    means = [own[rng.integers(0, len(own), len(own))].mean(axis=0) for _ in range(_REDRAWS)]
    ranks = rankdata(np.vstack([own.mean(axis=0), *means]), axis=1)
    if len(names) < 2 or np.ptp(theirs) == 0 or (np.ptp(ranks, axis=1) == 0).any():  # noqa: PLR2004  # no order
        return 1.0, (1.0, 1.0)
    centred, fixed = ranks - ranks.mean(axis=1, keepdims=True), theirs - theirs.mean()
    found = centred @ fixed / np.sqrt((centred**2).sum(axis=1) * (fixed**2).sum())
    low, high = np.quantile(found[1:], [(1 - scene.confidence) / 2, (1 + scene.confidence) / 2])
    value = float(found[0])
    return value, (min(value, float(low)), max(value, float(high)))
