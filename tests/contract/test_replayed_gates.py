"""A limit that moves in a replay: what is said without running the gate is what the gate itself says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.evidence import Evidence, Finding, GateResult, Metric, Verdict
from airlock.core.held import HeldLimit, rejudged
from airlock.core.statistics import Judge
from airlock.gates import gate_names, load_gate
from airlock.gates.base import GateContext
from airlock.services.replay import limits_held_by
from tests.contract.test_bias import blocks
from tests.contract.test_bias import context as bias_context
from tests.contract.test_data_quality import HOLDS, suite
from tests.contract.test_explainability import alternating, context_of, explained, with_reasons
from tests.contract.test_gates import MODEL_CARD
from tests.contract.test_operation_gates import READY, timings
from tests.contract.test_performance import noisy
from tests.support.gates import make_context, make_frame, make_manifest, make_workload
from tests.support.judge import configuration, judge


def performance(candidate: float = 2.5, champion: float = 2.0) -> GateContext:
    frame = make_frame(300)
    return make_context(evaluation=frame, scores=noisy(frame, candidate, champion))


def first_release() -> GateContext:
    frame = make_frame(300)
    manifest = make_manifest(make_workload(), champion=False)
    scores = noisy(frame, 2.5, 2.0)
    alone = scores.frame.drop(columns=["champion_score", "champion_prediction"])
    return make_context(evaluation=frame, scores=replace(scores, frame=alone), manifest=manifest)


def bias() -> GateContext:
    labels, decisions = blocks(("a", 60, 100), ("b", 47, 100), ("c", 50, 90))
    outcome = [int(index % 3 > 0) for index in range(len(labels))]
    return bias_context({"group": labels}, outcome, decisions)


def crossed() -> GateContext:
    labels, decisions = blocks(("a", 60, 100), ("b", 47, 100))
    other = [str(index % 2) for index in range(len(labels))]
    return bias_context({"group": labels, "other": other}, [1, 0] * 100, decisions)


def cost(champion: float | None = 10) -> GateContext:
    workload = make_workload(serving={"usd_per_hour": 3.6})
    manifest = make_manifest(workload, champion=champion is not None)
    return make_context(scores=timings(25, champion), workload=workload, manifest=manifest)


def drift() -> GateContext:
    frame, moved = make_frame(400), make_frame(400, seed=8)
    return make_context(evaluation=frame.assign(debt=frame["debt"] + 6), training=moved)


def together() -> GateContext:
    """Two features that moved together, and neither alone."""
    before, now = make_frame(900), make_frame(900, seed=8)
    return make_context(evaluation=now.assign(debt=now["income"] * now["debt"].std()), training=before)


def overlapping() -> GateContext:
    frame, other = make_frame(400), make_frame(400, seed=8)
    return make_context(evaluation=frame, training=pd.concat([frame.head(40), other]))


def incomplete() -> GateContext:
    frame = make_frame(400)
    frame["income"] = frame["income"].where(frame.index >= 20)
    frame["debt"] = frame["debt"].where(frame.index >= 40)
    return make_context(evaluation=frame, suite=suite(HOLDS))


def ranked() -> GateContext:
    return context_of(explained(alternating(3, 2, 1)), explained(alternating(2, 3, 1)))


def readiness() -> GateContext:
    return make_context(workload=make_workload(readiness=READY))


POINT, BOUND, SURE = ({"judge": by} for by in ("point", "bound", "significant"))
FLOORS = [{"floors": {"roc_auc": floor, "r2": 0.5}} for floor in (0.3, 0.72, 0.78, 0.99)]
WORSE = [{"maximum_worsening": limit} for limit in (0.0, 0.02, 0.05, 0.4)]

CASES: list[tuple[str, str, Callable[[], GateContext], dict[str, Any], Sequence[dict[str, Any]], int]] = [
    # Gate, name, data, the rest of its configuration, limits, and pairs that must be told at least.
    ("performance", "floors point", performance, POINT, FLOORS, 16),
    ("performance", "floors bound", performance, BOUND, FLOORS, 16),
    ("performance", "worsening point", performance, POINT, WORSE, 16),
    ("performance", "worsening bound", performance, BOUND, WORSE, 16),
    ("performance", "worsening significant", performance, SURE, WORSE, 16),
    ("performance", "no champion", first_release, BOUND, WORSE, 16),
    (
        "performance",
        "calibration",
        performance,
        BOUND,
        [{"maximum_calibration_error": limit} for limit in (0.001, 0.05, 0.1, 0.5)],
        16,
    ),
    (
        "performance",
        "two at once",
        performance,
        BOUND,
        [{**floor, **worse} for floor, worse in zip(FLOORS, WORSE, strict=True)],
        16,
    ),
    ("performance", "floor of another metric", performance, BOUND, [*FLOORS[:1], {"floors": {"f1": 0.1}}], 2),
    ("performance", "rows", performance, BOUND, [{"minimum_rows": 100}, {"minimum_rows": 299}], 2),
    ("performance", "judge", performance, {}, [POINT, BOUND, SURE], 3),
    ("performance", "null", performance, BOUND, [{"maximum_calibration_error": x} for x in (None, 0.5)], 2),
    *(
        (
            "bias",
            f"four fifths {by['judge']}",
            bias,
            by,
            [{"four_fifths": limit} for limit in (0.3, 0.75, 0.8, 0.95)],
            16,
        )
        for by in (POINT, BOUND, SURE)
    ),
    (
        "bias",
        "others warn",
        bias,
        POINT,
        [
            {"parity_difference": one, "accuracy_gap": two}
            for one, two in ((0.01, 0.5), (0.13, 0.1), (0.5, 0.01))
        ],
        9,
    ),
    (
        "bias", "mitigation always", bias, {**POINT, "mitigation": "always"},
        [{"four_fifths": limit} for limit in (0.3, 0.8, 0.95)], 9,
    ),
    ("bias", "crossed", crossed, POINT, [{"four_fifths": limit} for limit in (0.3, 0.8, 0.95)], 3),
    ("cost", "latency", cost, {}, [{"maximum_p95_ms": a, "maximum_p99_ms": b}
                                   for a, b in ((10, 100), (50, 75), (49.9, 74.9))], 9),
    ("cost", "price", cost, {}, [{"maximum_cost_per_request_usd": a} for a in (1e-6, 2.5e-5, 1)], 9),
    ("cost", "spikes", cost, {}, [{"maximum_cost_increase": a, "maximum_latency_increase": b}
                                  for a, b in ((0.1, 9), (9, 0.1), (1.5, 1.5))], 9),
    ("cost", "no champion", lambda: cost(None), {}, [{"maximum_cost_increase": a} for a in (0.1, 9)], 4),
    ("drift", "share", drift, {"report_rows": 0},
     [{"maximum_drift_share": share} for share in (0.1, 0.5, 0.9)], 9),
    ("drift", "classifier", together, {"report_rows": 0},
     [{"classifier_auc": auc} for auc in (0.52, 0.8, 0.999)], 9),
    ("drift", "no classifier", drift, {"report_rows": 0, "classifier_rows": 0},
     [{"classifier_auc": auc} for auc in (0.52, 0.999)], 4),
    ("leakage", "overlap", overlapping, {}, [{"maximum_overlap": share} for share in (0.0, 0.1, 0.5)], 9),
    ("leakage", "target", overlapping, {}, [{"target_auc": auc} for auc in (0.51, 0.9)], 2),
    ("data_quality", "nulls", incomplete, {"nullable_columns": []},
     [{"maximum_null_share": share} for share in (0.01, 0.05, 0.07, 0.2)], 16),
    ("data_quality", "nulls of some", incomplete, {"nullable_columns": ["debt"]},
     [{"maximum_null_share": share} for share in (0.01, 0.05, 0.2)], 9),
    ("explainability", "dominant", ranked, {},
     [{"maximum_attribution_share": share} for share in (0.4, 0.5, 0.9)], 9),
    ("explainability", "ranking", ranked, {},
     [{"minimum_rank_correlation": rho} for rho in (-1.0, 0.5, 0.51, 0.9)], 16),
    ("explainability", "reasons", lambda: with_reasons(40, 50), {},
     [{"minimum_reason_effect": share} for share in (0.3, 0.8, 0.99)], 9),
    ("documentation", "words", lambda: make_context(documentation=MODEL_CARD), {},
     [{"minimum_words": words} for words in (5, 16, 400)], 9),
    ("drift", "of one feature", drift, {"report_rows": 0}, [{"psi": psi} for psi in (0.1, 5.0)], 2),
    ("readiness", "limits", readiness, {}, [{"maximum_hours_between_checks": a, "maximum_rollback_minutes": b}
                                            for a, b in ((1, 1), (24, 2), (100, 1))], 9),
]  # fmt: skip


def said(result: GateResult) -> Counter[tuple[str, Verdict]]:
    return Counter((finding.id, finding.verdict) for finding in result.findings)


FOLLOWING = {("no_mitigation", Verdict.WARNED)}
"""What a failure brings with it can only a re-run tell; the verdict is the failure's."""


