"""The sequencer: puts recorded events into the signed log, and the log's checkpoints into its anchors.

It alone holds the signing key. One step is one transaction; a checkpoint is published only after its
transaction is committed, because a published one that was rolled back would be a fork.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence

from airlock.adapters.audit import SqlAuditStore
from airlock.adapters.audit.keys import SigningKey, next_path, replace_key
from airlock.adapters.audit.log import BATCH, Head, Log
from airlock.adapters.audit.spool import Replay
from airlock.core.audit import Kind, Recorded
from airlock.core.errors import (
    AirlockError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
)
from airlock.core.merkle import Tree
from airlock.ports import Anchor
from airlock.proof import Checkpoint, ProofError, PublicKey, Rotation
from airlock.services.deployment import Deployment, immediate
from airlock.services.privacy import reapply_erasures

logger = logging.getLogger(__name__)

STEP_SECONDS = 0.05
"""How often the queue is looked at. A checkpoint costs the same for one event as for a thousand, so that
following each event at once would take the processor from those who append."""

_RETRY_SECONDS = 5.0
_TRIES = 3
_REPLAY_SECONDS = 2.0


class Sequencer:
    """Integrates, signs and publishes. Several may run: each step belongs to one of them."""

    def __init__(self, deployment: Deployment, anchors: Sequence[Anchor]) -> None:
        self._deployment = deployment
        self._anchors = anchors
        self._log = deployment.log
        self._clock = deployment.clock
        self._key_path = deployment.settings.signing_key
        self._key = SigningKey.load(self._key_path)
        self._publishers = [_Publisher(anchor, self) for anchor in anchors]
        self._tree: Tree | None = None
        self._replay_at = 0.0

    @property
    def log(self) -> Log:
        """The log it works on."""
        return self._log

    @property
    def public_key(self) -> PublicKey:
        """Public half of the key it signs with."""
        return self._key.public

    @property
    def origin(self) -> str:
        """Name of the log it signs."""
        return self._key.public.name

    def start(self) -> None:
        """Look at log and anchors before anything is signed.

        An anchor that does not answer now is looked at before it is published to.

        Raises:
            IntegrityError: the key is not the log's, or an anchor holds what this log does not: it was
                restored from an old backup, or changed.
            UnavailableError: the database does not answer.
        """
        self._settle_key(self._log.head())
        for publisher in self._publishers:
            try:
                publisher.check()
            except UnavailableError as error:
                logger.warning("%s", error)
        if back := reapply_erasures(self._deployment):
            logger.warning("%d erased texts had come back with a backup and were erased again", back)

    def step(self) -> Head | None:
        """Integrate what waits, once; ``None`` when there was nothing.

        Raises:
            UnavailableError: the database does not answer; the next step begins from what it holds.
        """
        try:
            if self._tree is None:
                # In this order: a key that is changed in between comes with an event that this tree lacks,
                # and what it would sign is refused.
                self._tree = self._log.tree()
                self._settle_key(self._log.head())
            done = self._log.integrate(self._tree, self._sign)
        except ConflictError:
            self._tree = None
            return self._log.head()
        except BaseException:
            self._tree = None  # whether the transaction happened is not known
            raise
        if done is None:
            return None
        self._tree, head, kinds = done
        if kinds[-1] in (Kind.KEY_ROTATED, Kind.LOG_RESTARTED):
            self._settle_key(head)
        return head

    def _sign(self, size: int, root: bytes) -> str:
        return self._key.sign_checkpoint(size, root, seconds=self._clock.now_us() // 1_000_000)

    def _settle_key(self, head: Head) -> None:
        """Hold the key that signs next, putting a successor in place when its turn has come."""
        expected = self._key.public
        successors = self._successors()
        while (following := successors.get(expected)) is not None:
            expected = following
        if self._key.public != expected:
            try:
                successor = SigningKey.load(next_path(self._key_path))
            except NotFoundError:
                successor = None  # another sequencer has put it in place
            if successor is not None and successor.public == expected:
                replace_key(self._key_path, successor)
            self._key = SigningKey.load(self._key_path)
        signed = not head.note or Checkpoint.parse(head.note).note.signed_by(self._key.public)
        if self._key.public != expected or not (signed or self._key.public in successors.values()):
            raise IntegrityError(
                f"the signing key {self._key.public.id} is not the one that signs this log",
                where=str(self._key_path),
                fix="restore the log's key from its backup; another deployment's key cannot continue it",
            )

    def _successors(self) -> dict[PublicKey, PublicKey]:
        """Keys that others replace from now on; statements that the old key did not sign say nothing."""
        changes = self._deployment.audit.events(kinds=[Kind.KEY_ROTATED, Kind.LOG_RESTARTED])
        places = self._log.seqs([entry.ingest_id for entry in changes if entry.ingest_id is not None])
        found = {}
        for entry in changes:
            # A log is begun anew before anything else is signed; a rotation is signed by the old key still.
            if entry.ingest_id not in places and entry.event.kind is not Kind.LOG_RESTARTED:
                continue
            try:
                rotation = Rotation.parse(str(entry.event.data.get("statement")))
            except ProofError as error:
                logger.warning("event %s: %s", entry.event.key, error)
                continue
            found[rotation.old] = rotation.new
        return found

    def restarted_from(self, origin: str) -> bool:
        """Whether this log says that it was begun anew after the log ``origin``."""
        return any(old.name == origin and new.name != origin for old, new in self._successors().items())

    def publish(self, *, everything: bool = False) -> None:
        """Give the newest checkpoint to each anchor that is due; one that does not answer is tried later.

        Raises:
            IntegrityError: an anchor holds what this log does not.
        """
        head = self._log.head()
        for publisher in self._publishers if head.size else []:
            publisher.publish(head, now=everything)

    def work(self) -> bool:
        """One round: integrate, publish, and replay this machine's spool; whether more waits already.

        Raises:
            UnavailableError: the database does not answer.
            IntegrityError: something is wrong that only people can mend.
        """
        before = self._tree.size if self._tree is not None else None
        head = self.step() if self._log.has_waiting() else None
        self.publish()
        if time.monotonic() >= self._replay_at:
            replay = replay_spool(self._deployment, self._anchors)
            for path in replay.damaged:
                logger.error("%s: a spooled event is damaged and was set aside; look at the file", path)
            if not replay.removed:
                self._replay_at = time.monotonic() + _REPLAY_SECONDS
        return head is not None and before is not None and head.size - before >= BATCH

    def run(self, stop: threading.Event, on_error: Callable[[AirlockError], None]) -> None:
        """Work until ``stop`` is set; what does not answer is tried again.

        Raises:
            IntegrityError: something is wrong that only people can mend; nothing is signed after it.
        """
        started = False
        while not stop.is_set():
            next_at = time.monotonic() + STEP_SECONDS
            try:
                if not started:
                    self.start()
                    started = True
                more = self.work()
            except UnavailableError as error:
                on_error(error)
                stop.wait(1)
                continue
            if not more:
                stop.wait(max(0.0, next_at - time.monotonic()))
        try:
            self.publish(everything=True)
        except UnavailableError as error:
            on_error(error)


class _Publisher:
    """Brings checkpoints to one anchor."""

    def __init__(self, anchor: Anchor, sequencer: Sequencer) -> None:
        self.anchor = anchor
        self._sequencer = sequencer
        self._last: str | None = None
        self._checked = False
        self._due_at = 0.0

    def check(self) -> None:
        """Read what the anchor holds, and see that this log continues it."""
        # Receipts before the anchor, the log after it: another sequencer may be at work, which commits,
        # publishes and notes the receipt in that order.
        held = self._sequencer.log.receipts().get(self.anchor.name)
        latest = self.anchor.latest()
        if latest is None and held:
            raise IntegrityError(
                f"the anchor is empty, but held a checkpoint of {held} entries",
                where=self.anchor.name,
                fix="find out who emptied it; to go on, restore it or name another place",
            )
        if latest is not None:
            self._compare(latest, self._sequencer.log.head())
        self._last, self._checked = latest, True

    def _compare(self, latest: str, head: Head) -> None:
        """See that the log continues what the anchor holds, and note that it holds it.

        Whoever published it may have died before noting it.
        """
        try:
            held = Checkpoint.parse(latest)
        except ProofError as error:
            raise IntegrityError(
                f"the anchor holds no checkpoint: {error}", where=self.anchor.name
            ) from error
        if held.origin != self._sequencer.origin and self._sequencer.restarted_from(held.origin):
            return
        if held.origin != self._sequencer.origin:
            raise IntegrityError(
                f"the anchor belongs to another log, {held.origin}",
                where=self.anchor.name,
                fix="give each log an anchor of its own in AIRLOCK_AUDIT_ANCHORS",
            )
        if held.size > head.size:
            raise IntegrityError(
                f"the anchor is ahead of the database: it holds {held.size} entries, the log {head.size}",
                where=self.anchor.name,
                fix="the database was restored from an old backup, or cut. Restore a newer one and replay "
                "the spools; if there is none, `airlock audit restart-log` begins a log that names this one",
            )
        if self._sequencer.log.root(held.size) != held.root:
            raise IntegrityError(
                f"the anchor holds another history of the first {held.size} entries",
                where=self.anchor.name,
                fix="the database was changed; run `airlock audit verify`, which says where",
            )
        self._sequencer.log.add_receipt(self.anchor.name, held.size)

    def publish(self, head: Head, *, now: bool) -> None:
        """Give the anchor the newest checkpoint when it is due."""
        if head.note == self._last or (not now and time.monotonic() < self._due_at):
            return
        for _ in range(_TRIES):
            try:
                if not self._checked:
                    self.check()
                    head = self._sequencer.log.head()
                receipt = self.anchor.publish(head.note, after=self._last)
            except ConflictError:
                self._checked = False  # another sequencer published; look again
                continue
            except UnavailableError as error:
                self._checked = False
                self._due_at = time.monotonic() + _RETRY_SECONDS
                logger.warning("%s", error)
                return
            self._last = head.note
            self._due_at = time.monotonic() + self.anchor.every_seconds
            logger.info("%s holds the checkpoint of %d entries: %s", self.anchor.name, head.size, receipt)
            self._sequencer.log.add_receipt(self.anchor.name, head.size)
            return
        self._due_at = time.monotonic() + STEP_SECONDS


def replay_spool(deployment: Deployment, anchors: Sequence[Anchor]) -> Replay:
    """Put events that waited in this machine's spool into the store; for machines without a sequencer.

    Raises:
        UnavailableError: the database does not answer; everything stays.
    """
    # Asked once: with a long backlog every question counts, and what is anchored meanwhile is safe next time.
    receipts = deployment.log.receipts()
    covered = min((receipts.get(name, 0) for name in immediate(anchors)), default=sys.maxsize)

    def is_safe(recorded: Recorded) -> bool:
        if recorded.ingest_id is None:
            return False
        seq = deployment.log.seqs([recorded.ingest_id]).get(recorded.ingest_id)
        return seq is not None and covered > seq

    # Without a spool of its own: what is replayed must not come back to where it was.
    store = SqlAuditStore(deployment.log.database, deployment.clock, deployment.vault)
    return deployment.spool.replay(store, is_safe)
