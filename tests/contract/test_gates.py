"""The laws every gate obeys. A new gate adds one entry to CASES; nothing else is edited."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from airlock.core.declarations import MonitoringPlan, ReadinessSpec, RollbackPlan, ServingSpec
from airlock.core.evidence import GateResult, Verdict
from airlock.core.lineage import Link
from airlock.gates import gate_names, gate_text, load_gate
from airlock.gates.base import GateContext, Retrained, Scores, Stage
from tests.support.gates import make_context, make_frame, make_retrained, make_scores, make_workload
from tests.support.judge import configuration, judge
from tests.support.scans import scan_context, scanned

pytestmark = pytest.mark.slow  # the libraries it asks take seconds

HEAVY = [
    "great_expectations", "evidently", "mlflow", "shap", "fairlearn", "sklearn", "skops", "pandas", "numpy",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What the laws need to know about one gate.

    ``good`` builds a context the gate lets through under the shipped policy. ``unusable`` are
    contexts it cannot judge. ``on_limit`` are contexts that lie exactly on a limit, each with the
    changes to the shipped configuration that put the limit there.
    """

    good: Callable[[], GateContext] = make_context
    unusable: dict[str, Callable[[], GateContext]] = field(default_factory=dict)
    on_limit: dict[str, tuple[Callable[[], GateContext], dict[str, Any]]] = field(default_factory=dict)


def changed_scores(rows: int = 400, **columns: Any) -> GateContext:
    """Good data, but columns of the scores replaced."""
    frame = make_frame(rows)
    scores = make_scores(frame)
    return make_context(
        evaluation=frame,
        scores=Scores(scores.frame.assign(**columns), scores.shap, scores.champion_shap, scores.details),
    )


def changed_frame(**columns: Any) -> GateContext:
    """Good scores, but columns of the evaluation batch replaced."""
    return make_context(evaluation=make_frame().assign(**columns), scores=make_scores(make_frame()))


def gap(values: Any, bad: Any = float("nan")) -> pd.Series[Any]:
    """The same values, one of them spoilt."""
    column = pd.Series(values, dtype="float64").copy()
    column.iloc[3] = bad
    return column


def counted(selected: dict[int, tuple[int, int]]) -> GateContext:
    """Groups with exactly so many (selected, rows); every decision is right."""
    rows = [(group, int(i < chosen)) for group, (chosen, total) in selected.items() for i in range(total)]
    frame = pd.DataFrame({"group": [row[0] for row in rows], "y": [row[1] for row in rows]})
    frame = frame.assign(income=1.0, debt=2.0)
    decision = frame["y"]
    scores = pd.DataFrame(
        {f"{model}_{what}": decision * 1.0 if what == "score" else decision
         for model in ("candidate", "champion") for what in ("score", "prediction")}
    )  # fmt: skip
    return make_context(evaluation=frame, scores=Scores(scores, None, None, {}))


SUITE = {
    "name": "test-model",
    "version": "1.0.0",
    "description": "Incomes are plausible.",
    "expectations": [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "income", "min_value": -100, "max_value": 1000},
            "why": "an income in thousands",
        },
        {
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "y", "value_set": [0, 1]},
            "why": "approved or not",
        },
    ],
}


def with_suite(frame: pd.DataFrame | None = None, suite: dict[str, Any] = SUITE) -> GateContext:
    return make_context(evaluation=frame, suite=suite)


def missing_incomes(count: int, rows: int) -> pd.DataFrame:
    frame = make_frame(rows)
    frame.loc[: count - 1, "income"] = float("nan")
    return frame


def right_decisions(candidate: int, champion: int, rows: int = 200) -> GateContext:
    """Both models right on exactly so many rows."""
    frame = make_frame(rows)
    scores = {}
    for model, right in (("candidate", candidate), ("champion", champion)):
        decision = frame["y"].where(frame.index < right, 1 - frame["y"])
        scores |= {f"{model}_score": decision * 0.8 + 0.1, f"{model}_prediction": decision}
    return make_context(evaluation=frame, scores=Scores(pd.DataFrame(scores), None, None, {}))


