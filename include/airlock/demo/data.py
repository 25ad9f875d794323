"""The demo's data: real mortgage applications (``data/loanapp.csv``), split once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from airlock.core.errors import NotFoundError

if TYPE_CHECKING:
    import pandas as pd

SEED: Final = 42
EVALUATION_SHARE: Final = 0.4

CODES: Final = {
    "gdlin": (666, 666),
    "lines": (999_999, 1_000_000),
    "term": (999_999, 1_000_000),
    "liq": (1_000_000, 1_000_000),
    "appinc": (666, 666),
    "review": (999, 999),
}
"""Column → smallest and largest value that is a code and no measurement.

``appinc`` 666 and ``review`` 999 are not in the file's dictionary: the first stands in 21 rows where it is
5 to 25 times the annualised monthly income, the second in 223 rows while all others are at most 15.
"""


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn codes into missing values; keep every row and every real value, however extreme."""
    cleaned = frame.copy()
    for column, (low, high) in CODES.items():
        values = frame[column].astype("float64")
        cleaned[column] = values.mask(values.between(low, high))
    return cleaned


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split rows 60/40 into training and evaluation, in file order.

    Stratified by outcome and by race or ethnicity, so that no fairness figure depends on a lucky draw;
    the three columns hold no codes, so raw and cleaned data split alike.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    strata = frame["approve"] * 4 + frame["black"] * 2 + frame["hispan"]
    training, evaluation = train_test_split(
        np.arange(len(frame)), test_size=EVALUATION_SHARE, random_state=SEED, stratify=strata
    )
    return frame.iloc[np.sort(training)], frame.iloc[np.sort(evaluation)]


def prepare(source: Path, data_root: Path) -> None:
    """Write the training file and two evaluation batches.

    ``clean`` is what both workloads are judged on; ``raw`` is the same rows with the codes left in.

    Raises:
        NotFoundError: the data file is missing.
    """
    import pandas as pd

    if not source.is_file():
        raise NotFoundError("the demo data is missing", where=str(source), fix="restore data/loanapp.csv")
    raw = pd.read_csv(source)
    training, evaluation = split(clean(raw))
    _, raw_evaluation = split(raw)
    folder = data_root / "loanapp"
    (folder / "batches").mkdir(parents=True, exist_ok=True)
    training.to_parquet(folder / "training.parquet", index=False)
    evaluation.to_parquet(folder / "batches" / "clean.parquet", index=False)
    raw_evaluation.to_parquet(folder / "batches" / "raw.parquet", index=False)
