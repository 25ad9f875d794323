"""Facts: what rules may ask about a release, each with its type, meaning and origin.

Rules read facts by name (``candidate.performance.relative_change``). A fact that nobody measured is
absent, and a rule that asks for it is an ERROR, which denies: nothing is guessed and nothing has a default.
``FACTS`` is the catalogue: rules are type-checked against it, and the documentation is made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from airlock.core.contradictions import contradictions
from airlock.core.diff import diff_files
from airlock.core.evidence import SCORE, Evidence
from airlock.core.features import unapproved
from airlock.core.manifest import Manifest
from airlock.core.policy import Policy
from airlock.core.workload import Workload


class FactType(StrEnum):
    """Type of a fact, in CEL's words."""

    TEXT = "string"
    BOOL = "bool"
    INTEGER = "int"
    NUMBER = "double"
    TEXTS = "list(string)"
    ANY = "dyn"


@dataclass(frozen=True)
class Fact:
    """One entry of the catalogue.

    Attributes:
        name: dotted path; a last part ``*`` stands for any name, such as a gate or a limit.
        type: what the value is.
        meaning: one sentence for people, with the unit of a number.
        source: which file or evidence says so.
        absent: when there is no such fact, in words; empty when it is always there.
    """

    name: str
    type: FactType
    meaning: str
    source: str
    absent: str = ""


_FILE = "workload file"
_MANIFEST = "manifest"
_SCORED = f"evidence of {SCORE}: the models themselves, read in the sandbox"
_MEASURED = "evidence of gate performance"
_POLICY = "policy bundle"
_WINDOW = "monitoring evidence of the window"
_WINDOWS = "monitoring evidence of the last windows"
_UNSCORED = "the models were not scored"
_FIRST = "first release, or the models were not scored"
_UNMEASURED = "first release, or gate performance measured nothing"

_SCORE = "risk score, see docs/risk.md"
_UNSCORED_RISK = "the policy has no section `risk`, or a tier rule asks"

_T, _B, _N, _L = FactType.TEXT, FactType.BOOL, FactType.NUMBER, FactType.TEXTS

