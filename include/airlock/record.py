"""Records what a model does in production, from inside the serving process.

    from airlock.record import Recorder

    recorder = Recorder("/data/loanapp/production", version="7", policy="1.0.0")
    prediction = recorder.record(features, score=0.83, decision=1, latency_ms=4.1, caller="branch-app")
    ...
    recorder.label(prediction, 0)       # the outcome, months later, from any process

``record`` takes microseconds: it puts a row into a bounded queue. A thread of its own writes Parquet files in
the layout that monitoring reads (``airlock.core.production``). When the disk is full or slow the queue fills
up, and from then on rows are dropped and counted, in ``lost`` and in the next file that can be written.
Nothing here ever raises into the code that serves; only ``flush`` and ``close`` wait, for as long as they are
told.
What the process holds when it is killed is lost: at most what came in ``flush_seconds``.

Importing this needs the standard library alone; PyArrow is imported by the thread.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  # PyArrow needs it, and it cannot be imported at exit any more
import hashlib
import json
import logging
import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Final

from airlock.core import logged

log = logging.getLogger(__name__)

MAX_TEXT: Final = 4096
"""Characters of a value; longer ones are cut, because a queue of them would eat the server's memory."""

MAX_VALUES: Final = 5000
"""Values of one prediction; a row with more is dropped."""

_EXACT: Final = frozenset({int, float, bool, type(None)})
_RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
_STALE_SECONDS: Final = 86_400
_WRITING: Final = ".writing-"
_INT64: Final = 2**63


