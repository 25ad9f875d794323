"""What came of the predictions: outcomes, performance, what scores mean, and who is decided how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airlock.core import logged
from airlock.core.columns import Task
from airlock.core.signals import Signal, failed, judged, off, unsure
from airlock.core.statistics import percent
from airlock.gates._fairness import Sampling
from airlock.gates._fairness import measure as fairness_of
from airlock.gates._measures import SMALLER_IS_BETTER, Uncertainty, measure
from airlock.gates._predictions import Predictions, groups_of
from airlock.services.signals.scene import Scene, mean_interval, share_interval

if TYPE_CHECKING:
    import pandas as pd

_MINIMUM_GROUP = 30
_WAIT = "wait for outcomes; monitoring.label_delay_days says when most of them are known"


def matured_rows(scene: Scene) -> pd.DataFrame | None:
    """Rows of the champion whose outcome is known, as ``score``, ``decision``, ``label``; ``None``: none."""
    if scene.matured is None or logged.LABEL not in scene.matured.columns():
        return None
    frame = scene.rows_of(scene.matured, [logged.SCORE, logged.DECISION, logged.LABEL])
    names = {logged.SCORE: "score", logged.DECISION: "decision", logged.LABEL: "label"}
    return frame.rename(columns=names).dropna(subset=["label"])


def _known(scene: Scene, name: str) -> tuple[pd.DataFrame | None, list[Signal]]:
    """Rows with outcomes, or the answer because there are not enough of them."""
    rows = matured_rows(scene)
    n = 0 if rows is None else len(rows)
    if rows is None or n < scene.spec.minimum_rows:
        text = f"{n} outcomes are known, and {scene.spec.minimum_rows} are needed"
        return None, [unsure(name, text, fix=_WAIT, n=n)]
    return rows, []


def target_drift(scene: Scene) -> list[Signal]:
    """Whether outcomes are as frequent as at the release."""
    rows, answer = _known(scene, "target_drift")
    if rows is None:
        return answer
    before = scene.release.scored["label"].dropna()
    fix = "find out what changed in the world or in how outcomes are recorded; retrain if it stays"
    if scene.task is Task.REGRESSION:
        scale = float(before.std(ddof=0)) or 1.0
        change, interval = mean_interval(rows["label"] / scale, before / scale, scene.z)
        text = f"outcomes moved by {change:+.2f} standard deviations"
    elif scene.task is Task.BINARY:
        now, then = float(rows["label"].mean()), float(before.mean())
        change = now - then
        interval = share_interval(now, len(rows), then, len(before), scene.z)
        text = f"{percent(now)} of the outcomes are favourable, {percent(then)} at the release"
    else:
        change, interval, text = _most_moved_class(rows["label"], before, scene.z)
    if change < 0:
        interval = (-interval[1], -interval[0])
    return [
        judged(
            "target_drift",
            value=abs(change),
            limit=scene.limits.target_change,
            direction="lower",
            interval=interval,
            no_effect=0.0,
            text=f"{text} ({len(rows)} known)",
            fix=fix,
            n=len(rows),
            confidence=scene.confidence,
            method="difference, normal",
        )
    ]


def _most_moved_class(now: Any, before: Any, z: float) -> tuple[float, tuple[float, float], str]:
    shares = [side.astype(str).value_counts(normalize=True) for side in (now, before)]
    names = sorted(set(shares[0].index) | set(shares[1].index))
    moved = {name: float(shares[0].get(name, 0) - shares[1].get(name, 0)) for name in names}
    name = max(names, key=lambda one: abs(moved[one]))
    first, second = float(shares[0].get(name, 0)), float(shares[1].get(name, 0))
    interval = share_interval(first, len(now), second, len(before), z)
    return (
        moved[name],
        interval,
        f"{name} is {percent(first)} of the outcomes, {percent(second)} at the release",
    )


def predictions_of(scene: Scene, rows: pd.DataFrame) -> Predictions:
    """Rows as the measures read them."""
    import numpy as np

    task = scene.task
    if task is Task.MULTICLASS:
        names = sorted({*rows["label"].astype(str), *rows["decision"].astype(str)})
        place = {name: index for index, name in enumerate(names)}
        label, decision = (
            np.array([place[text] for text in rows[column].astype(str)], dtype="float64")
            for column in ("label", "decision")
        )
        return Predictions("champion", task, label, decision, None, names)
    decided = "score" if task is Task.REGRESSION else "decision"
    label, decision = (rows[column].to_numpy("float64") for column in ("label", decided))
    score = rows["score"].to_numpy("float64") if task is Task.BINARY and "score" in rows else None
    return Predictions("champion", task, label, decision, score, ["0", "1"] if task is Task.BINARY else [])


def performance(scene: Scene) -> list[Signal]:
    """The primary metric on known outcomes, against the release's own evaluation."""
    rows, answer = _known(scene, "performance")
    if rows is None:
        return answer
    wanted = ["score", "label"] if scene.task is Task.REGRESSION else ["decision", "label"]
    if scene.task is Task.BINARY and "score" in rows:
        wanted.append("score")
    if lacking := [name for name in wanted if name not in rows]:
        return [failed("performance", f"the log has no {' and no '.join(lacking)}", n=len(rows))]
    sides = [predictions_of(scene, side.dropna(subset=wanted)) for side in (rows, scene.release.scored)]
    values = [measure(side) for side in sides]
    now, before = (value.get(scene.metric) for value in values)
    if now is None or before is None or before <= 0:
        text = f"{scene.metric} is undefined for these {len(rows)} outcomes: all of them are alike"
        return [unsure("performance", text, fix=_WAIT, n=len(rows))]
    reach = 0.0
    for side, value in zip(sides, values, strict=True):
        interval = Uncertainty([side], [value], scene.confidence, scene.replicates).interval(scene.metric)
        low, high = interval or (0.0, 0.0)
        reach += ((high - low) / 2) ** 2
    sign = -1 if scene.metric in SMALLER_IS_BETTER else 1
    change, half = sign * (now - before) / before, reach**0.5 / before
    return [
        judged(
            "performance",
            value=change,
            limit=-scene.limits.performance_loss,
            direction="higher",
            interval=(change - half, change + half),
            no_effect=0.0,
            text=f"{scene.metric} is {now:.3f} on {len(rows)} known outcomes, {before:.3f} at the release "
            f"({100 * change:+.1f} %)",
            fix="see which segments lost; retrain on data with these outcomes, or go back a version",
            n=len(rows),
            confidence=scene.confidence,
            method="difference of two samples",
            details={"now": values[0], "release": values[1]},
        )
    ]


