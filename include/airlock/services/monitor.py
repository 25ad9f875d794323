"""Watch one window of production: measure every signal, keep the evidence, record what it says (M-1).

A window is judged once for the same log, champion and policy; asked again, the same answer comes back. When
late data has changed the log of a window, it is judged again as its next revision, beside the first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airlock.adapters.production_log import LoggedWindow, ProductionLog
from airlock.core import logged
from airlock.core.audit import Event, Kind
from airlock.core.errors import ConfigurationError, ConflictError, NotFoundError
from airlock.core.monitoring import MonitoringRules
from airlock.core.policy import Policy
from airlock.core.production import MonitoringSpec, Window
from airlock.core.signals import SIGNALS, MonitoringEvidence, Signal, failed
from airlock.core.workload import Workload
from airlock.profiles.compare import NUMERIC
from airlock.profiles.source import ParquetSource, connect, literal, quoted
from airlock.services.baselines import OpenBaseline, find_baseline
from airlock.services.deployment import Deployment
from airlock.services.moves import Moves, moves_of
from airlock.services.score import SHAP, score_rows
from airlock.services.signals import drift, estimate, logs, operation, outcomes
from airlock.services.signals.scene import Past, Scene, guarded

if TYPE_CHECKING:
    import pandas as pd

_HISTORY = 8
"""Windows whose number of rows says how many are usual."""
_METRICS = {"classification": "roc_auc", "multiclass": "f1_macro", "regression": "r2"}
_MEASURES: dict[str, Callable[[Scene], list[Signal]]] = {
    "volume": logs.volume,
    "data_quality": logs.data_quality,
    "unknown_version": logs.unknown_version,
    "unknown_values": logs.unknown_values,
    "data_drift": drift.data_drift,
    "prediction_drift": drift.prediction_drift,
    "target_drift": outcomes.target_drift,
    "performance": outcomes.performance,
    "performance_estimate": estimate.performance_estimate,
    "concept_drift": outcomes.concept_drift,
    "fairness": outcomes.fairness,
    "explanation": drift.explanation,
    "business": operation.business,
    "cost": operation.cost,
    "latency": operation.latency,
}


@dataclass(frozen=True)
class Watched:
    """A workload that is watched, with everything it is judged by."""

    workload: Workload
    spec: MonitoringSpec
    policy: Policy
    rules: MonitoringRules
    moves: Moves
    version: str


def watched(deployment: Deployment, workload_name: str) -> Watched:
    """What a workload is watched by.

    Raises:
        NotFoundError: unknown workload, or nothing of it is in production.
        ConfigurationError: workload or policy say nothing about monitoring.
    """
    workload = deployment.config.workload(workload_name)
    policy = deployment.config.policy(workload.policy)
    if workload.monitoring is None:
        raise ConfigurationError(
            f"workload {workload_name} does not say where its predictions are logged",
            where=f"{workload_name}.yaml: monitoring",
            fix="add a section `monitoring` with `log`; docs/monitoring.md has an example",
        )
    if policy.monitoring is None:
        raise ConfigurationError(
            f"policy {policy.version} has no section monitoring, so nothing could be judged",
            where=f"workload {workload_name}",
            fix="publish a policy that has one, and name it in the workload file",
        )
    moves = moves_of(deployment, workload_name)
    if moves.champion is None:
        raise NotFoundError(
            f"nothing of {workload_name} is in production, so there is nothing to watch",
            fix="release a version, or adopt the one in production with `airlock workload adopt`",
        )
    return Watched(workload, workload.monitoring, policy, policy.monitoring, moves, moves.champion)


def evaluated(deployment: Deployment, workload_name: str) -> list[Event]:
    """The windows judged so far, oldest window first; of each its last revision."""
    name = deployment.settings.deployment
    recorded = deployment.audit.events(workload=workload_name, kinds=[Kind.MONITOR_EVALUATED])
    newest: dict[int, Event] = {}
    for entry in recorded:
        if entry.event.deployment == name:
            newest[int(entry.event.data["end_us"])] = entry.event
    return [newest[end] for end in sorted(newest)]


def due_windows(deployment: Deployment, workload_name: str, end_us: int) -> list[Window]:
    """The windows up to the one that ends at ``end_us`` that were not judged yet, oldest first.

    After an outage all that were missed come first, at most ``_HISTORY`` of them; the newest is always there.
    """
    workload = deployment.config.workload(workload_name)
    if workload.monitoring is None:
        return []
    spec = workload.monitoring
    windows = [spec.window_before(end_us)]
    done = {int(event.data["end_us"]) for event in evaluated(deployment, workload_name)}
    while done and len(windows) < _HISTORY:
        earlier = windows[0].earlier(spec.window_us)
        if earlier.end_us <= max(done):
            break
        windows.insert(0, earlier)
    return windows


def window_of(event: Event) -> Window:
    """The window an event is about."""
    return Window(start_us=int(event.data["start_us"]), end_us=int(event.data["end_us"]))


def read_window(deployment: Deployment, event: Event) -> MonitoringEvidence:
    """The evidence behind a judged window."""
    return MonitoringEvidence.from_bytes(deployment.evidence.get(str(event.data["evidence"])))


def evaluate_window(deployment: Deployment, workload_name: str, window: Window) -> Event:
    """Judge one window and return the recorded event.

    Raises:
        NotFoundError: unknown workload, nothing in production, or there is no log.
        ConfigurationError: workload or policy say nothing about monitoring.
        InvalidInputError: the log cannot be read at all.
        UnavailableError: a database or store does not answer.
    """
    scene_of = watched(deployment, workload_name)
    baseline, digest = find_baseline(
        deployment,
        scene_of.workload,
        scene_of.policy,
        version=scene_of.version,
        release_id=scene_of.moves.release_of(scene_of.version),
    )
    release = OpenBaseline(deployment, scene_of.workload, baseline)
    with tempfile.TemporaryDirectory(prefix="airlock-window-") as name:
        rows = _Rows(deployment, scene_of, window, Path(name), release)
        pinned = {"baseline": digest, "log": rows.now.digest, "labels": rows.old.digest}
        earlier = _revisions(deployment, workload_name, window)
        if (same := _same(earlier, pinned, scene_of)) is not None:
            return same
        explain = partial(_explained, deployment, scene_of, release, Path(name))
        scene = _scene(deployment, rows, explain)
        signals = [one for name, measure in _MEASURES.items() for one in _measured(name, measure, scene)]
    evidence = MonitoringEvidence(
        workload=workload_name,
        version=scene_of.version,
        window=window,
        policy_version=scene_of.policy.version,
        policy_digest=scene_of.policy.digest,
        rows=rows.now.rows,
        labelled=rows.now.labelled,
        config=scene_of.rules.limits.to_data(),
        signals=signals,
        details={"days": rows.now.days, "matured": rows.old.rows, "confidence": scene.confidence},
        **pinned,
    )
    return _recorded(deployment, evidence, len(earlier))


def _measured(name: str, measure: Callable[[Scene], list[Signal]], scene: Scene) -> list[Signal]:
    found = guarded([name], partial(measure, scene))
    return found or [failed(name, "it gave no answer")]


def _revisions(deployment: Deployment, workload: str, window: Window) -> list[Event]:
    name = deployment.settings.deployment
    recorded = deployment.audit.events(workload=workload, kinds=[Kind.MONITOR_EVALUATED])
    return [
        entry.event
        for entry in recorded
        if entry.event.deployment == name and window_of(entry.event) == window
    ]


def _same(earlier: Sequence[Event], pinned: dict[str, str], scene_of: Watched) -> Event | None:
    """The newest revision, if it was judged on exactly this."""
    wanted = {**pinned, "policy_digest": scene_of.policy.digest}
    if earlier and all(earlier[-1].data[key] == value for key, value in wanted.items()):
        return earlier[-1]
    return None


def _recorded(deployment: Deployment, evidence: MonitoringEvidence, revision: int) -> Event:
    """Store the evidence, then record it; whoever judged the same in the same moment was first."""
    digest = deployment.evidence.put(evidence.to_bytes())
    key = f"monitor/{evidence.workload}/{evidence.window.key}/{revision}"
    data: dict[str, Any] = {
        "start_us": evidence.window.start_us,
        "end_us": evidence.window.end_us,
        "window": evidence.window.text,
        "revision": revision,
        "evidence": digest,
        "baseline": evidence.baseline,
        "log": evidence.log,
        "labels": evidence.labels,
        "policy": evidence.policy_version,
        "policy_digest": evidence.policy_digest,
        "rows": evidence.rows,
        "missing_days": len(evidence.window.days) - len(evidence.details["days"]),
        "labelled": evidence.labelled,
        "readings": {signal.name: str(signal.reading) for signal in evidence.signals},
        "values": {s.name: round(s.value, 6) for s in evidence.signals if s.value is not None},
        "sentence": evidence.sentence,
    }
    try:
        return deployment.record(
            Kind.MONITOR_EVALUATED, key, workload=evidence.workload, version=evidence.version, data=data
        ).event
    except ConflictError:
        first = deployment.find(key)
        if first is None or first.data["log"] != evidence.log:
            raise
        return first


class _Rows:
    """The rows of a window as files: all of them, the champion's, and those old enough for outcomes."""

    def __init__(
        self, deployment: Deployment, scene_of: Watched, window: Window, folder: Path, release: OpenBaseline
    ) -> None:
        self.scene_of, self.window, self.release, self._folder = scene_of, window, release, folder
        self._log = ProductionLog(scene_of.workload, deployment.settings.data_root)
        self._now_us = deployment.clock.now_us()
        columns = release.training.columns()
        features = scene_of.workload.model.features
        self._numeric = [one for one in features if one in columns and columns[one].kind in NUMERIC]
        self.now = self._read(window, "now")
        delay = scene_of.spec.delay_us
        self.old = self._read(window.earlier(delay), "old") if delay else self.now

    def _read(self, window: Window, name: str) -> LoggedWindow:
        path = self._folder / f"{name}.parquet"
        return self._log.read(window, path, now_us=self._now_us, numeric=self._numeric)

    def champions(self, found: LoggedWindow) -> ParquetSource | None:
        """The rows that the champion answered; all of them where the log names no version."""
        source = ParquetSource(found.path)
        if not found.rows:
            return None
        if logged.VERSION not in source.columns():
            return source
        column, path = quoted(logged.VERSION), found.path.with_suffix(".own.parquet")
        answered = f"{column} = {literal(self.scene_of.version)}"
        table = f"read_parquet({literal(str(found.path))})"
        with connect(self._folder) as connection:
            count = f"SELECT count(*) FILTER ({answered}) FROM {table}"  # noqa: S608  # quoted as SQL asks
            own = connection.execute(count).fetchone()
            rows = 0 if own is None else int(own[0])
            if rows and rows < found.rows:
                copy = f"SELECT * FROM {table} WHERE {answered}"  # noqa: S608  # same
                connection.execute(f"COPY ({copy}) TO {literal(str(path))} (FORMAT parquet)")
        if not rows:
            return None
        return source if rows == found.rows else ParquetSource(path)