UNUSABLE_SCORES: dict[str, Callable[[], GateContext]] = {
    "NaN in the candidate's scores": lambda: changed_scores(candidate_score=gap([0.5] * 400)),
    "NaN in the champion's scores": lambda: changed_scores(champion_score=gap([0.5] * 400)),
    "a score above 1": lambda: changed_scores(candidate_score=gap([0.5] * 400, 1.5)),
    "an infinite score": lambda: changed_scores(candidate_score=gap([0.5] * 400, float("inf"))),
    "a decision of 2": lambda: changed_scores(candidate_prediction=gap([1] * 400, 2)),
    "fewer scores than rows": lambda: make_context(
        evaluation=make_frame(400), scores=make_scores(make_frame(399))
    ),
    "no rows": lambda: make_context(evaluation=make_frame(400).head(0)),
}
UNUSABLE_OUTCOMES: dict[str, Callable[[], GateContext]] = {
    "NaN in the outcomes": lambda: changed_frame(y=gap(make_frame()["y"])),
    "an outcome of 2": lambda: changed_frame(y=gap(make_frame()["y"], 2)),
    "no column of outcomes": lambda: make_context(
        evaluation=make_frame().drop(columns="y"), scores=make_scores(make_frame())
    ),
}
TOO_FEW: dict[str, Callable[[], GateContext]] = {
    "too few rows": lambda: make_context(evaluation=make_frame(99))
}

WORDS = " ".join(["some", "words"] * 7)
MODEL_CARD = "\n".join(
    f"## {title}\n{WORDS} income debt"
    for title in ("Intended use", "Training data", "Limits", "Feature dictionary", "Narrative")
)


def changed_shap(rows: int = 400, **columns: Any) -> GateContext:
    """Good data and scores, but columns of the candidate's SHAP values replaced."""
    frame = make_frame(rows)
    scores = make_scores(frame)
    assert scores.shap is not None
    shap = scores.shap.assign(**columns)
    return make_context(
        evaluation=frame, scores=Scores(scores.frame, shap, scores.champion_shap, scores.details)
    )


LINKS = [
    Link(kind="data", tool="artifact", name="training data", claimed="a", found="a"),
    Link(kind="environment", tool="artifact", name="requirements.txt", found="b"),
    Link(kind="parameters", tool="mlflow", name="run", found="c"),
]
ROOT = Path(__file__).parents[2]
READY = ReadinessSpec(
    on_call="the team",
    monitoring=MonitoringPlan(signals=["data", "performance"], every_hours=24, alerts="the team"),
    rollback=RollbackPlan(fallback="people", minutes=2, rehearsed="2026-01-12"),
)


def timed() -> Scores:
    """Good scores with the timings of both models."""
    scores = make_scores(make_frame())
    timings = {"p50_ms": 10.0, "p95_ms": 20.0, "p99_ms": 30.0}
    details = {**scores.details, "timings": {"candidate": timings, "champion": timings}}
    return Scores(scores.frame, scores.shap, scores.champion_shap, details)


def priced(**serving: Any) -> GateContext:
    """Timings of the sandbox and a price of 0.36 USD an hour."""
    spec = ServingSpec.model_validate({"usd_per_hour": 0.36, **serving})
    return make_context(scores=timed(), workload=make_workload(serving=spec))


def logged(milliseconds: Any = 5.0, **serving: Any) -> GateContext:
    """A log of requests, all of which took this long."""
    spec = {"usd_per_hour": 0.36, "latency_column": "milliseconds", **serving}
    frame = make_frame().assign(milliseconds=milliseconds)
    workload = make_workload(serving=ServingSpec.model_validate(spec))
    return make_context(evaluation=frame, training=frame, workload=workload)


def flipped(rows: int) -> Retrained:
    """Trained again, the model decides so many rows differently, with the same scores."""
    scores = make_retrained(make_frame()).frame
    assert scores is not None
    decided = scores["candidate_prediction"]
    changed = decided.where(scores.index >= rows, 1 - decided)
    return Retrained(scores.assign(candidate_prediction=changed), {"attempts": []})


