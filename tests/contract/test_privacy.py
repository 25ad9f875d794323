"""The privacy gate: names, values and proxies, against scikit-learn and against hostile data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from airlock.adapters.config_files import ConfigFolder
from airlock.core.columns import Columns
from airlock.core.errors import InvalidInputError
from airlock.core.evidence import GateResult, Metric, Verdict
from airlock.core.names import name_tokens, says
from airlock.core.workload import DataSpec, ModelSpec, PrivacySpec, RiskSpec, Workload
from airlock.profiles.proxies import auc_of_counts
from tests.support.gates import make_context, make_frame, make_workload
from tests.support.judge import configuration, finding, judge, metric, table

pytestmark = pytest.mark.slow  # the libraries it asks take seconds

SLOW = settings(deadline=None, max_examples=20)
"""A gate takes a tenth of a second."""


def with_features(*features: str, **data: Any) -> Workload:
    """The test workload with other features, and changes to its data section."""
    plain = make_workload()
    return make_workload(
        model=ModelSpec(registered_model="test-model", target="y", features=list(features)),
        data=DataSpec(**{**plain.data.to_data(), **data}),
    )


def judge_frame(
    frame: pd.DataFrame,
    workload: Workload | None = None,
    training: pd.DataFrame | None = None,
    **changes: Any,
) -> tuple[GateResult, dict[str, bytes]]:
    return judge("privacy", make_context(evaluation=frame, training=training, workload=workload), **changes)


def asked(result: GateResult, name: str = "proxy_auc") -> Metric:
    """The metric about the only group that is asked about: of two the smaller one."""
    (found,) = [one for one in result.metrics if one.name == name]
    return found


def auc(frame: pd.DataFrame, feature: str, member: pd.Series[Any]) -> float:
    """The oracle."""
    known = frame[feature].notna()
    value = float(roc_auc_score(member[known], frame.loc[known, feature]))
    return max(value, 1 - value)


@pytest.mark.requirement("G-7")
def test_clean_data_passes_and_says_what_came_closest() -> None:
    frame = make_frame()
    result, files = judge_frame(frame)
    assert result.verdict is Verdict.PASSED
    assert result.findings == []
    strongest = max(auc(frame, name, frame["group"] == 1) for name in ("income", "debt"))
    assert f"AUC {strongest:.2f}" in result.summary
    assert asked(result).value == pytest.approx(strongest, abs=1e-12)
    assert asked(result).threshold == 0.8
    assert metric(result, "prohibited_names").value == 0
    assert metric(result, "personal_data_in_features").value == 0
    assert table(files, "privacy.json")["values"] == []
    assert set(result.engines) == {"airlock", "numpy", "pandas", "pyarrow", "scikit-learn"}


# Names


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *((name, "zip") for name in ("zip", "zip_code", "homeZip", "ZIPCode", "home-zip", "Zips", "zip5")),
        *((name, "email") for name in ("email_hash", "eMail", "e_mail", "\u00e9mail", "ema\u200bil")),
        ("\uff45\uff4d\uff41\uff49\uff4c", "email"),
        *(
            (name, "social_security")
            for name in ("socialSecurityNumber", "social_security_no", "socialsecurity")
        ),
        ("addresses", "address"),
        ("SSNLast4", "ssn"),
        ("races", "race"),
    ],
)
@pytest.mark.requirement("G-7")
def test_a_prohibited_word_is_found_in_a_name(name: str, word: str) -> None:
    assert says(name, word)


@pytest.mark.parametrize(
    ("name", "word"),
    [("unzipped", "zip"), ("trace", "race"), ("grace_days", "race"), ("embrace", "race"), ("emailed",
    "email"),
     ("social", "social_security"), ("security_social", "social_security"), ("session", "ssn"), ("", "zip")],
)  # fmt: skip
def test_part_of_a_word_is_not_the_word(name: str, word: str) -> None:
    assert not says(name, word)


@given(st.from_regex(r"[a-z]{2,8}", fullmatch=True), st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True)))
def test_a_word_is_found_wherever_it_stands(word: str, others: list[str]) -> None:
    for place in range(len(others) + 1):
        assert says("_".join([*others[:place], word, *others[place:]]), word)


@given(st.text(max_size=60))
def test_any_name_has_tokens_of_letters_or_digits(name: str) -> None:
    assert all(token.isalnum() for token in name_tokens(name))


@pytest.mark.requirement("G-7")
def test_a_prohibited_name_fails() -> None:
    frame = make_frame().assign(homeZip=1.0)
    result, _ = judge_frame(frame, with_features("income", "homeZip"))
    assert result.verdict is Verdict.FAILED
    assert "homeZip has zip in its name" in finding(result, "prohibited_name", "homeZip").message
    assert finding(result, "prohibited_name").fix
    assert metric(result, "prohibited_names").value == 1
    assert result.summary.startswith("Feature homeZip")


@pytest.mark.parametrize("name", ["Group", "GROUP", "group_", "CustomerId", "customer-id"])
def test_a_protected_or_identifying_column_under_another_spelling_fails(name: str) -> None:
    frame = make_frame().assign(**{name: np.arange(400.0), "customer_id": "x"})
    result, _ = judge_frame(frame, with_features("income", name, identifiers=["customer_id"]))
    assert result.verdict is Verdict.FAILED
    assert finding(result, "forbidden_feature", name)


# Values

SECRETS = {
    "e-mail address": "ann.lee@example.org",
    "US social security number": "078-05-1120",
    "IBAN": "DE89370400440532013000",
    "payment card number": "4111111111111111",
    "phone number": "(617) 555-0100",
    "IP address": "203.0.113.77",
}


@pytest.mark.requirement("G-7", "T-9")
@pytest.mark.parametrize(("kind", "secret"), SECRETS.items())
def test_personal_data_is_counted_and_never_shown(kind: str, secret: str) -> None:
    note = pd.Series(["nothing"] * 400).where(np.arange(400) % 100 != 7, f"see {secret}, please")
    result, files = judge_frame(make_frame().assign(note=note))
    assert result.verdict is Verdict.FAILED
    assert "4 cells of the evaluation data" in finding(result, "personal_data", "note").message
    fix = finding(result, "personal_data").fix
    assert "ask data governance for a waiver of gate-privacy:personal_data:note" in fix
    (row,) = table(files, "privacy.json")["values"]
    assert (row["kind"], row["cells"], row["column"], row["data"]) == (kind, 4, "note", "evaluation")
    for data in (result.to_bytes(), *files.values()):
        assert secret.encode() not in data
        assert b"nothing" not in data


def test_personal_data_in_a_feature_fails() -> None:
    frame = make_frame().assign(contact=["ann@example.org", *["none"] * 399])
    result, _ = judge_frame(frame, with_features("income", "contact"))
    assert result.verdict is Verdict.FAILED
    assert finding(result, "personal_data_in_feature", "contact")
    assert metric(result, "personal_data_in_features").value == 1


def test_personal_data_in_training_data_is_found() -> None:
    training = make_frame(seed=8).assign(mail="ann@example.org")
    result, _ = judge_frame(make_frame(), training=training)
    assert result.verdict is Verdict.FAILED
    assert "400 cells of the training data" in finding(result, "personal_data", "mail").message


def test_a_declared_identifier_is_expected_to_identify() -> None:
    frame = make_frame().assign(mail="ann@example.org")
    result, files = judge_frame(frame, with_features("income", "debt", identifiers=["mail"]))
    assert result.verdict is Verdict.PASSED
    assert len(table(files, "privacy.json")["values"]) == 1


def test_card_numbers_are_found_as_numbers_and_long_ids_are_not() -> None:
    cards = pd.Series([4111111111111111, 5500005555555559] * 200)
    assert judge_frame(make_frame().assign(n=cards))[0].verdict is Verdict.FAILED
    ids = pd.Series(4_000_000_000_000_000 + 7_919 * np.arange(400))
    assert (
        judge_frame(make_frame().assign(n=ids, when=pd.Timestamp("2024-01-01")))[0].verdict is Verdict.PASSED
    )


HOSTILE: dict[str, Any] = {
    "huge": "a" * 2_000_000,
    "huge digits": "1 " * 500_000,
    "NUL": "a\x00b",
    "bytes": b"\xff\xfe ann@example.org",
    "None": None,
    "emoji": "\U0001f600" * 100,
    "right to left": "\u202egro.elpmaxe@nna",
    "formula": "=1+1",
    "markup": "<script>alert(1)</script>",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_cells_do_not_break_the_gate(value: Any) -> None:
    column = pd.Series([value, *["x"] * 399], dtype="object")
    result, _ = judge_frame(make_frame().assign(note=column, other=column), with_features("income", "other"))
    assert GateResult.from_bytes(result.to_bytes()) == result


@pytest.mark.parametrize("name", ["a\x00b", "x" * 5000, "na\nme", "<b>"])
def test_hostile_names_of_columns_do_not_break_the_gate(name: str) -> None:
    result, _ = judge_frame(make_frame().assign(**{name: "ann@example.org"}))
    assert result.verdict is Verdict.FAILED
    assert GateResult.from_bytes(result.to_bytes()) == result
    assert "\n" not in result.summary


# Proxies


def separated(share: float, rows: int = 200) -> pd.DataFrame:
    """Half of the rows in group 1; ``income`` is higher for them in exactly ``share`` of all pairs."""
    half = rows // 2
    low = np.zeros(half)
    high = np.where(np.arange(half) < round(share * half), 1.0, -1.0)
    group = np.repeat([0, 1], half)
    debt = np.arange(rows) % 2
    return pd.DataFrame({"income": np.concatenate([low, high]), "debt": debt, "group": group, "y": debt})


@pytest.mark.requirement("G-7")
@pytest.mark.parametrize(
    ("share", "verdict"),
    [(0.8, Verdict.PASSED), (0.81, Verdict.WARNED), (0.2, Verdict.PASSED), (0.19, Verdict.WARNED),
     (0.99, Verdict.WARNED), (1.0, Verdict.FAILED), (0.0, Verdict.FAILED)],
)  # fmt: skip
def test_a_proxy_warns_a_copy_fails_and_the_limit_passes(share: float, verdict: Verdict) -> None:
    result, _ = judge_frame(separated(share), judge="point")
    assert result.verdict is verdict
    assert asked(result).value == max(share, 1 - share)
    if verdict is not Verdict.PASSED:
        assert finding(result, "copy" if verdict is Verdict.FAILED else "proxy", "income").fix


@SLOW
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 1000]), st.sampled_from([0.0, 0.3]))
def test_auc_is_scikit_learns(seed: int, levels: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": rng.integers(0, levels, 300) / 7,
            "debt": rng.normal(size=300),
            "group": rng.permutation(np.repeat([0, 1], 150)),
            "y": 1,
        }
    )
    frame["debt"] += frame["group"]
    gone = rng.random(300) < missing
    frame.loc[gone, "debt"] = np.nan
    _, files = judge_frame(frame, training=frame)
    (group,) = table(files, "privacy.json")["proxies"]
    member = frame["group"] == 0
    whether = float(roc_auc_score(member, gone))
    assert group["features"]["income"]["value"] == pytest.approx(auc(frame, "income", member), abs=1e-12)
    assert group["features"]["debt"]["value"] == pytest.approx(
        max(auc(frame, "debt", member), whether, 1 - whether), abs=1e-12
    )


@SLOW
@given(st.integers(0, 2**32 - 1))
def test_auc_does_not_depend_on_scale_order_or_direction(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = make_frame(200, seed=seed % 1000)
    changed = frame.assign(income=-np.exp(frame["income"] / 10)).iloc[rng.permutation(200)]
    before, after = (
        table(judge_frame(f)[1], "privacy.json")["proxies"][0]["features"] for f in (frame, changed)
    )
    assert before["income"] == after["income"]
    assert before["debt"] == after["debt"]


def test_that_a_value_is_missing_can_be_the_proxy() -> None:
    frame = make_frame()
    frame.loc[frame["group"] == 1, "debt"] = np.nan
    result, _ = judge_frame(frame)
    assert finding(result, "copy", "debt")


@pytest.mark.parametrize("dtype", ["object", "str", "category"])
def test_text_can_be_a_proxy_and_distinct_texts_are_not(dtype: str) -> None:
    frame = make_frame()
    street = frame["group"].map({0: "north", 1: "south"}).where(np.arange(400) % 5 != 0, "other")
    frame = frame.assign(
        street=street.astype(dtype), case=pd.Series([f"case {i}" for i in range(400)], dtype=dtype)
    )
    result, files = judge_frame(frame, with_features("street", "case"))
    assert finding(result, "proxy", "street")
    assert result.details["protected"] == {"columns_present": ["group"], "proxies": ["street"]}
    (group,) = table(files, "privacy.json")["proxies"]
    assert group["features"]["case"]["value"] == 0.5
    assert 0.85 < group["features"]["street"]["value"] < 0.99


def test_two_harmless_features_can_tell_together() -> None:
    frame = make_frame(2000)
    noise = np.random.default_rng(1).normal(0, 3, 2000)
    frame = frame.assign(income=noise + 2 * frame["group"], debt=noise)
    result, _ = judge_frame(frame)
    assert result.verdict is Verdict.WARNED
    assert [one.id for one in result.findings] == ["joint_proxy"]
    single, joint = asked(result), asked(result, "joint_auc")
    assert single.value is not None
    assert joint.value is not None
    assert single.value < 0.8
    assert joint.value > 0.95
    assert joint.threshold == 0.9
    assert joint.interval is not None
    assert joint.interval[0] < joint.value < joint.interval[1]
    assert joint.engine.startswith("scikit-learn ")


def test_joint_rows_bound_the_work() -> None:
    frame = make_frame(3000)
    result, _ = judge_frame(frame, joint_rows=1000)
    assert asked(result, "joint_auc").value == pytest.approx(0.5, abs=0.1)


def test_each_of_several_groups_is_asked_about() -> None:
    frame = make_frame().assign(group=np.arange(400) % 4)
    frame.loc[frame["group"] == 3, "income"] += 1000
    workload = with_features("income", "debt", sensitive={"group": {str(i): f"group {i}" for i in range(4)}})
    result, _ = judge_frame(frame, workload)
    assert "group: group 3" in finding(result, "copy", "income").message
    assert len([one for one in result.metrics if one.name == "proxy_auc"]) == 4


def test_rows_with_an_unknown_attribute_are_left_out() -> None:
    frame = make_frame()
    frame["group"] = frame["group"].where(np.arange(400) >= 100)
    frame.loc[:99, "income"] = 1e9
    result, _ = judge_frame(frame)
    kept = frame[frame["group"].notna()]
    expected = max(auc(kept, name, kept["group"] == 1) for name in ("income", "debt"))
    assert asked(result).value == pytest.approx(expected, abs=1e-12)
    assert asked(result).n == 300


def with_members(count: int) -> pd.DataFrame:
    return make_frame().assign(group=(np.arange(400) < count).astype("int64"))


def test_groups_of_exactly_the_minimum_are_judged_and_smaller_ones_never_pass() -> None:
    assert judge_frame(with_members(30))[0].verdict is Verdict.PASSED
    result, _ = judge_frame(with_members(29))
    assert result.verdict is Verdict.ERROR
    assert finding(result, "too_few_rows", "group").fix
    assert asked(result).value is None


def test_one_small_group_among_others_is_said_to_be_unknown() -> None:
    frame = make_frame().assign(group=np.where(np.arange(400) < 10, 2, np.arange(400) % 2))
    result, _ = judge_frame(frame)
    assert result.verdict is Verdict.WARNED
    assert "2 10 of 400" in finding(result, "group_too_small", "group").message


@pytest.mark.parametrize("value", [0, np.nan, None])
def test_an_attribute_with_one_value_or_none_cannot_be_judged(value: Any) -> None:
    for words in ({"0": "group A", "1": "group B"}, {}):
        workload = with_features("income", "debt", sensitive={"group": words})
        result, _ = judge_frame(make_frame().assign(group=value), workload)
        assert result.verdict is Verdict.ERROR
        assert finding(result, "too_few_rows", "group")


@pytest.mark.parametrize("column", ["income", "group"])
def test_a_missing_column_cannot_be_judged(column: str) -> None:
    result, _ = judge_frame(make_frame().drop(columns=column))
    assert result.verdict is Verdict.ERROR
    assert column in finding(result, "missing_column").message


def test_no_declared_attribute_is_an_error_only_where_the_data_has_some() -> None:
    workload = with_features("income", "debt", sensitive={})
    assert judge_frame(make_frame(), workload)[0].verdict is Verdict.ERROR
    risk = RiskSpec(**{**workload.risk.to_data(), "protected_class_data": False})
    harmless = make_workload(data=workload.data, risk=risk)
    result, _ = judge_frame(make_frame(), harmless)
    assert result.verdict is Verdict.PASSED
    assert "declares no protected attribute" in result.summary


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([np.inf, -np.inf] * 200),
        pd.Series([1e308, -1e308] * 200),
        pd.Series([np.nan] * 400),
        pd.Series([True, False] * 200),
        pd.Series([1, None] * 200, dtype="Int64"),
        pd.Series(pd.date_range("2024-01-01", periods=400)),
    ],
    ids=["infinite", "huge", "missing", "boolean", "nullable", "dates"],
)
def test_every_type_of_feature_can_be_asked(column: pd.Series[Any]) -> None:
    result, _ = judge_frame(make_frame().assign(odd=column), with_features("income", "odd"))
    assert result.verdict is Verdict.PASSED, result.summary


# Configuration


@pytest.mark.parametrize(
    "changes",
    [
        {"prohibited_names": []},
        {"prohibited_names": ["__"]},
        {"copy_auc": 0.7},
        {"proxy_auc": 0.4},
        {"minimum_group_rows": 1},
        {"joint_rows": 10},
        {"protected_names": ["_"]},
        {"personal_share": 1},
        {"confidence": 0.4},
        {"required_declarations": ["trust"]},
    ],
)
def test_a_configuration_that_judges_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configuration("privacy", **changes)


# Real data: 1,989 mortgage applications, Boston 1990


LOANS = Path(__file__).parents[2] / "data" / "loanapp.csv"


@pytest.mark.requirement("G-7")
@pytest.mark.parametrize(("more", "proxies"), [([], []), (["white"], ["white"])], ids=["features", "a-proxy"])
def test_a_proxy_in_real_data_is_found_and_the_model_s_features_are_none(
    more: list[str], proxies: list[str]
) -> None:
    frame = pd.read_csv(LOANS)
    workload = ConfigFolder(LOANS.parents[1] / "config").workload("mortgage-approval")
    context = make_context(evaluation=frame, training=frame, workload=workload)
    context.columns = context.columns.model_copy(update={"features": [*workload.model.features, *more]})
    result, _ = judge("privacy", context)
    assert result.details["protected"]["proxies"] == proxies
    assert result.verdict is (Verdict.WARNED if more else Verdict.PASSED), result.summary


# What the owner declares


def declaring(**privacy: Any) -> Workload:
    return make_workload(privacy=PrivacySpec.model_validate(privacy))


@pytest.mark.requirement("G-7")
@pytest.mark.parametrize(
    ("values", "good"),
    [
        ([f"tok_{n:012x}" for n in range(400)], True),
        ([f"{n:064x}" for n in range(400)], True),
        (["[REDACTED]", "XXX-XX-XXXX"] * 200, True),
        ([*(f"tok_{n:012x}" for n in range(399)), "ann lee"], False),
        (["Boston", None] * 200, False),
    ],
    ids=["tokens", "hashes", "redacted", "one-name", "names"],
)
def test_a_declared_token_column_looks_like_tokens(values: list[str | None], good: bool) -> None:
    frame = make_frame().assign(ref=values)
    result, _ = judge_frame(frame, declaring(tokens=["ref"]), training=frame)
    assert result.verdict is (Verdict.PASSED if good else Verdict.FAILED), result.summary
    if not good:
        assert "do not look like tokens" in result.findings[0].message
        assert b"ann lee" not in result.to_bytes()


@pytest.mark.requirement("G-7")
def test_rows_without_consent_fail_and_a_missing_value_is_no_consent() -> None:
    frame = make_frame().assign(terms=["2024-research", "2023-research", None, "no"] * 100)
    accepted = {"column": "terms", "accepted": ["2024-research", "2023-research"]}
    result, _ = judge_frame(frame, declaring(consent=accepted), training=frame.assign(terms="2024-research"))
    assert result.verdict is Verdict.FAILED
    assert "200 of 400 rows of the evaluation data" in finding(result, "consent_missing", "terms").message
    good = frame.assign(terms="2024-research")
    assert judge_frame(good, declaring(consent=accepted), training=good)[0].verdict is Verdict.PASSED
    result, _ = judge_frame(good, declaring(consent=accepted))
    assert result.verdict is Verdict.ERROR
    assert "training data has no column terms" in finding(result, "missing_column").message


def test_consent_can_be_a_number_or_a_truth_value() -> None:
    for value, word in ((1, "1"), (True, "true"), (1.0, "1")):
        frame = make_frame().assign(terms=value)
        spec = declaring(consent={"column": "terms", "accepted": [word]})
        assert judge_frame(frame, spec, training=frame)[0].verdict is Verdict.PASSED


@pytest.mark.requirement("G-7")
def test_data_outside_the_allowed_regions_fails() -> None:
    frame = make_frame().assign(land=["eu-west", "us-east"] * 200)
    regions = {"allowed_regions": ["eu-west", "eu-north"]}
    spec = declaring(residency={"region": "us-east", "column": "land"})
    result, _ = judge_frame(frame, spec, training=frame, **regions)
    assert result.verdict is Verdict.FAILED
    assert finding(result, "residency").message.startswith("the data lies in us-east")
    assert len([one for one in result.findings if one.id == "residency_rows"]) == 2
    good = declaring(residency={"region": "eu-west"})
    assert judge_frame(frame, good, training=frame, **regions)[0].verdict is Verdict.PASSED


def test_a_declaration_that_the_policy_asks_for_must_be_there() -> None:
    result, _ = judge_frame(make_frame(), required_declarations=["consent", "residency"])
    assert result.verdict is Verdict.FAILED
    assert {one.id for one in result.findings} == {"consent_undeclared", "residency_undeclared"}


# Many rows, few of them


def test_a_few_cells_among_many_rows_are_a_warning() -> None:
    frame = make_frame(4000).assign(note="nothing to see")
    frame.loc[17, "note"] = "ann@example.org"
    assert judge_frame(frame)[0].verdict is Verdict.WARNED
    assert judge_frame(frame, personal_share=0)[0].verdict is Verdict.FAILED


def test_of_very_many_suspicious_texts_an_even_share_is_checked_and_said_so() -> None:
    mails = [f"person{n}@example.org" if n % 2 else f"person{n}@example" for n in range(4000)]
    result, files = judge_frame(make_frame(4000).assign(note=mails), maximum_texts=1000)
    (row,) = table(files, "privacy.json")["values"]
    assert (row["suspected"], row["checked"]) == (4000, 1000)
    assert 1800 < row["cells"] < 2200
    assert "about " in finding(result, "personal_data", "note").message


def test_plain_files_without_reference_data_are_judged_alone() -> None:
    def none() -> Path:
        raise InvalidInputError("no reference data was given")

    context = make_context(evaluation=make_frame())
    context.reference_path = none
    assert judge("privacy", context)[0].verdict is Verdict.PASSED


def test_a_column_named_like_a_protected_attribute_is_asked_about() -> None:
    result, _ = judge_frame(make_frame().assign(applicantRace=1))
    assert result.verdict is Verdict.WARNED
    assert finding(result, "undeclared_attribute", "applicantRace").fix
    assert result.details["protected"]["columns_present"] == ["applicantRace", "group"]


def test_no_named_features_cannot_be_judged() -> None:
    context = make_context()
    context.columns = Columns(sensitive={"group": {}})
    result, _ = judge("privacy", context)
    assert result.verdict is Verdict.ERROR
    assert finding(result, "features_undeclared").fix


def test_an_auc_has_delongs_interval() -> None:
    """Oracle: the placements of every row, written out as in the paper."""
    rng = np.random.default_rng(5)
    member, values = rng.random(150) < 0.4, rng.integers(0, 6, 150)
    values = values + member
    inside, outside = (np.bincount(values[rows], minlength=8) for rows in (member, ~member))
    wins = (values[member][:, None] > values[~member]) + (values[member][:, None] == values[~member]) / 2
    area, variance = wins.mean(), 0.0
    variance = wins.mean(axis=1).var(ddof=1) / len(wins) + wins.mean(axis=0).var(ddof=1) / wins.shape[1]
    spread = 1.959963984540054 * np.sqrt(variance) / (area * (1 - area))
    centre = np.log(area / (1 - area))
    expected = [1 / (1 + np.exp(-centre - sign * spread)) for sign in (-1, 1)]
    found = auc_of_counts(inside, outside, 0.95)
    assert found.value == pytest.approx(area, abs=1e-12)
    assert found.interval == pytest.approx(expected, abs=1e-9)