def wrong(result: GateResult) -> set[tuple[str, Verdict]]:
    return {one for one in said(result) if one[1] is not Verdict.PASSED}


def stored(gate: str, result: GateResult, config: dict[str, Any]) -> Evidence:
    return Evidence(release_id="r", manifest_digest="0" * 64, gate=gate, config=config, result=result)


@pytest.mark.slow
@pytest.mark.requirement("P-4")
@pytest.mark.parametrize(
    ("gate", "data", "rest", "limits", "told"),
    [pytest.param(gate, *some, id=f"{gate}: {name}") for gate, name, *some in CASES],
)
def test_a_limit_that_moves_is_told_as_the_gate_itself_says_it_or_not_at_all(
    gate: str, data: Callable[[], GateContext], rest: dict[str, Any], limits: Any, told: int
) -> None:
    context = data()
    found = []
    for changes in limits:
        result, _ = judge(gate, context, **{**rest, **changes})
        config = configuration(gate, **{**rest, **changes}).to_data()
        found.append(stored(gate, result, config))
    sure = 0
    for before, now in product(found, found):
        again = rejudged(before, now.config, limits_held_by(gate))
        if again is None:
            continue
        sure += 1
        assert again.verdict is now.verdict, (before.config, now.config)
        assert wrong(again.result) | FOLLOWING >= wrong(now.result) >= wrong(again.result)
        assert [(m.name, m.value, m.threshold) for m in again.result.metrics] == [
            (m.name, m.value, m.threshold) for m in now.result.metrics
        ]
    assert sure == told, "as many as before can be told, and no more: the others need a re-run"


