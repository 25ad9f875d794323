"""Is the log itself sound: how much came, what is missing in it, and who answered."""

from __future__ import annotations

from statistics import median
from typing import Any

from airlock.core import logged
from airlock.core.signals import Reading, Signal, failed, judged, off, unsure
from airlock.core.statistics import percent, wilson_interval
from airlock.profiles.batch import Batch, open_batch
from airlock.profiles.compare import NUMERIC
from airlock.services.signals.scene import Scene, asked

_KNOWN_TEXTS = 5000
"""Different texts of a training column that new ones are looked up in; one with more is free text."""


def volume(scene: Scene) -> list[Signal]:
    """How much was logged, against the windows before."""
    found, days = scene.logged, scene.window.days
    missing = [day for day in days if day not in found.days]
    details: dict[str, Any] = {"days": found.days, "missing_days": missing, "lost": found.lost}
    fix = "see whether the model server runs and its recorder can write; then run this window again"
    if not found.rows:
        text = f"nothing was logged between {scene.window.text}"
        return [failed("volume", text, fix=fix, value=0.0, n=0, details=details)]
    usual = median(scene.past.rows) if scene.past.rows else None
    if len(missing) > scene.past.missing_days and (usual is not None or len(missing) * 2 > len(days)):
        text = f"{found.rows} rows, and none on {', '.join(missing[:10])}"
        return [_raised("volume", text, fix, value=float(len(missing)), n=found.rows, details=details)]
    if usual is None:
        text = f"{found.rows} rows; this is the first window, so nobody knows how many there should be"
        return [Signal(name="volume", reading=Reading.CALM, text=text, n=found.rows, details=details)]
    change, limit = found.rows / usual - 1, scene.limits.volume_change
    text = f"{found.rows} rows, usually about {usual:,.0f} ({100 * change:+.0f} %)"
    # Counts of events spread by at least their root; fewer are never told from chance.
    chance = scene.z * (found.rows**0.5 + usual**0.5) / usual
    if abs(change) > limit and abs(change) > chance:
        return [_raised("volume", text, fix, value=change, limit=limit, n=found.rows, details=details)]
    return [
        Signal(
            name="volume", reading=Reading.CALM, text=text, value=change, limit=limit, n=found.rows,
            details=details,
        )
    ]  # fmt: skip


def _raised(name: str, text: str, fix: str, **known: Any) -> Signal:
    return Signal(name=name, reading=Reading.RAISED, text=text, fix=fix, **known)


def data_quality(scene: Scene) -> list[Signal]:
    """Whether what was logged can be believed."""
    found, limit = scene.logged, scene.limits.unusable_share
    if not found.rows:
        return [unsure("data_quality", "nothing was logged, so nothing can be said about it", n=0)]
    problems = [*_schema_problems(scene), *_share_problems(scene)]
    gone = {name: after - before for name, before, after in _nulls(scene) if after - before > limit}
    problems += [
        f"{name} is missing in {percent(share)} more rows than in training" for name, share in gone.items()
    ]
    worst = max([0.0, *gone.values(), *(count / found.rows for count in found.mistyped.values())])
    known: dict[str, Any] = {
        "value": worst,
        "limit": limit,
        "n": found.rows,
        "details": {
            "missing_columns": found.missing,
            "renamed": found.renamed,
            "missing_values": gone,
            "mistyped": found.mistyped,
            "repeated": found.repeated,
            "contradictory": found.contradictory,
            "early_labels": found.early_labels,
            "future": found.future,
            "lost": found.lost,
            "unreadable": found.unreadable,
        },
    }
    if problems:
        fix = "mend it where it comes from, then run this window again; nothing is trained on such data"
        return [_raised("data_quality", "; ".join(problems)[:2000], fix, **known)]
    text = f"{found.rows} rows with every column the model reads, as the training data has them"
    return [Signal(name="data_quality", reading=Reading.CALM, text=text, **known)]


def _schema_problems(scene: Scene) -> list[str]:
    found, problems = scene.logged, []
    for name in found.missing:
        new = found.renamed.get(name)
        problems.append(f"column {name} is missing" + (f"; was it renamed to {new}?" if new else ""))
    if found.unreadable:
        problems.append(f"{len(found.unreadable)} files cannot be read: {', '.join(found.unreadable[:5])}")
    if found.future:
        problems.append(f"{found.future} rows are logged for days that have not come: a clock is wrong")
    if found.early_labels:
        problems.append(f"{found.early_labels} outcomes are older than their prediction: a clock is wrong")
    return problems


def _share_problems(scene: Scene) -> list[str]:
    found, limit = scene.logged, scene.limits.unusable_share
    counted = [
        (found.repeated, found.rows, "rows repeat an id"),
        (found.contradictory, max(1, found.labelled + found.contradictory), "outcomes contradict each other"),
        (found.timeless, found.rows, "rows have no time"),
        (found.lost, found.rows + found.lost, "rows were lost by the recorder"),
        *((count, found.rows, f"values of {name} are no numbers") for name, count in found.mistyped.items()),
    ]
    return [f"{count} {what}" for count, of, what in counted if count / of > limit]


