"""What a preflight says: findings like those of a linter, the predicted track, and who will be asked."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from airlock.core.base import Value
from airlock.core.decision import Outcome
from airlock.core.policy import Tier, Track
from airlock.core.risk import RiskScore
from airlock.core.rules import Reason


class Level(StrEnum):
    """How bad a finding is: an error would deny the release, a warning would not; a note says why."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"

    def reaches(self, other: Level) -> bool:
        """Whether it is at least as bad as ``other``."""
        order = list(Level)
        return order.index(self) >= order.index(other)


class Note(Value):
    """One finding.

    Attributes:
        rule: what found it: ``GATE/FINDING``, a rule of the policy, or ``workload/…`` for the files.
        file: the file to mend, relative to the current folder where it is inside; empty when there is none.
        line: counted from 1; 0 when it is about the whole file.
    """

    rule: str
    level: Level
    message: str
    why: str = ""
    fix: str = ""
    file: str = ""
    line: Annotated[int, Field(ge=0)] = 0


class NeededSeat(Value):
    """One approval that would be asked for.

    Attributes:
        rules: rules that ask for it.
        people: names of those who may answer; never the submitter.
    """

    role: str
    reason: str
    rules: list[str] = []
    people: list[str] = []


class Preflight(Value):
    """The whole answer.

    Attributes:
        version: empty when only the files of the workload were judged.
        outcome: what the release would be decided; ``None`` while something was not measured.
        track: the predicted track; ``None`` while something was not measured.
        at_least: the lightest track that is still possible.
        unknown: what would have to be measured to know more, in words.
        seconds: how long each part took.
    """

    workload: str
    version: str = ""
    policy: str = ""
    outcome: Outcome | None = None
    track: Track | None = None
    at_least: Track = Track.GREEN
    tier: Tier | None = None
    risk: RiskScore | None = None
    seats: list[NeededSeat] = []
    notes: list[Note] = []
    reasons: list[Reason] = []
    unknown: list[str] = []
    seconds: dict[str, float] = {}

    def at_level(self, level: Level) -> list[Note]:
        """Findings that are at least this bad, worst first."""
        found = [note for note in self.notes if note.level.reaches(level)]
        return sorted(found, key=lambda note: -list(Level).index(note.level))


def reason_notes(reasons: list[Reason], place: str, line: int) -> list[Note]:
    """The fired rules of a decision as findings about the workload file."""
    notes = []
    for reason in reasons:
        # A gate speaks with the findings it made itself.
        if not reason.fired or reason.rule.startswith("gate-"):
            continue
        level = Level.ERROR if reason.denies else Level.WARNING if reason.effect == "warn" else Level.NOTE
        notes.append(
            Note(
                rule=reason.rule,
                level=level,
                message=f"{reason.effect}: {reason.message}" if level is Level.NOTE else reason.message,
                why=reason.why,
                fix=reason.fix,
                file=place,
                line=line,
            )
        )
    return notes
