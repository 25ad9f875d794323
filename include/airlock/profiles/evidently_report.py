"""Evidently's own report on a sample, as a page that people know how to read."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_IDENTIFIER = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")


def drift_report(reference: pd.DataFrame, current: pd.DataFrame, limit: float) -> bytes:
    """Evidently's drift preset by PSI as one HTML file: same input, same bytes.

    Its random identifiers are replaced by numbers in the order they occur. The preset also measures every
    column by a metric of its own, with plots, none of which is on its page: those are left out.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    class Page(DataDriftPreset):  # type: ignore[misc]
        def generate_metrics(self, context: Any) -> Any:
            return super().generate_metrics(context)[:1]

    numeric = [
        name for name in reference if is_numeric_dtype(reference[name]) and not is_bool_dtype(reference[name])
    ]
    numeric = [name for name in numeric if is_numeric_dtype(current[name])]
    texts = [name for name in reference if name not in numeric]
    frames = [
        frame.astype(dict.fromkeys(texts, "object")).replace([math.inf, -math.inf], math.nan)
        for frame in (current, reference)
    ]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=texts)
    preset = Page(num_method="psi", cat_method="psi", num_threshold=limit, cat_threshold=limit)
    report = Report([preset], include_tests=False)
    snapshot = report.run(*(Dataset.from_pandas(frame, data_definition=definition) for frame in frames))
    return same_identifiers(snapshot.get_html_str(as_iframe=False).encode())


def same_identifiers(page: bytes) -> bytes:
    """A page whose random identifiers are numbers, in the order they occur."""
    seen: dict[bytes, bytes] = {}
    return _IDENTIFIER.sub(lambda match: seen.setdefault(match[0], b"id-%d" % len(seen)), page)
