"""Which version may go back into production, and why the others may not (requirement R-3).

A version is fit when it was in production before, follows from its evidence under today's policy, is whole,
understands today's data, and answers in the sandbox. What cannot be found out counts against it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from airlock.adapters.production_log import ProductionLog
from airlock.core.audit import Kind
from airlock.core.base import Value
from airlock.core.canonical import parse_json, storable
from airlock.core.errors import (
    AirlockError,
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    SandboxError,
    UnavailableError,
)
from airlock.core.manifest import ArtifactRef
from airlock.core.policy import Policy
from airlock.core.workload import Workload
from airlock.services.conditions import MISSED, REVOKED, conditions_of
from airlock.services.deployment import Deployment
from airlock.services.evaluate import materialise
from airlock.services.moves import Moves
from airlock.services.releases import find_release, open_case, read_decision
from airlock.services.replay import Again, Held, Past, held_waivers
from airlock.services.score import own_packages
from airlock.services.scoring import limited_request, model_job, reviewed_types
from airlock.services.submit import batch_file, snapshot
from airlock.services.waivers import ended_since

How = Literal["version", "fallback", "constant", "quarantine"]
"""What takes over: an earlier version, the fallback version, the fallback's constant answer, or nothing."""

_TOO_SLOW = "ran longer than"
"""What the sandbox says of a job that it stopped because its time was over."""

_NUMBERS = {"double", "float", "long", "integer", "boolean"}
"""Types of an MLflow signature that any column of numbers can fill."""


class Check(Value):
    """One thing that was looked at.

    Attributes:
        sure: whether looking again would say the same; a trial that runs out of time may mean a busy machine.
    """

    name: str
    ok: bool
    sentence: str
    sure: bool = True


class Considered(Value):
    """A version that was considered, with everything that was looked at."""

    version: str
    release_id: str
    checks: list[Check]

    @property
    def fit(self) -> bool:
        """Whether it may go into production; never without a check."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def unsure(self) -> bool:
        """Whether only what is not sure speaks against it."""
        return not self.fit and all(check.ok or not check.sure for check in self.checks)

    @property
    def problems(self) -> list[str]:
        """What speaks against it."""
        return [check.sentence for check in self.checks if not check.ok]


class Plan(Value):
    """What a rollback would do, and why.

    Attributes:
        leaving: the version in production by the registry; empty for none.
        leaving_release: the release that brought it there; empty when it was adopted or moved by hand.
        to: the version that takes over; empty for none.
        considered: versions in the order they were looked at.
        constant: what the fallback answers when no version does, as JSON; empty where a version does.
    """

    workload: str
    model: str
    policy: str
    leaving: str
    leaving_release: str
    how: How
    to: str
    to_release: str
    considered: list[Considered]
    constant: str = ""

    @property
    def sentence(self) -> str:
        """What it does, for people."""
        gone = f"version {self.leaving}" if self.leaving else "nothing"
        into = {
            "version": f"version {self.to} takes over from {gone}",
            "fallback": f"the fallback, version {self.to}, takes over from {gone}: no earlier version is fit",
            "constant": f"{gone} is taken out, and every request is answered with {self.constant}",
            "quarantine": f"{gone} is taken out and quarantined: no earlier version is fit, and no fallback "
            "is named",
        }
        return into[self.how]


@dataclass
class Desk:
    """What the checks of one rollback share; ``trials`` are those that began early, by version."""

    deployment: Deployment
    workload: Workload
    policy: Policy
    moves: Moves
    trials: dict[str, Future[Check]] = field(default_factory=dict)
    _again: Again | None = field(default=None)

    @property
    def model(self) -> str:
        """Name of the model in the registry."""
        return self.workload.model.registered_model

    def again(self) -> Again:
        """Decides past releases under today's policy and with the waivers that hold today."""
        if self._again is None:
            now = self.deployment.clock.now_us()
            today = [
                _Today(one.waiver, one.until_us) for one in held_waivers(self.deployment) if one.held_at(now)
            ]
            self._again = Again(self.deployment.evidence, self.deployment.engine, self.policy, today)
        return self._again


class _Today(Held):
    """A waiver that holds today; when the release was decided does not matter any more."""

    def held_at(self, moment_us: int) -> bool:
        """It holds now, and now is when the version goes back."""
        del moment_us
        return True


