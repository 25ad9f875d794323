"""The auditor's questions on a store with a million events, on PostgreSQL and SQLite.

    python -m benchmarks.auditor_questions                     about five minutes
    python -m benchmarks.auditor_questions --events 100000

Each question is timed as the service call, against ``SELECT 1`` through the same path, and as the whole
command in a fresh process with the record that it was asked, against ``airlock version`` and an empty
Python program; beside it stands the processor time of the command itself, which hardly depends on what else
the machine does. The events are 2,000 releases of 20 workloads over three years with their tasks, and what
people and programs do between them. Memory is the peak of the largest command.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr
from tests.support.private_postgres import private_postgres

from airlock.adapters.audit import Database, SigningKey
from airlock.adapters.audit.columns import COLUMNS, NAMES, Values, values_of
from airlock.adapters.settings import Settings
from airlock.core.audit import Event, Kind
from airlock.core.canonical import canonical_json, digest_of
from airlock.core.manifest import ArtifactRef, DataRef, FileRef, Manifest
from airlock.services import questions
from airlock.services.deployment import Deployment, open_deployment

RELEASES, WORKLOADS = 2000, 20
START_US = 1_672_531_200_000_000  # 2023-01-01
SPAN_US = 3 * 365 * 24 * 3_600_000_000
GATES = ("security", "data_quality", "performance", "bias", "explainability", "privacy", "drift")
SEATS = ("governance-analyst", "risk-officer")
CALLS, COMMANDS = 7, 5
TEXT = "Refit on the newest quarter; nothing else changed. " * 4


@dataclass
class Making:
    """Builds the columns of events, and the rows of what people wrote."""

    deployment: Deployment
    step_us: int
    us: int = START_US
    number: int = 0

    def values(
        self, kind: Kind, *, actor: str = "system", **changes: Any
    ) -> tuple[Values, dict[str, Any] | None]:
        """The next event as it is stored."""
        self.us += self.step_us
        self.number += 1
        data = {
            "schema_version": 1, "key": f"local/{kind}/{self.number}", "kind": str(kind), "actor": actor,
            "occurred_us": self.us, "received_us": self.us + 900, "deployment": "local", "release_id": "",
            "workload": "", "version": "", "data": {}, **changes,
        }  # fmt: skip
        personal = None
        for name in kind.personal:
            sealed = self.deployment.vault.seal(f"{data['key']}\x00{name}", TEXT)
            data["data"][name] = {"sealed": sealed.commitment.hex()}
            personal = {
                "commitment": sealed.commitment, "subject": actor, "release_id": data["release_id"],
                "recorded_us": self.us, "wrapped_key": sealed.wrapped_key, "sealed": sealed.sealed,
            }  # fmt: skip
        return values_of(Event.model_validate(data)), personal


def events(deployment: Deployment, count: int) -> Iterator[tuple[Values, dict[str, Any] | None]]:
    """About ``count`` events: each release, its tasks, and as much that has to do with none."""
    making = Making(deployment, SPAN_US // count)
    champions: dict[str, str] = {}
    for number in range(RELEASES):
        workload = f"workload-{number % WORKLOADS:02d}"
        version = str(number // WORKLOADS * 5 // 6 + 1)
        of = {"release_id": f"{workload}-v{version}-{number:08x}", "workload": workload, "version": version}
        written = making.number
        yield from release(making, of, number, champions)
        rest = max(0, count // RELEASES - (making.number - written))
        for place in range(rest):
            yield task(making, of, number, place) if place % 2 else background(making, number + place)


def release(
    making: Making, of: dict[str, str], number: int, champions: dict[str, str]
) -> Iterator[tuple[Values, dict[str, Any] | None]]:
    """What a release writes; every seventh is denied, every fifth rejected, the others are promoted."""
    submitter = f"scientist-{number % 30}"
    manifest = frozen(making.deployment, of, number, submitter, champions.get(of["workload"]))
    context = {"batch": "clean", "dag_id": f"release__{of['workload']}", "run_id": f"manual__{number}"}
    yield making.values(Kind.RELEASE_SUBMITTED, actor=submitter, data=context, **of)
    frozen_data = {
        "manifest": manifest,
        "artifact": digest_of(number),
        "policy": f"1.{number * 5 // RELEASES}.0",
    }
    yield making.values(Kind.RELEASE_FROZEN, data=frozen_data, **of)
    for gate in GATES:
        summary = f"{gate} is as good as before: " + "detail " * 20
        said = {"gate": gate, "verdict": "PASSED", "summary": summary, "seconds": 1.5}
        yield making.values(Kind.GATE_EVALUATED, data={**said, "evidence": digest_of([gate, number])}, **of)
    denied, rejected = number % 7 == 0, number % 5 == 0
    decided = {
        "decision": digest_of([number]), "outcome": "DENY" if denied else "PENDING", "track": "red",
        "tier": "high", "sentence": "it changes by 12.0 %", "seats": list(SEATS), "expires_hours": 72,
    }  # fmt: skip
    yield making.values(Kind.RELEASE_DECIDED, data=decided, **of)
    people = [f"approver-{(number + seat) % 6}" for seat in range(len(SEATS))]
    for seat, user in enumerate([] if denied else people):
        given = {
            "seat": seat, "user": user, "role": SEATS[seat], "choice": "reject" if rejected else "approve",
            "release_id": of["release_id"], "manifest_digest": manifest,
            "evidence_digest": digest_of("evidence"), "policy_digest": digest_of("policy"),
        }  # fmt: skip
        yield making.values(Kind.APPROVAL_RECORDED, actor=user, data=given, **of)
    if not denied and not rejected:
        started = {"manifest": manifest, "approved_by": people}
        yield making.values(Kind.PROMOTION_STARTED, data=started, **of)
        finished = {"model": of["workload"], "previous": champions.get(of["workload"]), "approved_by": people}
        yield making.values(Kind.PROMOTION_FINISHED, data=finished, **of)
        champions[of["workload"]] = of["version"]
    state = "denied" if denied else "rejected" if rejected else "promoted"
    yield making.values(Kind.RELEASE_SEALED, data={"state": state, "manifest": manifest}, **of)


def frozen(deployment: Deployment, of: dict[str, str], number: int, user: str, champion: str | None) -> str:
    """Keep a manifest as evidence and return its digest."""
    files = [
        FileRef(path=name, sha256=digest_of([name, number]), size=1000) for name in ("MLmodel", "m.skops")
    ]
    artifact = ArtifactRef(version=of["version"], sha256=ArtifactRef.digest_files(files), files=files)
    manifest = Manifest(
        release_id=of["release_id"],
        workload=of["workload"],
        workload_digest=digest_of(of["workload"]),
        submitter=user,
        candidate=artifact,
        champion=artifact.model_copy(update={"version": champion}) if champion else None,
        training=DataRef(path="/data/training.parquet", sha256=digest_of(["t", number]), size=90_000_000),
        evaluation=DataRef(path="/data/clean.parquet", sha256=digest_of(["e", number]), size=9_000_000),
        suite_digest=deployment.evidence.put(canonical_json({"name": "suite", "version": "1.0.0"})),
        documentation_digest=digest_of("documentation"),
        policy_version=f"1.{number * 5 // RELEASES}.0",
        policy_digest=digest_of(number * 5 // RELEASES),
        code={"mlflow_run": f"{number:032x}"},
        environment={"airlock": "0.1.0", "python": "3.11.2", "scikit-learn": "1.9.0"},
    )
    return deployment.evidence.put(manifest.to_bytes())


def task(making: Making, of: dict[str, str], number: int, place: int) -> tuple[Values, None]:
    """A start or outcome of a task of a release."""
    data = {
        "dag_id": f"release__{of['workload']}", "run_id": f"manual__{number}", "task_id": f"gates.{place}",
        "map_index": -1, "try_number": 1, "state": "success", "source": "operator", "error": "",
    }  # fmt: skip
    kind = Kind.TASK_OUTCOME if place % 4 == 1 else Kind.TASK_STARTED
    return making.values(kind, data=data, **of)[0], None


def background(making: Making, number: int) -> tuple[Values, None]:
    """A request to Airflow, or somebody who reads the store."""
    user = f"scientist-{number % 30}"
    if number % 10 == 0:
        data: dict[str, Any] = {"question": "audit query", "arguments": {"limit": "50"}, "uid": 1000}
        return making.values(Kind.AUDIT_READ, actor=user, data=data)[0], None
    workload = f"workload-{number % WORKLOADS:02d}"
    data = {
        "method": "PATCH", "path": f"/dags/release__{workload}/dagRuns/manual__{number}", "status": 200,
        "dag_id": f"release__{workload}", "run_id": f"manual__{number}",
    }  # fmt: skip
    return making.values(Kind.API_ATTEMPT, actor=user, workload=workload, data=data)[0], None


def fill(deployment: Deployment, count: int) -> None:
    """Put the events into the store by bulk, and into the signed log."""
    deployment.audit.migrate()
    database, personal = deployment.log.database, []

    def rows() -> Iterator[Values]:
        for values, row in events(deployment, count):
            if row is not None:
                personal.append(row)
            yield values

    with closing(database.engine.raw_connection()) as connection:
        driver: Any = connection.driver_connection
        if database.sqlite:
            driver.execute("BEGIN")
            marks = ", ".join("?" * len(COLUMNS))
            driver.executemany(f"INSERT INTO event ({NAMES}) VALUES ({marks})", rows())  # noqa: S608
        else:
            with driver.cursor() as cursor, cursor.copy(f"COPY event ({NAMES}) FROM STDIN") as copy:
                for row in rows():
                    copy.write_row(row)
        driver.commit()
    columns = ("commitment", "subject", "release_id", "recorded_us", "wrapped_key", "sealed")
    insert = f"INSERT INTO personal VALUES ({', '.join(f':{name}' for name in columns)})"  # noqa: S608
    database.write(lambda one: one.execute(sa.text(insert), personal))
    key, tree = SigningKey.generate("benchmark"), deployment.log.tree()
    while done := deployment.log.integrate(
        tree, lambda size, root: key.sign_checkpoint(size, root, seconds=1)
    ):
        tree = done[0]
    if not database.sqlite:  # as the server does by itself after a while
        with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connected:
            connected.exec_driver_sql("VACUUM ANALYZE")


Ask = Callable[[Deployment], Any]


def asked() -> dict[str, tuple[Ask, tuple[str, ...]]]:
    """Each question as a service call and as a command."""
    w, v, user = "workload-07", "40", "approver-3"
    day_us = START_US + 400 * 24 * 3_600_000_000
    june_us = START_US + 151 * 24 * 3_600_000_000
    july_us = june_us + 30 * 24 * 3_600_000_000
    in_june = ("--since", "2023-06-01", "--until", "2023-06-30")
    return {
        "newest events": (questions.query, ("query",)),
        "a month long ago": (lambda d: questions.query(d, since_us=june_us, until_us=july_us),
            ("query", *in_june),
),
        "two years": (
            lambda d: questions.query(d, since_us=START_US, until_us=START_US + SPAN_US * 2 // 3),
            ("query", "--since", "2023-01-01", "--until", "2024-12-31"),
        ),
        "a person in a month": (
            lambda d: questions.query(d, actor=user, since_us=june_us, until_us=july_us),
            ("query", "--actor", user, *in_june),
        ),
        "nobody": (lambda d: questions.query(d, actor="nobody"), ("query", "--actor", "nobody")),
        "decisions of a version": (
            lambda d: questions.query(d, workload=w, version=v, kinds=[Kind.RELEASE_DECIDED]),
            ("query", "--workload", w, "--version", v, "--kind", "release.decided"),
        ),
        "a release": (
            lambda d: questions.query(d, release_id=f"{w}-v1-00000007"),
            ("query", "--release", f"{w}-v1-00000007"),
        ),
        "data of a version": (lambda d: questions.data_of(d, w, v), ("data", w, v)),
        "approvals of a version": (lambda d: questions.approvals_of(d, w, v), ("approvals", w, v)),
        "history of production": (lambda d: questions.production(d, w), ("production", w)),
        "production on a day": (
            lambda d: questions.production(d, w, since_us=day_us, until_us=day_us + 1),
            ("production", w, "--on", "2024-02-05T00:00"),
        ),
        "an approver": (lambda d: questions.person(d, user), ("person", user)),
        "a busy user": (lambda d: questions.person(d, "scientist-3"), ("person", "scientist-3")),
        "a policy version": (lambda d: questions.policy_use(d, "1.2.0"), ("policy", "1.2.0")),
    }  # fmt: skip


def seconds(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """Median and longest of several runs."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took), max(took)


