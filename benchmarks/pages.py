"""Server time and size of the pages: the review page with 10,000 releases, the dashboard with 100,000.

    python -m benchmarks.pages                                  a few minutes
    python -m benchmarks.pages --releases 1000 --dashboard 5000

The store is filled in bulk and integrated into the signed log; the reviewed releases have gone through the
services, with as much evidence as the demo's. Releases beyond ``--releases`` are folded into the overview
alone, as catching up with the log would do it. Times are those of whole requests through the application,
by the clock and in CPU, against an error page of the same application: what routing and rendering cost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from tests.support.deployments import (
    CHANGES,
    START_US,
    WORKLOAD,
    World,
    make_world,
    policy_data,
    shipped_gates,
    workload_data,
    write_yaml,
)
from tests.unit.test_web import FakeManager, User

from airlock.adapters.audit.columns import COLUMNS, NAMES, values_of
from airlock.core.audit import Event, Kind
from airlock.core.canonical import canonical_json, digest_of
from airlock.core.evidence import SCORE, GateResult, Metric, Verdict
from airlock.services.decide import decide
from airlock.services.deployment import anchors_of
from airlock.services.evaluate import keep_evidence
from airlock.services.overview import open_overview
from airlock.services.releases import open_case
from airlock.services.sequence import Sequencer
from airlock.web import access
from airlock.web.app import create_app

DAY_US = 86_400_000_000
GATES = sorted(shipped_gates())
NUMBERS = {"bias": 190, "drift": 90, "performance": 45, "privacy": 12, "leakage": 20, "data_quality": 16}
"""Metrics of the demo's gates; the others have about six."""
TRACKS = ("green", "green", "yellow", "red")
SEATS = {"green": [], "yellow": ["ml-platform-engineer"], "red": ["governance-analyst", "risk-officer"]}
PART = 5000
INSERT = f"INSERT INTO event ({NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608  # ours
LIMIT_REVIEW, LIMIT_DASHBOARD, LIMIT_BYTES = 150.0, 300.0, 100_000


def body(kind: Kind, number: int, us: int, **changes: Any) -> dict[str, Any]:
    said = changes.get("data", {})
    key = f"test/bulk/{kind}/{number}/{us}/{said.get('gate', '')}{said.get('seat', '')}"
    return {
        "schema_version": 1, "key": key, "kind": str(kind), "actor": "system", "occurred_us": us,
        "received_us": us, "deployment": "test", "release_id": "", "workload": "", "version": "", "data": {},
        **changes,
    }  # fmt: skip