def consider(desk: Desk, version: str, *, fallback: bool = False) -> Considered:
    """Look at everything about one version; dear checks only where the cheap ones hold.

    Args:
        desk: where.
        version: the version.
        fallback: whether the workload names it as its fallback, so that it need not have been in production.

    Raises:
        UnavailableError: the registry, a store or the sandbox does not answer: then nothing is known.
    """
    release_id = desk.moves.release_of(version)
    checks = [_history(desk, version, fallback=fallback)]
    if release_id:
        checks += [_waivers(desk, release_id), _approval(desk, release_id), _policy(desk, release_id)]
    elif not fallback:
        checks.append(_adopted(desk, version))
    if all(check.ok for check in checks):
        checks += _content(desk, version, release_id)
    return Considered(version=version, release_id=release_id, checks=checks)


def _history(desk: Desk, version: str, *, fallback: bool) -> Check:
    name = "in production before"
    if fallback:
        return Check(name=name, ok=True, sentence="the workload names it as its fallback")
    if version in desk.moves.earlier() or version == desk.moves.champion:
        return Check(name=name, ok=True, sentence="a finished promotion or adoption says so")
    return Check(name=name, ok=False, sentence=f"version {version} was never in production under Airlock")


def _adopted(desk: Desk, version: str) -> Check:
    allowed = desk.policy.operations.rollback.adopted
    said = "the policy lets it return" if allowed else "the policy does not let it return"
    sentence = f"version {version} was adopted, never judged; {said}"
    return Check(name="policy of today", ok=allowed, sentence=sentence)


def _waivers(desk: Desk, release_id: str) -> Check:
    name = "waivers"
    decision = read_decision(desk.deployment, open_case(desk.deployment, release_id).release)
    if decision is None:
        return Check(name=name, ok=False, sentence="no decision was recorded")
    problems = ended_since(desk.deployment, decision, desk.workload.name)
    if problems:
        return Check(name=name, ok=False, sentence="; ".join(problems))
    count = len(decision.waivers)
    return Check(name=name, ok=True, sentence=f"{count} in force" if count else "it rests on none")


def _approval(desk: Desk, release_id: str) -> Check:
    """An approval whose condition was missed does not hold any more, wherever the version is (A-7)."""
    release = find_release(desk.deployment, release_id)
    found = conditions_of(release, desk.deployment.clock.now_us())
    missed = [one for one in found if one.state in (MISSED, REVOKED)]
    if missed:
        who = ", ".join(f"{one.user} ({one.role})" for one in missed)
        sentence = f"the approval of {who} does not hold: its condition was not met"
        return Check(name="approval", ok=False, sentence=sentence)
    said = "its conditions are met or have time left" if found else "no condition was set"
    return Check(name="approval", ok=True, sentence=said)


def _policy(desk: Desk, release_id: str) -> Check:
    """The stored evidence decided again under today's policy; nothing is run again."""
    name = "policy of today"
    recorded = desk.deployment.audit.events(release_id=release_id, kinds=[Kind.RELEASE_DECIDED])
    found = desk.again().one(Past.of(recorded[-1].event)) if recorded else "no decision was recorded"
    if isinstance(found, str):
        return Check(name=name, ok=False, sentence=f"it cannot be decided again: {found}")
    if found.after["outcome"] == "DENY":
        why = "; ".join(found.why) or "as it was then"
        return Check(name=name, ok=False, sentence=f"policy {desk.policy.version} denies it: {why}"[:2000])
    if found.unsure and not desk.policy.operations.rollback.unsure:
        gates = ", ".join(found.unsure)
        return Check(
            name=name,
            ok=False,
            sentence=f"only a new run of {gates} could say what policy {desk.policy.version} says of it",
        )
    return Check(name=name, ok=True, sentence=f"policy {desk.policy.version} does not deny its evidence")


def _content(desk: Desk, version: str, release_id: str) -> list[Check]:
    """Tags and files in the registry, the data of today, and a trial; side by side, because each waits."""
    frozen = _frozen(desk, release_id) if release_id else None
    with ThreadPoolExecutor(2) as pool:
        trial = desk.trials.get(version)
        if trial is None and frozen is not None:
            trial = pool.submit(_trial, desk, frozen)
        registered = pool.submit(_registered, desk, version, frozen)
        checks, found = registered.result()
        if found is None:
            return checks
        checks.append(_features(desk, found))
        tried = trial or pool.submit(_trial, desk, found)
        return [*checks, tried.result()]


def _frozen(desk: Desk, release_id: str) -> ArtifactRef:
    """The files a release froze. They are in the evidence store: a trial of them needs no registry."""
    return open_case(desk.deployment, release_id).manifest.candidate


@contextmanager
def early_trial(desk: Desk, to: str | None) -> Iterator[None]:
    """Begin the trial of the version that is probably looked at first, while other things are asked.

    By itself the first answer of the registry takes as long as a trial: MLflow's client is imported for it.
    Nothing is decided by this; when another version is looked at first, the trial was for nothing.
    """
    version = next(iter(_order(desk, desk.moves.champion or "", to)), "")
    release_id = desk.moves.release_of(version)
    with ThreadPoolExecutor(1) as pool:
        if release_id:
            desk.trials[version] = pool.submit(lambda: _trial(desk, _frozen(desk, release_id)))
        yield