class Recorder:
    """Writes one model's predictions and outcomes to a folder; safe from several threads and after a fork.

    Args:
        folder: where; several processes and machines may share it.
        version: the version that serves, unless a call says otherwise.
        policy: version of the policy it was released under.
        flush_seconds: how long a row waits at most before it is written.
        batch_rows: rows that are written at once, even before that.
        queue_rows: rows that may wait; more are dropped and counted.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        version: str = "",
        policy: str = "",
        flush_seconds: float = 30.0,
        batch_rows: int = 20_000,
        queue_rows: int = 100_000,
    ) -> None:
        self._folder = Path(folder)
        self._version, self._policy = str(version), str(policy)
        self._flush_seconds, self._batch_rows, self._queue_rows = flush_seconds, batch_rows, queue_rows
        self._begin()
        me = weakref.ref(self)
        atexit.register(_call, me, "close")
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: _call(me, "_begin"))

    def _begin(self) -> None:
        """An empty queue and a name of its own, now and in each forked child."""
        self._queue: deque[tuple[Any, ...]] = deque()
        self._held: list[tuple[Any, ...]] = []
        self._lost, self._told, self._written = 0, 0, 0
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._asked, self._done = 0, 0
        self._flushed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._name = secrets.token_hex(8)
        self._numbers, self._parts = count(), count()
        self._failures = 0

    @property
    def lost(self) -> int:
        """Rows that were dropped since the process began."""
        return self._lost

    @property
    def written(self) -> int:
        """Rows that are on the disk."""
        return self._written

    def record(
        self,
        features: Mapping[str, object],
        *,
        score: float | None = None,
        decision: object = None,
        latency_ms: float | None = None,
        cost_usd: float | None = None,
        caller: str = "",
        unit: str = "",
        attributes: Mapping[str, object] | None = None,
        prediction_id: str = "",
        version: str = "",
        time_us: int | None = None,
    ) -> str:
        """Record a prediction and return its id; never raises, never waits.

        Args:
            features: what the model was given, by name.
            score: probability of the favourable outcome, or the number a regression predicts.
            decision: what was decided: 0 or 1, or the class.
            latency_ms: how long it took.
            cost_usd: what it cost.
            caller: who asked, such as an application.
            unit: business unit that pays.
            attributes: what is no feature and monitoring needs: protected attributes, segments, revenue.
            prediction_id: an id of yours; made up where there is none.
            version: the version that answered, where it is not the recorder's.
            time_us: when, in microseconds since 1970 UTC; now where it is left out.
        """
        try:
            name = prediction_id or f"{self._name}-{next(self._numbers):x}"
        except Exception:  # noqa: BLE001  # whatever a caller hands over, serving goes on
            return ""
        try:
            if len(features) > MAX_VALUES:
                raise ValueError  # noqa: TRY301  # counted below, like everything that cannot be kept
            values = _copied(features)
            extra = _copied(attributes) if attributes else None
            when = time.time_ns() // 1000 if time_us is None else time_us
            facts = (
                when,
                name,
                version or self._version,
                score,
                decision,
                latency_ms,
                cost_usd,
                caller,
                unit,
            )
            self._put((values, extra, facts))
        except Exception:  # noqa: BLE001  # same
            self._drop(1)
        return name

    def label(self, prediction_id: str, value: object, *, time_us: int | None = None) -> None:
        """Record the outcome of an earlier prediction; never raises, never waits."""
        try:
            when = time.time_ns() // 1000 if time_us is None else time_us
            kept = value if type(value) in _EXACT else _plain(value)
            self._put((None, None, (when, prediction_id, kept)))
        except Exception:  # noqa: BLE001  # same
            self._drop(1)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until everything recorded so far is on the disk; whether that came true in time."""
        with self._flushed:
            self._asked += 1
            wanted = self._asked
        if self._thread is None and not self._queue and not self._held:
            return True
        self._start()
        self._wake.set()
        with self._flushed:
            return self._flushed.wait_for(lambda: self._done >= wanted, timeout) and not self._held

    def close(self, timeout: float = 5.0) -> bool:
        """Write what waits and stop; whether everything was written in time. Safe to repeat."""
        self._stop.set()
        if self._thread is None:
            if not self._queue:
                return True
            self._start()
        self._wake.set()
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return not self._queue and not self._held

    def _put(self, row: tuple[Any, ...]) -> None:
        queue = self._queue
        waiting = len(queue)
        if waiting + len(self._held) >= self._queue_rows:
            self._drop(1)
            return
        queue.append(row)
        if self._thread is None:
            self._start()
        if waiting + 1 == self._batch_rows:
            self._wake.set()

    def _drop(self, rows: int) -> None:
        with self._lock:
            self._lost += rows

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="airlock-record", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        _remove_stale(self._folder)
        pause = self._flush_seconds
        while True:
            self._wake.wait(0 if self._stop.is_set() else pause)
            self._wake.clear()
            stopping = self._stop.is_set()
            with self._flushed:
                wanted = self._asked
            try:
                self._drain()
                self._failures = 0
            except Exception as error:  # noqa: BLE001  # the thread must live as long as the server
                self._failures += 1
                if self._failures in (1, 10) or self._failures % 100 == 0:
                    log.warning("Predictions cannot be recorded (%s rows wait): %s", len(self._held), error)
            with self._flushed:
                self._done = wanted
                self._flushed.notify_all()
            if stopping:
                return
            pause = self._flush_seconds
            if self._failures:
                pause = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS)) - 1]

    def _drain(self) -> None:
        """Write everything that waits, batch by batch; what could not be written is held."""
        while self._held or self._queue:
            rows = self._held
            while self._queue and len(rows) < self._batch_rows:
                rows.append(self._queue.popleft())
            self._held = rows
            for group in _grouped(rows):
                self._write(*group)
                done = {id(row) for row in group[2]}
                self._held = [row for row in self._held if id(row) not in done]

    def _write(self, kind: str, day: str, rows: list[tuple[Any, ...]]) -> None:
        lost = self._lost
        make = _predictions if kind == logged.PREDICTIONS else _labels
        columns, bad = make(rows, self._policy)
        if bad:
            self._drop(bad)
        kept = len(rows) - bad
        if kept:
            folder = self._folder / kind / f"day={day}"
            name = f"part-{time.time_ns()}-{self._name}-{next(self._parts)}.parquet"
            _write_part(folder, name, columns, lost - self._told + bad)
            self._written += kept
            self._told = lost + bad


def _call(reference: weakref.ref[Recorder], method: str) -> None:
    recorder = reference()
    if recorder is not None:
        getattr(recorder, method)()


def _copied(values: Mapping[str, object]) -> dict[str, object]:
    """A copy that nobody can change any more, of plain and short values."""
    return {name: value if type(value) in _EXACT else _plain(value) for name, value in values.items()}


