"""Decide past releases again under another policy, from their stored evidence alone (requirement P-4).

Nothing is recorded and no gate runs: whose outcome, track or seats would change, and why.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

from airlock.core.audit import Event, Kind
from airlock.core.decision import Ruling, required_gates, rule_on
from airlock.core.errors import AirlockError, ConfigurationError, UnavailableError
from airlock.core.evidence import Evidence
from airlock.core.held import HeldLimit, rejudged
from airlock.core.policy import Policy
from airlock.core.replay import Difference, summary_of, why_different
from airlock.core.waiver import Waiver
from airlock.core.workload import Workload
from airlock.gates import load_gate
from airlock.ports import EvidenceStore, PolicyEngine
from airlock.services.deployment import Deployment
from airlock.services.stored import Fields, stored_evidence, stored_manifest
from airlock.services.waivers import list_waivers

ALONE = 300
"""Releases below which another process costs more than it gives."""

CHUNK = 100


@dataclass(frozen=True)
class Past:
    """A decided release, as its event tells it."""

    release_id: str
    workload: str
    version: str
    decided_us: int
    decision: str

    @classmethod
    def of(cls, event: Event) -> Past:
        """From the event of its decision."""
        return cls(
            event.release_id, event.workload, event.version, event.occurred_us, str(event.data["decision"])
        )


@dataclass
class Replay:
    """What another policy would have decided.

    Attributes:
        total: releases looked at.
        changed: those whose outcome, track or seats differ.
        unsure: those where a gate would have to run again; each is also among ``changed`` if what is known
            differs already.
        failed: releases that could not be decided again, with the reason.
    """

    policy: Policy
    total: int = 0
    changed: list[Difference] = field(default_factory=list)
    unsure: list[Difference] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """For programs."""
        return {
            "policy": {"version": self.policy.version, "digest": self.policy.digest},
            "total": self.total,
            "same": self.total - len({*(d.release_id for d in self.changed), *self.failed}),
            "changed": [{**one.to_data(), "changed": one.changed} for one in self.changed],
            "unsure": [{"release_id": one.release_id, "gates": one.unsure} for one in self.unsure],
            "failed": self.failed,
        }


def past_releases(
    deployment: Deployment, *, since_us: int | None = None, workload: str | None = None
) -> list[Past]:
    """Decided releases of this deployment, oldest first."""
    recorded = deployment.audit.events(kinds=[Kind.RELEASE_DECIDED], since_us=since_us, workload=workload)
    name = deployment.settings.deployment
    return [Past.of(entry.event) for entry in recorded if entry.event.deployment == name]


def replay(
    deployment: Deployment,
    policy: Policy,
    *,
    since_us: int | None = None,
    workload: str | None = None,
    processes: int | None = None,
) -> Replay:
    """Decide every past release again under ``policy``.

    Args:
        deployment: where.
        policy: the other policy; it need not be published.
        since_us: releases decided from then on, microseconds since 1970.
        workload: only this one's.
        processes: how many work at once; all of this machine's if not given.

    Raises:
        UnavailableError: the audit store does not answer.
    """
    past = past_releases(deployment, since_us=since_us, workload=workload)
    again = Again(deployment.evidence, deployment.engine, policy, held_waivers(deployment))
    report = Replay(policy)
    for one, found in zip(past, decided_again(again, past, processes), strict=True):
        report.total += 1
        if isinstance(found, str):
            report.failed[one.release_id] = found
            continue
        if found.changed:
            report.changed.append(found)
        if found.unsure:
            report.unsure.append(found)
    return report


Outcome = Difference | str


def decided_again(again: Again, past: Sequence[Past], processes: int | None = None) -> list[Outcome]:
    """The difference for each release, or why it cannot be told; in several processes where that pays."""
    workers = min(processes or os.cpu_count() or 1, len(past) // ALONE + 1)
    if workers < 2:  # noqa: PLR2004  # one works here
        return [again.one(one) for one in past]
    # Forked, so that the policy and the engine need not travel: one may hold what cannot be pickled.
    context = multiprocessing.get_context("fork")
    chunks = [past[start : start + CHUNK] for start in range(0, len(past), CHUNK)]
    _WORK.append(again.one)
    try:
        with context.Pool(workers) as pool:
            return [found for chunk in pool.imap(_work, chunks) for found in chunk]
    finally:
        _WORK.pop()


_WORK: list[Callable[[Past], Outcome]] = []
"""What forked processes do; set before the fork."""


def _work(chunk: Sequence[Past]) -> list[Outcome]:
    return [_WORK[-1](one) for one in chunk]


@dataclass(frozen=True)
class Held:
    """A granted waiver and when it was in force."""

    waiver: Waiver
    until_us: int

    def held_at(self, moment_us: int) -> bool:
        """Whether releases could rest on it at that moment."""
        return self.waiver.granted_us <= moment_us < self.until_us


def held_waivers(deployment: Deployment) -> list[Held]:
    """Every waiver that was ever in force, until it ended or was taken back."""
    found = []
    for request in list_waivers(deployment):
        if (waiver := request.granted) is not None:
            revoked = waiver.until_us if request.revoked is None else request.revoked.occurred_us
            found.append(Held(waiver, min(waiver.until_us, revoked)))
    return found


class Again:
    """Decides single releases again under one policy."""

    def __init__(
        self,
        evidence: EvidenceStore,
        engine: PolicyEngine,
        policy: Policy,
        waivers: Sequence[Held] = (),
    ) -> None:
        self._evidence = evidence
        self._engine = engine
        self._waivers = waivers
        self._policy = policy
        self._without: dict[frozenset[str], Policy] = {frozenset(): policy}
        self.workload = lru_cache(maxsize=256)(self._read_workload)
        self.gates = lru_cache(maxsize=64)(self._read_gates)

    def one(self, past: Past) -> Outcome:
        """The difference for one release, or why it cannot be told."""
        try:
            return self._one(past)
        except UnavailableError:
            raise  # it says nothing about this release
        except AirlockError as error:
            return str(error)
        except (KeyError, TypeError, ValueError) as error:
            return f"what was stored cannot be read: {type(error).__name__}: {error}"

    def _one(self, past: Past) -> Difference:
        before = Fields(self._evidence.get(past.decision))
        manifest = stored_manifest(self._evidence, before["manifest_digest"])
        pinned = self.gates(before["policy_digest"])
        unsure: list[str] = []
        evidence: dict[str, Evidence] = {}
        for name, digest in before["evidence"].items():
            record = stored_evidence(self._evidence, digest)
            evidence[name], sure = self._judged(record, pinned)
            unsure += [] if sure else [name]
        new = {gate for gate in required_gates(self._policy) if gate not in evidence}
        # A gate that was asked and gave no answer is missing; one that nobody asked would have to run.
        missing = {gate for gate in new if not _was_asked(before, gate)}
        waivers = [one.waiver for one in self._waivers if one.held_at(past.decided_us)]
        after = rule_on(
            manifest=manifest,
            workload=self.workload(manifest.workload_digest),
            policy=self._policy_without(frozenset(missing)),
            evidence=evidence,
            engine=self._engine,
            as_of=date.fromisoformat(before["as_of"]),
            waivers=waivers,
        )
        return self._difference(past, before, after, sorted({*unsure, *missing}))

    def _judged(self, record: Evidence, pinned: Mapping[str, Any]) -> tuple[Evidence, bool]:
        """A gate's evidence under the other policy, and whether that is certain."""
        config = self._policy.gates.get(record.gate)
        # None for the scoring pass, and for a gate that is not asked any more.
        if config is None or config == pinned.get(record.gate):
            return record, True
        after = rejudged(record, _complete(config, record.config), limits_held_by(record.gate))
        if after is None:
            return record, False
        if after is not record:
            summary = f"{record.gate} would say {after.verdict} under policy {self._policy.version}"
            after = after.model_copy(update={"result": after.result.model_copy(update={"summary": summary})})
        return after, True

    def _policy_without(self, gates: frozenset[str]) -> Policy:
        if gates not in self._without:
            kept = {name: config for name, config in self._policy.gates.items() if name not in gates}
            self._without[gates] = self._policy.model_copy(update={"gates": kept})
        return self._without[gates]

    def _difference(
        self, past: Past, before: Mapping[str, Any], after: Ruling, unsure: list[str]
    ) -> Difference:
        then = {
            "outcome": before["outcome"],
            "track": before["track"],
            "seats": sorted(seat["role"] for seat in before["seats"]),
        }
        now = summary_of(after)
        return Difference(
            release_id=past.release_id,
            workload=past.workload,
            version=past.version,
            decided_us=past.decided_us,
            before=then,
            after=now,
            why=[] if then == now else why_different(before, after.fired),
            unsure=unsure,
        )

    def _read_gates(self, digest: str) -> Mapping[str, Any]:
        gates: Mapping[str, Any] = Fields(self._evidence.get(digest))["gates"]
        return gates

    def _read_workload(self, digest: str) -> Workload:
        return Workload.from_bytes(self._evidence.get(digest))


def limits_held_by(gate: str) -> Sequence[HeldLimit]:
    """The limits of a gate that can move without a re-run; none of a gate that does not exist any more."""
    try:
        return getattr(load_gate(gate), "HELD", ())
    except ConfigurationError:
        return ()


def _was_asked(before: Mapping[str, Any], gate: str) -> bool:
    missing = [reason["message"] for reason in before["reasons"] if reason["rule"] == "gates-complete"]
    return any(gate in message for message in missing)


def _complete(config: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """A gate's section with the defaults it leaves out, which stand in the stored configuration."""
    return {**{name: value for name, value in stored.items() if name not in config}, **config}
