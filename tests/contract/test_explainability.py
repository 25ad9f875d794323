"""The explainability gate, against scipy, real models under shap, and SHAP values that lie."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.parsers import expat

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from airlock.core.columns import Task
from airlock.core.evidence import GateResult, Verdict
from airlock.core.workload import DataSpec, ModelSpec, Workload
from airlock.gates.base import GateContext, Scores
from airlock.gates.explainability import _rank_correlation, _spread
from tests.support.gates import make_context, make_frame, make_manifest, make_scores, make_workload
from tests.support.judge import finding, judge, metric, table

SLOW = settings(deadline=None, max_examples=10)
ROWS = 100


def explained(parts: dict[str, Any], base: float = 0.0, **changes: Any) -> pd.DataFrame:
    """SHAP values that add up, from columns of contributions."""
    frame = pd.DataFrame(parts, dtype="float64")
    frame = frame.assign(_base=base, _margin=frame.sum(axis=1) + base, **changes)
    frame.index.name = "row"
    return frame


def scored(shap: pd.DataFrame | None, champion: pd.DataFrame | None, rows: int = ROWS) -> Scores:
    """Scores whose log-odds are the margins of the SHAP values."""
    columns: dict[str, Any] = {}
    for model, values in (("candidate", shap), ("champion", champion)):
        margin = np.zeros(rows)
        if values is not None and values.index.max() < rows and values["_margin"].notna().all():
            margin[values.index] = values["_margin"]
        columns |= {
            f"{model}_score": 1 / (1 + np.exp(-margin)),
            f"{model}_prediction": (margin >= 0).astype(int),
        }
    return Scores(pd.DataFrame(columns), shap, champion, {"shap": {"explainer": "linear"}})


def with_features(*names: str, **data: Any) -> Workload:
    plain = make_workload()
    return make_workload(
        model=ModelSpec(registered_model="test-model", target="y", features=list(names)),
        data=DataSpec(**{**plain.data.to_data(), **data}),
    )


def context_of(
    shap: pd.DataFrame | None,
    champion: pd.DataFrame | None = None,
    *,
    workload: Workload | None = None,
    first: bool = False,
    documentation: str = "",
    scores: Scores | None = None,
) -> GateContext:
    """A release with these SHAP values; the champion's are the candidate's when none are given."""
    names = [] if shap is None else [name for name in shap.columns if name not in ("_base", "_margin")]
    workload = workload or with_features(*names)
    rows = ROWS if shap is None else max(ROWS, len(shap))
    return make_context(
        evaluation=make_frame(rows),
        scores=scores or scored(shap, shap if champion is None else champion, rows),
        workload=workload,
        manifest=make_manifest(workload, champion=not first),
        documentation=documentation,
    )


def judge_shap(*args: Any, config: dict[str, Any] | None = None, **kwargs: Any) -> GateResult:
    return judge("explainability", context_of(*args, **kwargs), **(config or {}))[0]


def alternating(*sizes: float) -> dict[str, Any]:
    """Features ``f0``, ``f1`` … whose mean |SHAP| is exactly the size, half of the rows up, half down."""
    sign = np.where(np.arange(ROWS) % 2 == 0, 1.0, -1.0)
    return {f"f{i}": size * sign for i, size in enumerate(sizes)}


@pytest.mark.requirement("G-6")
def test_equal_models_agree_and_the_summary_says_what_weighs_most() -> None:
    result, files = judge("explainability", context_of(explained(alternating(5, 3, 2))))
    assert result.verdict is Verdict.PASSED
    assert (
        result.summary == "Most weight: f0 50 %, f1 30 %, f2 20 %; ranking agrees with the champion (1.00)."
    )
    assert metric(result, "rank_correlation").value == 1
    assert metric(result, "top_k_overlap").value == 1
    assert metric(result, "row_cosine").value == 1
    assert metric(result, "additivity_error").value == 0
    assert metric(result, "attribution_share", "f1").value == 0.3
    shares = table(files, "explanation.json")["candidate"]["share"]
    assert shares == {"f0": 0.5, "f1": 0.3, "f2": 0.2}
    assert set(files) == {"explanation.json", "reason_codes.json", "importance.svg"}


def test_a_first_release_has_no_champion_to_agree_with() -> None:
    result, files = judge("explainability", context_of(explained(alternating(5, 3)), first=True))
    assert result.verdict is Verdict.PASSED
    assert "no champion" in result.summary
    assert not [one for one in result.metrics if one.name == "rank_correlation"]
    assert table(files, "explanation.json")["comparison"] is None


# Real models, explained by shap


def shap_of(model: Any, inputs: pd.DataFrame) -> pd.DataFrame:
    import shap

    values = shap.TreeExplainer(model)
    base = float(np.ravel(values.expected_value)[0])
    table = pd.DataFrame(values.shap_values(inputs, check_additivity=False), columns=inputs.columns)
    table = table.assign(_base=base, _margin=model.decision_function(inputs))
    table.index.name = "row"
    return table


@pytest.mark.slow
@pytest.mark.requirement("G-6")
def test_a_real_model_is_explained() -> None:
    from sklearn.ensemble import GradientBoostingClassifier

    frame = make_frame()
    inputs = frame[["income", "debt"]]
    model = GradientBoostingClassifier(n_estimators=30, random_state=0).fit(inputs, frame["y"])
    values, score = shap_of(model, inputs), model.predict_proba(inputs)[:, 1]
    columns = {"candidate_score": score, "candidate_prediction": (score > 0.5).astype(int)}
    columns |= {f"champion_{key[10:]}": value for key, value in columns.items()}
    scores = Scores(pd.DataFrame(columns), values, values, {})
    result, files = judge("explainability", make_context(evaluation=frame, scores=scores))
    assert result.verdict is Verdict.PASSED, result.summary
    importance = values[["income", "debt"]].abs().mean()
    assert table(files, "explanation.json")["candidate"]["mean_abs_shap"] == pytest.approx(
        importance.to_dict()
    )


@pytest.mark.slow
@pytest.mark.requirement("G-6")
def test_native_categoricals_that_shap_gets_wrong_in_silence_are_an_error() -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(0)
    category = rng.integers(0, 12, 600)
    number = rng.normal(size=600)
    outcome = (np.isin(category, [1, 4, 7, 10]) * 3 + number > 1).astype(int)
    inputs = pd.DataFrame({"income": category.astype(float), "debt": number})
    model = HistGradientBoostingClassifier(categorical_features=[0], random_state=0).fit(inputs, outcome)
    values, score = shap_of(model, inputs), model.predict_proba(inputs)[:, 1]
    columns = {"candidate_score": score, "candidate_prediction": (score > 0.5).astype(int)}
    workload = make_workload()
    context = make_context(
        evaluation=make_frame(600),
        scores=Scores(pd.DataFrame(columns), values, None, {}),
        manifest=make_manifest(workload, champion=False),
    )
    result, _ = judge("explainability", context)
    assert result.verdict is Verdict.ERROR
    assert "do not add up" in result.summary


# What cannot be believed


def spoilt(column: str, value: float) -> pd.DataFrame:
    values = explained(alternating(5, 3))
    values.loc[7, column] = value
    return values


UNBELIEVABLE: dict[str, tuple[pd.DataFrame | None, str]] = {
    "none": (None, "there are no SHAP values"),
    "NaN": (spoilt("f0", np.nan), "no numbers"),
    "infinite": (spoilt("f0", np.inf), "no numbers"),
    "base NaN": (spoilt("_base", np.nan), "no numbers"),
    "margin NaN": (spoilt("_margin", np.nan), "no numbers"),
    "text": (explained(alternating(5, 3)).astype({"f1": "str"}), "no numbers"),
    "truth values": (explained({"f0": np.zeros(ROWS)}).assign(f1=True), "no numbers"),
    "too few": (explained(alternating(5, 3)).head(99), "cover 99 rows, but 100"),
    "no rows": (explained(alternating(5, 3)).head(0), "cover 0 rows"),
    "no base": (explained(alternating(5, 3)).drop(columns="_base"), "_base"),
    "no features": (explained(alternating(5, 3))[["_base", "_margin"]], "a readable column"),
    "a column twice": (
        pd.concat([explained(alternating(5)), explained(alternating(5))[["f0"]]], axis=1),
        "readable",
    ),
    "control characters": (explained({"f\x00": np.ones(ROWS)}), "readable column"),
    "a row twice": (explained(alternating(5, 3)).set_axis([0, *range(99)]), "name a row twice"),
    "a row that is not there": (
        explained(alternating(5, 3)).set_axis([5000, *range(99)]),
        "not in the evaluation",
    ),
    "a negative row": (explained(alternating(5, 3)).set_axis([-1, *range(99)]), "not in the evaluation"),
    "rows with names": (
        explained(alternating(5, 3)).set_axis([f"r{i}" for i in range(100)]),
        "not in the evaluation",
    ),
    "off by one row": (spoilt("f0", -4.0), "off by 1,"),
    "overflow": (explained(alternating(1e308, 1e308)), ""),
}


@pytest.mark.requirement("G-6")
@pytest.mark.parametrize(("shap", "said"), UNBELIEVABLE.values(), ids=UNBELIEVABLE.keys())
def test_values_that_cannot_be_believed_are_an_error(shap: pd.DataFrame | None, said: str) -> None:
    good = explained(alternating(5, 3))
    scores = Scores(scored(good, good).frame, shap, good, {})
    result = judge_shap(shap, good, scores=scores, workload=with_features("f0", "f1"))
    assert result.verdict is Verdict.ERROR
    assert said in finding(result, "not_explained").message
    assert finding(result, "not_explained").fix
    assert GateResult.from_bytes(result.to_bytes()) == result


def test_a_model_that_gives_everyone_one_score_cannot_be_explained() -> None:
    result = judge_shap(explained(alternating(0, 0)))
    assert "sum up to 0" in finding(result, "not_explained").message


def test_an_explanation_of_another_score_is_an_error() -> None:
    values = explained({"f0": np.linspace(-2, 2, ROWS), "f1": np.linspace(-1, 1, ROWS)})
    frame = scored(values, values).frame
    result = judge_shap(
        values, scores=Scores(frame.assign(candidate_score=1 - frame["candidate_score"]), values, values, {})
    )
    assert "rank cases differently" in finding(result, "not_explained").message


@pytest.mark.parametrize("shap", [entry[0] for entry in UNBELIEVABLE.values()], ids=UNBELIEVABLE.keys())
def test_a_champion_that_cannot_be_explained_does_not_keep_its_successor_out(
    shap: pd.DataFrame | None,
) -> None:
    good = explained(alternating(5, 3))
    result = judge_shap(good, scores=Scores(scored(good, good).frame, good, shap, {}))
    assert result.verdict is Verdict.WARNED
    assert finding(result, "champion_not_explained").message


def test_a_champion_explained_on_other_rows_is_not_compared() -> None:
    good = explained({name: np.tile(column, 2) for name, column in alternating(5, 3).items()})
    context = make_context(
        evaluation=make_frame(200),
        workload=with_features("f0", "f1"),
        scores=Scores(scored(good, good, 200).frame, good.head(150), good.tail(150), {}),
    )
    assert "other rows" in finding(judge("explainability", context)[0], "champion_not_explained").message


@pytest.mark.parametrize(("error", "verdict"), [(0.25, Verdict.PASSED), (0.2500001, Verdict.ERROR)])
def test_an_error_exactly_on_the_tolerance_passes(error: float, verdict: Verdict) -> None:
    values = explained(alternating(5, 3))
    values["_margin"] += error
    result = judge_shap(values, config={"additivity_tolerance": 0.25})
    assert result.verdict is verdict


# Shares


@pytest.mark.requirement("G-6")
@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ((4, 1), Verdict.PASSED),
        ((4.01, 1), Verdict.FAILED),
        ((1,), Verdict.FAILED),
        ((8, 1, 1), Verdict.PASSED),
    ],
)
def test_one_feature_may_carry_just_so_much(sizes: tuple[float, ...], verdict: Verdict) -> None:
    result = judge_shap(explained(alternating(*sizes)))
    assert result.verdict is verdict
    if verdict is Verdict.FAILED:
        assert "leakage" in finding(result, "dominant_feature", "f0").fix
        assert result.summary.startswith("F0 carries")
        assert "most weight: f0" in result.summary


@pytest.mark.parametrize(("size", "warned"), [(0.0005, False), (0.0004, True), (0.0, True)])
def test_an_idle_feature_is_a_warning(size: float, *, warned: bool) -> None:
    result = judge_shap(explained(alternating(0.5, 0.5 - size, size)))
    assert (result.verdict is Verdict.WARNED) is warned
    assert ("idle_feature" in [one.id for one in result.findings]) is warned


@pytest.mark.requirement("G-6")
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_protected_identifying_or_undeclared_column_is_never_an_input(share: float) -> None:
    values = explained({"income": 0.5, "group": -share, "id": -share, "street": -share} | alternating(1.0))
    workload = with_features("income", "f0", identifiers=["id"])
    result, files = judge("explainability", context_of(values, workload=workload))
    assert result.verdict is Verdict.FAILED
    assert "protected" in finding(result, "forbidden_feature", "group").message
    assert "identifying" in finding(result, "forbidden_feature", "id").message
    assert finding(result, "undeclared_feature", "street").fix
    cases = table(files, "reason_codes.json")["cases"]
    reasons = {name for case in cases for reason in case["reasons"] for name in reason["features"]}
    assert reasons == ({"f0", "street"} if share else {"f0"})


# The comparison with the champion


def uneven(rng: np.random.Generator, sizes: list[float]) -> pd.DataFrame:
    return explained({f"f{i}": size * rng.choice([-1.0, 1.0], ROWS) for i, size in enumerate(sizes)})


SIZES = st.lists(st.integers(1, 9).map(float), min_size=3, max_size=8)


@SLOW
@given(st.integers(0, 2**32 - 1), SIZES, SIZES)
def test_numbers_of_the_comparison_are_right(seed: int, ours: list[float], theirs: list[float]) -> None:
    k = 3
    rng = np.random.default_rng(seed)
    left, right = uneven(rng, ours), uneven(rng, theirs)
    workload = with_features(*(f"f{i}" for i in range(8)))
    result, files = judge("explainability", context_of(left, right, workload=workload), top_k=k)

    tops = [sorted(range(len(sizes)), key=lambda i: (-sizes[i], f"f{i}"))[:k] for sizes in (ours, theirs)]
    union = sorted({*tops[0], *tops[1]})
    values = [[sizes[i] if i < len(sizes) else 0.0 for i in union] for sizes in (ours, theirs)]
    assert table(files, "explanation.json")["comparison"]["features"] == [f"f{i}" for i in union]
    if all(len(set(side)) > 1 for side in values):
        expected = float(spearmanr(*values).statistic)
        assert metric(result, "rank_correlation").value == pytest.approx(expected, abs=1e-12)
        changed = "explanation_changed" in [one.id for one in result.findings]
        assert changed is (expected < 0.5 - 1e-12)
    assert metric(result, "top_k_overlap").value == len({*tops[0]} & {*tops[1]}) / len(union)
    rows = [
        pd.DataFrame(side).reindex(columns=[f"f{i}" for i in range(8)], fill_value=0.0)
        for side in (left, right)
    ]
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(*(r.to_numpy() for r in rows), strict=True)
    ]
    assert metric(result, "row_cosine").value == pytest.approx(float(np.mean(cosines)), abs=1e-12)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=2, max_size=30))
def test_rank_correlation_is_scipys(pairs: list[tuple[float, float]]) -> None:
    left, right = (pd.Series(side) for side in zip(*pairs, strict=True))
    assume((left != left[0]).any() and (right != right[0]).any())
    assert _rank_correlation(left, right) == pytest.approx(float(spearmanr(left, right).statistic), abs=1e-12)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30, unique=True))
def test_rank_correlation_is_exact_at_both_ends(values: list[float]) -> None:
    side = pd.Series(values)
    assert _rank_correlation(side, side) == 1
    assert _rank_correlation(side, -side) == -1


def test_rank_correlation_of_ties_alone_is_undefined() -> None:
    assert _rank_correlation(pd.Series([1.0, 1.0]), pd.Series([1.0, 2.0])) is None


@pytest.mark.requirement("G-6")
def test_another_ranking_is_a_warning_and_a_correlation_on_the_limit_is_not() -> None:
    ours, theirs = explained(alternating(3, 2, 1)), explained(alternating(2, 3, 1))
    assert judge_shap(ours, theirs).verdict is Verdict.PASSED  # rho is exactly 0.5
    result = judge_shap(ours, theirs, config={"minimum_rank_correlation": 0.51})
    assert result.verdict is Verdict.WARNED
    assert "ranking differs from the champion (0.50)" in result.summary
    assert "importance.svg" in finding(result, "explanation_changed").fix
    assert metric(result, "rank_correlation").threshold == 0.51


def test_features_only_one_model_has_count_as_no_weight_in_the_other() -> None:
    result = judge_shap(explained(alternating(3, 2)),
    explained({"g0": alternating(3)["f0"], "g1": alternating(2)["f0"]}),
                        workload=with_features("f0", "f1", "g0", "g1"))  # fmt: skip
    assert metric(result, "top_k_overlap").value == 0
    assert metric(result, "row_cosine").value == 0
    assert finding(result, "explanation_changed")


def test_rows_without_attribution_have_no_direction_to_compare() -> None:
    half = {name: np.where(np.arange(ROWS) < 50, column, 0.0) for name, column in alternating(5, 3).items()}
    result = judge_shap(explained(alternating(5, 3)), explained(half))
    assert (metric(result, "row_cosine").value, metric(result, "row_cosine").n) == (1, 50)


def test_a_feature_without_weight_is_not_among_the_most_important() -> None:
    result, files = judge("explainability", context_of(explained(alternating(5, 3, 0))))
    assert table(files, "explanation.json")["comparison"]["features"] == ["f0", "f1"]
    assert result.details["top"] == ["f0", "f1"]


def test_equal_weights_cannot_be_ranked() -> None:
    result = judge_shap(explained(alternating(2, 2)), explained(alternating(1, 2)))
    assert result.verdict is Verdict.WARNED
    assert metric(result, "rank_correlation").value is None
    assert "weighs all its features alike" in finding(result, "explanation_changed").message


def test_a_single_feature_needs_no_ranking() -> None:
    result = judge_shap(explained(alternating(2)), config={"maximum_attribution_share": 1.0})
    assert result.verdict is Verdict.PASSED
    assert metric(result, "rank_correlation").value is None


@SLOW
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_and_columns_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = uneven(rng, [4.0, 3.0, 3.0, 1.0])
    mixed = values.iloc[rng.permutation(ROWS)][rng.permutation(values.columns)]
    scores = scored(values, values)
    before, after = (
        judge("explainability", context_of(values, scores=Scores(scores.frame, one, values, {})))
        for one in (values, mixed)
    )
    assert before[0].to_bytes() == after[0].to_bytes()
    assert before[1]["importance.svg"] == after[1]["importance.svg"]


# Reason codes


def declined() -> pd.DataFrame:
    """100 cases; the even ones are declined, because of f3 most, then f2 and f1; f0 speaks for them."""
    down = np.where(np.arange(ROWS) % 2 == 0, -1.0, 1.0)
    depth = 1 + np.arange(ROWS) / ROWS
    return explained(
        {
            "f0": np.full(ROWS, 0.5),
            "f1": down,
            "f2": 2 * down,
            "f3": 3 * down * depth,
            "f4": 0.1 * down,
            "f5": 0.2 * down,
        }
    )


@pytest.mark.requirement("G-6")
def test_reasons_are_the_strongest_contributions_against_the_case() -> None:
    _, files = judge("explainability", context_of(declined()), reason_cases=3)
    reasons = table(files, "reason_codes.json")
    assert (reasons["adverse_decisions"], reasons["explained"], reasons["without_reason"]) == (50, 50, 0)
    assert [case["row"] for case in reasons["cases"]] == [98, 50, 0]  # clearest, middle, closest call
    first = reasons["cases"][0]["reasons"]
    assert [reason["features"] for reason in first] == [["f3"], ["f2"], ["f1"], ["f5"]]
    assert [reason["contribution"] for reason in first] == pytest.approx([-5.94, -2, -1, -0.2])


@pytest.mark.requirement("G-6")
def test_reasons_are_in_the_words_of_the_model_card_and_same_words_are_one_reason() -> None:
    card = "| f1, f2 | income is too low |\n| f3 | too many debts\x00 |\n| f4 | |\n"
    _, files = judge("explainability", context_of(declined(), documentation=card), reason_cases=1)
    reasons = table(files, "reason_codes.json")["cases"][0]["reasons"]
    assert [reason["reason"] for reason in reasons] == [
        "too many debts\ufffd",
        "income is too low",
        "f5",
        "f4",
    ]
    assert reasons[1]["features"] == ["f1", "f2"]
    assert reasons[1]["contribution"] == pytest.approx(-3)


def test_reason_codes_hold_no_values_of_features() -> None:
    frame = make_frame()
    _, files = judge("explainability", make_context(evaluation=frame, scores=make_scores(frame)))
    codes = files["reason_codes.json"].decode()
    assert set(re.findall(r'"(\w+)":', codes)) == {
        "adverse_decisions", "explained", "without_reason", "cases", "row", "reasons", "reason",
        "features", "contribution",
    }  # fmt: skip
    rows = [case["row"] for case in table(files, "reason_codes.json")["cases"]]
    for value in frame.loc[rows, ["income", "debt"]].to_numpy().ravel():
        assert repr(float(value)) not in codes


def test_nobody_declined_needs_no_reasons() -> None:
    scores = scored(declined(), declined())
    frame = scores.frame.assign(candidate_prediction=1)
    context = context_of(declined(), scores=Scores(frame, scores.shap, scores.champion_shap, {}))
    result, files = judge("explainability", context)
    assert result.verdict is Verdict.PASSED
    assert table(files, "reason_codes.json")["cases"] == []


def test_declined_cases_among_no_explained_rows_are_a_warning() -> None:
    values = explained(alternating(5, 3)).abs().assign(_base=0.0, _margin=8.0)
    frame = pd.concat(
        [scored(values, values).frame, scored(values, values).frame.assign(candidate_prediction=0)]
    )
    context = make_context(
        evaluation=make_frame(200),
        workload=with_features("f0", "f1"),
        scores=Scores(frame.reset_index(drop=True), values, values, {}),
    )
    result, _ = judge("explainability", context)
    assert result.verdict is Verdict.WARNED
    assert "none of the 100 adverse decisions" in finding(result, "no_adverse_case").message


def test_a_declined_case_nothing_speaks_against_is_a_warning() -> None:
    values = explained({"f0": 1.0, "f1": np.linspace(0.5, 1, ROWS)}, base=-9)
    result = judge_shap(values)
    assert result.verdict is Verdict.WARNED
    assert "100 of 100 adverse decisions have no reason" in finding(result, "no_reason").message


@given(st.integers(0, 2000), st.integers(1, 50))
def test_cases_are_spread_over_all(count: int, wanted: int) -> None:
    positions = _spread(count, wanted)
    assert positions == sorted(set(positions))
    assert len(positions) == min(count, wanted)
    assert set(positions) <= set(range(count))
    if count > wanted > 1:
        assert (positions[0], positions[-1]) == (0, count - 1)


# The plot


def svg_text(data: bytes) -> list[str]:
    """Texts of an SVG; raises when it is not well-formed."""
    texts: list[str] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = lambda *_: None  # so that texts of two elements are two texts
    parser.CharacterDataHandler = lambda text: texts.append(text.strip())
    parser.Parse(data, True)
    return [text for text in texts if text]


@pytest.mark.requirement("G-6")
def test_the_plot_names_features_and_models_and_has_no_date() -> None:
    _, files = judge("explainability", context_of(explained(alternating(5, 3, 2))))
    texts = svg_text(files["importance.svg"])
    assert {"f0", "f1", "f2", "candidate", "champion", "What moves the score: Test model"} <= set(texts)
    assert b"dc:date" not in files["importance.svg"]
    assert b"fill: #ffffff" in files["importance.svg"]


def test_the_plot_is_the_same_whatever_the_machine_prefers() -> None:
    import matplotlib as mpl

    context = context_of(explained(alternating(5, 3, 2)))
    plain = judge("explainability", context)[1]["importance.svg"]
    with mpl.rc_context(
        {"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path", "axes.grid": True}
    ):
        assert judge("explainability", context)[1]["importance.svg"] == plain
        assert mpl.rcParams["font.size"] == 30


def test_a_model_of_many_features_stays_readable() -> None:
    values = explained(
        {f"f{i:03}": (i + 1) * column for i, column in enumerate([alternating(1.0)["f0"]] * 200)}
    )
    result, files = judge("explainability", context_of(values), minimum_attribution_share=0.0)
    assert result.verdict is Verdict.PASSED
    assert len([text for text in svg_text(files["importance.svg"]) if re.fullmatch(r"f\d{3}", text)]) == 20
    assert len(table(files, "explanation.json")["candidate"]["share"]) == 200


HOSTILE = [
    "$x^2$",
    "$\\frac{",
    "<script>alert(1)</script>",
    "a&b",
    "\u4e2d\u6587",
    "\U0001f600",
    "_hidden",
    "%s",
    "x" * 200,
    "\u202ex",
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("error")
def test_any_name_can_be_plotted(name: str) -> None:
    values = explained({name: alternating(1.0)["f0"], "other": alternating(2.0)["f0"]})
    workload = with_features("other").model_copy(update={"title": f"T {name}"[:120]})
    result, files = judge("explainability", context_of(values, workload=workload))
    assert result.verdict is (Verdict.FAILED if name.isprintable() else Verdict.ERROR)
    if name.isprintable():
        texts = svg_text(files["importance.svg"])
        assert name[:39] in "".join(texts)  # as it is, not as a formula
        assert b"<script>" not in files["importance.svg"]


def with_reasons(better: int, cases: int) -> GateContext:
    frame = make_frame()
    scores = make_scores(frame)
    reasons = pd.DataFrame(
        {"score": [0.4] * cases, "score_without": [0.6] * better + [0.3] * (cases - better)}
    )
    return make_context(evaluation=frame, scores=replace(scores, reasons=reasons))


@pytest.mark.requirement("G-6")
@pytest.mark.parametrize(
    ("better", "cases", "found"),
    [
        (50, 50, None),
        (20, 50, "reason_without_effect"),
        (9, 10, "cannot_tell.reason_without_effect"),
    ],
)
def test_a_reason_that_does_not_move_the_decision_is_a_warning(
    better: int, cases: int, found: str | None
) -> None:
    result, _ = judge("explainability", with_reasons(better, cases))
    assert metric(result, "reason_effect").value == better / cases
    about = {one.id for one in result.findings if "reason_without_effect" in one.id}
    assert about == ({found} if found else set())
    assert result.verdict.allows


@pytest.mark.requirement("G-6")
def test_the_workload_says_which_reason_a_feature_stands_for() -> None:
    model = make_workload().model.model_copy(update={"reasons": {"income": "means", "debt": "means"}})
    workload = make_workload(model=model)
    frame = make_frame()
    scores = make_scores(frame, threshold=0.8)
    _, files = judge("explainability", make_context(workload=workload, evaluation=frame, scores=scores))
    reasons = [reason for case in table(files, "reason_codes.json")["cases"] for reason in case["reasons"]]
    assert {reason["reason"] for reason in reasons} == {"means"}
    assert {tuple(reason["features"]) for reason in reasons} == {("income", "debt")}


@pytest.mark.requirement("G-6")
def test_a_regression_is_explained_in_its_own_unit_and_declines_nobody() -> None:
    frame = make_frame()
    scores = make_scores(frame)
    assert scores.shap is not None
    money = scores.shap * 10_000
    money["income"] += 0.5  # off by half a dollar
    columns = {
        f"{model}_{what}": money["_margin"]
        for model in ("candidate", "champion")
        for what in ("score", "prediction")
    }
    told = {"shap": {"space": "prediction", "champion_space": "prediction"}}
    subject = make_context(
        evaluation=frame.assign(y=money["_margin"]), scores=Scores(pd.DataFrame(columns), money, money, told)
    )
    subject.task = Task.REGRESSION
    result, _ = judge("explainability", subject)
    assert result.verdict is Verdict.PASSED
    assert "a regression declines nobody" in finding(result, "no_adverse_outcome").message


@pytest.mark.requirement("G-6")
def test_an_explanation_refused_for_its_cost_says_so() -> None:
    frame = make_frame()
    scores = make_scores(frame)
    told = {"shap": {"refused": "explaining 400 rows from outside would take about 900 s"}}
    subject = make_context(evaluation=frame, scores=Scores(scores.frame, None, None, told))
    result, _ = judge("explainability", subject)
    assert result.verdict is Verdict.ERROR
    assert "would take about 900 s" in result.summary