def _plain(value: object) -> object:
    """A value that Parquet has a type for; of anything else its text, cut.

    ``item`` is how NumPy's numbers become Python's.
    """
    if isinstance(value, str):
        return str(value[:MAX_TEXT])
    if type(value) in _EXACT:
        return value
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        return _plain(value.item())
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[:MAX_TEXT]).decode("utf-8", "replace")
    if isinstance(value, Iterable):  # the text of a long one would take as long as it is
        return f"<{type(value).__name__}>"
    return str(value)[:MAX_TEXT]


def _grouped(rows: list[tuple[Any, ...]]) -> list[tuple[str, str, list[tuple[Any, ...]]]]:
    """Rows by folder and day; a time no calendar has goes to 1970, where monitoring sees a wrong clock."""
    groups: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for row in rows:
        kind = logged.LABELS if row[0] is None else logged.PREDICTIONS
        groups.setdefault((kind, _day(row[2][0])), []).append(row)
    return [(kind, day, members) for (kind, day), members in groups.items()]


def _day(when: Any) -> str:
    try:
        return datetime.fromtimestamp(when / 1_000_000, UTC).date().isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return "1970-01-01"


def input_hash(features: Mapping[str, object]) -> str:
    """SHA-256 of features as JSON: keys sorted, no spaces, numbers as Python writes them."""
    text = json.dumps(features, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _predictions(rows: list[tuple[Any, ...]], policy: str) -> tuple[dict[str, list[Any]], int]:
    """Columns of predictions, and how many rows could not be understood."""
    columns: dict[str, list[Any]] = {name: [] for name in logged.PREDICTION_COLUMNS}
    kept: list[dict[str, Any]] = []
    facts: list[Any]
    for values, extra, (when, name, version, score, decision, latency, cost, caller, unit) in rows:
        try:
            facts = [_time(when), str(name), str(version), policy, input_hash(values), _number(score)]
            facts += [_plain(decision), _number(latency), _number(cost)]
            row = [*facts, str(caller)[:200], str(unit)[:200]]
        except Exception:  # noqa: BLE001, S112  # one row nobody can understand must not take the others along
            continue  # counted, and told in the file
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
        kept.append({**(extra or {}), **values})
    for name in dict.fromkeys(str(name) for values in kept for name in values):
        if name not in columns:
            columns[name] = [values.get(name) for values in kept]
    return columns, len(rows) - len(kept)


def _labels(rows: list[tuple[Any, ...]], _policy: str) -> tuple[dict[str, list[Any]], int]:
    facts = [row[2] for row in rows]
    columns = {
        logged.ID: [str(name) for _, name, _ in facts],
        logged.LABEL: [value for _, _, value in facts],
        logged.LABELLED: [_time(when) for when, _, _ in facts],
    }
    return columns, 0


def _time(when: Any) -> int:
    return int(when) if isinstance(when, int | float) and abs(when) < 2**62 else 0


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _write_part(folder: Path, name: str, columns: dict[str, list[Any]], lost: int) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    moments = (logged.TIME, logged.LABELLED)
    arrays = {
        column: pa.array(values, pa.timestamp("us", tz="UTC")) if column in moments else _array(values)
        for column, values in columns.items()
    }
    table = pa.table(arrays).replace_schema_metadata({logged.LOST: str(lost).encode()})
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{_WRITING}{name}"
    try:
        with temporary.open("wb") as stream:
            pq.write_table(table, stream, compression="zstd", compression_level=1)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(folder / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _array(values: list[Any]) -> Any:
    """A column of one type: booleans, whole numbers, numbers, else texts."""
    import pyarrow as pa

    types = {type(value) for value in values} - {type(None)}
    if not types:
        return pa.nulls(len(values), pa.string())
    if types == {bool}:
        return pa.array(values, pa.bool_())
    if types == {int} and all(value is None or -_INT64 <= value < _INT64 for value in values):
        return pa.array(values, pa.int64())
    if types <= {int, float}:
        return pa.array([None if value is None else _float(value) for value in values], pa.float64())
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode("utf-8")


def _remove_stale(folder: Path) -> None:
    """Take away what killed processes left half written, a day later."""
    try:
        for path in folder.glob(f"*/day=*/{_WRITING}*"):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
    except OSError:
        return
