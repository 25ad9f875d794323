"""What every signal is measured on, and what it shares with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Protocol

from airlock.adapters.production_log import LoggedWindow
from airlock.core.columns import Task, task_of
from airlock.core.errors import AirlockError, UnavailableError
from airlock.core.monitoring import SignalLimits
from airlock.core.production import MonitoringSpec, Window
from airlock.core.signals import Signal, failed, unsure
from airlock.core.workload import Workload
from airlock.profiles.batch import Batch
from airlock.profiles.source import ParquetSource, Source

if TYPE_CHECKING:
    import pandas as pd

SEED = 20_260_302
BY_CHANCE = 10
"""Signals that are judged by chance and share the false-alarm rate (Bonferroni)."""


class Release(Protocol):
    """What the champion was released with."""

    @property
    def training(self) -> ParquetSource:
        """The data it was trained on."""

    @property
    def scored(self) -> pd.DataFrame:
        """Its evaluation, with columns ``score``, ``decision`` and ``label``."""

    @property
    def attributions(self) -> pd.DataFrame | None:
        """SHAP values on the evaluation, a column for each feature."""


@dataclass(frozen=True)
class Past:
    """What earlier windows say about how much is logged."""

    rows: Sequence[int] = ()
    missing_days: int = 0


Explain = Callable[[Path], "pd.DataFrame | None"]
"""Attributions of the champion on the rows of a file, a column for each feature; ``None`` where none fit."""


@dataclass
class Scene:
    """One window of one workload.

    Attributes:
        logged: all rows of the window.
        own: its rows that the champion answered; ``None`` where there are none.
        matured: rows of the champion old enough for their outcomes to be known, which may be of an earlier
            window; ``None`` where there are none.
        governed: versions that were ever in production here.
        explain: attributions of the champion on some rows; ``None`` leaves that out.
        batch: opens a file for questions in SQL.
    """

    workload: Workload
    spec: MonitoringSpec
    limits: SignalLimits
    window: Window
    logged: LoggedWindow
    own: ParquetSource | None
    matured: ParquetSource | None
    release: Release
    governed: frozenset[str]
    past: Past
    metric: str
    bins: int
    replicates: int
    explain: Explain | None = None

    @property
    def task(self) -> Task:
        """What the model predicts."""
        return task_of(self.workload)

    @property
    def confidence(self) -> float:
        """Confidence of the interval of each signal, so that all of them keep the false-alarm rate."""
        return 1 - self.limits.false_alarm_rate / BY_CHANCE

    @property
    def z(self) -> float:
        """Standard errors in half an interval."""
        return NormalDist().inv_cdf(0.5 + self.confidence / 2)

    @cached_property
    def everything(self) -> ParquetSource:
        """All rows of the window."""
        return ParquetSource(self.logged.path)

    def rows_of(self, source: Source, columns: Sequence[str]) -> pd.DataFrame:
        """At most so many rows as are judged, the columns that are there."""
        present = [name for name in columns if name in source.columns()]
        return source.sample(present, self.limits.judged_rows, SEED)

    def answered(self, name: str) -> ParquetSource | Signal:
        """Rows the champion answered, or the answer because there are too few of them."""
        n = 0 if self.own is None else self.own.rows()
        few = self.too_few(name, n)
        if few is not None or self.own is None:
            return few or unsure(name, "the champion answered nothing in this window", n=0)
        return self.own

    def too_few(self, name: str, n: int) -> Signal | None:
        """The answer where a window has too few rows for one."""
        if n >= self.spec.minimum_rows:
            return None
        return unsure(
            name,
            f"{n} rows, and {self.spec.minimum_rows} are needed to say anything",
            fix="wait for the next window, or make windows longer",
            n=n,
        )


def guarded(names: Sequence[str], measure: Callable[[], list[Signal]]) -> list[Signal]:
    """Measure signals; what goes wrong is the answer of each of them, never silence.

    Raises:
        UnavailableError: something does not answer now; it is worth trying again.
    """
    try:
        return measure()
    except UnavailableError:
        raise
    except AirlockError as error:
        return [failed(name, error.what, fix=error.fix) for name in names]
    except Exception as error:  # noqa: BLE001  # a signal that breaks must not take the others along
        what = f"{type(error).__name__}: {error}"
        return [failed(name, what, fix="see the log of the task; this is a mistake here") for name in names]


def share_interval(first: float, n: int, second: float, m: int, z: float) -> tuple[float, float]:
    """Interval of the difference of two shares, first minus second, each with Agresti and Caffo's 1 added.

    Source: Agresti and Caffo, The American Statistician 54 (2000): stays honest with few rows and shares
    near 0 and 1.
    """
    p, q = (first * n + 1) / (n + 2), (second * m + 1) / (m + 2)
    reach = z * (p * (1 - p) / (n + 2) + q * (1 - q) / (m + 2)) ** 0.5
    return p - q - reach, p - q + reach


def mean_interval(values: Any, others: Any, z: float) -> tuple[float, tuple[float, float]]:
    """Difference of two means and its interval by their standard errors (Welch)."""
    difference = float(values.mean() - others.mean())
    variance = float(values.var(ddof=1)) / len(values) + float(others.var(ddof=1)) / len(others)
    reach = z * variance**0.5
    return difference, (difference - reach, difference + reach)


def asked(batch: Batch, expressions: Sequence[str]) -> list[float]:
    """Aggregates as numbers; what has no value is 0."""
    return [float(value or 0) for value in batch.ask(list(expressions))]