CASES: dict[str, Case] = {
    "data_quality": Case(
        good=with_suite,
        unusable={
            "too few rows": lambda: with_suite(make_frame(99)),
            "no rows": lambda: with_suite(make_frame().head(0)),
            "NaN in the outcomes": lambda: with_suite(make_frame().assign(y=gap(make_frame()["y"]))),
            "no suite": lambda: with_suite(suite={}),
            "an empty suite": lambda: with_suite(suite={**SUITE, "expectations": []}),
        },
        on_limit={
            "null share": (lambda: with_suite(missing_incomes(20, 400)), {"maximum_null_share": 0.05}),
            "rows": (lambda: with_suite(make_frame(100)), {"minimum_rows": 100}),
        },
    ),
    "drift": Case(
        unusable={
            **UNUSABLE_SCORES,
            **TOO_FEW,
            "too little training data": lambda: make_context(training=make_frame(99)),
            "no column of a feature": lambda: make_context(training=make_frame().drop(columns="debt")),
            "no values in any feature": lambda: make_context(
                evaluation=make_frame().assign(income=float("nan"), debt=None),
                training=make_frame().assign(income=float("nan"), debt=None),
                scores=make_scores(make_frame()),
            ),
        },
        on_limit={
            "drift share": (
                lambda: changed_frame(income=make_frame()["income"] + 30),
                {"maximum_drift_share": 0.5},
            ),
            "rows": (lambda: make_context(evaluation=make_frame(100)), {"minimum_rows": 100, "psi": 1.0}),
        },
    ),
    "performance": Case(
        unusable={
            **UNUSABLE_SCORES,
            **UNUSABLE_OUTCOMES,
            **TOO_FEW,
            "one outcome only": lambda: changed_frame(y=1),
        },
        on_limit={
            "floor": (
                lambda: right_decisions(190, 190),
                {"floors": {"accuracy": 0.95}, "primary_metric": "accuracy", "judge": "point"},
            ),
            "worsening": (
                lambda: right_decisions(190, 200),
                {"maximum_worsening": 0.05, "primary_metric": "accuracy", "judge": "point"},
            ),
            "upper limit": (
                lambda: right_decisions(200, 200),
                {"floors": {"brier_score": 0.01}, "primary_metric": "accuracy", "judge": "point"},
            ),
        },
    ),
    "bias": Case(
        unusable={
            **UNUSABLE_SCORES,
            **UNUSABLE_OUTCOMES,
            "too few rows in every group": lambda: counted({0: (10, 29), 1: (10, 29)}),
            "one group only": lambda: changed_frame(group=1),
            "nobody selected": lambda: changed_scores(candidate_prediction=0),
            "no column of the attribute": lambda: make_context(
                evaluation=make_frame().drop(columns="group"), scores=make_scores(make_frame())
            ),
        },
        on_limit={
            "four fifths": (
                lambda: counted({0: (40, 100), 1: (50, 100)}),
                {"four_fifths": 0.8, "judge": "point"},
            ),
            "rows of a group": (lambda: counted({0: (15, 30), 1: (50, 100)}), {"minimum_group_rows": 30}),
            "parity difference": (
                lambda: counted({0: (80, 100), 1: (90, 100)}),
                {"parity_difference": 0.1, "judge": "point"},
            ),
        },
    ),
    "explainability": Case(
        unusable={
            **UNUSABLE_SCORES,
            **TOO_FEW,
            "no SHAP values": lambda: make_context(
                scores=Scores(make_scores(make_frame()).frame, None, None, {})
            ),
            "NaN in the SHAP values": lambda: changed_shap(debt=gap([0.5] * 400)),
            "values that do not add up": lambda: changed_shap(debt=0.5),
            "a base that is infinite": lambda: changed_shap(_base=float("inf")),
        },
        on_limit={
            "rows": (lambda: changed_shap(rows=100), {"minimum_rows": 100}),
            "rank correlation": (make_context, {"minimum_rank_correlation": 1.0}),
        },
    ),
    "privacy": Case(
        unusable={
            "too few rows": lambda: make_context(evaluation=make_frame(99)),
            "no rows": lambda: make_context(evaluation=make_frame().head(0)),
            "no column of a feature": lambda: make_context(evaluation=make_frame().drop(columns="debt")),
            "no column of the attribute": lambda: make_context(evaluation=make_frame().drop(columns="group")),
            "NaN for the attribute": lambda: make_context(evaluation=make_frame().assign(group=float("nan"))),
            "one group only": lambda: make_context(evaluation=make_frame().assign(group=1)),
        },
        on_limit={
            "rows": (lambda: make_context(evaluation=make_frame(100)), {"minimum_rows": 100}),
            "a copy": (
                lambda: make_context(evaluation=make_frame().assign(income=make_frame()["group"])),
                {"copy_auc": 1.0, "proxy_auc": 1.0},
            ),
        },
    ),
    "security": Case(
        good=lambda: scan_context(scanned()),
        unusable={"no files": scan_context},
        on_limit={"files": (lambda: scan_context(scanned()), {"maximum_files": 1})},
    ),
    "lineage": Case(good=lambda: make_context(links=LINKS)),
    "reproducibility": Case(
        good=lambda: make_context(artifact=ROOT, retrained=make_retrained(make_frame())),
        unusable={
            "a command that failed": lambda: make_context(
                artifact=ROOT, retrained=Retrained(None, {}, problem="it failed.", fix="mend it")
            ),
            "other rows": lambda: make_context(artifact=ROOT, retrained=make_retrained(make_frame(399))),
            "no rows": lambda: make_context(
                artifact=ROOT,
                evaluation=make_frame().head(0),
                retrained=make_retrained(make_frame().head(0)),
            ),
        },
        on_limit={
            "the same scores": (
                lambda: make_context(artifact=ROOT, retrained=make_retrained(make_frame())),
                {"maximum_score_difference": 0.0, "maximum_decision_changes": 0.0},
            ),
            "one decision in 400": (
                lambda: make_context(artifact=ROOT, retrained=flipped(1)),
                {"maximum_decision_changes": 0.0025},
            ),
        },
    ),
    "readiness": Case(
        good=lambda: make_context(workload=make_workload(readiness=READY)),
        on_limit={
            "minutes": (
                lambda: make_context(workload=make_workload(readiness=READY)),
                {"maximum_rollback_minutes": 2.0, "maximum_hours_between_checks": 24.0},
            )
        },
    ),
    "cost": Case(
        good=priced,
        unusable={
            "no price": lambda: make_context(scores=timed()),
            "no timings": lambda: make_context(workload=make_workload(serving=ServingSpec(usd_per_hour=1))),
            "no column": lambda: logged(latency_column="gone"),
            "NaN": lambda: logged(milliseconds=gap([5.0] * 400)),
            "an infinite time": lambda: logged(milliseconds=gap([5.0] * 400, float("inf"))),
            "a negative time": lambda: logged(milliseconds=gap([5.0] * 400, -1.0)),
        },
        on_limit={
            "p99": (priced, {"maximum_p99_ms": 30.0}),
            "p95": (priced, {"maximum_p95_ms": 20.0}),
            "cost": (priced, {"maximum_cost_per_request_usd": 0.36 * 10 / 3_600_000}),
            "requests": (logged, {"minimum_requests": 400}),
        },
    ),
    "leakage": Case(
        unusable={
            "too few rows": lambda: make_context(evaluation=make_frame(99)),
            "no rows": lambda: make_context(evaluation=make_frame().head(0)),
            "too little training data": lambda: make_context(training=make_frame(99)),
            "no column of a feature": lambda: make_context(training=make_frame().drop(columns="debt")),
            "no column of outcomes": lambda: make_context(evaluation=make_frame().drop(columns="y")),
            "one outcome only": lambda: make_context(training=make_frame().assign(y=1)),
            "no known outcome": lambda: make_context(training=make_frame().assign(y=float("nan"))),
        },
        on_limit={
            "rows": (lambda: make_context(evaluation=make_frame(100)), {"minimum_rows": 100}),
            "overlap": (
                lambda: make_context(evaluation=make_frame(400), training=make_frame(400)),
                {"maximum_overlap": 1.0},
            ),
            "target": (
                lambda: make_context(training=make_frame(seed=8).assign(income=lambda f: f["y"])),
                {"target_auc": 1.0, "suspicious_auc": 1.0},
            ),
        },
    ),
    "documentation": Case(
        good=lambda: make_context(documentation=MODEL_CARD),
        on_limit={"words": (lambda: make_context(documentation=MODEL_CARD), {"minimum_words": 16})},
    ),
}