def _registered(
    desk: Desk, version: str, frozen: ArtifactRef | None
) -> tuple[list[Check], ArtifactRef | None]:
    """Whether the registry still has the version, free of quarantine, with the files that were judged."""
    try:
        tags = desk.deployment.registry.version(desk.model, version).tags
        found = snapshot(desk.deployment, desk.model, version)
    except (NotFoundError, InvalidInputError) as error:
        return [Check(name="files", ok=False, sentence=storable(str(error))[:1000])], None
    quarantined = tags.get("airlock.state") == "quarantined"
    why = storable(tags.get("airlock.quarantine_reason", ""))[:500]
    checks = [
        Check(
            name="quarantine",
            ok=not quarantined,
            sentence=f"it is quarantined: {why}" if quarantined else "it is not quarantined",
        )
    ]
    if frozen is None:
        sentence = f"sha256 {found.sha256[:16]}…; nothing was frozen to compare it with"
        return [*checks, Check(name="files", ok=True, sentence=sentence)], found
    same = found.sha256 == frozen.sha256
    sentence = (
        f"sha256 {found.sha256[:16]}…, as released" if same else "its files changed since it was released"
    )
    return [*checks, Check(name="files", ok=same, sentence=sentence)], found


def _features(desk: Desk, artifact: ArtifactRef) -> Check:
    """Whether today's workload and data have every column that the version asks for, of a type it takes."""
    name = "features"
    try:
        path, _ = _today(desk)
        schema = _schema(path)
    except AirlockError as error:
        return Check(name=name, ok=False, sentence=storable(str(error))[:1000])
    problems = feature_problems(artifact.inputs, desk.workload.model.features, schema)
    if problems:
        return Check(name=name, ok=False, sentence="; ".join(problems)[:2000])
    if not artifact.inputs:
        return Check(name=name, ok=True, sentence="it has no signature; the trial shows what it asks for")
    return Check(name=name, ok=True, sentence=f"all {len(artifact.inputs)} columns are there, of its types")


def feature_problems(inputs: dict[str, str], features: Sequence[str], schema: dict[str, str]) -> list[str]:
    """What of a version's signature the workload or the data of today does not offer.

    Args:
        inputs: column → type, as the version's signature names them.
        features: columns that the workload names today.
        schema: column → ``number``, ``text`` or ``other``, as today's data has them.
    """
    problems = []
    if unnamed := [column for column in inputs if column not in features]:
        problems.append(f"the workload does not name {', '.join(unnamed)} any more")
    if missing := [column for column in inputs if column not in schema]:
        problems.append(f"today's data has no column {', '.join(missing)}")
    for column, kind in inputs.items():
        wanted = "number" if kind in _NUMBERS else "text" if kind == "string" else "other"
        found = schema.get(column, wanted)
        if "other" not in (wanted, found) and wanted != found:
            problems.append(f"{column} holds {found}s in today's data, and the version takes {wanted}s")
    return problems


def _schema(path: Path) -> dict[str, str]:
    """Columns of a Parquet file, and whether they hold numbers or texts."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"this is no Parquet file: {error}", where=str(path)) from error

    def kind(found: pa.DataType) -> str:
        if pa.types.is_dictionary(found):
            found = found.value_type
        if pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_boolean(found):
            return "number"
        return "text" if pa.types.is_string(found) or pa.types.is_large_string(found) else "other"

    return {entry.name: kind(entry.type) for entry in schema}


def _today(desk: Desk) -> tuple[Path, str]:
    """A file with today's data, and what it is: the newest predictions where they are logged as files.

    A log without any feature says nothing about them; then it is the evaluation batch.
    """
    workload = desk.workload
    if workload.monitoring is not None:
        path = ProductionLog(workload, desk.deployment.settings.data_root).newest_file()
        if path is not None and set(_schema(path)) & set(workload.model.features):
            return path, "the production log"
    batch = workload.data.default_batch
    return batch_file(desk.deployment, workload, batch), f"batch {batch}"


def _trial(desk: Desk, artifact: ArtifactRef) -> Check:
    """Let the version answer a few rows of today's data, in the sandbox."""
    name = "trial"
    try:
        rows, source = _run_trial(desk, artifact)
    except SandboxError as error:
        if "sandbox" in error.what and not error.where.startswith("sandbox job"):
            # No sandbox could be had: that says nothing about the version, and must not quarantine anything.
            raise UnavailableError(f"no trial could be run: {error.what}", fix=error.fix) from error
        sure = _TOO_SLOW not in error.what
        return Check(name=name, ok=False, sentence=storable(error.what)[:1000], sure=sure)
    except (InvalidInputError, ConfigurationError, NotFoundError) as error:
        return Check(name=name, ok=False, sentence=storable(str(error))[:1000])
    return Check(name=name, ok=True, sentence=f"it answered {rows} rows of {source} in the sandbox")


