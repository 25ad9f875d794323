"""Leakage, cost and readiness against faults that happen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from airlock.adapters.config_files import ConfigFolder
from airlock.core.columns import Task
from airlock.core.declarations import ServingSpec
from airlock.core.evidence import GateResult, Verdict
from airlock.demo.data import prepare
from airlock.gates.base import Scores
from airlock.gates.leakage import _power
from tests.support.gates import make_context, make_frame, make_manifest, make_scores, make_workload
from tests.support.judge import finding, judge, metric

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    root = tmp_path_factory.mktemp("data")
    prepare(ROOT / "data/loanapp.csv", root)
    return pd.read_parquet(root / "loanapp/training.parquet"), pd.read_parquet(
        root / "loanapp/batches/clean.parquet"
    )


def leakage(training: pd.DataFrame, evaluation: pd.DataFrame, **changes: Any) -> GateResult:
    workload = ConfigFolder(ROOT / "config").workload("mortgage-approval")
    if extra := changes.pop("features", []):
        model = workload.model.model_copy(update={"features": [*workload.model.features, *extra]})
        workload = workload.model_copy(update={"model": model})
    context = make_context(evaluation=evaluation, training=training, workload=workload)
    context.columns = context.columns.model_copy(update={"time": changes.pop("time", None)})
    return judge("leakage", context, **changes)[0]


@pytest.mark.requirement("G-14")
def test_real_applications_hold_no_leak(loans: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    result = leakage(*loans)
    assert result.verdict is Verdict.PASSED
    assert metric(result, "overlap_share").value == pytest.approx(1 / len(loans[1]))


@pytest.mark.requirement("G-14")
def test_what_is_written_down_with_the_decision_is_a_leak(loans: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """``reject`` and ``action`` of the real file are the answer; a noisy copy of it is suspicious."""
    for column in ("reject", "action"):
        result = leakage(*loans, features=[column])
        assert result.verdict is Verdict.FAILED
        assert finding(result, "target", column).verdict is Verdict.FAILED
    rng = np.random.default_rng(5)
    noisy = [frame.assign(letter=frame["approve"] + rng.normal(0, 0.45, len(frame))) for frame in loans]
    result = leakage(*noisy, features=["letter"])
    assert finding(result, "target", "letter").verdict is Verdict.WARNED


@pytest.mark.requirement("G-14")
def test_a_leak_is_found_in_texts_dates_and_gaps(loans: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    def spoilt(frame: pd.DataFrame) -> pd.DataFrame:
        yes = frame["approve"] == 1
        return frame.assign(
            text=np.where(yes, "letter A", "letter B"),
            middle=np.where(yes, 1.0, np.where(frame["hrat"] > 25, 0.0, 2.0)),
            closed=pd.Timestamp("2026-01-01") + pd.to_timedelta(np.where(yes, 10, 400), unit="D"),
            gap=frame["hrat"].where(yes),
        )

    result = leakage(*map(spoilt, loans), features=["text", "middle", "closed", "gap"])
    leaks = {one.where for one in result.findings if one.id == "target" and one.verdict is Verdict.FAILED}
    assert leaks == {"text", "middle", "closed", "gap"}


@pytest.mark.requirement("G-14")
def test_rows_of_the_training_in_the_evaluation_are_found(loans: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    training, evaluation = loans
    mixed = pd.concat([evaluation, training.head(40)]).sample(frac=1, random_state=1)
    assert finding(leakage(training, mixed), "overlap").verdict is Verdict.FAILED


@pytest.mark.requirement("G-14")
@pytest.mark.parametrize(("rule", "verdict"), [("fail", Verdict.FAILED), ("warn", Verdict.WARNED)])
def test_evaluation_rows_must_be_later(
    loans: tuple[pd.DataFrame, pd.DataFrame], rule: str, verdict: Verdict
) -> None:
    training, evaluation = loans
    days = pd.date_range("2025-01-01", periods=len(training), freq="h", tz="Europe/Berlin")
    training = training.assign(day=days)
    later = evaluation.assign(day=[str(days[-1] + pd.Timedelta(hours=n + 1)) for n in range(len(evaluation))])
    assert leakage(training, later, time="day", time_order=rule).verdict is Verdict.PASSED
    mixed = evaluation.assign(day=days[: len(evaluation)])
    assert leakage(training, mixed, time="day", time_order=rule).verdict is verdict
    assert leakage(training, mixed, time="day", time_order="ignore").verdict is Verdict.PASSED
    for bad in (evaluation, evaluation.assign(day="soon"), evaluation.assign(day=None)):
        assert leakage(training, bad, time="day", time_order=rule).verdict is Verdict.ERROR


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_auc_of_a_feature_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outcome = np.append(rng.integers(0, 2, 300), [0, 1])
    feature = outcome * rng.random() + rng.normal(0, 1, 302)
    found = _power(pd.Series(feature), pd.Series(outcome), Task.BINARY)
    oracle = roc_auc_score(outcome, feature)
    assert found == pytest.approx(max(oracle, 1 - oracle))
    assert _power(pd.Series(-feature), pd.Series(outcome), Task.BINARY) == pytest.approx(found)


def timings(candidate: float, champion: float | None) -> Scores:
    scores = make_scores(make_frame(), champion=champion is not None)
    laps = {
        role: None if p50 is None else {"p50_ms": p50, "p95_ms": 2 * p50, "p99_ms": 3 * p50}
        for role, p50 in (("candidate", candidate), ("champion", champion))
    }
    return Scores(scores.frame, None, None, {"timings": laps})


def cost(candidate: float, champion: float | None = None, serving: Any = None, **changes: Any) -> GateResult:
    workload = make_workload(serving=ServingSpec.model_validate({"usd_per_hour": 3.6, **(serving or {})}))
    manifest = make_manifest(workload, champion=champion is not None)
    context = make_context(scores=timings(candidate, champion), workload=workload, manifest=manifest)
    return judge("cost", context, **changes)[0]


@pytest.mark.requirement("G-9")
def test_a_request_costs_its_share_of_the_instance_and_its_own_price() -> None:
    result = cost(100, serving={"usd_per_request": 0.0005, "parallel_requests": 2, "utilisation": 0.5})
    assert metric(result, "cost_per_request_usd").value == pytest.approx(0.0005 + 3.6 * 0.1 / 3600)
    assert result.verdict is Verdict.PASSED
    assert cost(2000, maximum_p95_ms=1e6, maximum_p99_ms=1e6).verdict is Verdict.FAILED


@pytest.mark.requirement("G-9")
def test_the_cheaper_option_is_named() -> None:
    options = [{"name": "spot", "usd_per_hour": 0.9}, {"name": "big", "usd_per_hour": 9, "slowdown": 0.9}]
    result = cost(1500, serving={"alternatives": options}, maximum_p95_ms=1e6, maximum_p99_ms=1e6)
    found = finding(result, "cost.per_request")
    assert found.verdict is Verdict.FAILED
    assert "spot costs 0.000375 USD" in found.fix
    assert finding(cost(10, serving={"alternatives": options}), "cost.cheaper").verdict is Verdict.PASSED


@pytest.mark.requirement("G-9")
@pytest.mark.parametrize(("rule", "verdict"), [("warn", Verdict.WARNED), ("fail", Verdict.FAILED)])
def test_a_month_over_budget_needs_its_owner(rule: str, verdict: Verdict) -> None:
    plan = {"monthly_requests": 1_000_000, "monthly_budget_usd": 9.0}
    result = cost(10, serving=plan, over_budget=rule)
    assert result.verdict is verdict
    assert "its owner must approve" in finding(result, "cost.budget").message
    assert cost(9, serving=plan, over_budget=rule).verdict is Verdict.PASSED


@pytest.mark.requirement("G-10")
def test_slow_answers_fail_and_a_spike_against_the_champion_warns() -> None:
    result = cost(400, 400)
    assert {one.id for one in result.findings} == {"latency.p95_ms", "latency.p99_ms"}
    spike = cost(31, 10)
    assert finding(spike, "latency.spike").verdict is Verdict.WARNED
    assert metric(spike, "latency_increase", "against the champion").value == pytest.approx(2.1)
    assert cost(30, 10).verdict is Verdict.PASSED


READY = {
    "on_call": "the team",
    "monitoring": {"signals": ["data", "performance"], "every_hours": 24, "alerts": "pager"},
    "rollback": {"fallback": "rules", "minutes": 2, "rehearsed": "2026-01-12"},
}


def readiness(champion: bool = True, **spec: Any) -> GateResult:
    workload = make_workload(readiness={**READY, **spec})
    return judge(
        "readiness", make_context(workload=workload, manifest=make_manifest(workload, champion=champion))
    )[0]


@pytest.mark.requirement("G-13")
@pytest.mark.parametrize(
    ("spec", "finding_id", "verdict"),
    [
        ({}, "", Verdict.PASSED),
        ({"on_call": None}, "on_call", Verdict.FAILED),
        ({"on_call": "  "}, "on_call", Verdict.FAILED),
        ({"monitoring": None}, "monitoring", Verdict.FAILED),
        (
            {"monitoring": {"signals": ["cost"], "every_hours": 24, "alerts": "x"}},
            "monitoring.signals",
            Verdict.FAILED,
        ),
        (
            {"monitoring": {"signals": ["data", "performance"], "every_hours": 200, "alerts": "x"}},
            "monitoring.pause",
            Verdict.FAILED,
        ),
        ({"rollback": None}, "rollback", Verdict.FAILED),
        (
            {"rollback": {"fallback": "x", "minutes": 6, "rehearsed": "2026-01-12"}},
            "rollback.time",
            Verdict.FAILED,
        ),
        ({"rollback": {"fallback": "x", "minutes": 5}}, "rollback.rehearsed", Verdict.WARNED),
    ],
)
def test_a_release_without_plans_is_not_ready(
    spec: dict[str, Any], finding_id: str, verdict: Verdict
) -> None:
    result = readiness(**spec)
    assert result.verdict is verdict
    assert [one.id for one in result.findings] == ([finding_id] if finding_id else [])


@pytest.mark.requirement("G-13", "T-10")
def test_an_experiment_that_can_show_nothing_is_no_plan() -> None:
    plan = {
        "id": "new-model", "population": "everybody", "layer": "models", "share": 0.1, "start": "2026-03-01",
        "end": "2026-03-02", "metric": "approval rate", "baseline": 0.8, "minimum_detectable_effect": 0.01,
        "power": 0.8, "alpha": 0.05, "cases_per_day": 20,
    }  # fmt: skip
    workload = make_workload(readiness=READY, experiments=[plan])
    assert judge("readiness", make_context(workload=workload))[0].verdict is Verdict.FAILED
    enough = {**plan, "cases_per_day": 1_000_000}
    workload = make_workload(readiness=READY, experiments=[enough])
    assert judge("readiness", make_context(workload=workload))[0].verdict is Verdict.PASSED


@pytest.mark.requirement("G-13")
def test_a_first_release_names_what_answers_when_it_is_taken_back() -> None:
    assert finding(readiness(champion=False), "rollback.version").message.endswith(
        "until there is one, rules answers"
    )


def reproducibility(folder: Path, text: str | None, metadata: dict[str, Any], **changes: Any) -> GateResult:
    if text is not None:
        (folder / "requirements.txt").write_text(text)
    workload = make_workload()
    manifest = make_manifest(workload, environment={"scikit-learn": "1.9.1"})
    candidate = manifest.candidate.model_copy(update={"metadata": metadata})
    manifest = manifest.model_copy(update={"candidate": candidate})
    context = make_context(artifact=folder, workload=workload, manifest=manifest)
    return judge("reproducibility", context, **changes)[0]


@pytest.mark.requirement("G-11")
@pytest.mark.parametrize(
    ("text", "metadata", "found"),
    [
        ("scikit-learn==1.9.1\nskops == 0.16\n# a comment\n", {"seed": 0}, []),
        ("scikit-learn==1.9.1\n", {}, ["seed"]),
        ("scikit-learn==1.9.1\n", {"seed": "soon"}, ["seed"]),
        ("scikit-learn==1.9.1\n", {"seed": True}, ["seed"]),
        ("scikit_learn==1.8.0\n", {"seed": 0}, ["versions"]),
        ("scikit-learn>=1.9\nskops\n", {"seed": 0}, ["libraries"]),
        ("skops==0.*\n", {"seed": 0}, ["libraries"]),
        ("", {"seed": 0}, ["libraries"]),
        (None, {}, ["seed", "libraries"]),
    ],
)
def test_what_keeps_a_training_from_being_repeated_is_named(
    tmp_path: Path, text: str | None, metadata: dict[str, Any], found: list[str]
) -> None:
    result = reproducibility(tmp_path, text, metadata)
    assert [one.id for one in result.findings] == found
    assert result.verdict is (Verdict.WARNED if found else Verdict.PASSED)
    strict = {"unknown_seed": "fail", "unpinned_libraries": "fail", "other_versions": "fail"}
    strictly = reproducibility(tmp_path, text, metadata, **strict)
    assert strictly.verdict is (Verdict.FAILED if found else Verdict.PASSED)
