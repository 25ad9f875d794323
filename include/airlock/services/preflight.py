"""Preflight on the files of a workload alone: in a moment, with no store, no registry and no Airflow.

Light on imports, because people run it before each commit. With a version, ``services/rehearse.py`` goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.yaml_files import line_of
from airlock.core.columns import Columns
from airlock.core.decision import tier_of
from airlock.core.errors import AirlockError, InvalidInputError
from airlock.core.evidence import Finding, GateResult, Verdict
from airlock.core.experiments import check_plans
from airlock.core.facts import workload_facts
from airlock.core.people import People
from airlock.core.policy import Phase, Policy, Seat, Track
from airlock.core.preflight import Level, NeededSeat, Note, Preflight, reason_notes
from airlock.core.rules import FactSet, Reason, evaluate_phase
from airlock.core.workload import Workload
from airlock.gates import gate_text, load_gate
from airlock.gates.base import GateContext
from airlock.ports import PolicyEngine
from airlock.services.policy_check import refuse_problems

_LEVELS = {Verdict.PASSED: Level.NOTE, Verdict.WARNED: Level.WARNING}

UNKNOWN = "what a version would change: give --version to find out"


@dataclass(frozen=True)
class Desk:
    """What a preflight of files needs."""

    config: ConfigFolder
    config_dir: Path
    data_root: Path
    engine: PolicyEngine
    today: date
    context: str = ""


@dataclass
class Places:
    """Where things stand, for findings a person has to mend."""

    config_dir: Path
    workload: Workload

    @cached_property
    def workload_file(self) -> Path:
        """The file of the workload."""
        return self.config_dir / "workloads" / f"{self.workload.name}.yaml"

    def field(self, *location: str | int) -> tuple[str, int]:
        """File and line of a field of the workload."""
        path = self.workload_file
        return shown(path), line_of(path, location) if path.is_file() else 0

    def of_gate(self, gate: str) -> tuple[str, int]:
        """The file that a finding of a gate is most likely mended in."""
        if gate == "documentation":
            return shown(self.config_dir / "workloads" / self.workload.documentation), 0
        if gate == "data_quality":
            return shown(self.config_dir / "expectations" / f"{self.workload.data.expectations}.yaml"), 0
        return self.field("data" if gate in ("privacy", "drift", "bias") else "model")


def shown(path: Path) -> str:
    """A path as people write it: relative to the current folder where it is inside."""
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def check_files(desk: Desk, name: str) -> Preflight:
    """Judge what can be judged without a version; what is wrong becomes a finding, never an exception."""
    started = time.perf_counter()
    try:
        workload = desk.config.workload(name)
    except AirlockError as error:
        return Preflight(workload=name, notes=[_error_note("workload/invalid", error)], unknown=[UNKNOWN])
    review = _Review(desk, workload)
    review.run()
    answer = review.answer()
    seconds = {"files": round(time.perf_counter() - started, 3)}
    return answer.model_copy(update={"seconds": seconds})


def _error_note(rule: str, error: AirlockError, level: Level = Level.ERROR) -> Note:
    """An error as a finding; its place is a file and a line, or words."""
    file, line = error.where, 0
    path, _, number = error.where.partition(":")
    number = number.partition(":")[0]
    if number.isdecimal() and Path(path).exists():
        file, line = shown(Path(path)), int(number)
    elif error.where and Path(error.where).exists():
        file = shown(Path(error.where))
    else:
        file = ""
    place = "" if file or not error.where else f" [{error.where}]"
    return Note(rule=rule, level=level, message=error.what + place, fix=error.fix, file=file, line=line)


@dataclass
class _Review:
    """One look at the files of one workload."""

    desk: Desk
    workload: Workload
    notes: list[Note] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    policy: Policy | None = None
    people: People | None = None
    at_least: Track = Track.GREEN
    tier: Any = None
    unknown: list[str] = field(default_factory=lambda: [UNKNOWN])

    @cached_property
    def places(self) -> Places:
        return Places(self.desk.config_dir, self.workload)

    def run(self) -> None:
        config, data = self.desk.config, self.workload.data
        self.policy = self._try("policy/invalid", self._policy)
        self.people = self._try("people/invalid", config.people)
        self._try("expectations/invalid", lambda: config.suite(data.expectations))
        for path in (data.training, f"{data.evaluation}/{data.default_batch}.parquet"):
            self._try("data/columns", lambda path=path: self._look_at(path))  # type: ignore[misc]  # bound now
        self._plans()
        if self.policy is not None:
            self._documentation(self.policy)
            self._rules(self.policy)

    def _policy(self) -> Policy:
        files = self.desk.config.policy_files(self.workload.policy)
        policy = files.policy()
        refuse_problems(policy, files)
        return policy

    def _try(self, rule: str, probe: Callable[[], Any]) -> Any:
        try:
            return probe()
        except AirlockError as error:
            self.notes.append(_error_note(rule, error))
            return None

    def _look_at(self, name: str) -> None:
        """Whether a data file is there and has the columns that the workload names."""
        path = self.desk.data_root / name
        file, line = self.places.field("data")
        if not path.is_file():
            # Data need not be on the laptop of who commits; the release itself refuses without it.
            self.notes.append(
                Note(
                    rule="data/missing",
                    level=Level.WARNING,
                    message=f"{name} is not below {self.desk.data_root}, so its columns were not looked at",
                    fix="set AIRLOCK_DATA_DIR to where the data is, or go on without",
                    file=file,
                    line=line,
                )
            )
            return
        found = _columns(path)
        named = [*self.workload.model.features, self.workload.model.target, *self.workload.data.sensitive]
        if missing := [column for column in named if column not in found]:
            raise InvalidInputError(
                f"{name} has no column {', '.join(missing)}",
                where=f"{self.places.workload_file}:{line}",
                fix="add the columns to the data, or correct the workload file",
            )

    def _plans(self) -> None:
        """A/B plans, against those of every other workload that can be read."""
        plans = list(self.workload.plans)
        if not plans:
            return
        for path in self.desk.config.workload_files():
            if path.stem == self.workload.name:
                continue
            try:
                plans += self.desk.config.load_workload(path).plans
            except AirlockError:
                continue  # its own preflight says what is wrong with it
        mine = {plan.name for plan in self.workload.plans}
        for finding in check_plans(plans):
            if finding.where in mine or any(name in finding.message for name in mine):
                self._add("experiments", finding, self.places.field("experiments"))

    def _documentation(self, policy: Policy) -> None:
        if "documentation" not in policy.gates:
            return
        gate = load_gate("documentation")
        try:
            context = _text_context(self.workload, self.desk.config.documentation(self.workload), self.desk)
            result = gate.evaluate(context, gate.Config.model_validate(policy.gates["documentation"]))
        except AirlockError as error:
            self.notes.append(_error_note("documentation/error", error))
            return
        for finding in result.findings:
            self._add("documentation", finding, self.places.of_gate("documentation"))

    def _add(self, gate: str, finding: Finding, place: tuple[str, int]) -> None:
        if (note := finding_note(gate, finding, place)) is not None:
            self.notes.append(note)

    def _rules(self, policy: Policy) -> None:
        """Rules that ask only for what the workload file says; the others wait for a version."""
        facts = FactSet(workload_facts(self.workload, policy))
        session = self.desk.engine.begin(policy, facts)
        self.tier = tier_of(policy, facts, session, self.desk.today)
        facts.learn("risk", {"tier": str(self.tier)})
        phases: tuple[Phase, ...] = ("tier", "track", "deny")
        for phase in phases:
            self.reasons += [
                reason
                for reason in evaluate_phase(
                    phase, policy=policy, session=session, facts=facts, as_of=self.desk.today
                )
                if not reason.error
            ]
        order = list(Track)
        fired = [reason.effect.split()[1] for reason in self.reasons if _sets_track(reason)]
        self.at_least = max((Track(name) for name in fired), key=order.index, default=Track.GREEN)
        self.notes += reason_notes(self.reasons, *self.places.field("risk"))

    def answer(self) -> Preflight:
        seats = [] if self.policy is None else self.policy.approval.seats[self.at_least]
        rules = [reason.rule for reason in self.reasons if reason.effect == f"track {self.at_least}"]
        needed = [needed_seat(seat, rules, self.people, submitter="") for seat in seats]
        notes = [*self.notes, *unheld(needed, self.people, self.desk.config_dir)]
        return Preflight(
            workload=self.workload.name,
            policy=self.workload.policy,
            at_least=self.at_least,
            tier=self.tier,
            seats=needed,
            notes=notes,
            reasons=self.reasons,
            unknown=self.unknown,
        )


def _sets_track(reason: Reason) -> bool:
    return reason.fired and reason.effect.startswith("track ")


def _columns(path: Path) -> set[str]:
    """Names of the columns of a Parquet file, without reading a row."""
    import pyarrow.parquet

    try:
        return set(pyarrow.parquet.read_schema(path).names)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"this is no Parquet file: {str(error).splitlines()[0]}", where=str(path), fix="write it again"
        ) from error


def _text_context(workload: Workload, text: str, desk: Desk) -> GateContext:
    """A context for a gate that reads the model card alone; everything else is refused."""

    def refused(*_: Any) -> Any:
        raise InvalidInputError("this needs a version", fix="give --version")

    return GateContext(
        columns=Columns.of(workload),
        evaluation=refused,
        training=refused,
        current_path=refused,
        reference_path=refused,
        scores=refused,
        artifact=refused,
        suite=refused,
        documentation=lambda: text,
        # Without a version nobody submits yet, so nobody is asked why.
        business_context=desk.context or "Files alone are looked at.",
        scan=refused,
        store=refused,
        candidate=refused,
        now_us=refused,
        title=workload.title,
        workload=workload,
    )


def finding_note(gate: str, finding: Finding, place: tuple[str, int]) -> Note | None:
    """A finding of a gate for a person; ``None`` when it only says that something is fine."""
    if finding.verdict is Verdict.PASSED:
        return None
    try:
        why = gate_text(gate).why
    except AirlockError:
        why = ""
    return Note(
        rule=f"{gate}/{finding.id}",
        level=_LEVELS.get(finding.verdict, Level.ERROR),
        message=finding.message,
        why=why,
        fix=finding.fix,
        file=place[0],
        line=place[1],
    )


def result_notes(gate: str, result: GateResult, place: tuple[str, int]) -> Iterator[Note]:
    """The findings of a gate; its summary where it denies without one."""
    notes = [note for finding in result.findings if (note := finding_note(gate, finding, place)) is not None]
    yield from notes
    if not result.verdict.allows and not any(note.level is Level.ERROR for note in notes):
        summary = Finding(id=str(result.verdict).lower(), verdict=result.verdict, message=result.summary)
        note = finding_note(gate, summary, place)
        if note is not None:
            yield note


def needed_seat(seat: Seat, rules: list[str], people: People | None, *, submitter: str) -> NeededSeat:
    """A seat with the people who may answer for it."""
    holders = [] if people is None else people.holders(seat.role)
    names = [person.name for person in holders if person.user != submitter]
    return NeededSeat(role=seat.role, reason=seat.reason, rules=rules, people=names)


def unheld(seats: list[NeededSeat], people: People | None, config_dir: Path) -> list[Note]:
    """Seats that nobody could fill: such a release would wait until it expires."""
    if people is None:
        return []
    return [
        Note(
            rule="people/nobody",
            level=Level.WARNING,
            message=f"nobody may answer as {seat.role}, so the release would wait until it expires",
            fix=f"give somebody other than the submitter the role {seat.role}",
            file=shown(config_dir / "people.yaml"),
        )
        for seat in seats
        if not seat.people
    ]
