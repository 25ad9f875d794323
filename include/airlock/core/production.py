"""The production log contract: what is logged about each prediction, and where it is read (M-5).

    time, prediction id, version, policy version, input hash, features, score, decision,
    cost, latency, caller, business unit            in one place
    prediction id, label, time it became known      in another, as it arrives later

``airlock.record`` writes it. Whoever writes it otherwise names their columns in the workload file.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.logged import LABEL_COLUMNS, PREDICTION_COLUMNS

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000

StandardColumn = Literal[
    "airlock_time",
    "airlock_id",
    "airlock_version",
    "airlock_policy",
    "airlock_input",
    "airlock_score",
    "airlock_decision",
    "airlock_latency_ms",
    "airlock_cost_usd",
    "airlock_caller",
    "airlock_unit",
    "airlock_label",
    "airlock_labelled",
]
Place = Annotated[str, Field(min_length=1, max_length=500)]
Column = Annotated[str, Field(min_length=1, max_length=200)]


class Window(Value):
    """A stretch of time, microseconds since 1970 UTC: from ``start_us`` up to, but not with, ``end_us``."""

    start_us: Annotated[int, Field(ge=0, lt=2**53)]
    end_us: Annotated[int, Field(ge=0, lt=2**53)]

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.end_us <= self.start_us:
            raise ValueError("a window ends after it begins")
        return self

    def earlier(self, us: int) -> Window:
        """The same length, so much earlier."""
        return Window(start_us=self.start_us - us, end_us=self.end_us - us)

    @property
    def days(self) -> list[str]:
        """The days it touches, UTC, as ``2026-01-31``."""
        first, last = (moment(us).date() for us in (self.start_us, self.end_us - 1))
        return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]

    @property
    def text(self) -> str:
        """For people: its days, or its ends where it does not begin and end at midnight."""
        if self.start_us % DAY_US or self.end_us % DAY_US:
            start, end = (f"{moment(us):%Y-%m-%d %H:%M}" for us in (self.start_us, self.end_us))
        else:
            start, end = self.days[0], self.days[-1]
        return start if start == end else f"{start} to {end}"

    @property
    def key(self) -> str:
        """Part of an idempotency key."""
        return f"{self.start_us}-{self.end_us}"


def moment(us: int) -> datetime:
    """Microseconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(us / 1_000_000, UTC)


def microseconds(text: str) -> int:
    """A day (``2026-01-31``) or time in ISO 8601 as microseconds since 1970; UTC where it names no zone.

    Raises:
        ValueError: it is neither.
    """
    when = datetime.fromisoformat(text)
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    return round(when.timestamp() * 1_000_000)


class LogSpec(Value):
    """Where predictions and outcomes are logged: a Parquet folder, or tables of a database.

    Attributes:
        parquet: folder, relative to the data directory, with ``predictions/day=2026-01-31/*.parquet`` and
            ``labels/day=…/*.parquet``, as ``airlock.record`` writes them.
        url_env: environment variable with the SQLAlchemy URL of a database; the URL itself is a secret.
        predictions: table of the database, ``name`` or ``schema.name``.
        labels: table with the outcomes; the predictions' own where it is left out.
        columns: standard name → name in the log, where they differ. Features keep their names.
    """

    parquet: Place | None = None
    url_env: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    predictions: Column | None = None
    labels: Column | None = None
    columns: dict[StandardColumn, Column] = {}

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.parquet is None) == (self.url_env is None):
            raise ValueError("log names either a Parquet folder (parquet) or a database (url_env)")
        path = self.parquet or ""
        if path.startswith(("/", "~")) or ".." in path.split("/"):
            raise ValueError(f"path {path!r} must be relative to the data directory and stay inside it")
        if self.url_env is not None and self.predictions is None:
            raise ValueError("log.url_env needs log.predictions, the table")
        if self.parquet is not None and (self.predictions or self.labels):
            raise ValueError("log.predictions and log.labels are tables of a database; a folder has neither")
        return self

    def named(self, standard: str) -> str:
        """The name a standard column has in the log."""
        return next((name for known, name in self.columns.items() if known == standard), standard)


class KpiSpec(Value):
    """A number the business lives by, in a column of the log or of the outcomes; judged by its mean."""

    column: Column
    title: Annotated[str, Field(min_length=1, max_length=120)]
    minimum: Annotated[float | None, Field(description="the mean may not fall below it")] = None
    maximum: Annotated[float | None, Field(description="the mean may not rise above it")] = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise ValueError("kpi needs a minimum or a maximum: without a limit nothing is watched")
        return self


class MonitoringSpec(Value):
    """How production is watched: where it is logged, how often, over which stretch of time."""

    log: LogSpec
    schedule: Annotated[
        str, Field(min_length=1, max_length=100, description="cron, UTC; Mondays at six when left out")
    ] = "0 6 * * 1"
    window_days: Annotated[float, Field(gt=0, le=366, description="length of a window, in days")] = 7
    label_delay_days: Annotated[
        float, Field(ge=0, le=3660, description="days after which the outcome of most predictions is known")
    ] = 0
    minimum_rows: Annotated[int, Field(ge=2, description="a window with fewer rows tells nothing")] = 100
    kpi: KpiSpec | None = None

    @model_validator(mode="after")
    def _cron_has_five_fields(self) -> Self:
        if len(self.schedule.split()) != 5:  # noqa: PLR2004  # minute, hour, day, month, weekday
            raise ValueError(f"schedule {self.schedule!r} is no cron expression of five fields")
        return self

    @property
    def window_us(self) -> int:
        """Length of a window, microseconds."""
        return round(self.window_days * DAY_US)

    @property
    def delay_us(self) -> int:
        """The label delay, microseconds."""
        return round(self.label_delay_days * DAY_US)

    def window_before(self, end_us: int) -> Window:
        """The window that ends at a time; whole days where it has that length, so that runs agree on it."""
        end_us -= end_us % (DAY_US if self.window_us >= DAY_US else HOUR_US)
        return Window(start_us=end_us - self.window_us, end_us=end_us)


STANDARD = (*PREDICTION_COLUMNS, *LABEL_COLUMNS[1:])
"""All standard columns, each once."""
