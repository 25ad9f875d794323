"""What policy says about production: limits of the signals, and what may be done about them (M-1, M-2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.production import DAY_US, HOUR_US
from airlock.core.workload import Name

Share = Annotated[float, Field(ge=0, le=1)]


class Action(StrEnum):
    """What may be done about signals; ordered from light to heavy."""

    NONE = "none"
    ALERT = "alert"
    SHADOW = "shadow"
    RETRAIN = "retrain"
    ROLLBACK = "rollback"
    QUARANTINE = "quarantine"

    @property
    def acts(self) -> bool:
        """Whether it changes anything; an alert tells people and changes nothing."""
        return self not in (Action.NONE, Action.ALERT)


ActionName = Literal["shadow", "retrain", "rollback", "quarantine"]

MEANS: dict[Action, str] = {
    Action.NONE: "nothing is done",
    Action.ALERT: "people are told",
    Action.SHADOW: "another model is asked to run beside the champion, without deciding",
    Action.RETRAIN: "a new version is trained on recent data and submitted as a release like any other",
    Action.ROLLBACK: "the last version that is compliant today goes back into production",
    Action.QUARANTINE: "the version is taken out of use until people have looked at it",
}
"""What each action would do, for people who are asked."""


class SignalLimits(Value):
    """Beyond which values signals are raised.

    Attributes:
        false_alarm_rate: chance that a window in which nothing happened raises any of the signals that are
            judged by chance; shared by all of them.
        volume_change: share by which a day may have more or fewer rows than the days of earlier windows.
        unusable_share: share of rows a column may lack or mistype beyond what the training data does.
        unknown_version_share: share of rows from a version that nobody released.
        unknown_value_share: share of rows with a value outside of the training data.
        range_margin: how far beyond the training data's range a number may lie, as a share of that range.
        psi: population stability index from which a feature has drifted.
        drift_share: share of features that may drift.
        prediction_psi: the same index for the scores.
        target_change: change of the outcomes' share, or of their mean in standard deviations.
        performance_loss: share of the release's primary metric that may be lost.
        residual: mean of outcome minus score that may be added since the release; of a regression in
            standard deviations.
        impact_ratio: selection rate of a group over that of the most selected one.
        rank_correlation: of the features' attributions with those at the release.
        cost_increase: cost of a prediction over the priced cost, as a factor.
        p95_ms: latency that nineteen of twenty answers must keep.
        judged_rows: outcomes, fairness and estimates are judged on at most so many rows, drawn at random.
        explained_rows: rows explained in the sandbox; 0 leaves explanation drift out.
    """

    false_alarm_rate: Annotated[float, Field(gt=0, lt=0.5)]
    volume_change: Annotated[float, Field(gt=0)]
    unusable_share: Share
    unknown_version_share: Share
    unknown_value_share: Share
    range_margin: Annotated[float, Field(ge=0)]
    psi: Annotated[float, Field(gt=0)]
    drift_share: Share
    prediction_psi: Annotated[float, Field(gt=0)]
    target_change: Annotated[float, Field(gt=0)]
    performance_loss: Share
    residual: Annotated[float, Field(gt=0)]
    impact_ratio: Share
    rank_correlation: Annotated[float, Field(ge=-1, le=1)]
    cost_increase: Annotated[float, Field(gt=0)]
    p95_ms: Annotated[float, Field(gt=0)]
    judged_rows: Annotated[int, Field(ge=1000)]
    explained_rows: Annotated[int, Field(ge=0, le=100_000)]


class Hysteresis(Value):
    """A signal lasts when it is raised in ``raised`` of the last ``windows`` windows, this one among them."""

    raised: Annotated[int, Field(ge=1)]
    windows: Annotated[int, Field(ge=1, le=100)]

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.raised > self.windows:
            raise ValueError("hysteresis.raised is more than hysteresis.windows: no signal could ever last")
        return self


class ActionLimits(Value):
    """How often something is done without a person, and when people are asked first.

    Attributes:
        cool_down_days: after an action the same one is not taken again for so many days.
        maximum: actions within ``within_days`` after which Airlock pauses itself until a person resumes it.
        ask: risk tiers whose people are asked before anything is done.
        role: role that is asked.
        answer_hours: how long they have.
        silence: what happens when nobody answers: the safe side of each action.
    """

    cool_down_days: dict[ActionName, Annotated[float, Field(ge=0)]]
    maximum: Annotated[int, Field(ge=1)]
    within_days: Annotated[float, Field(gt=0)]
    ask: list[Literal["low", "medium", "high"]]
    role: Name
    answer_hours: Annotated[float, Field(gt=0, le=24 * 30)]
    silence: dict[ActionName, Literal["take", "decline"]]

    @model_validator(mode="after")
    def _each_action_is_thought_of(self) -> Self:
        for name in ("shadow", "retrain", "rollback", "quarantine"):
            if name not in self.cool_down_days or name not in self.silence:
                raise ValueError(f"cool_down_days and silence must name {name}")
        return self

    def cool_down(self, action: Action) -> float:
        """Days for which an action is not repeated."""
        return next((days for name, days in self.cool_down_days.items() if name == action), 0.0)

    def when_silent(self, action: Action) -> Literal["take", "decline"]:
        """What happens when nobody answers."""
        return next((side for name, side in self.silence.items() if name == action), "decline")


class MonitoringRules(Value):
    """The section ``monitoring`` of a policy; its rules are those with an effect ``action``."""

    limits: SignalLimits
    hysteresis: Hysteresis
    actions: ActionLimits

    def named_roles(self) -> Iterator[tuple[str, str]]:
        """Place and name of every role that is named."""
        yield "monitoring.actions.role", self.actions.role


class Taken(Value):
    """An action that was taken, and when, microseconds since 1970."""

    action: Action
    at_us: int
    automatic: bool


class Restraint(Value):
    """Why an action that the rules ask for is not taken by itself; ``go`` when nothing holds it back.

    ``cool-down``: the same was done lately. ``paused``: Airlock has paused itself. ``cap``: this one would be
    too many, so it pauses now. ``ask``: people are asked first.
    """

    kind: Literal["go", "cool-down", "paused", "cap", "ask"]
    sentence: str


def restraint(
    action: Action,
    rules: ActionLimits,
    *,
    tier: str,
    taken: Sequence[Taken],
    paused: bool,
    now_us: int,
) -> Restraint:
    """Whether an action may be taken now.

    ``taken`` are the workload's actions so far. Laws: with more actions taken nothing that was held back
    goes; an alert is never held back; while it is paused nothing goes by itself, and a person may be asked.
    """
    if not action.acts:
        return Restraint(kind="go", sentence=MEANS[action])
    days = rules.cool_down(action)
    latest = max((one.at_us for one in taken if one.action is action), default=None)
    if latest is not None and now_us - latest < days * DAY_US:
        ago = (now_us - latest) / DAY_US
        return Restraint(
            kind="cool-down",
            sentence=f"{action} was done {ago:.1f} days ago and is not repeated within {days:g} days",
        )
    if tier in rules.ask:
        sentence = f"the use is of {tier} risk, so {rules.role} is asked for {rules.answer_hours:g} hours"
        return Restraint(kind="ask", sentence=sentence)
    if paused:
        return Restraint(kind="paused", sentence="Airlock has paused itself, until a person resumes it")
    recent = [one for one in taken if one.automatic and now_us - one.at_us < rules.within_days * DAY_US]
    if len(recent) >= rules.maximum:
        return Restraint(
            kind="cap",
            sentence=f"{len(recent)} actions were taken within {rules.within_days:g} days without a person, "
            f"and {rules.maximum} is the most: Airlock pauses itself",
        )
    return Restraint(kind="go", sentence="nothing holds it back")


def answer_deadline_us(rules: ActionLimits, asked_us: int) -> int:
    """When an unanswered question is decided by its safe side."""
    return asked_us + int(rules.answer_hours * HOUR_US)


def heaviest_action(actions: Sequence[Action]) -> Action:
    """The heaviest of several; ``none`` of none."""
    order = list(Action)
    return max(actions, key=order.index, default=Action.NONE)
