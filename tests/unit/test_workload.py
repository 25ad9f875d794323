"""A workload: what may be written in its file, and what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airlock.core.workload import DataSpec, ModelSpec, Workload
from tests.support.gates import make_workload

SHIPPED = sorted((Path(__file__).parents[2] / "config/workloads").glob("*.yaml"))


def with_data(**changes: Any) -> Workload:
    return make_workload(data=DataSpec(**{**make_workload().data.to_data(), **changes}))


def with_model(**changes: Any) -> Workload:
    return make_workload(model=ModelSpec(**{**make_workload().model.to_data(), **changes}))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_a_shipped_workload_is_valid_and_named_as_its_file(path: Path) -> None:
    workload = Workload.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert workload.name == path.stem
    assert Workload.from_bytes(workload.to_bytes()) == workload


def test_the_dag_id_follows_from_the_name() -> None:
    assert make_workload().dag_id == "release__test-model"


@given(st.from_regex(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", fullmatch=True).filter(lambda name: len(name) <= 60))
def test_a_name_is_words_with_hyphens(name: str) -> None:
    assert make_workload(name=name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "1a",
        "a_b",
        "a--b",
        "-a",
        "a-",
        "a b",
        "a/b",
        "../a",
        "a.b",
        "ä",
        "a" * 61,
        "a\n",
        "a\x00",
        "a;rm",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        make_workload(name=name)


@pytest.mark.requirement("T-2")
@pytest.mark.parametrize("field", ["tier", "track", "risk_tier", "approvals"])
def test_nobody_can_write_their_own_tier_or_track(field: str) -> None:
    data = make_workload().to_data()
    with pytest.raises(ValidationError, match="Extra inputs"):
        Workload.model_validate({**data, field: "low"})
    with pytest.raises(ValidationError, match="Extra inputs"):
        Workload.model_validate({**data, "risk": {**data["risk"], field: "low"}})


@pytest.mark.parametrize(
    "field", ["automated_decision", "regulated", "exposure", "loss_per_error_usd", "rollback"]
)
def test_every_fact_about_risk_has_to_be_given(field: str) -> None:
    data = make_workload().to_data()
    del data["risk"][field]
    with pytest.raises(ValidationError, match="Field required"):
        Workload.model_validate(data)


# Paths

SAFE = st.lists(st.from_regex(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,8}", fullmatch=True), min_size=1, max_size=4)


@given(SAFE)
def test_a_path_inside_the_data_directory_is_allowed(parts: list[str]) -> None:
    assert with_data(training="/".join(parts)).data.training == "/".join(parts)


@given(SAFE, st.integers(0, 4))
def test_a_path_with_a_step_up_is_refused_wherever_it_is(parts: list[str], place: int) -> None:
    parts.insert(min(place, len(parts)), "..")
    for field in ("training", "evaluation"):
        with pytest.raises(ValidationError, match="stay inside"):
            with_data(**{field: "/".join(parts)})


@pytest.mark.parametrize("path", ["/etc/passwd", "~/x", "~root/x", "..", "../x", "a/../../x", "a/.."])
def test_a_path_that_leaves_the_data_directory_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="stay inside"):
        with_data(evaluation=path)


def test_dots_in_a_name_are_no_step_up() -> None:
    assert with_data(training="a..b/..c/d...parquet")


# Columns


@given(
    st.lists(
        st.text(min_size=1, max_size=20).filter(lambda name: name not in ("y", "group")),
        min_size=1,
        unique=True,
    )
)
def test_columns_may_have_any_name(names: list[str]) -> None:
    assert with_model(features=names).model.features == names


def test_the_answer_is_no_feature() -> None:
    with pytest.raises(ValidationError, match="the answer would leak"):
        with_model(features=["income", "y"])


def test_a_feature_is_named_once() -> None:
    with pytest.raises(ValidationError, match="names a column twice"):
        with_model(features=["income", "debt", "income"])


def test_a_model_without_features_is_refused() -> None:
    with pytest.raises(ValidationError):
        with_model(features=[])


@pytest.mark.requirement("G-5", "G-7")
@pytest.mark.parametrize("role", [{"sensitive": {"income": {}}}, {"identifiers": ["income"]}])
def test_a_protected_or_identifying_column_is_no_feature(role: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must not be a feature"):
        with_data(**role)


@pytest.mark.parametrize("role", [{"sensitive": {"y": {}}}, {"identifiers": ["y"]}])
def test_a_protected_or_identifying_column_is_not_the_target(role: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must not be the target"):
        with_data(**role)


@pytest.mark.parametrize("policy", ["1", "1.0", "v1.0.0", "1.0.0-rc1", "../1.0.0", "latest", ""])
def test_a_workload_is_pinned_to_one_version_of_the_policy(policy: str) -> None:
    with pytest.raises(ValidationError):
        make_workload(policy=policy)


def test_any_change_changes_the_digest() -> None:
    digests = {
        make_workload().digest,
        make_workload(title="Another").digest,
        with_model(features=["debt", "income"]).digest,
        with_data(default_batch="shifted").digest,
    }
    assert len(digests) == 4
