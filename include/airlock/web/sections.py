"""The parts of the review page, each made from evidence alone: what an approver weighs, in plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airlock.core.canonical import parse_json
from airlock.core.diff import diff_files
from airlock.core.errors import AirlockError
from airlock.core.evidence import SCORE, Evidence, Metric, Verdict, most_urgent_first
from airlock.core.statistics import exceeds
from airlock.services.evidence_files import gate_files
from airlock.web.drawing import bar, place_on_line, spark

if TYPE_CHECKING:
    from airlock.core.manifest import Manifest
    from airlock.ports import EvidenceStore
    from airlock.services.past import Place, Point
    from airlock.services.releases import Case

Data = dict[str, Any]
Records = Mapping[str, Evidence]

GATE_ROWS = 6
"""Numbers of a gate on the review page, those nearest to their limits; the page of the gate has all."""

_MILLION = 1_000_000
_SHORT = {"roc_auc": "ROC AUC", "f1": "F1"}
_FEATURES = 8
_LONG = 12
"""Lines of a list that are shown."""


# What differs from the champion


def changes(case: Case, evidence: Records) -> list[Data]:
    """What is different from the champion, in the order in which it matters; empty without a champion."""
    manifest = case.manifest
    if manifest.champion is None:
        return []
    return [*_model_changes(_details(evidence, SCORE).get("change") or {}), *_file_changes(manifest)]


def _model_changes(change: Data) -> Iterator[Data]:
    if not change:
        return
    if change["architecture"]:
        yield _line("kind of model", f"{change['from_estimator']} → {change['to_estimator']}", changed=True)
    else:
        yield _line("kind of model", f"{change['to_estimator']}, as before")
    come, gone = change["new_features"], change["removed_features"]
    words = [f"new: {', '.join(come)}"] * bool(come) + [f"gone: {', '.join(gone)}"] * bool(gone)
    yield _line("features", "; ".join(words) or "the same", changed=bool(words))
    moved = change["threshold"]
    text = f"moves by {moved:.4g}" if moved else "the same"
    yield _line("decision threshold", text, changed=bool(moved))
    values = change.get("values", [])
    text = f"{len(values)} differ" if values else "the same"
    yield _line("hyperparameters", text, changed=bool(values), more=values)


def _file_changes(manifest: Manifest) -> Iterator[Data]:
    found = diff_files(manifest)
    data = "not the data the workload declares" if found["data_source"] else "from the declared source"
    data += ", other rows than the champion's" if found.get("training_data") else ", the champion's rows"
    yield _line("training data", data, changed=found["data_source"] or found.get("training_data", False))
    for name, words in (("signature", "inputs and outputs"), ("environment", "packages")):
        lines = found.get(name, [])
        text = f"{len(lines)} differ" if lines else "the same"
        yield _line(words, text, changed=bool(lines), more=lines)


def _line(what: str, text: str, *, changed: bool = False, more: Sequence[str] = ()) -> Data:
    return {
        "what": what,
        "text": text,
        "changed": changed,
        "more": [*more][:_LONG],
        "left": max(0, len(more) - _LONG),
    }


def flips(evidence: Records) -> Data | None:
    """Which decisions change, as the scoring pass counted them; ``None`` without a champion."""
    found: Data | None = _details(evidence, SCORE).get("flips")
    return found


# The numbers that matter


def glance(evidence: Records) -> list[Data]:
    """A handful of numbers, each with where it stands and a link to what it is made of."""
    return [
        tile
        for tile in (
            _flip_tile(flips(evidence)),
            _performance_tile(evidence.get("performance")),
            _nearest_tile(evidence.get("bias"), "fairness", "demographic_parity_ratio"),
            _nearest_tile(evidence.get("drift"), "drifted features", "drift_share"),
            _cost_tile(evidence.get("cost")),
        )
        if tile is not None
    ]


def _flip_tile(found: Data | None) -> Data | None:
    if not found:
        return None
    share = found["changed"] / found["rows"] if found["rows"] else 0.0
    return {
        "value": f"{100 * share:.1f} %",
        "label": "decisions change",
        "note": f"{found['changed']:,} of {found['rows']:,}",
        "tone": "plain",
        "target": "#flips",
    }


def _performance_tile(record: Evidence | None) -> Data | None:
    if record is None:
        return None
    name = record.result.details.get("primary_metric")
    metric = next((one for one in record.result.metrics if one.name == name and not one.where), None)
    if metric is None or metric.value is None:
        return None
    change = record.result.details.get("change") or {}
    note = (
        f"{100 * change['relative']:.1f} % {change['direction']}"
        if change.get("relative") is not None
        else ""
    )
    return _tile(
        metric, _SHORT.get(str(name), str(name)), note or "no champion to compare with", "performance"
    )


def _nearest_tile(record: Evidence | None, label: str, name: str) -> Data | None:
    found = [
        one
        for one in (record.result.metrics if record else [])
        if one.name == name and one.value is not None and one.threshold is not None
    ]
    if record is None or not found:
        return None
    nearest = min(found, key=_room)
    sign = "at least" if nearest.direction == "higher" else "at most"
    where = f"{nearest.where}: " if nearest.where else ""
    return _tile(nearest, label, f"{where}{sign} {nearest.threshold:.4g}", record.gate)


def _cost_tile(record: Evidence | None) -> Data | None:
    metrics = {one.name: one for one in (record.result.metrics if record else []) if not one.where}
    metric = metrics.get("cost_per_request_usd")
    if record is None or metric is None or metric.value is None:
        return None
    note = f"at most {metric.threshold * _MILLION:,.4g}" if metric.threshold is not None else ""
    tile = _tile(metric, "USD for a million requests", note, record.gate)
    return {**tile, "value": f"{metric.value * _MILLION:,.4g}"}


def _tile(metric: Metric, label: str, note: str, gate: str) -> Data:
    return {
        "value": f"{metric.value:.4g}",
        "label": label,
        "note": note,
        "tone": tone(metric),
        "target": f"#gate-{gate}",
    }


def tone(metric: Metric) -> str:
    """Whether a value is on the right side of its limit: ``good``, ``bad``, or ``plain`` without one."""
    if metric.value is None or metric.threshold is None or metric.direction == "none":
        return "plain"
    ends = (metric.value, metric.threshold)
    return "bad" if exceeds(*(ends if metric.direction == "lower" else ends[::-1])) else "good"


def _room(metric: Metric) -> tuple[bool, float]:
    """How far a value is from its limit, relative to it; what is beyond comes first."""
    if metric.value is None or metric.threshold is None:
        return (True, float("inf"))
    return (tone(metric) != "bad", abs(metric.value - metric.threshold) / (abs(metric.threshold) or 1.0))


# Groups, explanation, cost


def groups(evidence: Records) -> list[Data]:
    """Protected attributes with their groups: how often each gets the favourable outcome, now and before."""
    record = evidence.get("bias")
    if record is None:
        return []
    by_name: dict[str, dict[str, Metric]] = {}
    for metric in record.result.metrics:
        by_name.setdefault(metric.name, {})[metric.where] = metric
    before, ratios = by_name.get("champion.selection_rate", {}), by_name.get("impact_ratio", {})
    found: dict[str, list[Data]] = {}
    for where, metric in by_name.get("selection_rate", {}).items():
        attribute, _, group = where.partition(": ")
        if metric.value is None or not group:
            continue
        earlier, ratio = before.get(where), ratios.get(where)
        found.setdefault(attribute, []).append(
            {
                "group": group,
                "n": metric.n,
                "rate": metric.value,
                "before": None if earlier is None else earlier.value,
                "ratio": None if ratio is None else ratio.value,
                "bar": bar(metric.value, metric.interval),
            }
        )
    return [{"attribute": name, "groups": rows} for name, rows in found.items()]


def explanation(store: EvidenceStore, evidence: Records) -> Data | None:
    """What the model looks at, and what the champion looked at; ``None`` when nothing was explained."""
    record = evidence.get("explainability")
    digest = record.result.files.get("explanation.json") if record else None
    if record is None or digest is None:
        return None
    try:
        said = parse_json(store.get(digest))
    except AirlockError as error:
        return {"problem": str(error), "features": [], "agreement": None, "more": 0}
    now = said["candidate"]["share"]
    before = (said.get("champion") or {}).get("share") or {}
    order = sorted({*now, *before}, key=lambda name: (-max(now.get(name, 0), before.get(name, 0)), name))
    most = max([*now.values(), *before.values()], default=0.0) or 1.0
    agreement = next((one for one in record.result.metrics if one.name == "rank_correlation"), None)
    return {
        "problem": "",
        "features": [
            {
                "name": name,
                "share": now.get(name),
                "before": before.get(name) if before else None,
                "bar": bar((now.get(name) or 0) / most, None),
            }
            for name in order[:_FEATURES]
        ],
        "more": max(0, len(order) - _FEATURES),
        "agreement": None if agreement is None else metric_data(agreement),
    }


# Gates


def gates(evidence: Records, trends: Mapping[Place, Sequence[Point]]) -> list[Data]:
    """Each gate with the numbers nearest to their limits, those with something to say first."""
    return [gate(record, trends, rows=GATE_ROWS) for record in most_urgent_first(evidence.values())]


def gate(
    record: Evidence, trends: Mapping[Place, Sequence[Point]], *, rows: int | None = None, digest: str = ""
) -> Data:
    """One gate: verdict, findings, numbers with their limits and their past, files.

    Args:
        record: its evidence.
        trends: numbers of earlier releases.
        rows: how many numbers with a limit, the most urgent first; ``None`` for all, and those without one.
        digest: of its evidence, to list its files.
    """
    limited = [metric for metric in record.result.metrics if metric.threshold is not None]
    others = [metric for metric in record.result.metrics if metric.threshold is None]
    chosen = limited if rows is None else sorted(limited, key=_room)[:rows]
    return {
        "gate": record.gate,
        "verdict": str(record.verdict),
        "summary": record.result.summary,
        "findings": [
            finding.to_data() for finding in record.result.findings if finding.verdict is not Verdict.PASSED
        ],
        "limited": [
            metric_data(metric, trends.get((record.gate, metric.name, metric.where), ())) for metric in chosen
        ],
        "others": [] if rows is not None else [metric_data(metric) for metric in others],
        "left": len(limited) - len(chosen) + (len(others) if rows is not None else 0),
        "plot": record.result.files.get("plot.svg", ""),
        "files": [
            {"name": file.name, "digest": file.digest, "shown": file.shown}
            for file in (gate_files(record, digest) if digest else ())
        ],
    }


def metric_data(metric: Metric, past: Sequence[Point] = ()) -> Data:
    """A number with its interval, its limit, a picture of them, and its past."""
    low, high = metric.interval or (None, None)
    return {
        "name": metric.name,
        "where": metric.where,
        "value": metric.value,
        "lower": low,
        "upper": high,
        "threshold": metric.threshold,
        "direction": metric.direction,
        "unit": metric.unit,
        "n": metric.n,
        "engine": metric.engine,
        "tone": tone(metric),
        "plot": place_on_line(metric),
        "trend": spark(past, metric),
    }


def _details(evidence: Records, gate_name: str) -> Data:
    record = evidence.get(gate_name)
    return {} if record is None else record.result.details