def _nulls(scene: Scene) -> list[tuple[str, float, float]]:
    """Each feature with its share of missing values in training and in the window."""
    training = scene.release.training
    names = [name for name in scene.workload.model.features if _in_both(scene, name)]
    with open_batch(training) as before, open_batch(scene.everything) as now:
        shares = []
        for batch in (before, now):
            counts = asked(batch, [f"count({batch.column(name)})" for name in names])
            shares.append([1 - count / max(1, batch.rows) for count in counts])
    return list(zip(names, *shares, strict=True))


def _in_both(scene: Scene, name: str) -> bool:
    return name in scene.everything.columns() and name in scene.release.training.columns()


def unknown_version(scene: Scene) -> list[Signal]:
    """Predictions that no governed version made."""
    if not scene.logged.rows:
        return [unsure("unknown_version", "nothing was logged, so nobody knows who answered", n=0)]
    if logged.VERSION not in scene.everything.columns():
        text = "the log does not say which version answered"
        fix = "log the version with each prediction; without it nobody knows what is in production"
        return [failed("unknown_version", text, fix=fix, n=scene.logged.rows)]
    with open_batch(scene.everything) as batch:
        column, rows = batch.column(logged.VERSION), batch.rows
        found = batch.examples("true", column, 1000)
    by_version = {"" if name is None else str(name): int(count) for name, count in found}
    strange = {name: count for name, count in by_version.items() if name not in scene.governed}
    unknown = sum(strange.values())
    shown = ", ".join(name or "(none)" for name in list(strange)[:5])
    text = f"{unknown} of {rows} predictions are by versions that nobody released"
    return [
        judged(
            "unknown_version",
            value=unknown / rows,
            limit=scene.limits.unknown_version_share,
            direction="lower",
            interval=wilson_interval(unknown, rows, scene.confidence),
            no_effect=0.0,
            text=f"{text}: {shown}" if strange else f"all {rows} predictions are by released versions",
            fix="find the endpoint that serves it, and release the version or take it down",
            n=rows,
            confidence=scene.confidence,
            method="Wilson",
            details={"versions": by_version},
        )
    ]


def unknown_values(scene: Scene) -> list[Signal]:
    """Predictions on values the training data does not have: unknown categories, numbers far outside."""
    if (few := scene.too_few("unknown_values", scene.logged.rows)) is not None:
        return [few]
    with open_batch(scene.everything) as batch:
        strange = _strange(scene, batch)
        if not strange:
            return [
                off("unknown_values", "no feature has values that could be told from the training data's")
            ]
        each = asked(batch, [f"count(*) FILTER ({condition})" for condition in strange.values()])
        any_of = " OR ".join(f"coalesce({condition}, false)" for condition in strange.values())
        unknown, rows = int(asked(batch, [f"count(*) FILTER ({any_of})"])[0]), batch.rows
    by_feature = {name: int(count) for name, count in zip(strange, each, strict=True) if count}
    worst = sorted(by_feature, key=lambda name: -by_feature[name])[:5]
    shown = ", ".join(f"{name} ({by_feature[name]})" for name in worst)
    return [
        judged(
            "unknown_values",
            value=unknown / rows,
            limit=scene.limits.unknown_value_share,
            direction="lower",
            interval=wilson_interval(unknown, rows, scene.confidence),
            no_effect=0.0,
            text=f"{unknown} of {rows} predictions have values unlike any in training"
            + (f": {shown}" if shown else ""),
            fix="see whether a category is new, a unit changed, or the data must be learned",
            n=rows,
            confidence=scene.confidence,
            method="Wilson",
            details={"features": by_feature},
        )
    ]


def _strange(scene: Scene, batch: Batch) -> dict[str, str]:
    """Feature → SQL condition for a value the training data does not have."""
    training, conditions = scene.release.training, {}
    for name in scene.workload.model.features:
        if not _in_both(scene, name):
            continue
        kinds = {source.columns()[name].kind for source in (training, scene.everything)}
        column = batch.column(name)
        if kinds <= set(NUMERIC) and len(kinds) == 1:
            ends = training.numbers(name).ends
            if ends is not None:
                reach = scene.limits.range_margin * (ends[1] - ends[0])
                low, high = ends[0] - reach, ends[1] + reach
                conditions[name] = f"({column} < ({low!r}) OR {column} > ({high!r}))"
        else:
            known = training.texts(name).counts
            if len(known) <= _KNOWN_TEXTS:
                listed = ", ".join("'" + text.replace("'", "''") + "'" for text in known) or "NULL"
                conditions[name] = f"({column} IS NOT NULL AND CAST({column} AS VARCHAR) NOT IN ({listed}))"
    return conditions
