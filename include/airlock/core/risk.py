"""The risk score of a release: 0 (nothing to see) to 100, from four components (requirement T-6).

    score = 100 · Σ wᵢ·cᵢ / Σ wᵢ

Each component cᵢ lies between 0 and 1, and its weight wᵢ stands in the policy:

- ``data_quality``: mean over the gates ``data_quality`` and ``drift`` of ½·strain + ½·verdict. The verdict
  counts 0 for PASSED, ½ for WARNED and 1 for everything else, a missing answer too. The strain of a gate is
  the mean share of its limits that its metrics use up, at most 1 each;
- ``complexity``: mean of how complex the kind of model is (a table of the policy) and of the number of its
  features as a share of ``many_features``, at most 1. Models that were not read count 1;
- ``business``: ¾ for the tier (low 0, medium ½, high 1) and ¼ for the share of required questions that
  nobody answered: nobody has said how the release serves the business;
- ``findings``: 1 - exp(-n / ``many_findings``), where n counts a warning 1 and a failure or error 3.

A score is compared with the scores of the workload's earlier releases by the modified z-score
z = 0.6745 · (score - median) / MAD, where MAD is the median distance from the median. Source: Iglewicz
and Hoaglin, How to Detect and Handle Outliers (ASQC, 1993), section 3.3, who recommend a limit of 3.5. One
odd release in the history moves neither the median nor the MAD much. When more than half of the history is
alike the MAD is 0, and any distance beyond ``minimum_distance`` is an anomaly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from statistics import fmean, median
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.evidence import SCORE, Evidence, Metric, Verdict

Component = Literal["data_quality", "complexity", "business", "findings"]

Share = Annotated[float, Field(ge=0, le=1)]

_DATA_GATES: Final = ("data_quality", "drift")
_TIERS: Final = {"low": 0.0, "medium": 0.5, "high": 1.0}
_VERDICTS: Final = {Verdict.PASSED: 0.0, Verdict.WARNED: 0.5}
_FINDINGS: Final = {Verdict.PASSED: 0, Verdict.WARNED: 1}
_NORMAL: Final = 0.6745
"""MAD of the standard normal distribution: its third quartile."""

_DECIMALS: Final = 1
"""Of a score; more would be noise."""


class RiskRules(Value):
    """How the policy computes and compares risk scores.

    Attributes:
        families: how complex a kind of model is, by its class name; ``other`` is for all that are not named.
        many_features: number of features from which more make no difference.
        many_findings: weighted number of findings at which the component reaches 63 %.
        anomaly_z: modified z-score beyond which a score is an anomaly.
        minimum_history: earlier scores below which nothing is compared.
        minimum_distance: points from the median below which nothing is an anomaly.
        maximum_history: newest scores that are compared; older ones say little about today.
    """

    weights: dict[Component, Annotated[float, Field(gt=0)]]
    families: Annotated[dict[str, Share], Field(min_length=1)]
    other: Share
    many_features: Annotated[int, Field(ge=1)]
    many_findings: Annotated[float, Field(gt=0)]
    anomaly_z: Annotated[float, Field(gt=0)]
    minimum_history: Annotated[int, Field(ge=3)]
    minimum_distance: Annotated[float, Field(gt=0, le=100)]
    maximum_history: Annotated[int, Field(ge=3, le=1000)]


class RiskScore(Value):
    """A score with what it is made of and how it compares with the workload's own past.

    ``median`` and ``z`` are ``None`` where there are too few earlier scores, ``z`` also where they are alike.
    """

    score: Annotated[float, Field(ge=0, le=100)]
    components: dict[Component, Share]
    history: int
    median: float | None = None
    z: float | None = None
    anomaly: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What rules may ask; ``median`` and ``z`` are absent where they are not known."""
        known = {"median": self.median, "z": self.z}
        return {
            "score": self.score,
            "anomaly": self.anomaly,
            "history": self.history,
            **self.components,
            **{name: value for name, value in known.items() if value is not None},
        }


def risk_score(
    rules: RiskRules,
    *,
    tier: str,
    unanswered: float,
    evidence: Mapping[str, Evidence],
    history: Sequence[float],
) -> RiskScore:
    """The score of a release: ``unanswered`` is a share of the required questions, ``history`` oldest first.

    Laws: one more finding, a worse verdict, a heavier tier and missing evidence never lower the score; the
    order of ``evidence`` changes nothing; the history changes the comparison and never the score.
    """
    components: dict[Component, float] = {
        "data_quality": fmean(_data_gate(evidence.get(gate)) for gate in _DATA_GATES),
        "complexity": _complexity(rules, evidence.get(SCORE)),
        "business": 0.75 * _TIERS[tier] + 0.25 * unanswered,
        "findings": _findings(rules, evidence),
    }
    total = sum(rules.weights.get(name, 0.0) * value for name, value in components.items())
    score = round(100 * total / sum(rules.weights.values()), _DECIMALS)
    past = list(history)[-rules.maximum_history :]
    return RiskScore(
        score=score,
        components={name: round(value, 4) for name, value in components.items()},
        history=len(past),
        **_compare(rules, score, past),
    )


def _data_gate(record: Evidence | None) -> float:
    if record is None:
        return 1.0
    strains = [strain for metric in record.result.metrics if (strain := strain_of(metric)) is not None]
    strain = fmean(strains) if strains else 0.0
    return 0.5 * strain + 0.5 * _VERDICTS.get(record.verdict, 1.0)


def strain_of(metric: Metric) -> float | None:
    """The share of its limit that a metric uses up, at most 1; ``None`` when it has no limit or no value."""
    value, limit = metric.value, metric.threshold
    if value is None or limit is None or metric.direction == "none":
        return None
    used, allowed = (value, limit) if metric.direction == "lower" else (limit, value)
    if used <= 0:
        return 0.0
    return 1.0 if allowed <= 0 else min(1.0, used / allowed)


def _complexity(rules: RiskRules, record: Evidence | None) -> float:
    models = {} if record is None or not record.verdict.allows else record.result.details.get("models", {})
    candidate = models.get("candidate")
    if not candidate:
        return 1.0
    family = str(candidate.get("estimator", "")).rsplit(".", 1)[-1]
    features = min(1.0, len(candidate.get("features", [])) / rules.many_features)
    return fmean([rules.families.get(family, rules.other), features])


def _findings(rules: RiskRules, evidence: Mapping[str, Evidence]) -> float:
    count = sum(
        _FINDINGS.get(finding.verdict, 3)
        for name in sorted(evidence)
        for finding in evidence[name].result.findings
    )
    return 1 - exp(-count / rules.many_findings)


def _compare(rules: RiskRules, score: float, past: Sequence[float]) -> dict[str, Any]:
    if len(past) < rules.minimum_history:
        return {}
    # Rounded, so that scores which are alike have no spread at all.
    middle = round(median(past), 6)
    spread = round(median(abs(value - middle) for value in past), 6)
    far = abs(score - middle) >= rules.minimum_distance
    if spread == 0:
        return {"median": middle, "anomaly": far}
    z = round(_NORMAL * (score - middle) / spread, 2)
    return {"median": middle, "z": z, "anomaly": far and abs(z) > rules.anomaly_z}
