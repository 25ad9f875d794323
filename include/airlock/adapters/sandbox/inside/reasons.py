"""Whether a reason given for a declined case really moves the model's decision.

SHAP says what speaks against a case. The test takes the reason away: the features behind it get the values of
typical rows, the model is asked again, and the case must come out better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from .score import Model


def test_reasons(
    model: Model, frame: pd.DataFrame, background: pd.DataFrame, shap: pd.DataFrame, job: dict[str, Any]
) -> pd.DataFrame:
    """The strongest reason of each declined case, and the score with and without it.

    Args:
        model: the candidate.
        frame: explained rows, in the order of ``shap``.
        background: rows whose values stand for "nothing special".
        shap: values by feature, with ``_base`` and ``_margin``.
        job: ``map`` (feature → reason; the others stand for themselves), ``hidden`` (features that may not be
            a reason), ``cases`` and ``draws`` (how many cases and background rows).

    Returns:
        A row per case: ``row``, ``reason``, ``contribution``, ``score``, ``score_without`` (mean over the
        draws) and ``favourable_without`` (share of the draws that turn the decision).
    """
    import numpy as np
    import pandas as pd

    raw = model.raw(frame)
    declined = np.flatnonzero(~model.favours(raw))
    spread = np.linspace(0, len(declined) - 1, job["cases"]).round().astype(int)
    chosen = declined[np.unique(spread)] if len(declined) else declined
    typical = background[model.features].head(job["draws"])
    features = [name for name in model.features if name not in job["hidden"]]
    reasons: dict[str, list[str]] = {}
    for name in features:
        reasons.setdefault(job["map"].get(name, name), []).append(name)
    rows: list[dict[str, Any]] = []
    for row in chosen:
        sums = {reason: float(shap.iloc[row][names].sum()) for reason, names in reasons.items()}
        reason = min(sorted(sums), key=lambda text: sums[text]) if sums else None
        if reason is None or sums[reason] >= 0:
            continue  # nothing speaks against the case
        case = pd.concat([frame.iloc[[row]][model.features]] * len(typical), ignore_index=True)
        for name in reasons[reason]:
            case[name] = typical[name].array
        again = model.raw(case)
        rows.append(
            {
                "row": int(shap.index[row]),
                "reason": reason,
                "contribution": sums[reason],
                "score": float(raw[row, model.place]),
                "score_without": float(again[:, model.place].mean()),
                "favourable_without": float(model.favours(again).mean()),
            }
        )
    names = ["row", "reason", "contribution", "score", "score_without", "favourable_without"]
    return pd.DataFrame(rows, columns=names)
