"""Weeks of production for the demo: real applications, replayed, with one county growing from none to all.

The model is trained and released on applications from every county but Suffolk (Boston itself). Then Suffolk
arrives: other prices, other loans in proportion to them, other houses. Nothing is made up but the dates; the
log is written by the recorder that any model server would use.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airlock.core.errors import NotFoundError
from airlock.core.production import DAY_US, Window
from airlock.demo.data import SEED, clean
from airlock.demo.models import load_champion
from airlock.record import Recorder

if TYPE_CHECKING:
    import pandas as pd

    from airlock.adapters.settings import Settings
    from airlock.core.workload import Workload

COUNTY: Final = "suffolk"
ROWS: Final = 160
"""Applications in a week."""


@dataclass(frozen=True)
class Pools:
    """The applications, split once: some to train on, some to evaluate on, the rest to replay."""

    training: pd.DataFrame
    evaluation: pd.DataFrame
    calm: pd.DataFrame
    moved: pd.DataFrame


def pools(source: Path, *, training: float = 0.6, evaluation: float = 0.2, known: int = 0) -> Pools:
    """Split the data file: the training data and the calm weeks hold nobody from Suffolk.

    Args:
        source: the data file.
        training: share of the applications from elsewhere that the champion is trained on.
        evaluation: share of them that it is evaluated on.
        known: so many applications from Suffolk are in the evaluation batch, and not replayed.
    """
    import numpy as np
    import pandas as pd

    frame = clean(pd.read_csv(source))
    home = frame[frame[COUNTY] == 0]
    order = np.random.default_rng(SEED).permutation(len(home))
    first, second = int(training * len(home)), int((training + evaluation) * len(home))
    trained, evaluated, calm = (home.iloc[np.sort(part)] for part in np.split(order, [first, second]))
    moved = frame[frame[COUNTY] == 1]
    if known:
        seen = moved.sample(known, random_state=SEED)
        evaluated, moved = pd.concat([evaluated, seen]), moved.drop(seen.index)
    return Pools(trained, evaluated, calm, moved)


def write_training(found: Pools, data_root: Path) -> None:
    """What the champion is trained and released on."""
    folder = data_root / "loanapp"
    (folder / "batches").mkdir(parents=True, exist_ok=True)
    found.training.to_parquet(folder / "training.parquet", index=False)
    found.evaluation.to_parquet(folder / "batches" / "clean.parquet", index=False)


def week(found: Pools, share: float, number: int, rows: int = ROWS) -> pd.DataFrame:
    """The applications of a week, no row twice, so many of them from Suffolk."""
    import pandas as pd

    moved = round(rows * share)
    drawn = [
        pool.sample(min(count, len(pool)), random_state=SEED + number)
        for pool, count in ((found.calm, rows - moved), (found.moved, moved))
    ]
    return pd.concat(drawn).sample(frac=1, random_state=SEED + number)


def replay(
    settings: Settings,
    workload: Workload,
    rows: pd.DataFrame,
    window: Window,
    *,
    threshold: float,
    column: int = 1,
) -> int:
    """Answer a week of applications with the champion and log them, outcomes too; returns how many.

    ``column`` is the one of ``predict_proba`` that the server takes; the first is the wrong one.
    """
    if workload.monitoring is None:
        raise NotFoundError(f"{workload.name} is not monitored", fix="give its file a section `monitoring`")
    version, model = load_champion(settings, workload.model.registered_model)
    features = workload.model.features
    scores = model.predict_proba(rows[features])[:, column]
    step = (window.end_us - window.start_us) // max(1, len(rows))
    folder = settings.data_root / str(workload.monitoring.log.parquet)
    recorder = Recorder(folder, version=version, policy=workload.policy)
    records = rows.to_dict("records")
    for place, (row, score) in enumerate(zip(records, scores, strict=True)):
        when = window.start_us + place * step
        name = recorder.record(
            {name: row[name] for name in features},
            score=float(score),
            decision=int(score >= threshold),
            latency_ms=2.0 + place % 7,
            cost_usd=0.0001,
            caller="branch",
            unit="retail",
            attributes={name: row[name] for name in workload.data.sensitive},
            time_us=when,
        )
        outcome = int(row[workload.model.target])
        recorder.label(name, outcome, time_us=min(when + DAY_US, window.end_us - 1))
    recorder.close(30)
    return recorder.written
