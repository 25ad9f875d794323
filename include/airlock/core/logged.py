"""Names in the production log, for whoever writes it and whoever reads it. Standard library only.

Features keep their own names. What Airlock adds begins with ``airlock_``, so nothing collides.
"""

from __future__ import annotations

from typing import Final

TIME: Final = "airlock_time"
"""When the prediction was made, UTC."""

ID: Final = "airlock_id"
"""Id of the prediction; the outcome that arrives later names it."""

VERSION: Final = "airlock_version"
POLICY: Final = "airlock_policy"
INPUT: Final = "airlock_input"
"""SHA-256 of the features as JSON with sorted keys."""

SCORE: Final = "airlock_score"
DECISION: Final = "airlock_decision"
LATENCY: Final = "airlock_latency_ms"
COST: Final = "airlock_cost_usd"
CALLER: Final = "airlock_caller"
UNIT: Final = "airlock_unit"
"""Business unit that asked."""

LABEL: Final = "airlock_label"
LABELLED: Final = "airlock_labelled"
"""When the outcome became known, UTC."""

PREDICTION_COLUMNS: Final = (
    TIME,
    ID,
    VERSION,
    POLICY,
    INPUT,
    SCORE,
    DECISION,
    LATENCY,
    COST,
    CALLER,
    UNIT,
)
LABEL_COLUMNS: Final = (ID, LABEL, LABELLED)

PREDICTIONS: Final = "predictions"
LABELS: Final = "labels"
"""Folders of a Parquet log; in each a folder ``day=2026-01-31`` for each day, UTC."""

LOST: Final = b"airlock_lost"
"""Key in a Parquet file's metadata: records that were dropped before this file was written."""