@dataclass
class Commands:
    """Runs programs in fresh processes, and remembers the largest peak of memory."""

    environment: dict[str, str]
    peak_kb: int = 0
    spent: list[float] = field(default_factory=list)

    def run(self, *arguments: str) -> None:
        """Run Python with these arguments; what goes wrong is shown."""
        child = subprocess.Popen(
            [sys.executable, *arguments],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert child.stderr is not None
        said = child.stderr.read()
        child.stderr.close()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0, said.decode()
        self.peak_kb = max(self.peak_kb, usage.ru_maxrss)
        self.spent.append(usage.ru_utime + usage.ru_stime)


def measure(name: str, deployment: Deployment) -> None:
    """Time and print everything on one store."""
    database: Database = deployment.log.database
    count = database.read(lambda one: one.scalar(sa.text("SELECT count(*) FROM event")))
    commands = Commands({**os.environ, **deployment.settings.environment()})
    one, _ = seconds(lambda: database.read(lambda c: c.scalar(sa.text("SELECT 1"))), 50)
    empty, _ = seconds(lambda: commands.run("-c", "pass"), COMMANDS)
    start, _ = seconds(lambda: commands.run("-m", "airlock.cli", "version"), COMMANDS)
    print(f"{name}, {count:,} events")
    print(f"  SELECT 1 {one * 1000:.2f} ms; python -c pass {empty:.3f} s; airlock version {start:.3f} s")
    heads = f"{'command':>9} {'longest':>9} {'CPU':>7}"
    print(f"  {'question':26} {'call':>9} {'longest':>9} {'x SELECT 1':>11} {heads}")
    for what, (ask, arguments) in asked().items():
        call, slowest = seconds(lambda ask=ask: ask(deployment), CALLS)  # type: ignore[misc]
        whole, worst = seconds(
            lambda line=arguments: commands.run("-m", "airlock.cli", "audit", *line),  # type: ignore[misc]
            COMMANDS,
        )
        print(
            f"  {what:26} {call * 1000:6.1f} ms {slowest * 1000:6.1f} ms {call / one:10.0f}x {whole:7.2f} s "
            f"{worst:7.2f} s {statistics.median(commands.spent[-COMMANDS:]):5.2f} s"
        )
    print(f"  peak memory of a command {commands.peak_kb / 1024:.0f} MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["postgresql", "sqlite"])
    options = parser.parse_args()
    memory = Path("/dev/shm")  # noqa: S108  # what is measured is not a disk
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
            )
        )
        stores = {"SQLite": f"sqlite:///{folder / 'audit.db'}"}
        if options.only == "postgresql":
            stores.clear()
        if options.only != "sqlite":
            stores["PostgreSQL"] = stack.enter_context(private_postgres()).url
        for name, url in stores.items():
            settings = Settings(home=folder / "home", config_dir=folder, deployment="local")
            deployment = open_deployment(settings.model_copy(update={"audit_url": SecretStr(url)}))
            began = time.monotonic()
            fill(deployment, options.events)
            print(f"{name} filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
            measure(name, deployment)


if __name__ == "__main__":
    main()