_ENTRIES: Final = (
    Fact("workload.name", _T, "name of the workload", _FILE),
    Fact("workload.kind", _T, "model, application or pipeline", _FILE),
    Fact("workload.owner", _T, "team that answers for it", _FILE),
    Fact("workload.automated_decision", _B, "decides about customers with no human", _FILE),
    Fact("workload.protected_class_data", _B, "said to hold protected attributes in its data", _FILE),
    Fact("workload.regulated", _B, "an external regulation applies", _FILE),
    Fact("workload.human_review", _B, "a person reviews each outcome before it has effect", _FILE),
    Fact("workload.exposure", _T, "who meets the outcome: internal, partner or customer", _FILE),
    Fact("workload.loss_per_error_usd", _N, "money lost by one wrong decision, in USD", _FILE),
    Fact("workload.rollback", _T, "how easily a release is taken back: easy or hard", _FILE),
    Fact("workload.traffic_share", _N, "share of all cases that meet the outcome, 0 to 1", _FILE),
    Fact("workload.regimes", _L, "retention regimes it is under", _FILE),
    Fact("declared.contradictions", _L, "declared facts that something else contradicts", "all evidence"),
    Fact("release.answered", _L, "questions of the interview that have an answer", _MANIFEST),
    Fact("release.unanswered", _L, "required questions without an answer", _MANIFEST),
    Fact("answers.*", FactType.ANY, "answer to a question: yes or no, a number, a text", _MANIFEST, "none"),
    Fact("release.first", _B, "there is no champion to compare with", _MANIFEST),
    Fact("candidate.version", _T, "version that asks to go into production", _MANIFEST),
    Fact("candidate.estimator", _T, "class of the model, dotted", _SCORED, _UNSCORED),
    Fact("candidate.steps", _L, "classes of the pipeline's steps, in order", _SCORED, _UNSCORED),
    Fact("candidate.features", _L, "columns the model reads, in order", _SCORED, _UNSCORED),
    Fact("candidate.threshold", _N, "score from which it decides 1", _SCORED, _UNSCORED),
    Fact(
        "candidate.performance.relative_change",
        _N,
        "size of the change of the primary metric from the champion's, as a share of it, never negative",
        _MEASURED,
        _UNMEASURED,
    ),
    Fact("candidate.performance.direction", _T, "better, worse or same", _MEASURED, _UNMEASURED),
    Fact("candidate.performance.primary_metric", _T, "metric the change is in", _MEASURED, _UNMEASURED),
    Fact("champion.version", _T, "version in production", _MANIFEST, "first release"),
    Fact("champion.estimator", _T, "class of the model, dotted", _SCORED, _FIRST),
    Fact("champion.steps", _L, "classes of the pipeline's steps, in order", _SCORED, _FIRST),
    Fact("champion.features", _L, "columns the model reads, in order", _SCORED, _FIRST),
    Fact("champion.threshold", _N, "score from which it decides 1", _SCORED, _FIRST),
    Fact(
        "change.data_source",
        _B,
        "trained on other data than the workload declares, or the workload declares another source than"
        " the champion had",
        _MANIFEST,
    ),
    Fact("change.training_data", _B, "other training data than the champion's", _MANIFEST, "first release"),
    Fact("change.signature", _L, "inputs and outputs whose type differs", _MANIFEST, "first release"),
    Fact("change.environment", _L, "packages whose version differs", _MANIFEST, "first release"),
    Fact("change.architecture", _B, "another kind of model or other steps before it", _SCORED, _FIRST),
    Fact("change.from_estimator", _T, "kind of the champion's model", _SCORED, _FIRST),
    Fact("change.to_estimator", _T, "kind of the candidate's model", _SCORED, _FIRST),
    Fact("change.new_features", _L, "columns the candidate reads and the champion does not", _SCORED, _FIRST),
    Fact("change.unapproved_features", _L, "new features from no approved source", _SCORED, _FIRST),
    Fact("change.removed_features", _L, "columns only the champion reads", _SCORED, _FIRST),
    Fact("change.threshold", _N, "distance of the two decision thresholds, in score units", _SCORED, _FIRST),
    Fact("change.hyperparameters", _L, "names of hyperparameters whose values differ", _SCORED, _FIRST),
    Fact("change.values", _L, "these hyperparameters with both values", _SCORED, _FIRST),
    Fact("risk.score", _N, "risk score, 0 to 100", _SCORE, _UNSCORED_RISK),
    Fact("risk.anomaly", _B, "far from the workload's earlier scores", _SCORE, _UNSCORED_RISK),
    Fact("risk.history", FactType.INTEGER, "earlier scores it was compared with", _SCORE, _UNSCORED_RISK),
    Fact("risk.median", _N, "median of the earlier scores", _SCORE, "too few earlier scores"),
    Fact("risk.z", _N, "modified z-score among the earlier scores", _SCORE, "too few, or all alike"),
    Fact("risk.data_quality", _N, "component of the score, 0 to 1", _SCORE, _UNSCORED_RISK),
    Fact("risk.complexity", _N, "component of the score, 0 to 1", _SCORE, _UNSCORED_RISK),
    Fact("risk.business", _N, "component of the score, 0 to 1", _SCORE, _UNSCORED_RISK),
    Fact("risk.findings", _N, "component of the score, 0 to 1", _SCORE, _UNSCORED_RISK),
    Fact("risk.tier", _T, "low, medium or high; not known to the rules that compute it", "tier rules"),
    Fact("gates.*", _T, "its verdict: PASSED, WARNED, FAILED or ERROR", "evidence of the gate", "no answer"),
    Fact("limits.*", _N, "a limit of the policy", _POLICY),
    Fact("signals.*", _N, "what a signal of the window measured", _WINDOW, "not measured in this window"),
    Fact("monitor.raised", _L, "signals raised in this window", _WINDOW),
    Fact("monitor.lasting", _L, "signals raised in so many of the last windows as policy asks", _WINDOWS),
    Fact("monitor.unsure", _L, "signals nobody can tell from this window", _WINDOW),
    Fact("monitor.errors", _L, "signals that could not be measured", _WINDOW),
    Fact("monitor.rows", _N, "predictions in the window", _WINDOW),
    Fact("monitor.labelled", _N, "predictions whose outcome is known", _WINDOW),
    Fact("monitor.blind", FactType.INTEGER, "windows in a row with signals in error, this one too", _WINDOWS),
    Fact("monitor.windows", FactType.INTEGER, "windows of this version so far, this one too", _WINDOWS),
    Fact("monitor.can_roll_back", _B, "an earlier version was in production", "audit store"),
)  # fmt: skip