def concept_drift(scene: Scene) -> list[Signal]:
    """Whether the same score means the same: mean of outcome minus score, against the release."""
    rows, answer = _known(scene, "concept_drift")
    if rows is None:
        return answer
    if scene.task is Task.MULTICLASS:
        return [off("concept_drift", "not measured for several classes: no single score is logged")]
    if "score" not in rows:
        return [failed("concept_drift", "the log has no score", n=len(rows))]
    before = scene.release.scored.dropna(subset=["label", "score"])
    sides = [side["label"].astype("float64") - side["score"].astype("float64") for side in (rows, before)]
    scale = float(sides[1].std(ddof=0)) or 1.0
    if scene.task is Task.REGRESSION:
        sides = [side / scale for side in sides]
    change, interval = mean_interval(sides[0].dropna(), sides[1], scene.z)
    if change < 0:
        interval = (-interval[1], -interval[0])
    details: dict[str, Any] = {"signed": change}
    if scene.task is Task.BINARY and rows["score"].between(0, 1).all():
        from airlock.gates._calibration import calibration

        found = calibration(
            rows["label"].to_numpy("float64"), rows["score"].to_numpy("float64"),
            bins=scene.bins, confidence=scene.confidence, replicates=scene.replicates,
        )  # fmt: skip
        details |= {"calibration_error": found.error, "calibration_interval": list(found.interval)}
    return [
        judged(
            "concept_drift",
            value=abs(change),
            limit=scene.limits.residual,
            direction="lower",
            interval=interval,
            no_effect=0.0,
            text=f"outcomes lie {100 * change:+.1f} points above their scores compared with the release"
            if scene.task is Task.BINARY
            else f"outcomes lie {change:+.2f} standard deviations above predictions, against the release",
            fix="the relation between features and outcome changed: retrain on recent outcomes",
            n=len(rows),
            confidence=scene.confidence,
            method="difference of mean residuals, normal",
            details=details,
        )
    ]