def _scene(deployment: Deployment, rows: _Rows, explain: Callable[[Path], pd.DataFrame | None]) -> Scene:
    scene_of = rows.scene_of
    own = rows.champions(rows.now)
    performance = scene_of.policy.gates.get("performance", {})
    return Scene(
        workload=scene_of.workload,
        spec=scene_of.spec,
        limits=scene_of.rules.limits,
        window=rows.window,
        logged=rows.now,
        own=own,
        matured=own if rows.old is rows.now else rows.champions(rows.old),
        release=rows.release,
        governed=frozenset({scene_of.version, *scene_of.moves.earlier()}),
        past=_past(evaluated(deployment, scene_of.workload.name), rows.window),
        metric=_metric(scene_of.workload, performance),
        bins=int(performance.get("calibration_bins", 10)),
        replicates=int(performance.get("bootstrap_replicates", 1000)),
        explain=explain,
    )


def _metric(workload: Workload, performance: dict[str, Any]) -> str:
    """The primary metric that the policy's performance gate compares by."""
    task, named = workload.model.task, performance.get("primary_metric", {})
    key = "binary" if task == "classification" else task
    return str(named.get(key, _METRICS[task]) if isinstance(named, dict) else named)


def _past(windows: Sequence[Event], window: Window) -> Past:
    before = [event for event in windows if int(event.data["end_us"]) <= window.start_us][-_HISTORY:]
    rows = [int(event.data["rows"]) for event in before if event.data["rows"]]
    missing = [int(event.data["missing_days"]) for event in before if event.data["rows"]]
    return Past(rows, max(missing, default=0))


def _explained(
    deployment: Deployment, scene_of: Watched, release: OpenBaseline, folder: Path, rows: Path
) -> pd.DataFrame | None:
    """Attributions of the champion on rows of production, in the sandbox."""
    import pandas as pd

    place = folder / "explain"
    place.mkdir()
    files = score_rows(
        deployment,
        scene_of.workload,
        scene_of.policy,
        release.baseline.artifact,
        rows=rows,
        background=release.training.files[0],
        folder=place,
        explained=scene_of.rules.limits.explained_rows,
    )
    if SHAP not in files:
        return None
    frame = pd.read_parquet(files[SHAP])
    return frame[[name for name in frame.columns if not str(name).startswith("_")]]


assert list(_MEASURES) == list(SIGNALS), "every signal has its measure"  # noqa: S101  # a mistake of ours
