"""The bias gate, against fairlearn asked about the rows one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from airlock.core.evidence import Verdict
from airlock.gates.base import GateContext, Scores
from airlock.gates.bias import measure
from tests.support.gates import make_context, make_manifest, make_workload
from tests.support.judge import configuration, finding, judge, metric, table

pytestmark = pytest.mark.slow  # the libraries it asks take seconds


def context(
    groups: dict[str, Any],
    outcome: Any,
    decision: Any,
    champion: Any = None,
    words: dict[str, dict[str, str]] | None = None,
) -> GateContext:
    """Judge these decisions on rows with these protected attributes."""
    frame = pd.DataFrame({**groups, "y": outcome, "income": 1.0, "debt": 1.0})
    scores: dict[str, Any] = {}
    for model, decided in (("candidate", decision), ("champion", champion)):
        if decided is not None:
            scores |= {f"{model}_score": np.asarray(decided) * 1.0, f"{model}_prediction": decided}
    data = make_workload().data.model_copy(update={"sensitive": words or {name: {} for name in groups}})
    workload = make_workload(data=data)
    return make_context(
        evaluation=frame,
        scores=Scores(pd.DataFrame(scores), None, None, {}),
        workload=workload,
        manifest=make_manifest(workload, champion=champion is not None),
    )


def blocks(*parts: tuple[object, int, int]) -> tuple[list[object], list[int]]:
    """Group labels and decisions: (group, selected, rows) each."""
    labels = [group for group, _, rows in parts for _ in range(rows)]
    decisions = [int(index < selected) for _, selected, rows in parts for index in range(rows)]
    return labels, decisions


@pytest.mark.requirement("G-5")
@pytest.mark.parametrize(("groups", "seed"), [(2, 0), (2, 1), (3, 2), (7, 3), (24, 4)])
def test_counted_cells_give_what_fairlearn_gives_for_rows(groups: int, seed: int) -> None:
    from fairlearn import metrics
    from sklearn.metrics import accuracy_score

    rng = np.random.default_rng(seed)
    names = [f"group {number}" for number in rng.integers(0, groups, 3000)]
    outcome, decision = rng.integers(0, 2, 3000), rng.integers(0, 2, 3000)
    ours = measure("a", names, outcome, decision, configuration("bias", minimum_group_rows=1))
    asked = {"y_true": outcome, "y_pred": decision, "sensitive_features": names}
    assert ours.ratio == metrics.demographic_parity_ratio(**asked)
    assert ours.difference == metrics.demographic_parity_difference(**asked)
    assert ours.equalized_odds == metrics.equalized_odds_difference(**asked)
    by_group = metrics.MetricFrame(
        metrics={
            "selection_rate": metrics.selection_rate,
            "accuracy": accuracy_score,
            "true_positive_rate": metrics.true_positive_rate,
            "false_positive_rate": metrics.false_positive_rate,
            "n": metrics.count,
        },
        **asked,
    )
    assert ours.accuracy_gap == by_group.difference()["accuracy"]
    for name, row in by_group.by_group.iterrows():
        assert {key: ours.groups[name][key] for key in row.index} == dict(row)


@pytest.mark.requirement("G-5")
def test_below_four_fifths_fails_and_the_summary_names_everything() -> None:
    race, decision = blocks((1, 60, 100), (0, 170, 200))
    words = {"race": {"1": "Black", "0": "white"}}
    result, _ = judge("bias", context({"race": race}, decision, decision, words=words))
    assert result.verdict is Verdict.FAILED
    assert result.summary == (
        "Black get the favourable outcome in 60.0 % of 100 cases, against 85.0 % of 200 for white: "
        "ratio 0.706, below the four-fifths limit 0.8."
    )
    found = finding(result, "four_fifths")
    assert found.where == "race"
    assert "ThresholdOptimizer" in found.fix
    ratio = metric(result, "demographic_parity_ratio", "race")
    assert ratio.value == pytest.approx(0.6 / 0.85)
    assert (ratio.threshold, ratio.direction, ratio.n) == (0.8, "higher", 300)
    assert ratio.engine.startswith("fairlearn ")
    assert finding(result, "parity_difference").verdict is Verdict.WARNED


@pytest.mark.requirement("G-5")
def test_a_difference_alone_only_warns() -> None:
    group, decision = blocks(("a", 85, 100), ("b", 99, 100))
    result, _ = judge("bias", context({"g": group}, decision, decision))
    assert result.verdict is Verdict.WARNED
    assert "14.0 percentage points, above 10.0" in result.summary


@pytest.mark.requirement("G-5")
def test_a_small_group_is_reported_and_never_judged() -> None:
    group, decision = blocks(("a", 80, 100), ("b", 80, 100), ("tiny", 0, 29))
    result, files = judge("bias", context({"g": group}, decision, decision))
    assert result.verdict is Verdict.WARNED
    assert finding(result, "group_too_small").message == (
        "cannot tell for g: tiny, which has 29 rows of the 30 that are needed"
    )
    assert metric(result, "demographic_parity_ratio", "g").value == 1
    assert metric(result, "selection_rate", "g: tiny").n == 29
    assert table(files, "bias.json")["candidate"][0]["groups"]["tiny"]["judged"] is False


@pytest.mark.requirement("G-5")
def test_rows_with_no_value_are_a_group_of_their_own() -> None:
    group, decision = blocks((1.0, 80, 100), (0.0, 80, 100), (np.nan, 40, 100))
    result, _ = judge("bias", context({"g": group}, decision, decision, words={"g": {"1": "yes", "0": "no"}}))
    assert result.verdict is Verdict.FAILED
    assert "missing get the favourable outcome in 40.0 %" in finding(result, "four_fifths").message


@pytest.mark.parametrize("values", [(0, 1), (0.0, 1.0), (False, True), ("0", "1")])
def test_values_are_named_in_words_however_they_are_stored(values: tuple[Any, Any]) -> None:
    group, decision = blocks((values[0], 50, 100), (values[1], 50, 100))
    subject = context({"g": group}, decision, decision, words={"g": {"0": "no", "1": "yes"}})
    result, _ = judge("bias", subject)
    places = {entry.where for entry in result.metrics if entry.name == "selection_rate"}
    assert places == {"g: no", "g: yes"}


@pytest.mark.requirement("G-5")
def test_one_group_that_can_be_judged_is_not_a_pass() -> None:
    group, decision = blocks(("a", 80, 100), ("b", 8, 10))
    result, _ = judge("bias", context({"g": group}, decision, decision))
    assert result.verdict is Verdict.ERROR
    assert "1 of 2 groups has at least 30 rows" in finding(result, "nothing_to_compare").message


@pytest.mark.requirement("G-5")
def test_equalized_odds_are_undefined_where_a_group_has_one_outcome() -> None:
    """fairlearn counts the missing rate as 0 and reports a difference of 1."""
    from fairlearn.metrics import equalized_odds_difference

    group, decision = blocks(("a", 50, 100), ("b", 50, 100))
    outcome = [index % 2 if name == "a" else 0 for index, name in enumerate(group)]
    asked = equalized_odds_difference(outcome, decision, sensitive_features=group)
    assert asked > 0
    result, _ = judge("bias", context({"g": group}, outcome, decision))
    assert metric(result, "equalized_odds_difference", "g").value is None
    assert result.verdict is Verdict.PASSED


@pytest.mark.requirement("G-5")
def test_intersections_inform_and_do_not_decide() -> None:
    """Each attribute alone is fair; the crossed groups are not."""
    sex, first = blocks(("m", 90, 100), ("m", 50, 100), ("f", 50, 100), ("f", 90, 100))
    age = ["old"] * 100 + ["young"] * 100 + ["old"] * 100 + ["young"] * 100
    result, files = judge("bias", context({"sex": sex, "age": age}, first, first))
    assert result.verdict is Verdict.PASSED
    found = finding(result, "intersection")
    assert found.verdict is Verdict.PASSED
    assert "ratio 0.556" in found.message
    crossed = table(files, "bias.json")["candidate"][-1]
    assert crossed["attribute"] == "age x sex"
    assert crossed["groups"]["old & f"]["n"] == 100
    assert metric(result, "demographic_parity_ratio", "age x sex").threshold is None


def test_three_attributes_are_crossed_in_pairs_and_all_together() -> None:
    rng = np.random.default_rng(1)
    groups = {name: rng.integers(0, 2, 800) for name in "abc"}
    decision = rng.integers(0, 2, 800)
    _, files = judge("bias", context(groups, decision, decision))
    attributes = [entry["attribute"] for entry in table(files, "bias.json")["candidate"]]
    assert attributes == ["a", "b", "c", "a x b", "a x c", "b x c", "a x b x c"]


@pytest.mark.requirement("G-5")
def test_the_champion_is_measured_beside_the_candidate() -> None:
    group, candidate = blocks(("a", 80, 100), ("b", 80, 100))
    champion = blocks(("a", 40, 100), ("b", 80, 100))[1]
    result, _ = judge("bias", context({"g": group}, candidate, candidate, champion))
    assert result.verdict is Verdict.PASSED
    assert metric(result, "champion.demographic_parity_ratio", "g").value == 0.5
    assert metric(result, "champion.demographic_parity_ratio", "g").threshold is None
    assert result.details["ratios"] == {"candidate": {"g": 1}, "champion": {"g": 0.5}}


@pytest.mark.requirement("G-5")
def test_the_interval_is_that_of_redrawn_rows() -> None:
    from fairlearn.metrics import demographic_parity_difference, demographic_parity_ratio

    group, decision = blocks(("a", 60, 100), ("b", 170, 200))
    labels, decided = np.array(group), np.array(decision)
    result, _ = judge("bias", context({"g": group}, decision, decision), bootstrap_replicates=4000)
    rng = np.random.default_rng(1)
    ratios, differences = [], []
    for rows in rng.integers(0, 300, (150, 300)):
        asked = {"sensitive_features": labels[rows]}
        ratios.append(demographic_parity_ratio(decided[rows], decided[rows], **asked))
        differences.append(demographic_parity_difference(decided[rows], decided[rows], **asked))
    for name, drawn in (("ratio", ratios), ("difference", differences)):
        interval = metric(result, f"demographic_parity_{name}", "g").interval
        assert interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.04)
    rate = metric(result, "selection_rate", "g: a")
    assert rate.value == 0.6
    assert rate.interval == pytest.approx((0.502, 0.691), abs=0.001)  # Wilson, 60 of 100


def test_an_uncertain_ratio_informs() -> None:
    group, decision = blocks(("a", 33, 40), ("b", 36, 40))
    result, _ = judge("bias", context({"g": group}, decision, decision))
    assert finding(result, "ratio_uncertain").verdict is Verdict.PASSED
    assert result.verdict is Verdict.PASSED


def test_the_order_of_the_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    group, outcome, decision = rng.integers(0, 3, 500), rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    order = rng.permutation(500)
    first, _ = judge("bias", context({"g": group}, outcome, decision))
    again, _ = judge("bias", context({"g": group[order]}, outcome[order], decision[order]))
    assert first.to_bytes() == again.to_bytes()


@pytest.mark.parametrize("change", [{"four_fifths": 0}, {"four_fifths": 1.2}, {"bootstrap_replicates": 100}])
def test_a_configuration_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configuration("bias", **change)
