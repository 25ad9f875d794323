"""The bias gate, against fairlearn asked about the rows one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from airlock.core.columns import Task
from airlock.core.evidence import Verdict
from airlock.gates._fairness import Sampling, measure
from airlock.gates._predictions import groups_of
from airlock.gates.base import GateContext, Scores
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
            scores[f"{model}_prediction"] = decided
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
    ours = measure("a", groups_of(pd.Series(names), {}), outcome, decision, Sampling(1, 0.02, 0.95, 1000))
    asked = {"y_true": outcome, "y_pred": decision, "sensitive_features": names}
    for name in (
        "demographic_parity_ratio",
        "demographic_parity_difference",
        "equalized_odds_difference",
        "equalized_odds_ratio",
        "equal_opportunity_difference",
        "equal_opportunity_ratio",
    ):
        assert ours.gaps[name].value == getattr(metrics, name)(**asked)
    assert ours.gaps["accuracy_gap"].value == metrics.accuracy_score_difference(**asked)
    assert ours.gaps["accuracy_ratio"].value == metrics.accuracy_score_ratio(**asked)
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
    assert finding(result, "no_mitigation").verdict is Verdict.WARNED


@pytest.mark.requirement("G-5")
def test_a_difference_alone_only_warns() -> None:
    group, decision = blocks(("a", 850, 1000), ("b", 990, 1000))
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
    undefined = finding(result, "undefined.equalized_odds_difference")
    assert undefined.verdict is Verdict.WARNED  # the limit only warns, and nobody can say it is kept
    failing, _ = judge(
        "bias", context({"g": group}, outcome, decision), failing=["equalized_odds_difference"]
    )
    assert failing.verdict is Verdict.ERROR


@pytest.mark.requirement("G-5")
@pytest.mark.parametrize(
    ("intersections", "verdict"),
    [("inform", Verdict.PASSED), ("warn", Verdict.WARNED), ("fail", Verdict.FAILED)],
)
def test_intersections_count_as_much_as_policy_says(intersections: str, verdict: Verdict) -> None:
    """Each attribute alone is fair; the crossed groups are not."""
    sex, first = blocks(("m", 90, 100), ("m", 50, 100), ("f", 50, 100), ("f", 90, 100))
    age = ["old"] * 100 + ["young"] * 100 + ["old"] * 100 + ["young"] * 100
    subject = context({"sex": sex, "age": age}, first, first)
    result, files = judge("bias", subject, intersections=intersections, parity_difference=None)
    found = finding(result, "intersection")
    assert found.verdict is verdict
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
    assert result.verdict.allows
    assert metric(result, "champion.demographic_parity_ratio", "g").value == 0.5
    assert metric(result, "champion.demographic_parity_ratio", "g").threshold is None
    assert result.details["ratios"] == {"candidate": {"g": 1}, "champion": {"g": 0.5}}


@pytest.mark.requirement("G-5")
def test_the_intervals_of_two_groups_are_the_textbooks() -> None:
    """With two groups there is one comparison: Katz's interval of a ratio and Wald's of a difference."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    group, decision = blocks(("a", 600, 1000), ("b", 1700, 2000))
    result, _ = judge("bias", context({"g": group}, decision, decision), bootstrap_replicates=20_000)
    for name, compare, method in (("ratio", "ratio", "log"), ("difference", "diff", "wald")):
        expected = confint_proportions_2indep(600, 1000, 1700, 2000, compare=compare, method=method)
        interval = metric(result, f"demographic_parity_{name}", "g").interval
        assert interval is not None
        assert sorted(interval) == pytest.approx(sorted(np.abs(expected)), abs=0.003)
    rate = metric(result, "selection_rate", "g: a")
    assert rate.value == 0.6
    assert rate.interval == pytest.approx((0.569, 0.630), abs=0.001)  # Wilson, 600 of 1000


