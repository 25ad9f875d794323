"""Random histories of the audit log against a plain model: nothing that was acknowledged gets lost."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airlock.adapters.audit.log import Head
from airlock.core.audit import Event, Kind
from airlock.core.errors import ConflictError, UnavailableError
from airlock.proof import (
    EMPTY_ROOT,
    Checkpoint,
    KeyChange,
    PublicKey,
    Rotation,
    key_for,
    key_periods,
    verify_consistency,
)
from airlock.services.deployment import Deployment, anchors_of
from airlock.services.keys import rotate_key
from airlock.services.sequence import Sequencer, replay_spool
from tests.support.databases import Backend, deployment_on, make_event, sequencer_of, verify_log
from tests.support.deployments import Killed, ManualClock, fast_folder

KINDS = {"started": Kind.TASK_STARTED, "outcome": Kind.TASK_OUTCOME, "hold": Kind.HOLD_PLACED}
KEYS = st.builds(lambda name, n: f"{name}/{n}", st.sampled_from(sorted(KINDS)), st.integers(0, 3))
Content = tuple[str, int]
"""Key and number of an event."""


def event_of(content: Content, clock: ManualClock) -> Event:
    key, n = content
    kind = KINDS[key.partition("/")[0]]
    return make_event(key, kind=kind, data={"n": n}, occurred_us=clock.now_us())


class History(RuleBasedStateMachine):
    """A writer with a spool, two sequencers, a database and an anchor, and everything that befalls them.

    The model is three plain collections: what was acknowledged, what the table must hold, which conflicts
    it must hold beside that.
    """

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        folder = self.stack.enter_context(fast_folder())
        self.folder: Path = folder
        self.backend = Backend("sqlite", f"sqlite:///{folder / 'audit.db'}")
        self.deployment: Deployment = deployment_on(self.backend, folder / "world", wait_seconds=0)
        self.clock: Any = self.deployment.clock
        self.sequencers: list[Sequencer] = [self.open_sequencer() for _ in range(2)]
        self.pinned: PublicKey = self.sequencers[0].public_key
        self.is_away = False
        self.acknowledged: set[Content] = set()
        self.recorded: dict[str, int] = {}
        self.conflicts: set[Content] = set()
        self.seen = Head(0, EMPTY_ROOT, "")

    def open_sequencer(self) -> Sequencer:
        opened = sequencer_of(self.deployment)
        opened.start()
        return opened

    def stands(self, content: Content) -> bool:
        """Whether the table takes the event, as the model sees it."""
        key, n = content
        if self.recorded.setdefault(key, n) == n or key.startswith("outcome"):
            return True
        self.conflicts.add(content)
        return False

    # What writers do

    @rule(key=KEYS, n=st.integers(0, 2))
    def append(self, key: str, n: int) -> None:
        """Also the retry of what stands, and other content under its key."""
        event = event_of((key, n), self.clock)
        if self.is_away and not event.kind.spoolable:
            with pytest.raises(UnavailableError):
                self.deployment.audit.append(event)
            return
        if self.is_away:
            assert self.deployment.audit.append(event).ingest_id is None
        elif self.stands((key, n)):
            assert self.deployment.audit.append(event).event.data == {"n": self.recorded[key]}
        else:
            with pytest.raises(ConflictError):
                self.deployment.audit.append(event)
            return
        self.acknowledged.add((key, n))

    @rule(hours=st.integers(1, 5))
    def time_passes(self, hours: int) -> None:
        self.clock.advance(hours=hours)

    # What befalls the database

    @precondition(lambda self: not self.is_away)
    @rule()
    def database_goes_away(self) -> None:
        shutil.move(self.folder / "audit.db", self.folder / "gone.db")
        self.is_away = True

    @precondition(lambda self: self.is_away)
    @rule()
    def database_comes_back(self) -> None:
        shutil.move(self.folder / "gone.db", self.folder / "audit.db")
        self.is_away = False

    # What the sequencers do

    @rule(which=st.integers(0, 1))
    def step(self, which: int) -> None:
        if self.is_away:
            with pytest.raises(UnavailableError):
                self.sequencers[which].step()
        else:
            self.sequencers[which].step()

    @precondition(lambda self: not self.is_away)
    @rule(which=st.integers(0, 1))
    def publish(self, which: int) -> None:
        self.sequencers[which].publish()

    @precondition(lambda self: not self.is_away)
    @rule(which=st.integers(0, 1))
    def crash_and_restart(self, which: int) -> None:
        self.sequencers[which] = self.open_sequencer()

    @precondition(lambda self: not self.is_away)
    @rule(which=st.integers(0, 1))
    def integration_is_rolled_back(self, which: int) -> None:
        killed = self.sequencers[which]
        waits = self.deployment.log.waiting().count
        sign = killed._sign

        def die(size: int, root: bytes) -> str:
            raise Killed

        killed._sign = die  # type: ignore[method-assign]
        try:
            killed.step()
        except Killed:
            assert waits
        finally:
            killed._sign = sign  # type: ignore[method-assign]
        assert self.deployment.log.waiting().count == waits

    @precondition(lambda self: not self.is_away)
    @rule()
    def ask_for_another_key(self) -> None:
        try:
            rotate_key(self.deployment, actor="petra", reason="a test")
        except UnavailableError:
            return  # recorded, and not anchored yet

    @rule()
    def replay(self) -> None:
        waiting = [self.deployment.spool.read(path) for path in self.deployment.spool.waiting()]
        anchors = anchors_of(self.deployment.settings)
        if self.is_away:
            if waiting:
                with pytest.raises(UnavailableError):
                    replay_spool(self.deployment, anchors)
            assert len(self.deployment.spool.waiting()) == len(waiting)
            return
        assert replay_spool(self.deployment, anchors).damaged == ()
        for event in waiting:
            self.stands((event.key, event.data["n"]))
        left = [self.deployment.spool.read(path) for path in self.deployment.spool.waiting()]
        for event in waiting:
            assert event in left or self.is_covered(event), "a file goes when its event is anchored"

    def is_covered(self, event: Event) -> bool:
        names = [anchor.name for anchor in anchors_of(self.deployment.settings)]
        stand = self.deployment.audit.events(key=event.key)
        if (event.key, event.data["n"]) in self.conflicts:
            conflicts = self.deployment.audit.events(kinds=[Kind.CONFLICT])
            stand = [entry for entry in conflicts if entry.event.data["key"] == event.key]
        ids = [entry.ingest_id for entry in stand if entry.ingest_id is not None]
        return bool(ids) and all(self.deployment.log.is_anchored(found, names) for found in ids)

    # What always holds

    @invariant()
    def the_log_only_grows_and_holds_what_does_not_wait(self) -> None:
        if self.is_away:
            return
        log = self.deployment.log
        head = log.head()
        proof = log.prove_consistency(self.seen.size, head.size)
        verify_consistency(self.seen.size, self.seen.root, head.size, head.root, proof)
        rebuilt = log.tree()
        assert (rebuilt.size, rebuilt.root) == (head.size, head.root)
        assert len(self.deployment.audit.events()) == log.waiting().count + head.size
        self.seen = head

    @invariant()
    def the_anchor_is_never_ahead_and_never_another_history(self) -> None:
        latest = anchors_of(self.deployment.settings)[0].latest()
        if latest is None or self.is_away:
            return
        held, head = Checkpoint.parse(latest), self.deployment.log.head()
        proof = self.deployment.log.prove_consistency(held.size, head.size)
        verify_consistency(held.size, held.root, head.size, head.root, proof)

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        with self.stack:
            if self.is_away:
                self.database_comes_back()
            self.drain()
            self.everything_is_there()

    def drain(self) -> None:
        anchors = anchors_of(self.deployment.settings)
        for _ in range(3):
            self.replay()
            while self.sequencers[0].step() is not None:
                pass
            self.sequencers[0].publish()
        assert replay_spool(self.deployment, anchors).replayed == 0
        assert self.deployment.spool.waiting() == self.deployment.spool.damaged() == []

    def everything_is_there(self) -> None:
        log = self.deployment.log
        events = verify_log(log)
        ours = {event.key: event.data["n"] for event in events if event.kind in KINDS.values()}
        assert ours == self.recorded
        conflicts = [event.data["key"] for event in events if event.kind is Kind.CONFLICT]
        assert sorted(conflicts) == sorted(key for key, _ in self.conflicts)
        for key, n in self.acknowledged:
            assert ours[key] == n or key.startswith("outcome") or (key, n) in self.conflicts
        changes = [
            KeyChange(place + 1, Rotation.parse(event.data["statement"]))
            for place, event in enumerate(events)
            if event.kind is Kind.KEY_ROTATED
        ]
        periods = key_periods(self.pinned, changes)
        published = [Checkpoint.parse(note) for note in anchors_of(self.deployment.settings)[0].history()]
        for signed in [*(Checkpoint.parse(head.note) for head in log.checkpoints()), *published]:
            assert signed.note.signed_by(key_for(periods, signed.size)), signed.size
            assert signed.root == log.root(signed.size)


@pytest.mark.slow
@pytest.mark.requirement("E-1", "E-2")
def test_no_history_loses_doubles_or_forks_anything() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
