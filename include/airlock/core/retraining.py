"""A workload trained again on purpose: what was asked for, what was frozen, and where it stands (M-3)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from airlock.core.audit import Event, Kind
from airlock.core.base import Value
from airlock.core.manifest import ArtifactRef, DataRef, Digest
from airlock.core.production import Window

RETRAIN_PREFIX = "retrain__"
"""Ids of retraining DAGs start with it; the rest is the workload's name. So do runs of the releases they
submit, where the rest is the retraining's id."""

KINDS = (
    Kind.RETRAIN_REQUESTED,
    Kind.RETRAIN_FROZEN,
    Kind.RETRAIN_CHECKED,
    Kind.RETRAIN_TRAINED,
    Kind.RETRAIN_COMPARED,
    Kind.RETRAIN_CLOSED,
    Kind.RETRAIN_SUBMITTED,
)


class TrainingData(Value):
    """What to train on: a stretch of the production log, a Parquet file, or the pinned training data.

    Attributes:
        window: predictions of this time whose outcome is known.
        file: Parquet file inside the data directory.
    """

    window: Window | None = None
    file: Annotated[str, Field(max_length=1000)] = ""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.window is not None and self.file:
            raise ValueError("train on a window of the log or on a file, not on both")
        if self.file.startswith(("/", "~")) or ".." in self.file.split("/"):
            raise ValueError(f"file {self.file!r} must lie inside the data directory")
        return self

    @property
    def text(self) -> str:
        """For people."""
        if self.window is not None:
            return f"production log of {self.window.text}"
        return f"file {self.file}" if self.file else "the pinned training data"


class Plan(Value):
    """What a retraining is made of, frozen by content before anything runs.

    Attributes:
        training: rows to train on.
        holdout: rows that were kept from it, on which the new model must beat the champion.
        suite_digest: expectations that can be asked of these columns.
        left_out: expectations that cannot, because their columns are not there.
        code: digest of the list of the training code's files.
        parameters: digest of what the command is told.
        champion: version in production, which it is compared with; ``None`` when there is none.
    """

    retrain_id: str
    workload: str
    workload_digest: Digest
    policy_version: str
    policy_digest: Digest
    data: TrainingData
    training: DataRef
    holdout: DataRef
    reference: DataRef
    suite_digest: Digest
    left_out: list[str] = []
    code: Digest
    parameters: Digest
    champion: ArtifactRef | None
    champion_run: str = ""
    commit: str = ""
    environment: dict[str, str] = {}


class Comparison(Value):
    """Champion and new model on the rows that neither was fitted to.

    Attributes:
        value: of the new model; ``champion`` likewise, ``None`` without a champion.
        improvement: how much better the new model is, in units of the metric; negative when it is worse.
        interval: of the improvement as a share of the champion's value, at ``confidence``.
    """

    metric: str
    value: float
    champion: float | None = None
    improvement: float | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    rows: int

    @property
    def better(self) -> bool:
        """Whether it is worth a release; without a champion everything is."""
        return self.champion is None or (self.improvement is not None and self.improvement > 0)

    @property
    def text(self) -> str:
        """For people."""
        if self.champion is None:
            return f"{self.metric} is {self.value:.4g} on {self.rows} rows, and there is no champion"
        text = f"{self.metric} is {self.value:.4g} on {self.rows} rows that were kept from both, "
        text += f"the champion's {self.champion:.4g}"
        if self.interval is not None:
            low, high = self.interval
            text += f" (better by {low:+.1%} to {high:+.1%} of it at {self.confidence or 0:.0%})"
        return text


class RetrainState(StrEnum):
    """Where a retraining stands."""

    REQUESTED = "requested"
    RUNNING = "running"
    CLOSED = "closed"
    SUBMITTED = "submitted"


class Retraining:
    """A retraining as its audit events tell it."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = list(events)
        self.requested = self._first(Kind.RETRAIN_REQUESTED)

    def _first(self, kind: Kind) -> Event | None:
        return next((event for event in self.events if event.kind is kind), None)

    def data(self, kind: Kind) -> dict[str, Any] | None:
        """The data of the event of a kind; ``None`` before it happened."""
        found = self._first(kind)
        return None if found is None else found.data

    @property
    def state(self) -> RetrainState:
        """Where it stands."""
        kinds = {event.kind for event in self.events}
        if Kind.RETRAIN_SUBMITTED in kinds:
            return RetrainState.SUBMITTED
        if Kind.RETRAIN_CLOSED in kinds:
            return RetrainState.CLOSED
        return RetrainState.RUNNING if Kind.RETRAIN_FROZEN in kinds else RetrainState.REQUESTED

    @property
    def sentence(self) -> str:
        """How it ended, or where it is, for people."""
        if (submitted := self.data(Kind.RETRAIN_SUBMITTED)) is not None:
            return f"version {submitted['version']} was submitted as release {submitted['release']}"
        if (closed := self.data(Kind.RETRAIN_CLOSED)) is not None:
            return f"closed without a release: {'; '.join(closed['reasons'])}"
        return "it has not ended yet"