@pytest.mark.requirement("G-5")
def test_a_ratio_that_could_be_on_either_side_is_not_decided_by_chance() -> None:
    group, decision = blocks(("a", 33, 40), ("b", 36, 40))
    result, _ = judge("bias", context({"g": group}, decision, decision))
    found = finding(result, "cannot_tell.four_fifths")
    assert found.verdict is Verdict.WARNED
    assert "rows would settle it" in found.message
    below, decision = blocks(("a", 24, 35), ("b", 28, 32))
    result, _ = judge("bias", context({"g": below}, decision, decision))
    assert finding(result, "cannot_tell.four_fifths").verdict is Verdict.WARNED  # 0.78, but chance does that
    result, _ = judge("bias", context({"g": below}, decision, decision), judge="point")
    assert finding(result, "four_fifths").verdict is Verdict.FAILED


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


def relabelled(names: dict[str, str]) -> list[tuple[str, float | None, Any]]:
    rng = np.random.default_rng(5)
    group, decision = rng.integers(0, 3, 600), rng.integers(0, 2, 600)
    labels = [names[str(code)] for code in group]
    result, _ = judge("bias", context({"g": labels}, decision, decision))
    return [(m.name, m.value, m.threshold) for m in result.metrics if m.where == "g"]


@pytest.mark.requirement("G-5")
def test_names_of_groups_do_not_matter() -> None:
    plain = relabelled({"0": "a", "1": "b", "2": "c"})
    assert plain == relabelled({"0": "ünï ☃", "1": "a & b", "2": "'; drop table"})
    assert plain == relabelled({"0": "c", "1": "b", "2": "a"})


@pytest.mark.requirement("G-5")
def test_an_identical_copy_of_the_data_changes_no_value() -> None:
    rng = np.random.default_rng(6)
    group, outcome, decision = rng.integers(0, 3, 500), rng.integers(0, 2, 500), rng.integers(0, 2, 500)
    once, _ = judge("bias", context({"g": group}, outcome, decision))
    twice, _ = judge("bias", context({"g": [*group] * 2}, [*outcome] * 2, [*decision] * 2))
    values = [[(m.name, m.where, m.value) for m in result.metrics] for result in (once, twice)]
    assert values[0] == values[1]


@pytest.mark.requirement("G-5")
def test_a_category_under_two_percent_is_left_out_of_impact_ratios_and_shown() -> None:
    """6 RCNY section 5-301: it may be excluded, with its rows and its rate in the summary."""
    group, decision = blocks(("a", 500, 1000), ("b", 900, 1000), ("few", 0, 39))
    result, _ = judge("bias", context({"g": group}, decision, decision))
    assert metric(result, "impact_ratio", "g").value == 500 / 900
    assert metric(result, "impact_ratio", "g: few").value is None
    assert metric(result, "selection_rate", "g: few").value == 0
    everyone, _ = judge("bias", context({"g": group}, decision, decision), exclude_below=0)
    assert metric(everyone, "impact_ratio", "g").value == 0


@pytest.mark.requirement("G-5")
def test_several_classes_are_compared_one_by_one_or_by_the_favourable_one() -> None:
    group, chosen = blocks(("a", 80, 200), ("b", 160, 200))
    labels = np.array(
        [["no", "full", "part"][code + (index % 3 == 0 and code)] for index, code in enumerate(chosen)]
    )
    subject = context({"g": group}, labels, labels)
    subject.task, subject.positive = Task.MULTICLASS, None
    result, _ = judge("bias", subject)
    assert {m.where for m in result.metrics if m.name == "demographic_parity_ratio"} == {
        "g [full]",
        "g [no]",
        "g [part]",
    }
    assert result.verdict is Verdict.FAILED
    subject.positive = "no"
    only, _ = judge("bias", subject)
    assert metric(only, "demographic_parity_ratio", "g [no]").value == pytest.approx(40 / 120)
    assert "get the outcome 'no' in 20.0 % of 200 cases" in finding(only, "four_fifths").message


