"""The audit log under load: appends, integration, verification, proofs and size.

    python -m benchmarks.audit_log            all of it, about five minutes
    python -m benchmarks.audit_log --events 100000

Peers: pgbench inserting rows of the same size into a table of nothing else, with as many clients and the
same flush; hashing the same bytes alone, on one core and on all, with ``hashlib`` in a loop; checking the
signatures of checkpoints alone. Beside rates stands the processor time that each side took for one event,
clients and server together: unlike the rate it hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from tests.support.private_postgres import PrivatePostgres, private_postgres

from airlock.adapters.audit import Database, Log, SigningKey, SqlAuditStore
from airlock.adapters.audit.columns import NAMES, body_of, values_of
from airlock.adapters.audit.log import BATCH, Sign
from airlock.adapters.audit.schema import TABLES
from airlock.adapters.system import SystemClock
from airlock.core.audit import Event, Kind
from airlock.core.merkle import Tree, root_of
from airlock.proof import Checkpoint, hash_leaf
from airlock.services.sequence import STEP_SECONDS
from airlock.services.verify import verify

WRITERS = 16
SECONDS = 8
RATE = 2500
MOST = 1000
"""Appends a second that one writer is ready for."""

FORK = multiprocessing.get_context("fork")


def make_event(number: int) -> Event:
    """An outcome of a task, the event a release writes most of."""
    run = f"manual__2026-01-01T00:00:00.{number // 40:06d}+00:00"
    return Event(
        key=f"local/task/release__mortgage-approval/{run}/gates.performance/-1/1/outcome/{number}",
        kind=Kind.TASK_OUTCOME,
        occurred_us=1_767_225_600_000_000 + number,
        actor="system",
        deployment="local",
        release_id=f"mortgage-approval-v2-{number // 40:08x}",
        workload=f"workload-{number // 40 % 20}",
        version=str(number // 4000),
        data={
            "dag_id": "release__mortgage-approval",
            "run_id": run,
            "task_id": "gates.performance",
            "map_index": -1,
            "try_number": 1,
            "state": "success",
            "source": "operator",
            "error": "",
        },
    )


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of all do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _write(url: str, number: int, plan: tuple[float, float], start: Any, results: Any) -> None:
    # What is appended is made, and the connection is there, before the clock starts: pgbench does the same.
    store = SqlAuditStore(url, SystemClock())
    seconds, rate = plan
    events = [make_event(number + place) for place in range(int(seconds * (rate or MOST)))]
    store.append(make_event(number - 1))
    latencies = []
    start.wait()
    spent = time.process_time()
    until = time.perf_counter() + seconds
    for event in events:
        if (now := time.perf_counter()) > until:
            break
        store.append(event)
        done = time.perf_counter()
        latencies.append(done - now)
        if rate:
            time.sleep(max(0.0, 1 / rate - (done - now)))
    results.put((latencies, time.process_time() - spent))


def load(url: str, *, seconds: float, rate: float = 0) -> tuple[list[float], float]:
    """Latencies of appends of 16 processes, in seconds, and the processor time they took together.

    ``rate`` is events a second of all together.
    """
    results, start = FORK.Queue(), FORK.Barrier(WRITERS)
    plan = seconds, rate / WRITERS
    arguments = [(url, writer * 10_000_000 + 1, plan, start, results) for writer in range(WRITERS)]
    writers = [FORK.Process(target=_write, args=one) for one in arguments]
    for one in writers:
        one.start()
    found = [results.get() for _ in writers]
    for one in writers:
        one.join()
    return [value for latencies, _ in found for value in latencies], sum(spent for _, spent in found)


class Integrator:
    """A sequencer's steps in a process of its own, without anchors."""

    def __init__(self, url: str) -> None:
        self._stop = FORK.Event()
        self._process = FORK.Process(target=self._run, args=(url,))
        self._process.start()

    def _run(self, url: str) -> None:
        log = Log(Database(url))
        sign = signer(SigningKey.generate("benchmark"))
        tree = log.tree()
        while not self._stop.is_set():
            tree = _step(log, tree, sign)

    def stop(self) -> float:
        """End after the step under way; the processor time it took."""
        spent = psutil.Process(self._process.pid).cpu_times()
        self._stop.set()
        self._process.join()
        return float(spent.user + spent.system)


