"""Configuration that gates with uncertain numbers share."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.statistics import Judge
from airlock.gates._intervals import OUTSIDE


class Uncertain(Value):
    """How sure a verdict must be.

    Attributes:
        judge: what is held against a limit: the ``point``, the ``bound`` of its interval, or ``significant``
            differences only.
        confidence: confidence of the intervals; for several groups or slices, of all of them together.
        bootstrap_replicates: how often the rows are redrawn for the intervals.
    """

    judge: Annotated[
        Judge, Field(description="what is held against a limit: the point, its interval, or more than chance")
    ]
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="confidence of all intervals together")]
    bootstrap_replicates: Annotated[
        int, Field(ge=100, le=100_000, description="how often the rows are redrawn for intervals")
    ]

    @model_validator(mode="after")
    def _intervals_need_replicates(self) -> Self:
        if self.bootstrap_replicates * (1 - self.confidence) < OUTSIDE:
            raise ValueError("too few bootstrap_replicates for intervals at this confidence")
        return self

    def shared_by(self, count: int) -> float:
        """Confidence of each of ``count`` statements, so that all hold together (Bonferroni)."""
        return 1 - (1 - self.confidence) / max(1, count)
