"""One window of the production log, from Parquet folders and databases; what is wrong with it is said."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from airlock.adapters.production_log import LoggedWindow, ProductionLog
from airlock.core import logged
from airlock.core.errors import ConfigurationError, InvalidInputError, NotFoundError, UnavailableError
from airlock.core.production import (
    DAY_US,
    HOUR_US,
    KpiSpec,
    LogSpec,
    MonitoringSpec,
    Window,
    microseconds,
    moment,
)
from airlock.core.workload import Workload
from tests.support.deployments import workload_data
from tests.support.production import MONDAY_US, NOW_US, WEEK, logged_workload, rows_of_week, write_log

pytestmark = pytest.mark.requirement("M-5")


def read(
    root: Path,
    workload: Workload | None = None,
    window: Window = WEEK,
    *,
    now_us: int = NOW_US,
    environ: Mapping[str, str] | None = None,
) -> LoggedWindow:
    log = ProductionLog(workload or logged_workload(), root, environ=environ or {})
    return log.read(window, root / "window.parquet", now_us=now_us, numeric=["income", "debt"])


def frame(found: LoggedWindow) -> pd.DataFrame:
    return pd.read_parquet(found.path)


def test_a_week_is_read_with_the_outcomes_that_have_arrived(tmp_path: Path) -> None:
    labels = [(f"p{i}", i % 2, MONDAY_US + 6 * DAY_US) for i in range(30)]
    write_log(tmp_path / "log", rows_of_week(70), labels)

    found = read(tmp_path)

    assert (found.rows, found.labelled) == (70, 30)
    assert found.days == {f"2026-03-0{day}": 10 for day in range(2, 9)}
    rows = frame(found)
    assert list(rows.columns) == [
        logged.TIME,
        logged.ID,
        logged.VERSION,
        logged.POLICY,
        logged.CALLER,
        logged.UNIT,
        logged.SCORE,
        logged.LATENCY,
        logged.COST,
        logged.DECISION,
        "income",
        "debt",
        "group",
        logged.LABEL,
    ]
    assert rows.set_index(logged.ID)[logged.LABEL].dropna().to_dict() == {
        f"p{i}": float(i % 2) for i in range(30)
    }
    clean = (found.missing, found.renamed, found.mistyped, found.unreadable)
    assert clean == ([], {}, {}, [])
    counted = (found.repeated, found.contradictory, found.early_labels, found.future, found.lost)
    assert counted == (0, 0, 0, 0, 0)


def test_only_the_days_of_the_window_are_opened(tmp_path: Path) -> None:
    write_log(tmp_path / "log", rows_of_week(70))
    other = tmp_path / "log" / "predictions" / "day=2026-02-20"
    other.mkdir()
    (other / "part-1.parquet").write_bytes(b"no Parquet")

    found = read(tmp_path)

    assert (found.rows, found.unreadable) == (70, [])


def test_what_happens_at_the_edge_of_two_windows_is_in_one_of_them(tmp_path: Path) -> None:
    rows = rows_of_week(2)
    rows[0]["time_us"], rows[1]["time_us"] = WEEK.start_us, WEEK.end_us
    write_log(tmp_path / "log", rows)

    now = WEEK.end_us + DAY_US
    assert frame(read(tmp_path, now_us=now))[logged.ID].tolist() == ["p0"]
    assert frame(read(tmp_path, window=WEEK.earlier(-WEEK.end_us + WEEK.start_us), now_us=now))[
        logged.ID
    ].tolist() == ["p1"]


def test_the_same_log_has_the_same_digest_however_it_is_cut_into_files(tmp_path: Path) -> None:
    rows = rows_of_week(70)
    write_log(tmp_path / "a" / "log", rows)
    for start in range(0, 70, 7):
        write_log(tmp_path / "b" / "log", rows[start : start + 7])
    digests = {read(tmp_path / name).digest for name in "ab"}
    assert len(digests) == 1

    write_log(tmp_path / "b" / "log", [], [("p1", 1, NOW_US - 1)])
    assert read(tmp_path / "b").digest not in digests


def test_an_outcome_that_becomes_known_later_does_not_count_yet(tmp_path: Path) -> None:
    write_log(tmp_path / "log", rows_of_week(10), [("p1", 1, NOW_US - 1), ("p2", 1, NOW_US + HOUR_US)])
    assert read(tmp_path).labelled == 1
    assert read(tmp_path, now_us=NOW_US + 2 * HOUR_US).labelled == 2


def test_contradictory_outcomes_count_as_unknown_and_equal_ones_as_one(tmp_path: Path) -> None:
    labels = [("p1", 1, NOW_US - 9), ("p1", 0, NOW_US - 8), ("p2", 1, NOW_US - 9), ("p2", 1.0, NOW_US - 8)]
    write_log(tmp_path / "log", rows_of_week(10), labels)
    found = read(tmp_path)
    assert (found.labelled, found.contradictory) == (1, 1)


def test_an_id_that_stands_twice_is_counted_once_the_first_time(tmp_path: Path) -> None:
    rows = rows_of_week(10)
    write_log(tmp_path / "log", rows)
    write_log(tmp_path / "log", [{**rows[3], "time_us": rows[3]["time_us"] + 5, "score": 0.99}])
    found = read(tmp_path)
    assert (found.rows, found.repeated) == (10, 1)
    assert 0.99 not in frame(found)[logged.SCORE].tolist()


def test_a_renamed_column_is_named_with_what_it_may_be_called_now(tmp_path: Path) -> None:
    rows = [
        {**row, "features": {"income_eur": row["features"]["income"], "debt": 1.0}} for row in rows_of_week()
    ]
    write_log(tmp_path / "log", rows)
    found = read(tmp_path)
    assert found.missing == ["income"]
    assert found.renamed == {"income": "income_eur"}
    assert "income" not in frame(found).columns


def test_texts_where_numbers_were_are_read_as_numbers_and_the_others_are_counted(tmp_path: Path) -> None:
    rows = rows_of_week(10)
    rows[0]["features"] = {"income": "12.5", "debt": 1.0}
    rows[1]["features"] = {"income": "unknown", "debt": 1.0}
    write_log(tmp_path / "log", rows)
    found = read(tmp_path)
    assert found.mistyped == {"income": 1}
    values = frame(found).set_index(logged.ID)["income"]
    assert values["p0"] == 12.5
    assert pd.isna(values["p1"])


def test_wrong_clocks_are_counted(tmp_path: Path) -> None:
    rows = rows_of_week(10)
    rows.append({**rows[0], "prediction_id": "future", "time_us": NOW_US + 3 * DAY_US})
    write_log(tmp_path / "log", rows, [("p9", 1, MONDAY_US + HOUR_US), ("p1", 1, NOW_US - 1)])
    found = read(tmp_path)
    assert (found.future, found.early_labels) == (1, 1)


def test_a_broken_file_does_not_take_the_week_along_and_is_named(tmp_path: Path) -> None:
    write_log(tmp_path / "log", rows_of_week(70))
    broken = tmp_path / "log" / "predictions" / "day=2026-03-03" / "part-0.parquet"
    broken.write_bytes(b"PAR1 torn")
    found = read(tmp_path)
    assert (found.rows, found.unreadable) == (70, ["part-0.parquet"])


def test_losses_that_the_recorder_counted_are_told(tmp_path: Path) -> None:
    recorder = write_log(tmp_path / "log", [*rows_of_week(3), {"features": None, "prediction_id": "x"}])
    assert recorder.lost == 1
    assert read(tmp_path).lost == 1


def test_an_empty_week_is_a_window_without_rows_and_no_error(tmp_path: Path) -> None:
    write_log(tmp_path / "log", rows_of_week(10))
    found = read(tmp_path, window=WEEK.earlier(-7 * DAY_US), now_us=NOW_US + 7 * DAY_US)
    assert (found.rows, found.days) == (0, {})
    assert len(frame(found)) == 0


def test_a_log_that_is_not_there_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no production log") as caught:
        read(tmp_path)
    assert caught.value.where == str(tmp_path / "log")


def test_a_workload_without_a_monitoring_section_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="where its predictions are logged"):
        ProductionLog(Workload.model_validate(workload_data()), tmp_path)


def test_a_log_without_a_time_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    pd.DataFrame({"income": [1.0]}).to_parquet(tmp_path / "log" / "all.parquet")
    with pytest.raises(InvalidInputError, match="'airlock_time' of the log is missing") as caught:
        read(tmp_path)
    assert "monitoring.log.columns" in caught.value.fix


def test_somebody_elses_folder_of_files_is_read_by_the_names_it_has(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    made = pd.DataFrame(
        {
            "ts": ["2026-03-03T10:00:00", "2026-03-04T10:00:00", "no time"],
            "req": [1, 2, 3],
            "model": ["7", "7", "7"],
            "p": [0.2, 0.9, 0.5],
            "out": [False, True, True],
            "income": [1, 2, 3],
            "debt": [1.0, 2.0, 3.0],
            "group": [0, 1, 1],
            "truth": [0, 1, None],
        }
    )
    made.to_parquet(tmp_path / "log" / "all.parquet")
    names = {
        "airlock_time": "ts",
        "airlock_id": "req",
        "airlock_version": "model",
        "airlock_score": "p",
        "airlock_decision": "out",
        "airlock_label": "truth",
    }
    found = read(tmp_path, logged_workload(log={"parquet": "log", "columns": names}))
    rows = frame(found)
    assert (found.rows, found.labelled, found.timeless, found.missing) == (2, 2, 1, [])
    assert rows[logged.DECISION].tolist() == [0.0, 1.0]
    assert rows[logged.LABEL].tolist() == [0.0, 1.0]
    assert rows[logged.ID].tolist() == ["1", "2"]


@pytest.mark.parametrize(
    ("task", "positive", "written", "read_as"),
    [
        ("classification", "good", ["good", "bad"], [1.0, 0.0]),
        ("classification", None, [1.0, "0"], [1.0, 0.0]),
        ("multiclass", None, ["fixed", "none"], ["fixed", "none"]),
        ("regression", None, ["12.5", 3], [12.5, 3.0]),
    ],
)
def test_outcomes_and_decisions_are_read_as_the_task_has_them(
    tmp_path: Path, task: str, positive: str | None, written: list[Any], read_as: list[Any]
) -> None:
    rows = rows_of_week(2)
    for row, value in zip(rows, written, strict=True):
        row["decision"] = value
    write_log(tmp_path / "log", rows, [(f"p{i}", value, NOW_US - 1) for i, value in enumerate(written)])
    data = workload_data(monitoring={"log": {"parquet": "log"}})
    data["model"] |= {"task": task, "positive": positive}
    found = frame(read(tmp_path, Workload.model_validate(data)))
    assert found[logged.DECISION].tolist() == read_as
    assert found[logged.LABEL].tolist() == read_as


HOSTILE = "in\"come'); DROP TABLE x; --"


def test_hostile_column_names_are_names_and_nothing_else(tmp_path: Path) -> None:
    data = workload_data(monitoring={"log": {"parquet": "log"}})
    data["model"] |= {"features": [HOSTILE, "debt"]}
    write_log(tmp_path / "log", [{**rows_of_week(1)[0], "features": {HOSTILE: 5.0, "debt": 1.0}}])
    found = read(tmp_path, Workload.model_validate(data))
    assert frame(found)[HOSTILE].tolist() == [5.0]


def test_the_kpi_may_stand_with_the_outcomes(tmp_path: Path) -> None:
    write_log(tmp_path / "log", rows_of_week(3))
    labels = tmp_path / "log" / "labels" / "day=2026-03-08"
    labels.mkdir(parents=True)
    known = datetime(2026, 3, 8, tzinfo=UTC)
    pd.DataFrame(
        {logged.ID: ["p0", "p1"], logged.LABEL: [1, 0], logged.LABELLED: [known] * 2, "profit": [10.0, -3.0]}
    ).to_parquet(labels / "part-1.parquet")
    kpi = {"column": "profit", "title": "profit per case", "minimum": 1}
    found = frame(read(tmp_path, logged_workload(kpi=kpi)))
    assert found.set_index(logged.ID)["profit"].dropna().to_dict() == {"p0": 10.0, "p1": -3.0}


class Database:
    """A table of predictions and one of outcomes."""

    def __init__(self, url: str, *, zone: bool = False, columns: str = "DateTime") -> None:
        self.url = url
        self.engine = sa.create_engine(url)
        metadata = sa.MetaData()
        time: Any = sa.Text() if columns == "Text" else sa.DateTime(timezone=zone)
        self.predictions = sa.Table(
            "predictions",
            metadata,
            sa.Column(logged.ID, sa.Text),
            sa.Column(logged.TIME, time),
            sa.Column(logged.VERSION, sa.Text),
            sa.Column(logged.SCORE, sa.Float),
            sa.Column(logged.DECISION, sa.Integer),
            sa.Column("income", sa.Numeric(10, 2)),
            sa.Column("debt", sa.Float),
            sa.Column("group", sa.Integer),
        )
        self.labels = sa.Table(
            "labels",
            metadata,
            sa.Column(logged.ID, sa.Text),
            sa.Column(logged.LABEL, sa.Integer),
            sa.Column(logged.LABELLED, time),
        )
        metadata.drop_all(self.engine)
        metadata.create_all(self.engine)

        def at(us: int) -> Any:
            when = moment(us) if zone else moment(us).replace(tzinfo=None)
            return when.isoformat(sep=" ") if columns == "Text" else when

        with self.engine.begin() as connection:
            connection.execute(
                self.predictions.insert(),
                [
                    {
                        logged.ID: f"p{i}",
                        logged.TIME: at(MONDAY_US + i * DAY_US),
                        logged.VERSION: "1",
                        logged.SCORE: 0.5,
                        logged.DECISION: 1,
                        "income": 3,
                        "debt": None,
                        "group": 0,
                    }
                    for i in range(-2, 12)
                ],
            )
            connection.execute(
                self.labels.insert(),
                [
                    {logged.ID: "p1", logged.LABEL: 1, logged.LABELLED: at(MONDAY_US + 2 * DAY_US)},
                    {logged.ID: "p2", logged.LABEL: 1, logged.LABELLED: at(NOW_US + DAY_US)},
                    {logged.ID: "p11", logged.LABEL: 1, logged.LABELLED: at(MONDAY_US)},
                ],
            )


def in_database(**changes: Any) -> Workload:
    return logged_workload(
        log={"url_env": "LOG_URL", "predictions": "predictions", "labels": "labels", **changes}
    )


@pytest.mark.parametrize("columns", ["DateTime", "Text"])
def test_a_window_is_read_from_tables(tmp_path: Path, columns: str) -> None:
    database = Database(f"sqlite:///{tmp_path}/log.db", columns=columns)
    found = read(tmp_path, in_database(), environ={"LOG_URL": database.url})
    rows = frame(found)
    assert rows[logged.ID].tolist() == [f"p{i}" for i in range(7)]
    assert (found.rows, found.labelled, found.missing) == (7, 1, [])
    assert rows["income"].astype(float).tolist() == [3.0] * 7


def test_a_window_is_read_from_tables_of_postgresql_with_time_zones(tmp_path: Path) -> None:
    from tests.support.databases import Postgres

    try:
        place = Postgres()
    except Exception as error:  # noqa: BLE001
        pytest.skip(f"PostgreSQL does not answer ({type(error).__name__})")
    try:
        database = Database(place.url(), zone=True)
        found = read(tmp_path, in_database(), environ={"LOG_URL": place.url()})
        database.engine.dispose()
    finally:
        place.drop()
    assert frame(found)[logged.ID].tolist() == [f"p{i}" for i in range(7)]
    assert (found.rows, found.labelled) == (7, 1)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/log.db")
    with pytest.raises(NotFoundError, match="no table nothing"):
        read(tmp_path, in_database(predictions="nothing"), environ={"LOG_URL": database.url})


def test_a_column_the_log_calls_otherwise_is_asked_for_by_its_name(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/log.db")
    workload = in_database(columns={"airlock_time": "ts"})
    with pytest.raises(InvalidInputError, match="no column 'ts'"):
        read(tmp_path, workload, environ={"LOG_URL": database.url})


def test_a_url_that_is_not_set_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="LOG_URL is not set"):
        read(tmp_path, in_database(), environ={})


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql+psycopg://me:hunter2@127.0.0.1:1/log", UnavailableError),
        ("nonsense://me:hunter2@host/log", ConfigurationError),
        ("hunter2", ConfigurationError),
    ],
)
def test_no_error_repeats_the_password_of_the_database(
    tmp_path: Path, url: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        read(tmp_path, in_database(), environ={"LOG_URL": url})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"parquet": "log", "url_env": "URL"},
        {"parquet": "/log"},
        {"parquet": "a/../../b"},
        {"url_env": "URL"},
        {"url_env": "postgresql://me:secret@host"},
        {"parquet": "log", "predictions": "t"},
        {"parquet": "log", "columns": {"score": "p"}},
    ],
    ids=str,
)
def test_a_log_that_is_described_wrongly_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LogSpec.model_validate(spec)


def test_a_kpi_without_a_limit_is_refused() -> None:
    with pytest.raises(ValidationError, match="minimum or a maximum"):
        KpiSpec(column="profit", title="profit")


def test_a_schedule_has_five_fields() -> None:
    with pytest.raises(ValidationError, match="five fields"):
        MonitoringSpec(log=LogSpec(parquet="log"), schedule="weekly")


@pytest.mark.parametrize(
    ("days", "end", "text"),
    [
        (7, "2026-03-09T06:00", "2026-03-02 to 2026-03-08"),
        (1, "2026-03-09T06:00", "2026-03-08"),
        (0.25, "2026-03-09T06:30", "2026-03-09 00:00 to 2026-03-09 06:00"),
    ],
)
def test_windows_of_days_end_at_midnight_whenever_the_run_starts(days: float, end: str, text: str) -> None:
    spec = MonitoringSpec(log=LogSpec(parquet="log"), window_days=days)
    assert spec.window_before(microseconds(end)).text == text


def test_a_window_has_a_length() -> None:
    with pytest.raises(ValidationError, match="after it begins"):
        Window(start_us=5, end_us=5)


def test_a_workload_without_monitoring_keeps_the_digest_it_had() -> None:
    assert "monitoring" not in Workload.model_validate(workload_data()).to_data()
