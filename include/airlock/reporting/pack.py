"""The readable report of an evidence pack: one page without scripts that loads nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Template

from airlock.core.decision import Decision
from airlock.core.evidence import Evidence, Finding, Metric, Verdict
from airlock.core.manifest import Manifest
from airlock.core.policy import Policy
from airlock.core.rules import Reason
from airlock.core.workload import Workload
from airlock.proof import REPORT_HEAD, Answer, Checkpoint, LogEntry, PublicKey, Story
from airlock.reporting.regulations import REGIMES, Asked
from airlock.reporting.templating import html_templates

IMAGE_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
"""Files that may be shown in the page: as an image none of them can run anything."""

TONES = {
    "promoted": "good", "approved": "good", "PASSED": "good", "ALLOW": "good", "approve": "good",
    "green": "good", "low": "good",
    "waiting for approval": "warn", "checking": "warn", "WARNED": "warn", "PENDING": "warn",
    "yellow": "warn", "medium": "warn",
    "denied": "bad", "quarantined": "bad", "rejected": "bad", "expired": "bad", "failed": "bad",
    "promotion refused": "bad", "FAILED": "bad", "ERROR": "bad", "DENY": "bad", "reject": "bad",
    "red": "bad", "high": "bad",
}  # fmt: skip
"""What colour a state, verdict, track or tier has for people: good, warn or bad."""
_OUTCOMES = {
    "ALLOW": "no person had to be asked",
    "PENDING": "people had to be asked",
    "DENY": "no person could allow it",
}
_SOURCES = {
    "workload": ("workload file", "workload.json"),
    "manifest": ("manifest", "manifest.json"),
    "card": ("model card", "documentation.md"),
    "policy": ("policy", "policy.json"),
    "decision": ("decision", "decision.json"),
    "changes": ("what changed", "#changed"),
    "approvals": ("approvals", "#approvals"),
    "log": ("signed log", "#events"),
}
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_KNOWN = {"release_id", "user"}
"""What the timeline does not repeat: all its events are of one release, and name who acted."""

_NOTHING = "nothing in this release"
_SHOWN = 300
"""Characters of one value in the timeline; the whole stands in the event."""


@dataclass(frozen=True)
class PackView:
    """Everything the report is made from; the parts after ``checkpoint`` are what the release got to.

    Attributes:
        story: the events, already proved.
        images: files of the evidence that are images, by digest.
    """

    story: Story
    key: PublicKey
    checkpoint: Checkpoint
    manifest: Manifest | None
    workload: Workload | None
    policy: Policy | None
    decision: Decision | None
    evidence: Sequence[Evidence]
    images: Mapping[str, bytes]


def render_pack(view: PackView) -> str:
    """The page ``index.html``; the same view gives the same bytes."""
    story, decision = view.story, view.decision
    reasons = [] if decision is None else sorted(decision.reasons, key=lambda reason: not reason.fired)
    facts = story.facts()
    return REPORT_HEAD + _template().render(
        view=view,
        story=story,
        facts=dict(facts[: facts.index(("tier", dict(facts)["tier"])) + 1]),
        why=_why(view),
        outcome_note=_OUTCOMES.get(dict(facts)["outcome"], ""),
        context=story.text_of(story.submitted, "context"),
        submitted=story.submitted,
        fired=[reason for reason in reasons if reason.fired],
        quiet=[reason for reason in reasons if not reason.fired],
        gates=_gates(view),
        changes=_changes(view),
        answers=[_answer(answer) for answer in story.answers],
        seats=[] if decision is None else decision.seats,
        regimes=[(regime, [_row(view, asked) for asked in regime.asked]) for regime in REGIMES],
        tone=_tone,
        when=when,
        limit=_limit,
        number=_number,
        interval=_interval,
        data=_event_data,
        effect=_effect,
    )


@cache
def _template() -> Template:
    environment = html_templates(keep_trailing_newline=True)
    return environment.get_template("pack.html.j2")


def when(microseconds: int) -> str:
    """A moment in UTC, to the second."""
    return datetime.fromtimestamp(microseconds / 1_000_000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def _tone(word: object) -> str:
    return TONES.get(str(word), "plain")


def _why(view: PackView) -> str:
    refused = view.story.all("promotion.refused")
    if view.story.state == "promotion refused" and refused:
        problems = refused[-1].data.get("problems", [])
        return "; ".join(map(str, problems))
    rejected = next((answer for answer in view.story.answers if answer.choice == "reject"), None)
    if view.story.state == "rejected" and rejected is not None:
        return f"Rejected by {rejected.user} ({rejected.role}); the comment stands below."
    if view.story.state == "expired":
        return "Nobody answered in time, so it was closed."
    if view.decision is None:
        return "No decision was recorded." if view.evidence else "Nothing was judged yet."
    return view.decision.sentence


@dataclass(frozen=True)
class _Gate:
    """One gate as the page shows it."""

    entry: LogEntry
    evidence: Evidence
    findings: list[Finding]
    judged: list[Metric]
    measured: list[Metric]
    files: list[tuple[str, str]]
    images: list[tuple[str, str]]

    @property
    def has_more(self) -> bool:
        """Whether there is more to show than one line."""
        return bool(self.findings or self.judged or self.measured or self.files)


def _gates(view: PackView) -> list[_Gate]:
    found = []
    for entry, record in zip(view.story.all("gate.evaluated"), view.evidence, strict=True):
        files = sorted(record.result.files.items())
        found.append(
            _Gate(
                entry=entry,
                evidence=record,
                findings=[one for one in record.result.findings if one.verdict is not Verdict.PASSED],
                judged=[metric for metric in record.result.metrics if metric.threshold is not None],
                measured=[metric for metric in record.result.metrics if metric.threshold is None],
                files=files,
                images=[
                    (name, _data_uri(name, view.images[digest]))
                    for name, digest in files
                    if digest in view.images
                ],
            )
        )
    return found


def _data_uri(name: str, content: bytes) -> str:
    kind = next(kind for suffix, kind in IMAGE_TYPES.items() if name.endswith(suffix))
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer,
        "when": int(answer.entry.body["occurred_us"]),
        "digests": [
            (name, str(answer.entry.data.get(f"{name}_digest", "")))
            for name in ("manifest", "evidence", "policy")
        ],
    }


_WORDS = {
    "metric": "primary metric",
    "relative": "its relative change",
    "direction": "direction",
    "architecture": "new architecture",
    "from_estimator": "estimator before",
    "to_estimator": "estimator now",
    "new_features": "new features",
    "removed_features": "removed features",
    "threshold": "change of the decision threshold",
    "hyperparameters": "changed hyperparameters",
}


def _changes(view: PackView) -> list[tuple[str, str]]:
    """What differs from the champion, as scoring and performance measured it."""
    found: dict[str, Any] = {}
    for record in view.evidence:
        change = record.result.details.get("change")
        found |= change if record.gate in ("score", "performance") and isinstance(change, dict) else {}
    order = [*(name for name in _WORDS if name in found), *(name for name in found if name not in _WORDS)]
    return [(_WORDS.get(name, name.replace("_", " ")), _value(found[name])) for name in order]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_value(inner)}" for name, inner in value.items()) or "none"
    return _number(value) if isinstance(value, float) else "none" if value is None else str(value)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}"  # noqa: PLR2004


def _limit(metric: Metric) -> str:
    sign = {"higher": "at least ", "lower": "at most ", "none": ""}[metric.direction]
    return f"{sign}{_number(metric.threshold)}"


def _interval(metric: Metric) -> str:
    if metric.interval is None:
        return ""
    low, high = metric.interval
    confidence = f" ({100 * metric.confidence:.0f} %)" if metric.confidence else ""
    return f"{_number(low)} to {_number(high)}{confidence}"


def _effect(reason: Reason) -> str:
    if reason.waived_by:
        return f"waived by {', '.join(reason.waived_by)}"
    return "denies" if reason.effect == "deny" else reason.effect


def _event_data(view: PackView, entry: LogEntry) -> list[tuple[str, str]]:
    """The facts of an event for the timeline, with what people wrote put back."""
    found = []
    for name, value in entry.data.items():
        text = view.story.text_of(entry, name) if name in entry.sealed else _value(value)
        text = _DIGEST.sub(lambda match: f"{match[0][:12]}…", text)
        if text not in ("", "none") and name not in _KNOWN:
            found.append((name.replace("_", " "), text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"))
    return found


@dataclass(frozen=True)
class _Row:
    """One line of the table of what is asked for."""

    asked: Asked
    answers: list[tuple[str, str, str, str]]
    """What answers it, its link, the result in words, and the tone of that."""
    status: str


def _row(view: PackView, asked: Asked) -> _Row:
    answers = [_result(view, source) for source in asked.sources]
    missing = [source for source, (*_, tone) in zip(asked.sources, answers, strict=True) if tone == "none"]
    if not asked.sources:
        status = "not covered"
    elif {*missing} >= ({*asked.sources} - {"log"} or {"log"}):  # the log proves answers, it is none
        status = "not answered"
    else:
        status = "in part" if asked.gap or missing else "answered"
    return _Row(asked, answers, status)


def _result(view: PackView, source: str) -> tuple[str, str, str, str]:
    if source.startswith("gate:"):
        return _gate_result(view, source.removeprefix("gate:"))
    name, link = _SOURCES[source]
    text = _RESULTS[source](view)
    return (name, link, text, "plain") if text else (name, "", _NOTHING, "none")


def _gate_result(view: PackView, gate: str) -> tuple[str, str, str, str]:
    name = f"gate {gate.replace('_', ' ')}"
    record = next((record for record in view.evidence if record.gate == gate), None)
    if record is not None:
        return name, f"#gate-{gate}", str(record.verdict), _tone(record.verdict)
    if view.policy is None:
        return name, "", _NOTHING, "none"
    return name, "", "did not answer" if gate in view.policy.gates else "not part of this policy", "none"


def _workload_text(view: PackView) -> str:
    if view.workload is None:
        return ""
    risk = view.workload.risk
    review = "a person reviews each outcome" if risk.human_review else "no person reviews outcomes"
    decides = "decides automatically" if risk.automated_decision else "does not decide automatically"
    return f"{decides}, {review}, {risk.exposure} exposure, owner {view.workload.owner}"


def _approval_text(view: PackView) -> str:
    decision, answers = view.decision, view.story.answers
    if decision is None:
        return ""
    if not decision.seats:
        return "" if decision.outcome == "DENY" else "none needed on this track"
    given = sum(answer.choice == "approve" for answer in answers)
    refused = sum(answer.choice == "reject" for answer in answers)
    return f"{given} approvals, {refused} rejections, {len(decision.seats)} seats"


def _change_text(view: PackView) -> str:
    if view.manifest is None:
        return ""
    champion = view.manifest.champion
    return "the first release" if champion is None else f"compared with version {champion.version}"


_RESULTS: Mapping[str, Callable[[PackView], str]] = {
    "workload": _workload_text,
    "manifest": lambda view: f"{view.manifest.digest[:16]}…" if view.manifest else "",
    "card": lambda view: "frozen with the release" if view.manifest else "",
    "policy": lambda view: f"version {view.policy.version}" if view.policy else "",
    "decision": lambda view: (
        f"{view.decision.outcome}, track {view.decision.track or 'not computed'}, risk {view.decision.tier}"
        if view.decision
        else ""
    ),
    "changes": _change_text,
    "approvals": _approval_text,
    "log": lambda view: f"every event of the release is proved, {len(view.story.entries)} in all",
}
