"""Data and configuration of a gate on plain files: labels in words, rows side by side, errors in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airlock.adapters.data_files import DataFile
from airlock.core.columns import Columns, Task
from airlock.core.errors import AirlockError, ConfigurationError, InvalidInputError, NotFoundError
from airlock.services.gate_files import (
    ChampionColumns,
    FileConfig,
    PlainData,
    limits_for,
    newest_policy,
    read_config,
)
from tests.support.files import COLUMNS, applications, config_file, saved

pytestmark = pytest.mark.requirement("T-7")


def plain(path: Path | None, **values: Any) -> PlainData:
    config = FileConfig.model_validate({"columns": COLUMNS, "positive": "approved", **values})
    return PlainData(config, current=path, reference=None, predictions=None)


@pytest.mark.parametrize("name", ["data.parquet", "data.csv"])
def test_labels_in_words_become_0_and_1(tmp_path: Path, name: str) -> None:
    frame = applications()
    data = plain(saved(frame, tmp_path / name))
    assert data.task is Task.BINARY
    assert data.current["outcome"].tolist() == (frame["outcome"] == "approved").astype(int).tolist()
    scores = data.scores.frame
    assert scores["candidate_prediction"].tolist() == (frame["decision"] == "approved").astype(int).tolist()
    assert scores["candidate_score"].tolist() == pytest.approx(frame["probability"].tolist())


def test_predictions_of_0_and_1_go_with_labels_in_words(tmp_path: Path) -> None:
    frame = applications().assign(decision=lambda f: (f["decision"] == "approved").astype(int))
    scores = plain(saved(frame, tmp_path / "d.parquet")).scores.frame
    assert scores["candidate_prediction"].tolist() == frame["decision"].tolist()


def test_a_missing_label_stays_missing(tmp_path: Path) -> None:
    frame = applications()
    frame.loc[3, "outcome"] = None
    coded = plain(saved(frame, tmp_path / "d.parquet")).current["outcome"]
    assert coded.isna().sum() == 1
    assert pd.isna(coded[3])


@pytest.mark.parametrize("word", ["yes", "on", "Yes", "true"])
def test_a_yes_that_yaml_read_as_true_is_found(tmp_path: Path, word: str) -> None:
    frame = applications().assign(
        outcome=lambda f: f["outcome"].map({"approved": word, "denied": "other"}),
        decision=lambda f: f["decision"].map({"approved": word, "denied": "other"}),
    )
    data = plain(saved(frame, tmp_path / "d.parquet"), positive=True)
    assert data.positive == word
    assert data.current["outcome"].sum() == (frame["outcome"] == word).sum()


def test_a_positive_value_no_row_has_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    data = plain(saved(applications(), tmp_path / "d.parquet"), positive="aproved")
    with pytest.raises(InvalidInputError, match="no row has the positive value") as caught:
        _ = data.current
    assert "did you mean 'approved'" in caught.value.fix


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1, 1, 0], Task.BINARY),
        ([True, False, True, False], Task.BINARY),
        ([0, 1, 2, 3], Task.MULTICLASS),
        (["a", "b", "c", "a"], Task.MULTICLASS),
        ([0.5, 1.25, 3.75, 2.0], Task.REGRESSION),
        (list(range(100)), Task.REGRESSION),
    ],
)
def test_the_task_is_seen_from_the_label(tmp_path: Path, values: list[Any], task: Task) -> None:
    frame = pd.DataFrame({"outcome": values, "decision": values})
    columns = {"label": "outcome", "prediction": "decision"}
    data = plain(saved(frame, tmp_path / "d.parquet"), columns=columns, positive=None)
    assert data.task is task
    assert data.scores.frame["candidate_prediction"].tolist() == values


def test_a_score_alone_decides_at_the_threshold(tmp_path: Path) -> None:
    frame = applications().drop(columns="decision")
    columns = {name: value for name, value in COLUMNS.items() if name != "prediction"}
    data = plain(saved(frame, tmp_path / "d.parquet"), columns=columns, threshold=0.3)
    expected = (frame["probability"] >= 0.3).astype(int).tolist()
    assert data.scores.frame["candidate_prediction"].tolist() == expected


def test_a_champion_has_columns_of_its_own(tmp_path: Path) -> None:
    frame = applications().assign(old="denied", old_score=0.1)
    champion = {"prediction": "old", "score": "old_score"}
    data = plain(saved(frame, tmp_path / "d.parquet"), champion=champion)
    assert data.has_champion
    assert data.scores.frame["champion_prediction"].tolist() == [0] * len(frame)
    assert ChampionColumns(prediction="old").score is None


def test_predictions_in_a_file_of_their_own(tmp_path: Path) -> None:
    frame = applications()
    current = saved(frame.drop(columns=["decision", "probability"]), tmp_path / "c.parquet")
    predictions = saved(frame[["decision", "probability"]], tmp_path / "p.csv")
    config = FileConfig(columns=Columns.model_validate(COLUMNS), positive="approved")
    data = PlainData(config, current=current, reference=None, predictions=predictions)
    together = plain(saved(frame, tmp_path / "all.parquet"))
    assert data.scores.frame["candidate_prediction"].equals(together.scores.frame["candidate_prediction"])
    short = saved(frame[["decision", "probability"]].head(10), tmp_path / "short.parquet")
    with pytest.raises(InvalidInputError, match="the predictions have 10 rows, the current data 400"):
        _ = PlainData(config, current=current, reference=None, predictions=short).current


def test_predictions_in_another_order_are_noticed(tmp_path: Path) -> None:
    frame = applications().assign(key=range(400))
    current = saved(frame.drop(columns=["decision", "probability"]), tmp_path / "c.parquet")
    shuffled = saved(frame[["key", "decision", "probability"]].iloc[::-1], tmp_path / "p.parquet")
    config = FileConfig(columns=Columns.model_validate(COLUMNS), positive="approved")
    with pytest.raises(InvalidInputError, match="'key' is not the same"):
        _ = PlainData(config, current=current, reference=None, predictions=shuffled).current


def test_without_named_features_every_column_without_a_role_is_one(tmp_path: Path) -> None:
    columns = {name: value for name, value in COLUMNS.items() if name != "features"}
    data = plain(saved(applications(), tmp_path / "d.parquet"), columns=columns)
    assert data.columns.features == ["income", "debt"]


def hostile(folder: Path) -> dict[str, Path]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = {name: folder / name for name in ("empty.parquet", "text.parquet", "zip.csv", "cut.parquet")}
    files["empty.parquet"].write_bytes(b"")
    files["text.parquet"].write_text("a,b\n1,2\n")
    files["zip.csv"].write_bytes(b"PK\x03\x04\0\0\0")
    saved(applications(), files["cut.parquet"])
    files["cut.parquet"].write_bytes(files["cut.parquet"].read_bytes()[:500])
    files["twice.csv"] = folder / "twice.csv"
    files["twice.csv"].write_text("a,a\n1,2\n")
    files["nameless.csv"] = folder / "nameless.csv"
    files["nameless.csv"].write_text("a,,b\n1,2,3\n")
    files["latin.csv"] = folder / "latin.csv"
    files["latin.csv"].write_bytes("größe\n1\n".encode("latin-1"))
    files["twice.parquet"] = folder / "twice.parquet"
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), files["twice.parquet"])
    files["folder"] = folder
    files["gone"] = folder / "gone.parquet"
    return files


KINDS = [
    "empty.parquet", "text.parquet", "zip.csv", "cut.parquet", "twice.csv", "nameless.csv", "latin.csv",
    "twice.parquet", "folder", "gone",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_used_is_refused_in_words(tmp_path: Path, kind: str) -> None:
    path = hostile(tmp_path)[kind]
    with pytest.raises(InvalidInputError) as caught:
        DataFile(path).frame()
    assert path.name in caught.value.what
    assert caught.value.where == str(path)


def test_odd_names_of_files_and_columns_are_taken_as_they_are(tmp_path: Path) -> None:
    frame = pd.DataFrame({'a "b"; DROP': [1, 2], "größe 値": ["x", "y"], "c'": [None, 1.5]})
    for name in ("it's [1]*?.csv", "it's [1]*?.parquet"):
        file = DataFile(saved(frame, tmp_path / name))
        assert file.columns() == list(frame.columns)
        assert file.rows() == 2
        assert sorted(map(str, file.distinct('a "b"; DROP', 10))) == ["1", "2"]
        assert file.frame()["größe 値"].tolist() == ["x", "y"]


def test_a_column_that_is_in_no_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    columns = {**COLUMNS, "prediction": "decison"}
    with pytest.raises(InvalidInputError, match="no file has a column 'decison'") as caught:
        plain(saved(applications(), tmp_path / "d.parquet"), columns=columns)
    assert "did you mean 'decision'" in caught.value.fix


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"limits": {"four_fifth": 0.8}}, "did you mean 'four_fifths'"),
        ({"limits": {"four_fifths": 8}}, "limits.four_fifths"),
        ({"columns": {"lable": "y"}}, "did you mean 'label'"),
        ({"collumns": {}}, "did you mean 'columns'"),
        ({"columns": {"label": "a", "features": ["a"]}}, "as label and as features"),
        ({"task": "guess"}, "task"),
        ({"positive": [1]}, "positive"),
    ],
)
def test_a_wrong_configuration_says_where_and_what_was_meant(
    tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    path = config_file(tmp_path, **values)
    with pytest.raises(ConfigurationError, match=words.replace(".", r"\.")) as caught:
        read_config(path, "bias")
    assert str(path) in caught.value.where


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_config(tmp_path / "gone.yaml", "bias")
    with pytest.raises(AirlockError, match="there is no gate 'biass'") as caught:
        read_config(config_file(tmp_path), "biass")
    assert "did you mean 'bias'" in caught.value.fix


def test_limits_that_are_left_out_come_from_the_newest_policy(tmp_path: Path) -> None:
    policy = newest_policy()
    assert policy is not None
    path = config_file(tmp_path, limits={"minimum_rows": 7})
    limits, taken = limits_for("privacy", read_config(path, "privacy"), policy, path)
    assert limits.minimum_rows == 7
    assert limits.proxy_auc == policy.gates["privacy"]["proxy_auc"]
    assert "proxy_auc" in taken
    assert "minimum_rows" not in taken
    with pytest.raises(ConfigurationError, match=r"limits\.\w+: is needed"):
        limits_for("privacy", read_config(path, "privacy"), None, path)