PRODUCTION: Final = ("signals", "monitor")
"""Groups of facts about production: rules with an effect ``action`` ask for them, and no others may."""

FACTS: Final[Mapping[str, Fact]] = {fact.name: fact for fact in _ENTRIES}
"""The catalogue by name, in the order people read it."""


def fact_named(name: str) -> Fact | None:
    """The catalogue's entry for a dotted name, found by wildcard too; ``None`` for an unknown fact."""
    return FACTS.get(name) or FACTS.get(f"{name.rpartition('.')[0]}.*")


def workload_facts(workload: Workload, policy: Policy) -> dict[str, Any]:
    """What is known before there is a release: the workload's own facts and the limits."""
    return {
        "workload": {
            "name": workload.name,
            "kind": workload.kind,
            "owner": workload.owner,
            **workload.risk.to_data(),
            "regimes": list(workload.regimes),
        },
        "declared": {"contradictions": contradictions(workload, {})},
        "limits": policy.limit_values,
    }


def build_facts(
    *,
    manifest: Manifest,
    workload: Workload,
    policy: Policy,
    evidence: Mapping[str, Evidence],
) -> dict[str, Any]:
    """The facts of a release, nested by the parts of their names. What was not measured is absent.

    Law: every leaf has an entry in ``FACTS`` of its type. ``risk.*`` is added by the decision, which
    computes it from these facts.
    """
    performance = _performance(evidence)
    models = _models(evidence)
    candidate: dict[str, Any] = {"version": manifest.candidate.version, **models.get("candidate", {})}
    if performance:
        candidate["performance"] = performance
    facts: dict[str, Any] = {
        **workload_facts(workload, policy),
        "declared": {"contradictions": contradictions(workload, evidence)},
        "release": {
            "first": manifest.champion is None,
            "answered": sorted(manifest.answers),
            "unanswered": manifest.unanswered,
        },
        "answers": dict(manifest.answers),
        "candidate": candidate,
        "change": _change(manifest, policy, evidence),
        "gates": {name: str(record.verdict) for name, record in evidence.items()},
    }
    if manifest.champion is not None:
        facts["champion"] = {"version": manifest.champion.version, **models.get("champion", {})}
    return facts


def _performance(evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    record = evidence.get("performance")
    change = {} if record is None else record.result.details.get("change", {})
    names = {"relative": "relative_change", "direction": "direction", "metric": "primary_metric"}
    return {fact: change[name] for name, fact in names.items() if name in change}


def _models(evidence: Mapping[str, Evidence]) -> dict[str, dict[str, Any]]:
    """What the sandbox read off the models, by role."""
    record = evidence.get(SCORE)
    if record is None or not record.verdict.allows:
        return {}
    models = record.result.details.get("models", {})
    names = ("estimator", "steps", "features", "threshold")
    return {
        role: {name: model[name] for name in names if name in model}
        for role, model in models.items()
        if model
    }


def _change(manifest: Manifest, policy: Policy, evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    change = diff_files(manifest)
    score = evidence.get(SCORE)
    if score is not None and score.verdict.allows:
        change.update(score.result.details.get("change", {}))
        if "new_features" in change:
            change["unapproved_features"] = unapproved(change["new_features"], policy.feature_sources)
    return change