def _run_trial(desk: Desk, artifact: ArtifactRef) -> tuple[int, str]:
    """How many rows of which data it answered."""
    model = desk.workload.model
    with tempfile.TemporaryDirectory(prefix="airlock-trial-") as name:
        folder = Path(name)
        source = materialise(desk.deployment, artifact, folder / "files")
        path, data = _today(desk)
        _first_rows(path, folder / "rows.parquet", desk.policy.operations.rollback.trial_rows)
        job: dict[str, Any] = {
            "kind": "trial",
            "candidate": model_job(
                source,
                role="candidate",
                where=f"{model.registered_model} version {artifact.version}",
                metadata=artifact.metadata,
                reviewed=reviewed_types(desk.policy),
            ),
            "rows": "rows",
            "features": model.features,
            "task": model.task,
        }
        output = folder / "output"
        output.mkdir()
        request = limited_request(
            desk.policy.sandbox,
            job,
            {"candidate": source, "rows": folder / "rows.parquet"},
            packages=own_packages(desk.deployment, desk.policy, source),
        )
        ran = desk.deployment.sandbox.run(request, output)
        if ran.attempts:
            raise SandboxError(f"it tried to {', '.join(ran.attempts)}"[:500], where="sandbox job trial")
        report = parse_json((output / "trial.json").read_bytes())
        if others := sorted(set(report["features"]) - set(model.features)):
            raise InvalidInputError(f"it uses columns the workload does not name: {', '.join(others)}")
        return int(report["rows"]), data


def _first_rows(path: Path, target: Path, count: int) -> None:
    import pyarrow.parquet

    try:
        rows = next(iter(pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=count)), None)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"this is no Parquet file: {error}", where=str(path)) from error
    if rows is None or rows.num_rows == 0:
        raise InvalidInputError("the batch has no rows", where=str(path))
    pyarrow.parquet.write_table(pyarrow.Table.from_batches([rows]), target)


def make_plan(desk: Desk, leaving: str, to: str | None, *, progress: Callable[[str], None]) -> Plan:
    """Find what takes over from ``leaving``: the first earlier version that is fit, else the fallback.

    A named version stands alone: when it is not fit, nothing takes its place, and ``how`` is ``quarantine``
    with what speaks against it among ``considered``.

    Raises:
        UnavailableError: something does not answer, so nothing is known.
    """
    considered: list[Considered] = []

    def chosen(how: How, one: Considered | None, constant: str = "") -> Plan:
        return Plan(
            workload=desk.workload.name,
            model=desk.model,
            policy=desk.policy.version,
            leaving=leaving,
            leaving_release=desk.moves.release_of(leaving) if leaving else "",
            how=how,
            to="" if one is None else one.version,
            to_release="" if one is None else one.release_id,
            considered=considered,
            constant=constant,
        )

    for version in _order(desk, leaving, to):
        progress(f"looking at version {version}")
        considered.append(consider(desk, version))
        if considered[-1].fit:
            return chosen("version", considered[-1])
    fallback = desk.workload.fallback
    if to is not None:
        return chosen("quarantine", None)
    if fallback is not None and fallback.version not in (None, leaving):
        progress(f"looking at the fallback, version {fallback.version}")
        considered.append(consider(desk, str(fallback.version), fallback=True))
        if considered[-1].fit:
            return chosen("fallback", considered[-1])
    if slow := [one.version for one in considered if one.unsure]:
        # A busy machine must not be what takes a model out of production.
        raise UnavailableError(
            f"the trial of version {', '.join(slow)} did not end in time, so nothing is known about it",
            where=desk.workload.name,
            fix="try again when the machine is less busy, or raise sandbox.seconds in the policy",
        )
    if fallback is not None and fallback.version is None:
        return chosen("constant", None, _constant(fallback.constant))
    return chosen("quarantine", None)


def _order(desk: Desk, leaving: str, to: str | None) -> list[str]:
    """Versions to look at: the named one alone, or all earlier ones that nobody rolled back from."""
    if to is not None:
        return [to]
    moves = desk.moves
    # By the log the champion may be another than the alias says: then it is the first to return to.
    earlier = [*([moves.champion] if moves.champion else []), *moves.earlier()]
    return [one for one in dict.fromkeys(earlier) if one != leaving and one not in moves.left]


def _constant(value: object) -> str:
    import json

    return json.dumps(value)