@pytest.mark.requirement("G-5")
def test_a_regression_is_compared_above_the_median_and_by_its_errors() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat(["a", "b"], 500)
    truth = rng.normal(10, 1, 1000) + (group == "b")
    guess = truth + rng.normal(0, np.where(group == "b", 2.0, 0.2), 1000)
    subject = context({"g": group}, truth, guess)
    subject.task = Task.REGRESSION
    result, _ = judge("bias", subject)
    above = guess > np.median(guess)
    rates = above[group == "a"].mean(), above[group == "b"].mean()
    ratio = metric(result, "demographic_parity_ratio", "g [above median]")
    assert ratio.value == min(rates) / max(rates)
    errors = np.abs(guess - truth)
    gap = metric(result, "error_gap", "g [above median]")
    assert gap.value == pytest.approx(
        abs(errors[group == "a"].mean() - errors[group == "b"].mean()) / errors.mean(), rel=1e-12
    )
    assert finding(result, "error_gap").verdict is Verdict.WARNED
    assert "a regression has none" in finding(result, "not_judged").message


@pytest.mark.requirement("G-5")
def test_without_outcomes_rates_are_judged_and_errors_are_said_to_be_unknown() -> None:
    group, decision = blocks(("a", 300, 400), ("b", 310, 400))
    subject = context({"g": group}, decision, decision)
    subject.columns = subject.columns.model_copy(update={"label": None})
    result, _ = judge("bias", subject)
    assert result.verdict is Verdict.PASSED
    assert "no true outcome is given" in finding(result, "not_judged").message
    assert "equalized_odds_difference" not in {m.name for m in result.metrics if m.value is not None}


ATTEMPT = {
    "attribute": "g",
    "method": "reweighting",
    "before": {"demographic_parity_ratio": 0.5},
    "after": {"demographic_parity_ratio": 0.6},
    "adopted": True,
}


@pytest.mark.requirement("G-5")
@pytest.mark.parametrize(
    ("content", "found", "verdict"),
    [
        (None, "no_mitigation", Verdict.WARNED),
        ({"attempts": [ATTEMPT]}, "mitigation_tried", Verdict.PASSED),
        (
            {"attempts": [{**ATTEMPT, "after": {"demographic_parity_ratio": 0.9}}]},
            "mitigation_contradicted",
            Verdict.FAILED,
        ),
        ({"attempts": []}, "mitigation_unreadable", Verdict.FAILED),
        ([], "mitigation_unreadable", Verdict.FAILED),
    ],
)
def test_what_was_tried_is_told_and_never_makes_a_failure_pass(
    tmp_path: Path, content: Any, found: str, verdict: Verdict
) -> None:
    group, decision = blocks(("a", 60, 100), ("b", 100, 100))
    subject = context({"g": group}, decision, decision)
    subject.artifact = lambda: tmp_path
    if content is not None:
        (tmp_path / "mitigation.json").write_text(json.dumps(content))
    result, _ = judge("bias", subject)
    assert result.verdict is Verdict.FAILED
    assert finding(result, found).verdict is verdict


@pytest.mark.requirement("G-5")
def test_the_real_disparity_of_the_boston_data_is_found() -> None:
    """Rejected: white 9.2 %, Black 32.5 %, Hispanic 23.4 %: the bank's own decisions, 1990."""
    rows = pd.read_csv(Path(__file__).parents[2] / "data/loanapp.csv")
    race = np.where(rows["black"] == 1, "Black", np.where(rows["hispan"] == 1, "Hispanic", "white"))
    result, _ = judge("bias", context({"race": race}, rows["approve"], rows["approve"]))
    assert result.verdict is Verdict.FAILED
    assert "Black get the favourable outcome in 67.5 % of 197 cases" in finding(result, "four_fifths").message


@pytest.mark.requirement("G-5")
def test_an_attribute_with_a_group_for_each_row_is_an_error_in_seconds() -> None:
    rows = 30_000
    decision = np.random.default_rng(1).integers(0, 2, rows)
    result, files = judge("bias", context({"g": np.arange(rows).astype(str)}, decision, decision))
    assert result.verdict is Verdict.ERROR
    assert "0 of 30000 groups have at least 30 rows" in finding(result, "nothing_to_compare").message
    assert len(files["bias.json"]) < 20_000
    pairs, _ = judge(
        "bias",
        context({"g": np.repeat(np.arange(1500), 20).astype(str)}, decision, decision),
        minimum_group_rows=20,
    )
    assert "1500 groups, and at most 1000" in finding(pairs, "too_many_groups").message
