"""The courier: follows the log and tells people, through every channel, until it has worked.

Nothing is queued where it could be lost: what has to be told is computed from the log, what was told stands
in the outbox. After an outage of a channel, or of the courier, it goes on where it stopped. A message may
come twice when the courier is killed between sending it and noting that; it is never left out.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from airlock.adapters.outbox import Outbox, Told
from airlock.core.errors import AirlockError, InvalidInputError, UnavailableError
from airlock.core.notices import ChannelSpec, Notice, Topic
from airlock.core.release import State
from airlock.ports import Notifier
from airlock.services.deployment import Deployment
from airlock.services.notices import due_notices, wakes_us
from airlock.services.operation_notices import is_operation, open_subjects, operation_due, subjects_of
from airlock.services.releases import find_release, list_releases, state_of

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.25
PART = 2000
LONGEST_PAUSE_US = 300_000_000
FIRST_START = 200
"""Newest releases among which those that wait are told about when the courier runs for the first time."""

BEAT_SECONDS = 5.0
"""How often it leaves a sign of life."""


def sign_of_life(deployment: Deployment) -> Path:
    """The file whose time says when the courier of this machine last had looked at everything."""
    return deployment.settings.home / "courier.alive"


Channel = tuple[ChannelSpec, Notifier]


class Courier:
    """Tells the channels of one deployment."""

    def __init__(self, deployment: Deployment, channels: Sequence[Channel], outbox: Outbox) -> None:
        self._deployment = deployment
        self._channels = channels
        self._outbox = outbox

    def step(self) -> int:
        """Look at what is new or due once; returns how many messages were sent.

        Raises:
            UnavailableError: the audit store or the outbox does not answer.
        """
        self._follow()
        sent = 0
        for release_id in self._outbox.due(self._deployment.clock.now_us()):
            sent += self._tell(release_id)
        return sent

    def run(self, stop: threading.Event, on_error: Callable[[AirlockError], None]) -> None:
        """Do so until ``stop`` is set; errors are told, and it goes on."""
        alive, beat = sign_of_life(self._deployment), 0.0
        while not stop.is_set():
            try:
                self.step()
                if time.monotonic() - beat >= BEAT_SECONDS:
                    alive.touch()
                    beat = time.monotonic()
            except AirlockError as error:
                on_error(error)
                stop.wait(2)
            stop.wait(PAUSE_SECONDS)

    def _follow(self) -> None:
        """Note which releases something was recorded about."""
        source, position = self._deployment.log, self._outbox.position()
        size = source.head().size
        if position is None or position > size:
            # The first start, or another log: what is over is not news, what waits is.
            waiting = [
                release.release_id
                for release in list_releases(self._deployment, limit=FIRST_START)
                if state_of(self._deployment, release) is State.WAITING
            ]
            self._outbox.advance(size, [*waiting, *open_subjects(self._deployment)])
            return
        while position < size:
            bodies = [json.loads(body) for body in source.bodies(position, min(PART, size - position))]
            position += len(bodies)
            name = self._deployment.settings.deployment
            touched = {
                subject for body in bodies if body["deployment"] == name for subject in subjects_of(body)
            }
            self._outbox.advance(position, sorted(touched))

    def _due(self, subject: str) -> tuple[list[Notice], list[int]]:
        """Notices about a subject, and the moments they change by themselves."""
        if is_operation(subject):
            return operation_due(self._deployment, subject)
        release = find_release(self._deployment, subject)
        return due_notices(self._deployment, release), wakes_us(self._deployment, release)

    def _tell(self, release_id: str) -> int:
        """Bring every channel up to date about a release."""
        try:
            notices, wakes = self._due(release_id)
        except UnavailableError:
            raise
        except AirlockError as error:
            # A release that cannot be read now can be read by nobody; it must not hold up the others.
            log.warning("nothing can be told about a release", release=release_id, problem=str(error))
            self._outbox.sleep(release_id, None)
            return 0
        # What somebody has just done is shown first: who pressed a button looks at that message. Seats are
        # the parents of everything else.
        notices.sort(key=lambda notice: (notice.topic is not Topic.SEAT, notice.waits))
        sent, pauses = 0, []
        for spec, notifier in self._channels:
            for notice in notices:
                if not spec.takes(notice):
                    continue
                worked = self._send(spec, notifier, notice)
                sent += worked is True
                if worked is not True and worked is not None:
                    pauses.append(worked)
        now = self._deployment.clock.now_us()
        later = [*wakes, *(now + pause for pause in pauses)]
        self._outbox.sleep(release_id, min(later) if later else None)
        return sent

    def _send(self, spec: ChannelSpec, notifier: Notifier, notice: Notice) -> bool | int | None:
        """Send one notice if the channel has not had it.

        Returns:
            ``True`` when it was sent, ``None`` when there was nothing to do, else the microseconds to wait.
        """
        told = self._outbox.told(spec.name, notice.notice_id)
        if told.digest == notice.digest:
            return None
        thread = self._outbox.told(spec.name, notice.thread).reference if notice.thread else ""
        try:
            if told.reference:
                notifier.update(told.reference, notice)
                reference = told.reference
            else:
                reference = notifier.post(notice, thread=thread)
        except UnavailableError as error:
            attempts = told.attempts + 1
            self._outbox.record(
                spec.name, notice.notice_id, Told(told.digest, told.reference, attempts, str(error))
            )
            log.warning("a channel does not answer", channel=spec.name, attempts=attempts, problem=str(error))
            pause = int(min(LONGEST_PAUSE_US, 1_000_000 * 2 ** min(attempts - 1, 20)))
            return max(pause, int(error.seconds * 1_000_000))
        except InvalidInputError as error:
            # It will be refused again: noted as told, so that it does not stand in the way of the next state.
            problem = str(error)
            log.warning(
                "a channel refuses a notice", channel=spec.name, notice=notice.notice_id, problem=problem
            )
            self._outbox.record(spec.name, notice.notice_id, Told(notice.digest, told.reference, 0, problem))
            return None
        self._outbox.record(spec.name, notice.notice_id, Told(notice.digest, reference))
        return True