@pytest.mark.requirement("P-4")
def test_every_limit_that_a_gate_names_is_one_of_its_configuration() -> None:
    named = 0
    for gate in gate_names():
        for one in limits_held_by(gate):
            assert one.limit.split(".")[0] in load_gate(gate).Config.model_fields, (gate, one.limit)
            named += 1
    assert named >= 20
    assert list(limits_held_by("a-gate-that-is-gone")) == []


# Law by law, on evidence that is written out

HELD = (
    HeldLimit("psi", "far"),
    HeldLimit("least", "low", metric="score", no_effect=0.0),
    HeldLimit("kind", "mild", metric="mild", failing="failing"),
)


def record(
    metrics: list[Metric], findings: list[Finding], verdict: Verdict | None = None, **config: Any
) -> Evidence:
    worst = max((one.verdict for one in findings), key=list(Verdict).index, default=Verdict.PASSED)
    result = GateResult(verdict=verdict or worst, summary="as told", findings=findings, metrics=metrics)
    return stored("drift", result, config)


def psi(value: float | None, limit: float, **more: Any) -> Metric:
    return Metric(name="psi", value=value, threshold=limit, direction="lower", **more)


def far(verdict: Verdict = Verdict.FAILED, name: str = "far") -> Finding:
    return Finding(id=name, verdict=verdict, message="x")


