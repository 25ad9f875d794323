"""Which column of the data is what: one way to say it for every gate, in a release and on plain files."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from airlock.core.base import Value
from airlock.core.workload import ColumnName, Workload

Label = str | int | float | bool
"""A value of a label column, such as ``1`` or ``approved``."""


def label_text(value: object) -> str:
    """A label as text; the numbers 1 and 1.0, ``True`` and the text ``1`` are all ``"1"``."""
    if isinstance(value, str):
        return value
    try:
        whole = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return str(whole) if value == whole else str(value)


class Task(StrEnum):
    """What the model predicts.

    ``BINARY``: one of two outcomes; gates are given labels and predictions as 0 and 1, where 1 is the
    favourable (positive) outcome, whatever the file says. ``MULTICLASS``: one of several labels, as
    they stand in the file. ``REGRESSION``: a number.
    """

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class Columns(Value):
    """Names of the columns and their roles.

    Attributes:
        label: the true outcome.
        prediction: what the model decided. In a release, and always in ``context.scores()``, the
            prediction has a name of its own; this one is its name in the file it came from.
        score: what the model's decision rests on, such as a probability; likewise.
        scores: of several classes, each one's name and the column with its probability.
        time: when the row was observed.
        sensitive: protected attribute → its values in words. A plain list of names will do.
        features: what the model may use, in order.
        identifiers: what identifies a person or a row; never a feature, never shown.
    """

    label: ColumnName | None = None
    prediction: ColumnName | None = None
    score: ColumnName | None = None
    scores: dict[str, ColumnName] = {}
    time: ColumnName | None = None
    sensitive: Annotated[
        dict[ColumnName, dict[str, str]],
        Field(description="protected attributes: a list of columns, or column → value → its name in words"),
    ] = {}
    features: list[ColumnName] = []
    identifiers: list[ColumnName] = []

    @field_validator("sensitive", mode="before")
    @classmethod
    def _a_list_will_do(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len({str(name) for name in value}) != len(value):
            raise ValueError("sensitive names a column twice")
        return {name: {} for name in value}

    @field_validator("scores", mode="before")
    @classmethod
    def _classes_are_texts(cls, value: Any) -> Any:
        # YAML reads a class that is written as a number as one.
        return (
            {label_text(name): column for name, column in value.items()} if isinstance(value, dict) else value
        )

    @model_validator(mode="after")
    def _one_kind_of_score(self) -> Self:
        if self.score is not None and self.scores:
            raise ValueError("name either score, one column, or scores, a column for each class")
        if len(self.scores) == 1:
            raise ValueError("scores names one class only; a model of two outcomes has one score")
        return self

    @model_validator(mode="after")
    def _one_role_each(self) -> Self:
        roles: dict[str, str] = {}
        for role, name in self._named():
            if name in roles:
                twice = "twice" if roles[name] == role else f"as {roles[name]} and as {role}"
                raise ValueError(f"column {name!r} is named {twice}")
            roles[name] = role
        return self

    def _named(self) -> Iterator[tuple[str, str]]:
        for role in ("label", "prediction", "score"):
            if (name := getattr(self, role)) is not None:
                yield role, name
        yield from (("scores", name) for name in self.scores.values())
        for role in ("sensitive", "features", "identifiers"):
            yield from ((role, name) for name in getattr(self, role))

    @property
    def all(self) -> list[str]:
        """Every column that has a role, each once; ``time`` may have a second one."""
        names = [name for _, name in self._named()]
        return list(dict.fromkeys([*names, *([self.time] if self.time else [])]))

    @classmethod
    def of(cls, workload: Workload) -> Columns:
        """The columns of a workload's evaluation and training data."""
        return cls(
            label=workload.model.target,
            features=workload.model.features,
            sensitive=workload.data.sensitive,
            identifiers=workload.data.identifiers,
        )


def task_of(workload: Workload) -> Task:
    """What the workload's model predicts."""
    return Task.BINARY if workload.model.task == "classification" else Task(workload.model.task)
