"""A suite of expectations: what data must look like, as a versioned file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.workload import ColumnName

_CONTROLS = {"batch_id", "catch_exceptions", "id", "meta", "result_format", "severity"}
"""Arguments of every expectation that say how it is run, not what is expected."""


class Expectation(Value):
    """One line of a suite. What would pass on any data is refused."""

    type: Annotated[str, Field(pattern=r"^expect_[a-z0-9_]+$", description="name in Great Expectations")]
    kwargs: Annotated[dict[str, Any], Field(description="its arguments, such as column and min_value")]
    severity: Annotated[Literal["fail", "warn"], Field(description="verdict when it does not hold")] = "fail"
    why: Annotated[str, Field(min_length=1, description="why it is expected, for the one it blocks")]

    @model_validator(mode="after")
    def _can_fail(self) -> Expectation:
        if control := sorted(_CONTROLS & set(self.kwargs)):
            raise ValueError(f"{self.type} must not set {control[0]!r}")
        if self.mostly <= 0:
            raise ValueError(f"{self.type} with mostly {self.mostly:g} accepts anything")
        bounds = [self.kwargs.get("min_value"), self.kwargs.get("max_value")]
        if self.type.endswith("_to_be_between") and bounds == [None, None]:
            raise ValueError(f"{self.type} without min_value and max_value accepts anything")
        return self

    @property
    def mostly(self) -> float:
        """The share of values that must be right."""
        mostly = self.kwargs.get("mostly", 1)
        return float(mostly) if isinstance(mostly, int | float) else 1.0

    @property
    def columns(self) -> list[str]:
        """The columns it is about; none when it is about the table."""
        named = [self.kwargs.get(key) for key in ("column", "column_A", "column_B")]
        return [str(column) for column in named if column] or list(
            map(str, self.kwargs.get("column_list", []))
        )

    @property
    def subject(self) -> str:
        """The columns it is about, or ``table``, in words."""
        return ", ".join(self.columns) or "table"


class Freshness(Value):
    """How old the newest row may be when the data is judged."""

    column: Annotated[ColumnName, Field(description="column with the time of the row; no zone means UTC")]
    maximum_age_hours: Annotated[float, Field(gt=0, description="age of the newest row at most")]


class Profiled(Value):
    """Which data a suite was profiled from."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="digest of the file")]
    rows: Annotated[int, Field(ge=1)]


class Suite(Value):
    """A versioned suite of expectations, a YAML file in ``config/expectations/``; an empty one is invalid.

    The name of the file stands in the workload's ``data.expectations``. It looks like this::

        name: mortgage-approval
        version: 1.0.0
        description: What an application must look like before a model may see it.
        expectations:
          - type: expect_column_values_to_be_in_set
            kwargs: {column: gdlin, value_set: [0, 1]}
            severity: fail
            why: gdlin says whether guidelines are met, yes or no; 666 is a code

    ``type`` is any expectation of Great Expectations, ``severity`` may be ``warn``, and ``why`` is
    read by the person whose release it blocks. A suite that ``airlock expectations profile`` wrote
    says ``reviewed: false`` until a person has read it; until then it warns.
    """

    name: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    description: Annotated[str, Field(min_length=1)]
    reviewed: Annotated[bool, Field(description="whether a person has read every expectation")] = True
    profiled: Annotated[Profiled | None, Field(description="the data it was profiled from")] = None
    freshness: Freshness | None = None
    expectations: Annotated[list[Expectation], Field(min_length=1)]