def fairness(scene: Scene) -> list[Signal]:
    """The lowest impact ratio between the groups of each protected attribute, by what was decided."""
    sensitive = scene.workload.data.sensitive
    if not sensitive:
        return [off("fairness", "the workload names no protected attribute")]
    if scene.task is not Task.BINARY:
        return [off("fairness", "decisions of this task favour nobody by themselves")]
    own = scene.answered("fairness")
    if isinstance(own, Signal):
        return [own]
    n = own.rows()
    missing = [name for name in (*sensitive, logged.DECISION) if name not in own.columns()]
    if missing:
        fix = "log the protected attribute beside the features (attributes=…), or its segment"
        return [failed("fairness", f"the log has no {', '.join(missing)}", fix=fix, n=n)]
    now = scene.rows_of(own, [*sensitive, logged.DECISION]).dropna(subset=[logged.DECISION])
    before = scene.release.scored
    found = {
        name: (
            _ratio(scene, now[name], now[logged.DECISION], words),
            _ratio(scene, before[name], before["decision"], words),
        )
        for name, words in sensitive.items()
    }
    measured = {name: pair for name, pair in found.items() if pair[0] is not None and pair[1] is not None}
    if not measured:
        text = f"no attribute has two groups of {_MINIMUM_GROUP} rows in this window and at the release"
        return [unsure("fairness", text, fix="make windows longer", n=n)]
    signals = [_attribute(scene, name, pair, len(now)) for name, pair in measured.items()]
    order = ["raised", "unsure", "error", "calm"]
    worst = min(
        signals, key=lambda one: (order.index(one.reading), one.value if one.value is not None else 1)
    )
    details = {one.details["attribute"]: one.details | {"reading": str(one.reading)} for one in signals}
    return [worst.model_copy(update={"details": {"attributes": details}})]


_Ratio = tuple[float, tuple[float, float]]


def _ratio(scene: Scene, group: Any, decision: Any, words: dict[str, str]) -> _Ratio | None:
    """Impact ratio of an attribute with its interval; ``None`` where no two groups can be compared."""
    sampling = Sampling(_MINIMUM_GROUP, 0.0, scene.confidence, max(scene.replicates, 2000))
    decided = decision.to_numpy("float64").astype("int64")
    found = fairness_of("", groups_of(group, words), None, decided, sampling)
    gap = found.gaps.get("demographic_parity_ratio")
    if gap is None or gap.value is None or gap.interval is None:
        return None
    return gap.value, gap.interval


def _attribute(scene: Scene, name: str, pair: tuple[_Ratio | None, _Ratio | None], n: int) -> Signal:
    now, before = pair
    assert now is not None  # noqa: S101  # the caller takes only those that were measured
    assert before is not None  # noqa: S101  # same
    value, then = now[0], before[0]
    # The release's own ratio is no certainty either: both half-widths count.
    up = ((now[1][1] - value) ** 2 + (then - before[1][0]) ** 2) ** 0.5
    down = ((value - now[1][0]) ** 2 + (before[1][1] - then) ** 2) ** 0.5
    return judged(
        "fairness",
        value=value,
        limit=min(scene.limits.impact_ratio, then),
        direction="higher",
        interval=(value - down, value + up),
        no_effect=then,
        text=f"the impact ratio of {name} is {value:.2f}, {then:.2f} at the release",
        fix="see which segment is decided differently; compare with the decision-change report",
        n=n,
        confidence=scene.confidence,
        method="selection rates, bootstrap of cells",
        details={"attribute": name, "ratio": value, "release": then},
    )