ALL = pytest.mark.parametrize("name", gate_names())
WITH_CASE = pytest.mark.parametrize("name", sorted(CASES))


def test_every_gate_has_a_case() -> None:
    assert set(gate_names()) == set(CASES)


@ALL
@pytest.mark.requirement("G-16")
def test_a_gate_explains_itself(name: str) -> None:
    text = gate_text(name)
    assert all(len(part.split()) >= 5 for part in (text.title, text.why, text.good, text.fix))


@ALL
def test_a_gate_keeps_the_contract(name: str) -> None:
    gate = load_gate(name)
    assert isinstance(gate.STAGE, Stage)
    assert gate.Config.model_config["frozen"]
    assert gate.Config.model_config["extra"] == "forbid"


@ALL
def test_limits_have_no_defaults(name: str) -> None:
    config = load_gate(name).Config
    with pytest.raises(ValidationError):
        config()
    assert all(field.is_required() for field in config.model_fields.values())


@ALL
def test_the_shipped_policy_configures_it(name: str) -> None:
    assert configuration(name)


@ALL
def test_a_typo_in_the_configuration_is_an_error(name: str) -> None:
    with pytest.raises(ValidationError):
        configuration(name, minimum_rowz=1)


def test_importing_all_gates_imports_no_vendor() -> None:
    code = (
        "import sys; from airlock.gates import gate_names, load_gate; "
        "[load_gate(name) for name in gate_names()]; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@WITH_CASE
def test_good_data_is_let_through(name: str) -> None:
    result, _ = judge(name, CASES[name].good())
    assert result.verdict.allows, result.summary


@WITH_CASE
def test_same_input_same_bytes(name: str) -> None:
    first, first_files = judge(name, CASES[name].good())
    again, again_files = judge(name, CASES[name].good())
    assert first.to_bytes() == again.to_bytes()
    assert first_files == again_files


@WITH_CASE
def test_the_result_survives_json(name: str) -> None:
    result, _ = judge(name, CASES[name].good())
    assert GateResult.from_bytes(result.to_bytes()) == result


@WITH_CASE
def test_the_data_is_not_changed(name: str) -> None:
    context = CASES[name].good()
    before = [context.evaluation().copy(), context.training().copy(), context.scores().frame.copy()]
    judge(name, context)
    for old, new in zip(
        before, [context.evaluation(), context.training(), context.scores().frame], strict=True
    ):
        pd.testing.assert_frame_equal(old, new)


@WITH_CASE
def test_it_says_what_it_found_in_one_sentence(name: str) -> None:
    result, _ = judge(name, CASES[name].good())
    assert result.summary.endswith(".")
    assert "\n" not in result.summary


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, case in CASES.items() for what in case.unusable]
)
def test_what_cannot_be_judged_is_an_error(name: str, what: str) -> None:
    result, _ = judge(name, CASES[name].unusable[what]())
    assert result.verdict is Verdict.ERROR
    error = next(finding for finding in result.findings if finding.verdict is Verdict.ERROR)
    assert error.message
    assert error.fix
    assert GateResult.from_bytes(result.to_bytes()) == result


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, case in CASES.items() for what in case.on_limit]
)
def test_a_value_exactly_on_its_limit_passes(name: str, what: str) -> None:
    context, changes = CASES[name].on_limit[what]
    result, _ = judge(name, context(), **changes)
    assert result.verdict.allows, result.summary


def test_a_workload_without_protected_attributes_has_nothing_to_compare() -> None:
    workload = make_workload()
    data = workload.data.model_copy(update={"sensitive": {}})
    declared, _ = judge("bias", make_context(workload=make_workload(data=data)))
    assert declared.verdict is Verdict.ERROR
    risk = workload.risk.model_copy(update={"protected_class_data": False})
    result, _ = judge("bias", make_context(workload=make_workload(data=data, risk=risk)))
    assert result.verdict is Verdict.PASSED