@pytest.mark.requirement("P-4")
@pytest.mark.parametrize(
    ("evidence", "config", "expected"),
    [
        (record([psi(0.1, 0.2)], [], psi=0.2), {"psi": 0.2}, Verdict.PASSED),
        (record([psi(0.1, 0.2)], [], psi=0.2), {"psi": 0.05}, Verdict.FAILED),
        (record([psi(0.3, 0.2)], [far()], psi=0.2), {"psi": 0.4}, Verdict.PASSED),
        (record([psi(0.3, 0.2)], [far()], psi=0.2), {"psi": 0.1}, Verdict.FAILED),
        # Each slice has its own number.
        (record([psi(0.1, 0.2), psi(0.15, 0.2, where="b")], [], psi=0.2), {"psi": 0.12}, Verdict.FAILED),
        # Something else is wrong as well, and stays.
        (record([psi(0.3, 0.2)], [far(), far(Verdict.WARNED, "x")], psi=0.2), {"psi": 0.4}, Verdict.WARNED),
        # Bounds, and what nobody can tell from.
        (
            record([psi(0.1, 0.2, interval=(0.05, 0.15))], [], psi=0.2, judge="bound"),
            {"psi": 0.12},
            Verdict.WARNED,
        ),
        (
            record([psi(0.1, 0.2, interval=(0.05, 0.15))], [], psi=0.2, judge="bound"),
            {"psi": 0.04},
            Verdict.FAILED,
        ),
        # The stored findings are not what these limits give: the gate does something that is not known here.
        (record([psi(0.1, 0.2)], [far()], psi=0.2), {"psi": 0.3}, None),
        (record([psi(0.3, 0.2)], [], psi=0.2), {"psi": 0.3}, None),
        (record([psi(0.1, 0.25)], [], psi=0.2), {"psi": 0.3}, None),
        (record([psi(0.1, 0.2), psi(0.1, 0.3)], [], psi=0.2), {"psi": 0.3}, None),
        (record([psi(0.1, 0.2)], [], Verdict.WARNED, psi=0.2), {"psi": 0.3}, None),
        (record([psi(None, 0.2)], [far(Verdict.ERROR, "undefined.far")], psi=0.2), {"psi": 0.3}, None),
        (record([], [], psi=0.2), {"psi": 0.3}, None),
        # Not a limit, not a number, not the same limits, or one that the gate does not name.
        (record([psi(0.1, 0.2)], [], psi=0.2, rows=5), {"psi": 0.2, "rows": 9}, None),
        (record([psi(0.1, 0.2)], [], psi=0.2), {"psi": "0.2"}, None),
        (record([psi(0.1, 0.2)], [], psi=0.2), {"psi": True}, None),
        (record([psi(0.1, 0.2)], [], psi=0.2), {"psi": None}, None),
        (record([psi(0.1, 0.2)], [], psi=0.2), {"psi": 0.2, "extra": 1}, None),
    ],
)
def test_a_gate_is_judged_again_only_where_its_numbers_tell(
    evidence: Evidence, config: dict[str, Any], expected: Verdict | None
) -> None:
    again = rejudged(evidence, {**evidence.config, **config}, HELD)
    assert (None if again is None else again.verdict) is expected
    assert rejudged(evidence, evidence.config, HELD) is evidence
    assert rejudged(evidence, {**evidence.config, **config}, ()) in (None, evidence)


LIMITS, VALUES = st.floats(0.01, 1), st.floats(0.01, 1)
WIDTHS = st.floats(0, 0.5)


@pytest.mark.requirement("P-4")
@given(
    st.lists(st.tuples(VALUES, WIDTHS), min_size=1, max_size=4), LIMITS, LIMITS, st.sampled_from(list(Judge))
)
def test_looser_never_makes_a_verdict_worse_and_there_and_back_is_where_it_was(
    measured: list[tuple[float, float]], old: float, new: float, by: Judge
) -> None:
    metrics = [psi(value, old, interval=(value - width, value + width)) for value, width in measured]
    config = {"psi": old, "judge": str(by)}
    # What the gate would have stored: made from a limit that everything keeps.
    easy = record(
        [one.model_copy(update={"threshold": 9.0}) for one in metrics], [], **{**config, "psi": 9.0}
    )
    before = rejudged(easy, config, HELD)
    assert before is not None
    after = rejudged(before, {**config, "psi": new}, HELD)
    assert after is not None
    order = list(Verdict).index
    if new >= old:
        assert order(after.verdict) <= order(before.verdict)
    else:
        assert order(after.verdict) >= order(before.verdict)
    back = rejudged(after, config, HELD)
    assert back is not None
    assert (back.verdict, said(back.result)) == (before.verdict, said(before.result))


def test_what_only_warns_stays_a_warning() -> None:
    metric = Metric(name="mild", value=np.float64(0.5).item(), threshold=0.6, direction="lower")
    for failing, verdict in ((["mild"], Verdict.FAILED), ([], Verdict.WARNED)):
        evidence = record([metric], [], kind=0.6, failing=failing)
        again = rejudged(evidence, {**evidence.config, "kind": 0.4}, HELD)
        assert again is not None
        assert again.verdict is verdict