def _step(log: Log, tree: Tree, sign: Sign) -> Tree:
    """One step at the sequencer's pace."""
    next_at = time.monotonic() + STEP_SECONDS
    done = log.integrate(tree, sign) if log.has_waiting() else None
    if done is None or done[0].size - tree.size < BATCH:
        time.sleep(max(0.0, next_at - time.monotonic()))
    return tree if done is None else done[0]


def signer(key: SigningKey) -> Sign:
    """Signs checkpoints with the time of this moment."""
    return lambda size, root: key.sign_checkpoint(size, root, seconds=int(time.time()))


def pgbench(server: PrivatePostgres, script: str) -> tuple[float, float]:
    """Transactions a second of 16 clients that repeat a script, and microseconds of processor for each."""
    children = resource.RUSAGE_CHILDREN
    before = server.processor_seconds() + sum(resource.getrusage(children)[:2])
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        Path(file.name).chmod(0o644)
        options = f"-n -M prepared -c {WRITERS} -j 2 -T {SECONDS} -f {file.name} postgres"
        printed = server.run("pgbench", *options.split())
    line = next(line for line in printed.splitlines() if line.startswith("tps"))
    rate = float(line.split()[2])
    spent = server.processor_seconds() + sum(resource.getrusage(children)[:2]) - before
    return rate, spent / (rate * SECONDS) * 1e6


def appends(server: PrivatePostgres) -> None:
    """Durable appends with 16 processes and a sequencer at work, against pgbench."""
    body = make_event(1).to_bytes().decode()
    table = "CREATE TABLE plain (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body TEXT NOT NULL)"
    Database(server.url).write(lambda connection: connection.exec_driver_sql(table))
    plain, plain_us = pgbench(server, f"INSERT INTO plain (body) VALUES ('{body}');\n")  # noqa: S608
    texts = [f"'{value}'" if isinstance(value, str) else str(value) for value in values_of(make_event(1))]
    drawn = ", ".join(texts).replace("/outcome/1'", "/outcome/' || :n")
    draw = "\\set n random(1, 1000000000000000)\n"
    same, same_us = pgbench(server, f"{draw}INSERT INTO event ({NAMES}) VALUES ({drawn});\n")  # noqa: S608
    before = server.processor_seconds()
    integrator = Integrator(server.url)
    latencies, spent = load(server.url, seconds=SECONDS)
    spent += integrator.stop() + server.processor_seconds() - before
    rate, spent_us = len(latencies) / SECONDS, spent / len(latencies) * 1e6
    late = percentile(latencies, 0.99) * 1000
    print(f"event of {len(body)} bytes, {WRITERS} writers, flush of 1 ms")
    print(
        f"  durable appends, sequencer running   {rate:8,.0f} /s, {spent_us:4.0f} us each, p99 {late:.1f} ms"
    )
    for table, peer, peer_us in (("the event table", same, same_us), ("a plain table", plain, plain_us)):
        ratio = f"appends {rate / peer:.2f} x"
        print(f"  pgbench, INSERT into {table:15} {peer:8,.0f} /s, {peer_us:4.0f} us each, {ratio}")


