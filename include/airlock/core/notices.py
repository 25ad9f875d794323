"""Notices: what people are told, whatever the channel (requirements A-3, A-5, A-6).

A notice is a function of the audit log and the time. Its id names what it is about, so that a later state of
the same thing updates the message that is there; where nothing changed nothing is sent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.policy import Key
from airlock.core.workload import Name


class Topic(StrEnum):
    """What a notice is about; channels choose by it."""

    SEAT = "seat"
    REMINDER = "reminder"
    ESCALATION = "escalation"
    QUESTION = "question"
    CONDITION = "condition"
    OUTCOME = "outcome"
    INCIDENT = "incident"
    DECISIONS = "decisions"


Tone = Literal["good", "warn", "bad", "plain"]
"""How a notice looks: nothing to do, somebody has to act, it went wrong, or just so."""


class GateLine(Value):
    """A gate as a notice shows it."""

    gate: str
    verdict: str
    text: str


class Notice(Value):
    """One message, without anything that belongs to a channel.

    Attributes:
        notice_id: what it is about; the same id updates the same message.
        text: the whole in one sentence, for screens that show no more.
        lines: paragraphs, plain text.
        facts: pairs of a name and a value that matter most.
        role: the role that is asked, or empty.
        people: Airflow users it is for.
        seat: number of the seat from 0, where an answer can be given.
        question: id of the question it is about, where an answer can be given to that.
        waits: whether somebody has to act on it.
        until_us: by when, microseconds since 1970; 0 where there is no end.
        changed: what is different from the version in production, plain words.
        conditional: whether an approval can have a condition.
        thread: id of the notice it belongs under, or empty.
        review: path of the review page below Airflow's address.
        run: path of the DAG run below Airflow's address.
    """

    notice_id: str
    topic: Topic
    release_id: str
    workload: str
    version: str
    title: str
    text: str
    tone: Tone = "plain"
    lines: list[str] = []
    facts: list[tuple[str, str]] = []
    gates: list[GateLine] = []
    role: str = ""
    people: list[str] = []
    seat: int | None = None
    question: str = ""
    waits: bool = False
    until_us: int = 0
    changed: list[str] = []
    conditional: bool = False
    thread: str = ""
    review: str
    run: str


class ChannelSpec(Value):
    """One channel of ``config/notifications.yaml``.

    Secrets never stand in the file: ``secret`` names the environment variable that holds one.

    Attributes:
        to: Slack channel id, address, URL, or project, as the type needs it.
        roles: only notices for these roles; all where none is named.
    """

    name: Name
    type: Literal["slack", "email", "webhook", "pagerduty", "jira"]
    to: Annotated[str, Field(min_length=1, max_length=500)]
    topics: Annotated[list[Topic], Field(min_length=1)] = list(Topic)
    roles: list[Name] = []
    workloads: list[Name] = []
    secret: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", description="environment variable")] | None = (
        None
    )
    options: dict[Key, str | int | bool] = {}

    def takes(self, notice: Notice) -> bool:
        """Whether a notice goes to this channel."""
        return (
            notice.topic in self.topics
            and (not self.roles or not notice.role or notice.role in self.roles)
            and (not self.workloads or notice.workload in self.workloads)
        )


class Notifications(Value):
    """``config/notifications.yaml``: where people are told."""

    channels: list[ChannelSpec]

    @model_validator(mode="after")
    def _names_stand_once(self) -> Self:
        names = [channel.name for channel in self.channels]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"channels: a name stands for one channel; twice: {sorted(twice)}")
        return self
