"""Plain files for one gate: applications with outcome, decision and probability in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

COLUMNS = {
    "label": "outcome",
    "prediction": "decision",
    "score": "probability",
    "sensitive": ["sex"],
    "features": ["income", "debt"],
}


def applications(rows: int = 400, seed: int = 3) -> pd.DataFrame:
    """Fair decisions of a fair skill on random applications."""
    rng = np.random.default_rng(seed)
    income, debt = rng.normal(50, 10, rows), rng.normal(20, 5, rows)
    probability = 1 / (1 + np.exp(-(0.15 * (income - 50) - 0.2 * (debt - 20) + 1)))
    words = np.array(["denied", "approved"])
    return pd.DataFrame(
        {
            "outcome": words[(rng.random(rows) < probability).astype(int)],
            "decision": words[(probability >= 0.5).astype(int)],
            "probability": probability,
            "sex": rng.choice(["female", "male"], rows),
            "income": income,
            "debt": debt,
        }
    )


def saved(frame: pd.DataFrame, path: Path) -> Path:
    """The frame as a Parquet or CSV file."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


def config_file(folder: Path, **values: Any) -> Path:
    """A configuration for the applications, with other values."""
    path = folder / "gate.yaml"
    data = {"columns": COLUMNS, "positive": "approved", **values}
    path.write_text(yaml.safe_dump({name: value for name, value in data.items() if value is not None}))
    return path