def delays(server: PrivatePostgres) -> None:
    """From the receipt of an event to the commit of its checkpoint, at a steady rate."""
    log = Log(Database(server.url))
    sign = signer(SigningKey.generate("benchmark"))
    tree, steps = log.tree(), []
    loader = threading.Thread(target=load, args=(server.url,), kwargs={"seconds": SECONDS, "rate": RATE})
    loader.start()
    while log.has_waiting() or loader.is_alive():
        next_at = time.monotonic() + STEP_SECONDS
        if (done := log.integrate(tree, sign)) is not None:
            steps.append((tree.size, done[0].size, time.time_ns() // 1000))
            tree = done[0]
        time.sleep(max(0.0, next_at - time.monotonic()))
    loader.join()
    found = []
    for first, last, committed in steps:
        for seq in range(first, last, 7):
            received = json.loads(log.entry(seq).body)["received_us"]
            found.append((committed - received) / 1e6)
    print(
        f"integration at {tree.size / SECONDS:,.0f} /s: p50 {percentile(found, 0.5):.3f} s, "
        f"p99 {percentile(found, 0.99):.3f} s"
    )


def fill(url: str, count: int, key: SigningKey) -> None:
    """Put events into the log, by bulk."""
    log = Log(Database(url))
    with log.database.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        with raw.cursor() as cursor, cursor.copy(f"COPY event ({NAMES}) FROM STDIN") as copy:
            for number in range(count):
                event = make_event(number).model_copy(update={"received_us": 1_767_225_600_000_000 + number})
                copy.write_row(values_of(event))
        raw.commit()
        raw.autocommit = True
        raw.execute("VACUUM ANALYZE")
        raw.autocommit = False
    tree = log.tree()
    # Signed at the time that the events claim, as in a log that grew by itself.
    now = 1_767_225_600 + count // 1_000_000
    while (
        done := log.integrate(tree, lambda size, root: key.sign_checkpoint(size, root, seconds=now))
    ) is not None:
        tree = done[0]


def whole(server: PrivatePostgres, count: int) -> None:
    """Size, verification and proofs of a whole log."""
    key = SigningKey.generate("benchmark")
    fill(server.url, count, key)
    database = Database(server.url)
    names = "unnest(CAST(%s AS text[])) AS name"
    question = f"SELECT sum(pg_total_relation_size(quote_ident(name)::regclass)) FROM {names}"  # noqa: S608
    size = database.read(lambda connection: connection.exec_driver_sql(question, (list(TABLES),)).scalar())
    print(f"{count:,} events: {float(size) / 1e9:.2f} GB with indexes, {float(size) / count:.0f} bytes each")
    rows = f"SELECT {NAMES} FROM event ORDER BY ingest_id"  # noqa: S608
    bodies = [body_of(row) for row in database.read(lambda c: c.exec_driver_sql(rows).all())]
    leaves, hashes = hashing(bodies, 1)
    both, _ = hashing(bodies, os.cpu_count() or 1)
    start = time.perf_counter()
    root_of(hashes)
    tree = leaves + time.perf_counter() - start
    del bodies, hashes
    start = time.perf_counter()
    found = verify(database, key.public, [])
    seconds = time.perf_counter() - start
    assert found.suspects == []
    print(f"verify {count:,} events on {os.cpu_count()} cores: {seconds:.2f} s")
    print(f"  hashing the bytes alone, all cores    {both:.2f} s, ratio {seconds / both:.2f}")
    print(f"  hashing the bytes alone, one core     {leaves:.2f} s, ratio {seconds / leaves:.2f}")
    print(f"  hashing bytes and tree, one core      {tree:.2f} s, ratio {seconds / tree:.2f}")
    read = reading(server, count, os.cpu_count() or 1)
    print(f"  reading the bytes alone, all cores    {read:.2f} s, ratio {seconds / read:.2f}")
    proofs(Log(database), count)


def hashing(bodies: list[bytes], processes: int) -> tuple[float, list[bytes]]:
    """Seconds until all leaf hashes are computed, each process taking its part; those of this process."""
    sha256, start = hashlib.sha256, FORK.Barrier(processes)

    def work(part: int) -> list[bytes]:
        start.wait()
        return [sha256(b"\x00" + body).digest() for body in bodies[part::processes]]

    others = [FORK.Process(target=work, args=(part,)) for part in range(1, processes)]
    for one in others:
        one.start()
    start.wait()
    began = time.perf_counter()
    hashes = [sha256(b"\x00" + body).digest() for body in bodies[::processes]]
    for one in others:
        one.join()
    return time.perf_counter() - began, hashes


def reading(server: PrivatePostgres, count: int, processes: int) -> float:
    """Seconds until psql has copied all events out of PostgreSQL and thrown them away: nobody reads faster.

    Each process takes its part, in the binary form, which PostgreSQL writes with the least work.
    """
    share = -(-count // processes)
    copies = [
        f"COPY (SELECT {NAMES} FROM event WHERE ingest_id > {first} AND ingest_id <= {first + share}) "  # noqa: S608
        "TO STDOUT (FORMAT binary)"
        for first in range(0, count, share)
    ]
    start = time.perf_counter()
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda copy: server.run("psql", "-qo", "/dev/null", "-c", copy, "postgres"), copies))
    return time.perf_counter() - start


def checkpoints(server: PrivatePostgres, count: int) -> None:
    """Verification of a log that was signed after each event, as one that grows slowly is."""
    key, tree = SigningKey.generate("benchmark"), Tree()
    database = Database(server.url)
    events, notes, tiles = [], [], []
    for number in range(count):
        event = make_event(number).model_copy(update={"received_us": 1_767_225_600_000_000 + number})
        events.append(values_of(event))
        tiles += tree.extend([hash_leaf(event.to_bytes())])
        notes.append((tree.size, tree.root, key.sign_checkpoint(tree.size, tree.root, seconds=1_767_225_600)))
    rows = {
        f"event ({NAMES})": events,
        "leaf (seq, ingest_id)": [(number, number + 1) for number in range(count)],
        "tile (level, idx, root, data)": [(one.level, one.index, one.root, one.hashes) for one in tiles],
        "checkpoint (tree_size, root, note)": notes,
    }
    with database.engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        for table, values in rows.items():
            with raw.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
                for row in values:
                    copy.write_row(row)
        raw.execute("DELETE FROM pending")
        raw.commit()
    some = [note for _, _, note in notes[:: max(1, count // 2000)]]
    start = time.perf_counter()
    for note in some:
        signed = Checkpoint.parse(note).note
        assert signed.signed_by(key.public)
        assert signed.signed_at(key.public) is not None
    floor = (time.perf_counter() - start) * count / len(some)
    start = time.perf_counter()
    found = verify(database, key.public, [])
    seconds = time.perf_counter() - start
    assert (found.suspects, found.checkpoints) == ([], count)
    print(f"verify {count:,} events with {count:,} checkpoints on {os.cpu_count()} cores: {seconds:.2f} s")
    print(f"  the signatures alone, one core        {floor:.2f} s, ratio {seconds / floor:.2f}")


def proofs(log: Log, count: int) -> None:
    """Time to build and to verify inclusion proofs, all over the log."""
    built, checked = [], []
    for number in range(500):
        seq = number * 7919 % count
        entry = log.entry(seq)
        start = time.perf_counter()
        proof = log.prove(seq)
        built.append((time.perf_counter() - start) * 1000)
        start = time.perf_counter()
        proof.verify(entry.body)
        checked.append((time.perf_counter() - start) * 1000)
    for what, values in (("built", built), ("verified", checked)):
        print(
            f"inclusion proof {what}: {percentile(values, 0.5):.3f} ms, p99 {percentile(values, 0.99):.3f} ms"
        )


def sqlite() -> None:
    """The longest wait of 16 writers of one SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/audit.db"
        Database(url).migrate()
        latencies, _ = load(url, seconds=SECONDS)
    print(
        f"SQLite, {WRITERS} writers: {len(latencies) / SECONDS:,.0f} /s, "
        f"p99 {percentile(latencies, 0.99):.3f} s, longest wait {max(latencies):.3f} s"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["appends", "delays", "whole", "checkpoints", "sqlite"])
    arguments = parser.parse_args()
    on_postgresql: dict[str, Callable[[PrivatePostgres], None]] = {
        "appends": appends,
        "delays": delays,
        "whole": lambda server: whole(server, arguments.events),
        "checkpoints": lambda server: checkpoints(server, max(1, arguments.events // 8)),
    }
    for name, measure in on_postgresql.items():
        if arguments.only in (None, name):
            with private_postgres() as server:
                Database(server.url).migrate()
                measure(server)
    if arguments.only in (None, "sqlite"):
        sqlite()
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(one).ru_maxrss for one in who) / 1024
    print(f"peak memory of the largest process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