def release(number: int, of_all: int, workloads: int) -> Iterator[dict[str, Any]]:
    """What a release of the past leaves in the log; the newest few of each hundred still wait."""
    us = START_US - int((of_all - number) / of_all * 1000 * DAY_US) - DAY_US // 2
    workload = WORKLOAD if number % 10 == 0 else f"workload-{number % workloads:03d}"
    track = TRACKS[number % 4]
    of = {"release_id": f"bulk-{number:06d}", "workload": workload, "version": str(number // workloads + 1)}
    who = f"scientist-{number % 40}"
    submitted = {
        "context": {"sealed": digest_of(number)},
        "batch": "clean",
        "run_id": f"r{number}",
        "dag_id": f"release__{workload}",
    }
    yield body(Kind.RELEASE_SUBMITTED, number, us, actor=who, data=submitted, **of)
    denied = number % 7 == 0
    for place, gate in enumerate([*GATES, SCORE]):
        said = {
            "gate": gate, "verdict": "FAILED" if denied and place == number % len(GATES) else "PASSED",
            "summary": "as before", "seconds": 1.5, "evidence": digest_of([gate, number % 50]),
        }  # fmt: skip
        yield body(Kind.GATE_EVALUATED, number, us + 1000 + place, data=said, **of)
    seats = [] if denied else SEATS[track]
    decided = {
        "decision": digest_of([number]), "outcome": "DENY" if denied else "PENDING" if seats else "ALLOW",
        "track": track, "tier": "low", "sentence": "performance changes by 1.0 %", "seats": seats,
        "expires_hours": 72, "denied_by": [f"gate-{GATES[number % len(GATES)]}"] if denied else [],
    }  # fmt: skip
    yield body(Kind.RELEASE_DECIDED, number, us + 60_000_000, data=decided, **of)
    if seats and us > START_US - DAY_US and number % 2:
        return
    for seat, role in enumerate(seats):
        given = {
            "seat": seat,
            "role": role,
            "choice": "approve",
            "comment": {"sealed": digest_of([number, seat])},
        }
        answered = us + (seat + 1) * DAY_US // 8
        yield body(Kind.APPROVAL_RECORDED, number, answered, actor="grace", data=given, **of)
    if not denied:
        yield body(Kind.PROMOTION_FINISHED, number, us + DAY_US // 2, data={"approved_by": []}, **of)
    state = "denied" if denied else "promoted"
    yield body(Kind.RELEASE_SEALED, number, us + DAY_US // 2 + 1, data={"state": state}, **of)


def fill_log(world: World, count: int, workloads: int) -> int:
    """Put releases into the store in bulk, and into the signed log."""
    database, written = world.deployment.log.database, 0
    with closing(database.engine.raw_connection()) as connection:
        driver: Any = connection.driver_connection
        driver.execute("BEGIN")
        for number in range(count):
            events = [Event.from_bytes(canonical_json(one)) for one in release(number, count, workloads)]
            driver.executemany(INSERT, [values_of(event) for event in events])
            written += len(events)
        driver.commit()
    sequence(world)
    return written


def sequence(world: World) -> None:
    sequencer = Sequencer(world.deployment, anchors_of(world.deployment.settings))
    while world.deployment.log.waiting().count:
        sequencer.step()
    sequencer.publish()


def fill_overview(world: World, count: int, workloads: int) -> None:
    """Fold further releases into the overview, as catching up with a longer log would."""
    overview = open_overview(world.deployment)
    position, origin = overview.position()
    start, part = position, []
    for number in range(count):
        part += release(number, count, workloads)
        if len(part) >= PART or number == count - 1:
            renamed = [{**one, "release_id": f"more-{one['release_id']}"} for one in part]
            assert overview.apply(start, origin, renamed)
            start, part = start + len(part), []
    # The log has none of these: the position goes back to where the log ends.
    overview._work(lambda connection: connection.execute("UPDATE position SET seq = ?", (position,)))  # noqa: SLF001


def reviewed(world: World, run: str) -> str:
    """A release that waits for two people, with evidence of the demo's size."""
    release_id = world.frozen("2", run=run)
    case = open_case(world.deployment, release_id)
    for gate in [*GATES, SCORE]:
        metrics = [
            Metric(
                name=f"number_{place % 12}", value=0.5 + place / 1000,
                threshold=0.1 if place % 4 == 0 else None, direction="higher", interval=(0.4, 0.9),
                confidence=0.95, n=796, where=f"group {place // 12}",
                engine="fairlearn 0.15.0", method="bootstrap of 2000 draws",
            )
            for place in range(NUMBERS.get(gate, 6))
        ]  # fmt: skip
        result = GateResult(
            verdict=Verdict.PASSED, summary=f"{gate} is as good as before. " * 3, metrics=metrics,
            details={"change": {"relative": CHANGES["red"]}} if gate == "performance" else {},
        )  # fmt: skip
        keep_evidence(world.deployment, case, gate, config={}, result=result, seconds=1.0)
    decide(world.deployment, release_id)
    return release_id


def configure(world: World, workloads: int) -> None:
    """As many workloads as there are, and a policy with every gate."""
    write_yaml(world.policy_file, policy_data(GATES))
    names = [f"workload-{number:03d}" for number in range(workloads - 1)]
    for name in names:
        path = world.workload_file.with_name(f"{name}.yaml")
        write_yaml(path, workload_data(name=name, title=name.title(), value_per_day_usd=500))


def measure(client: TestClient, path: str, times: int) -> tuple[list[float], list[float], int]:
    """Wall and CPU milliseconds of each request, and the size of the answer."""
    wall, cpu, size = [], [], 0
    for _ in range(times + 2):
        start, used = time.perf_counter(), time.process_time()
        answer = client.get(path)
        wall.append(1000 * (time.perf_counter() - start))
        cpu.append(1000 * (time.process_time() - used))
        assert answer.status_code in (200, 404), answer.text
        size = len(answer.content)
    return wall[2:], cpu[2:], size  # the first requests compile templates and fill caches


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


def show(name: str, client: TestClient, paths: list[str], times: int, floor: float) -> dict[str, float]:
    wall, cpu, sizes = [], [], []
    for path in paths:
        one = measure(client, path, times)
        wall, cpu, sizes = wall + one[0], cpu + one[1], [*sizes, one[2]]
    found = {"p95": p95(wall), "cpu": p95(cpu), "bytes": max(sizes)}
    print(
        f"  {name:34} median {statistics.median(wall):6.1f} ms   p95 {found['p95']:6.1f} ms   "
        f"CPU p95 {found['cpu']:6.1f} ms   {found['cpu'] / floor:5.1f}x floor   {found['bytes']:,} bytes"
    )
    return found


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--releases", type=int, default=10_000)
    parser.add_argument("--dashboard", type=int, default=100_000)
    parser.add_argument("--workloads", type=int, default=500)
    parser.add_argument("--times", type=int, default=40)
    options = parser.parse_args()
    memory = Path("/dev/shm")  # noqa: S108  # what is measured is not a disk
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        world = make_world(Path(name) / "world")
        configure(world, options.workloads)
        start = time.monotonic()
        written = fill_log(world, options.releases, options.workloads)
        ids = [reviewed(world, f"run-{number}") for number in range(12)]
        sequence(world)
        took = time.monotonic() - start
        print(
            f"{options.releases:,} releases, {written:,} events, {options.workloads} workloads: {took:.0f} s"
        )
        manager = FakeManager({f"release__{path.stem}" for path in world.deployment.config.workload_files()})
        access.get_auth_manager = lambda: manager  # type: ignore[attr-defined, assignment, return-value]
        app = create_app()
        app.dependency_overrides[access.reader] = lambda: access.Visitor(world.deployment, User("grace"))
        client = TestClient(app)
        client.get("/")
        floor = statistics.median(measure(client, "/nowhere", 50)[1])
        print(f"  floor, a page that is not there    CPU {floor:.1f} ms")
        review = show("review page", client, [f"/releases/{one}" for one in ids[-3:]], options.times, floor)
        show("a gate with all its numbers", client, [f"/releases/{ids[-1]}/gates/bias"], options.times, floor)
        fill_overview(world, max(0, options.dashboard - options.releases), options.workloads)
        n = open_overview(world.deployment).query("SELECT count(*) AS n FROM release")[0]["n"]
        print(f"{n:,} releases in the overview")
        board = show("dashboard, 90 days", client, ["/"], options.times, floor)
        show("dashboard, a year", client, ["/?days=365"], options.times, floor)
        show("dashboard, everything", client, ["/?days=3650"], 5, floor)
        show(
            "list of releases",
            client,
            ["/releases", f"/releases?workload={WORKLOAD}", "/releases?state=denied"],
            options.times,
            floor,
        )
        show("releases a rule denied", client, [f"/releases?rule=gate-{GATES[0]}"], options.times, floor)
        show("all workloads", client, ["/workloads"], options.times, floor)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  peak memory {peak:.0f} MB, the filling included")
    reached = {
        f"review p95 under {LIMIT_REVIEW:.0f} ms": review["p95"] < LIMIT_REVIEW,
        f"review under {LIMIT_BYTES:,} bytes": review["bytes"] < LIMIT_BYTES,
        f"dashboard p95 under {LIMIT_DASHBOARD:.0f} ms": board["p95"] < LIMIT_DASHBOARD,
    }
    print(json.dumps(reached))


if __name__ == "__main__":
    main()
