"""The recorder never hurts the server: whatever it is handed, and whatever the disk does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from airlock import record
from airlock.core import logged
from airlock.record import MAX_TEXT, MAX_VALUES, Recorder, input_hash
from tests.support.production import rows_of_week, write_log

pytestmark = pytest.mark.requirement("M-5")


def read(folder: Path, kind: str = "predictions") -> list[dict[str, Any]]:
    files = sorted((folder / kind).rglob("part-*.parquet"))
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def test_a_prediction_stands_in_the_folder_of_its_day_with_everything_the_contract_names(
    tmp_path: Path,
) -> None:
    write_log(tmp_path, rows_of_week(1), [("p0", 1, 1_772_600_000_000_000)])

    (file,) = (tmp_path / "predictions").rglob("*.parquet")
    assert file.parent.name == "day=2026-03-02"
    (row,) = read(tmp_path)
    assert row[logged.ID] == "p0"
    assert row[logged.VERSION] == "1"
    assert row[logged.POLICY] == "1.0.0"
    assert row[logged.INPUT] == input_hash({"debt": 0.0, "income": 10.0})
    assert (row["income"], row["debt"], row["group"]) == (10.0, 0.0, 0)
    assert (row[logged.SCORE], row[logged.DECISION]) == (0.0, 0)
    assert (row[logged.LATENCY], row[logged.COST]) == (3.0, 0.001)
    assert (row[logged.CALLER], row[logged.UNIT]) == ("branch", "retail")
    (label,) = read(tmp_path, "labels")
    assert (label[logged.ID], label[logged.LABEL]) == ("p0", 1)


def test_importing_it_loads_no_library_that_a_model_server_does_not_need() -> None:
    heavy = "{'pydantic', 'pyarrow', 'airflow', 'numpy'}"
    code = f"import sys, airlock.record; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_an_id_each_prediction_gets_its_own_by_which_its_outcome_finds_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, version="1")
    names = [recorder.record({"income": 1.0}) for _ in range(50)]
    recorder.label(names[7], "repaid")
    assert recorder.close(20)

    assert len(set(names)) == 50
    assert [row[logged.ID] for row in read(tmp_path)] == names
    assert [row[logged.ID] for row in read(tmp_path, "labels")] == [names[7]]


def test_changing_the_features_afterwards_changes_nothing_that_was_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, flush_seconds=60)
    features = {"income": 1.0}
    recorder.record(features)
    features["income"] = 2.0
    assert recorder.close(20)
    assert [row["income"] for row in read(tmp_path)] == [1.0]


class Hostile:
    """Raises whatever is done with it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __hash__ = __eq__ = __float__ = __str__  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (10**400, "inf"),
        (-(10**30), "-1e+30"),
        (True, "True"),
        (None, "None"),
        ("\ud800 lone", "? lone"),
        ("x" * 10**6, "x" * MAX_TEXT),
        ("", ""),
        ("\x00", "\x00"),
        (b"\xff\xfe", "��"),
        (np.float32(1.5), "1.5"),
        (np.int64(7), "7"),
        (np.array([3.0]), "3.0"),
        (np.zeros(1000), "<ndarray>"),
        ([1] * 10**6, "<list>"),
        ({"a": 1}, "<dict>"),
        (2**63, "9.223372036854776e+18"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_hostile_values_are_kept_as_something_parquet_has_and_never_raise(
    tmp_path: Path, value: object, kept: str
) -> None:
    recorder = Recorder(tmp_path)
    recorder.record({"odd": value, "income": 1.0})
    recorder.record({"odd": value, "income": 2.0}, attributes={"more": value})
    assert recorder.close(20)
    assert recorder.lost == 0
    assert [str(row["odd"]) for row in read(tmp_path)] == [kept, kept]


def test_what_cannot_be_kept_at_all_is_dropped_alone_and_counted(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, flush_seconds=60)
    assert recorder.record({"income": Hostile()})
    assert recorder.record({"income": 1.0}, score=Hostile())  # type: ignore[arg-type]
    assert recorder.record(None)  # type: ignore[arg-type]
    assert recorder.record({f"f{i}": 1 for i in range(MAX_VALUES + 1)})
    recorder.label("p", Hostile())
    assert recorder.record({"income": 1.0}, caller=Hostile())  # type: ignore[arg-type]
    assert recorder.record({"income": 7.0})
    assert recorder.close(20)

    assert [row["income"] for row in read(tmp_path)] == [7.0]
    assert recorder.lost == 6
    (file,) = (tmp_path / "predictions").rglob("part-*.parquet")
    assert pq.read_metadata(file).metadata[logged.LOST] == b"6"


@pytest.mark.parametrize("when", [-1, 2**62, 10**30, float("nan"), "soon", None])
def test_a_time_no_calendar_has_does_not_take_other_rows_along(tmp_path: Path, when: Any) -> None:
    recorder = Recorder(tmp_path)
    recorder.record({"income": 1.0}, time_us=when)
    recorder.record({"income": 2.0})
    assert recorder.close(20)
    assert 2.0 in [row["income"] for row in read(tmp_path)]


def test_columns_of_mixed_types_become_texts_and_lose_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, flush_seconds=60)
    for value in (1, 2.5, "three", None):
        recorder.record({"mixed": value})
    recorder.record({"other": 1})
    assert recorder.close(20)
    assert [row["mixed"] for row in read(tmp_path)] == ["1", "2.5", "three", None, None]


