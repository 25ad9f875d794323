"""Which decisions change between two versions, why, and that nobody can be found in the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock.core.audit import Kind
from airlock.core.errors import NotFoundError, SandboxError
from airlock.core.evidence import SCORE, GateResult, Verdict
from airlock.ports import SandboxRequest, SandboxResult
from airlock.profiles.why_flipped import CROWD, examples, reasons
from airlock.reporting.decision_changes import fragment, sentence
from airlock.services.decide import decide
from airlock.services.decision_changes import (
    after_last_rollback,
    after_promotion,
    after_rollback,
    compared_events,
    report_of,
)
from airlock.services.evaluate import keep_evidence
from airlock.services.promote import promote
from airlock.services.releases import open_case
from airlock.services.rollback import rollback
from tests.support.deployments import CHANGES, WORKLOAD, World, fast_folder, in_operation
from tests.unit.test_rollback import edit_yaml

pytestmark = pytest.mark.requirement("R-4")

ROWS = 400


def cases(rows: int = ROWS) -> pd.DataFrame:
    draw = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "income": np.round(draw.uniform(10, 90, rows), 3),
            "debt": np.round(draw.uniform(0, 1, rows), 4),
            "y": draw.integers(0, 2, rows),
            "group": draw.integers(0, 2, rows),
            "ssn": [f"078-05-{number:04}" for number in range(rows)],
        }
    )


def accepts(frame: pd.DataFrame, floor: float) -> pd.Series[Any]:
    return (frame["income"] >= floor).astype("int64")


def shap_of(frame: pd.DataFrame, floor: float) -> pd.DataFrame:
    """Of a model that looks at income alone: how far it lies above its floor."""
    table = pd.DataFrame({"income": (frame["income"] - floor) / 100, "debt": 0.0})
    table.index.name = "row"
    return table.assign(_base=0.5, _margin=0.0)


class Scorer:
    """Scores as models would that accept incomes from a floor on; ``model.skops`` says which."""

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.broken = False

    def run(self, request: SandboxRequest, output: Path) -> SandboxResult:
        if request.job["kind"] == "trial":
            (output / "trial.json").write_text(json.dumps({"rows": 3, "features": ["income", "debt"]}))
            return SandboxResult(isolation=["no network"], seconds=0.1, stdout="", stderr="")
        if self.broken:
            raise SandboxError("the model gives no answers", where="sandbox job score")
        weights = (Path(request.inputs["candidate"]) / "model.skops").read_text()
        self.jobs.append(weights)
        floor = FLOORS[weights.removeprefix("weights ")]
        frame = pd.read_parquet(request.inputs["evaluation"])
        chosen = accepts(frame, floor)
        pd.DataFrame({"candidate_score": chosen * 0.8, "candidate_prediction": chosen}).to_parquet(
            output / "scores.parquet", index=False
        )
        shap_of(frame.head(100), floor).to_parquet(output / "shap.parquet")
        return SandboxResult(isolation=["no network"], seconds=0.1, stdout="", stderr="")


FLOORS = {"1": 20.0, "2": 40.0, "3": 50.0, "4": 60.0}


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        world = in_operation(folder / "template")
        cases().to_parquet(world.root / "home" / "data" / "loan" / "batches" / "clean.parquet", index=False)
        (world.root / "home" / "data" / "loan" / "training.parquet").write_bytes(b"background")
        world.registry.register("4")
        edit_yaml(
            world.workload_file,
            lambda data: data.update(downstream=["claims"], data={**data["data"], "identifiers": ["ssn"]}),
        )
        world.releases["4"] = scored_and_promoted(world, "4", before="3")
        yield world


def scored_and_promoted(world: World, version: str, *, before: str) -> str:
    """A release whose evidence holds real scores of both versions."""
    release_id = world.frozen(version, run=f"run-{version}")
    case = open_case(world.deployment, release_id)
    frame = cases()
    tables = {
        "scores.parquet": pd.DataFrame(
            {
                "candidate_score": 0.5,
                "candidate_prediction": accepts(frame, FLOORS[version]),
                "champion_score": 0.5,
                "champion_prediction": accepts(frame, FLOORS[before]),
            }
        ),
        "shap.parquet": shap_of(frame.head(200), FLOORS[version]),
        "champion_shap.parquet": shap_of(frame.head(200), FLOORS[before]),
    }
    files = {}
    with fast_folder() as folder:
        for name, table in tables.items():
            table.to_parquet(folder / name)
            files[name] = world.deployment.evidence.put_file(folder / name)
    result = GateResult(verdict=Verdict.PASSED, summary="scored", files=files)
    keep_evidence(world.deployment, case, SCORE, config={}, result=result, seconds=0.5)
    for gate in case.policy.gates:
        details = {"change": {"relative": CHANGES["red"]}} if gate == "performance" else {}
        said = GateResult(verdict=Verdict.PASSED, summary=gate, details=details)
        keep_evidence(world.deployment, case, gate, config={}, result=said, seconds=0.5)
    decide(world.deployment, release_id)
    world.answer(release_id, "grace", 0)
    world.answer(release_id, "ravi", 1)
    promote(world.deployment, release_id)
    return release_id


@pytest.fixture
def world(template: World) -> Iterator[World]:
    with fast_folder() as folder:
        copied = template.copy(folder / "world")
        copied.deployment = replace(copied.deployment, sandbox=Scorer())
        yield copied


def between(low: float, high: float) -> int:
    income = cases()["income"]
    return int(((income >= low) & (income < high)).sum())


# Promotion


def test_a_promotion_says_how_many_decisions_change_which_way_and_why(world: World) -> None:
    event = after_promotion(world.deployment, world.releases["4"])
    report = report_of(world.deployment, event)
    assert (report["from"], report["to"], report["kind"], report["problem"]) == ("3", "4", "promotion", "")
    (data,) = report["data"]
    flips = data["flips"]
    assert flips["changed"] == flips["to_unfavourable"] == between(50, 60)
    assert flips["to_favourable"] == 0
    assert sum(group["changed"] for group in flips["groups"]) == flips["changed"]
    (reason,) = data["reasons"]
    assert (reason["way"], reason["features"]) == ("down", [{"feature": "income", "shift": -0.1}])
    assert event.data["sentence"] == sentence(report)
    assert f"version 4 decides {between(50, 60)} of 400 cases" in event.data["sentence"]
    assert world.deployment.sandbox.jobs == [], "what was scored already is not scored again"  # type: ignore[attr-defined]


def test_it_is_recorded_once_and_the_same_bytes_each_time(world: World) -> None:
    first = after_promotion(world.deployment, world.releases["4"])
    assert after_promotion(world.deployment, world.releases["4"]) == first
    assert len(world.events(Kind.DECISIONS_COMPARED)) == 1
    report = report_of(world.deployment, first)
    page = world.deployment.evidence.get(first.data["page"])
    assert page == fragment(report).encode()


def test_a_release_that_was_not_promoted_is_told(world: World) -> None:
    with pytest.raises(NotFoundError, match="was not promoted"):
        after_promotion(world.deployment, world.judged("2", run="again"))


def test_a_first_champion_has_nothing_to_be_compared_with(world: World) -> None:
    event = after_promotion(world.deployment, world.releases["2"])
    assert report_of(world.deployment, event)["from"] == "1"


# Rollback


def test_a_rollback_of_a_promotion_uses_its_scores_the_other_way_round(world: World) -> None:
    there = report_of(world.deployment, after_promotion(world.deployment, world.releases["4"]))["data"][0]
    done = rollback(world.deployment, WORKLOAD, actor="petra", reason="too many are declined")
    event = after_rollback(world.deployment, done)
    back = report_of(world.deployment, event)["data"][0]
    assert world.deployment.sandbox.jobs == []  # type: ignore[attr-defined]
    assert (event.data["from"], event.data["to"], event.data["kind"]) == ("4", "3", "rollback")
    assert back["flips"]["to_favourable"] == there["flips"]["to_unfavourable"]
    assert back["reasons"][0]["features"] == [{"feature": "income", "shift": 0.1}]
    assert event.data["incident"] == done.data["incident"]
    assert after_last_rollback(world.deployment, WORKLOAD) == event
    assert next(compared_events(world.deployment, WORKLOAD)).key == event.key


def test_versions_that_no_release_compared_are_scored_side_by_side(world: World) -> None:
    done = rollback(world.deployment, WORKLOAD, to="1", actor="petra", reason="too many are declined")
    (data,) = report_of(world.deployment, after_rollback(world.deployment, done))["data"]
    assert sorted(world.deployment.sandbox.jobs) == ["weights 1", "weights 4"]  # type: ignore[attr-defined]
    assert data["flips"]["to_favourable"] == between(20, 60)
    assert data["reasons"][0]["features"] == [{"feature": "income", "shift": 0.4}]


def test_a_batch_that_changed_since_is_scored_anew(world: World) -> None:
    case = open_case(world.deployment, world.releases["4"])
    judged, today = Path(case.manifest.evaluation.path), world.deployment.settings.data_root / "loan/batches"
    before = judged.read_bytes()
    try:
        cases(300).to_parquet(judged, index=False)
        cases(300).to_parquet(today / "clean.parquet", index=False)
        event = after_promotion(world.deployment, world.releases["4"])
    finally:
        judged.write_bytes(before)
    (data,) = report_of(world.deployment, event)["data"]
    assert data["flips"]["rows"] == 300
    assert sorted(world.deployment.sandbox.jobs) == ["weights 3", "weights 4"]  # type: ignore[attr-defined]


def test_what_cannot_be_compared_is_said(world: World) -> None:
    world.deployment.sandbox.broken = True  # type: ignore[attr-defined]
    done = rollback(world.deployment, WORKLOAD, to="1", actor="petra", reason="too many are declined")
    event = after_rollback(world.deployment, done)
    report = report_of(world.deployment, event)
    assert report["data"] == []
    assert report["problem"] == "the model gives no answers"
    assert "the model gives no answers" in event.data["sentence"]


def test_a_workload_that_was_never_rolled_back_is_told(world: World) -> None:
    with pytest.raises(NotFoundError, match="was never rolled back"):
        after_last_rollback(world.deployment, WORKLOAD)


# Nobody in it


def test_no_row_identifier_or_protected_attribute_is_told(world: World) -> None:
    done = rollback(world.deployment, WORKLOAD, to="1", actor="petra", reason="too many are declined")
    event = after_rollback(world.deployment, done)
    text = world.deployment.evidence.get(event.data["report"]).decode()
    report = json.loads(text)
    assert "078-05-" not in text
    assert "ssn" not in text
    found = report["data"][0]["examples"]
    assert found
    for example in found:
        assert set(example["where"]) <= {"income", "debt"}
        assert example["cases"] >= CROWD
    assert "078-05-" not in world.deployment.evidence.get(event.data["page"]).decode()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_example_stands_for_a_crowd(data: Any) -> None:
    rows = data.draw(st.integers(1, 300))
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    frame = pd.DataFrame(
        {
            "number": draw.normal(size=rows),
            "few": draw.integers(0, 3, rows),
            "text": draw.choice(["a", "b", "rare-" * 3], rows, p=[0.5, 0.45, 0.05]),
        }
    )
    old, new = draw.integers(0, 2, rows), draw.integers(0, 2, rows)
    changed = {"up": new > old, "down": new < old}
    for example in examples(frame, list(frame), None, old, new):
        assert example["cases"] >= CROWD
        assert CROWD // 2 <= example["changed"] <= example["cases"]
        assert example["changed"] <= int(changed[example["way"]].sum())


def test_the_ends_of_a_range_are_not_those_of_somebody() -> None:
    frame = pd.DataFrame({"income": [*range(100), 9_999_999]})
    old = np.zeros(101, dtype=int)
    found = examples(frame, ["income"], None, old, np.ones(101, dtype=int))
    assert found
    assert all("9,999,999" not in str(example) and "1e+07" not in str(example) for example in found)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_swapping_the_models_turns_each_reason_round(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, two = (pd.DataFrame(draw.normal(size=(30, 3)), columns=["a", "b", "c"]) for _ in range(2))
    old, new = draw.integers(0, 2, 30), draw.integers(0, 2, 30)
    there = {reason["way"]: reason for reason in reasons((one, two), old, new)}
    back = {reason["way"]: reason for reason in reasons((two, one), new, old)}
    turned = {"up": "down", "down": "up"}
    assert set(back) == {turned[way] for way in there}
    for way, reason in there.items():
        assert reason["features"] == [
            {"feature": entry["feature"], "shift": -entry["shift"]} for entry in back[turned[way]]["features"]
        ]
    assert reasons((one, one), old, new) == [] or all(
        not reason["features"] for reason in reasons((one, one), old, new)
    )


def test_texts_of_others_are_escaped() -> None:
    report = {
        "workload": "<script>alert(1)</script>", "kind": "rollback", "from": "2", "to": "1",
        "problem": "<b>", "data": [],
    }  # fmt: skip
    page = fragment(report)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_classes_change_one_way() -> None:
    old, new = np.array(["a", "b"] * 50, dtype=object), np.array(["b", "b"] * 50, dtype=object)
    frame = pd.DataFrame({"x": [0, 1] * 50})
    (example,) = examples(frame, ["x"], None, old, new)
    assert (example["way"], example["where"], example["changed"]) == ("changed", {"x": "0"}, 50)
