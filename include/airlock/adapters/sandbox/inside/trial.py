"""The job ``trial``: load one model and let it answer a few rows, as production would ask it.

It explains nothing and measures nothing: what a rollback needs to know is that the version still answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .score import JobError, load_for_trial


def run(job: dict[str, Any], inputs: Path, output: Path) -> None:
    """Write ``trial.json``: how many rows were answered, and which columns the model asked for."""
    import numpy as np
    import pandas as pd

    rows = pd.read_parquet(inputs / job["rows"])
    if rows.empty:
        raise JobError("there are no rows to try the model on. How to fix it: choose another batch")
    model = load_for_trial("candidate", job, inputs, rows)
    answers = model.raw(rows)
    usable = (
        np.isfinite(answers) if model.task == "regression" else ((answers >= 0) & (answers <= 1)).all(axis=1)
    )
    if bad := int((~usable).sum()):
        raise JobError(
            f"the model gives {bad} of {len(answers)} rows no usable answer. "
            "How to fix it: roll back to another version"
        )
    report = {"rows": len(rows), "features": model.features, "task": model.task}
    (output / "trial.json").write_text(json.dumps(report, sort_keys=True))