def test_a_feature_cannot_take_the_place_of_what_airlock_records(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, version="9")
    recorder.record({logged.VERSION: "forged", "income": 1.0})
    assert recorder.close(20)
    assert [row[logged.VERSION] for row in read(tmp_path)] == ["9"]


def test_a_full_disk_drops_and_counts_and_the_next_file_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True

    def fsync(descriptor: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(record, "_RETRY_SECONDS", (0.01,))
    recorder = Recorder(tmp_path, flush_seconds=0.01, queue_rows=10)
    for i in range(25):
        recorder.record({"income": float(i)})
    assert not recorder.flush(5)
    assert not list(tmp_path.rglob("*.parquet")), "nothing half written is left behind"
    assert recorder.lost == 15

    full = False
    assert recorder.close(20)
    assert [row["income"] for row in read(tmp_path)] == [float(i) for i in range(10)]
    (file,) = (tmp_path / "predictions").rglob("part-*.parquet")
    assert pq.read_metadata(file).metadata[logged.LOST] == b"15"


def test_a_folder_nobody_may_write_to_never_raises_into_the_server(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    recorder = Recorder(blocked / "log", flush_seconds=0.01, queue_rows=5)
    for _ in range(20):
        assert recorder.record({"income": 1.0})
    assert not recorder.close(1)
    assert recorder.lost == 15


def test_many_threads_record_and_every_row_is_there_once(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, flush_seconds=0.01, batch_rows=100)

    def work(start: int) -> None:
        for i in range(start, start + 500):
            recorder.record({"income": float(i)})

    threads = [threading.Thread(target=work, args=(n * 500,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.close(20)
    rows = read(tmp_path)
    assert sorted(row["income"] for row in rows) == [float(i) for i in range(3000)]
    assert len({row[logged.ID] for row in rows}) == 3000


def _script(folder: Path, body: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(
        f"""
        import os, sys, time
        from airlock.record import Recorder
        recorder = Recorder({str(folder)!r}, version="1", flush_seconds=0.05)
        """
    ) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_at_exit_what_waits_is_written(tmp_path: Path) -> None:
    with _script(tmp_path, "recorder._flush_seconds = 600\nrecorder.record({'income': 1.0})") as process:
        assert process.wait(60) == 0
    assert len(read(tmp_path)) == 1


def test_a_forked_worker_records_for_itself_and_repeats_nothing_of_its_parent(tmp_path: Path) -> None:
    body = """
        recorder._flush_seconds = 600
        recorder.record({'income': 1.0})
        if os.fork() == 0:
            recorder.record({'income': 2.0})
            os._exit(0 if recorder.close(20) else 1)
        assert os.wait()[1] == 0
        """
    with _script(tmp_path, body) as process:
        assert process.wait(60) == 0
    rows = read(tmp_path)
    assert sorted(row["income"] for row in rows) == [1.0, 2.0]
    assert len({row[logged.ID] for row in rows}) == 2


def test_after_a_kill_every_file_is_whole_and_holds_all_that_was_flushed(tmp_path: Path) -> None:
    body = """
        for i in range(1000):
            recorder.record({'income': float(i)})
        assert recorder.flush(20)
        print("flushed", flush=True)
        while True:
            recorder.record({'income': -1.0})
            time.sleep(0.0001)
        """
    with _script(tmp_path, body) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed\n"
        threading.Event().wait(0.3)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    incomes = [row["income"] for row in read(tmp_path)]
    assert [income for income in incomes if income >= 0] == [float(i) for i in range(1000)]


def test_half_written_files_of_killed_processes_go_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "predictions" / "day=2026-03-02"
    folder.mkdir(parents=True)
    old, young = folder / ".writing-old.parquet", folder / ".writing-young.parquet"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    write_log(tmp_path, rows_of_week(1))
    assert not old.exists()
    assert young.exists()
