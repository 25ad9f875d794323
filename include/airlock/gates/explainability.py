"""Explainability: what moves the model's score, whether that changed, and why people are declined.

Why it matters: a person who is declined has a right to the reasons (ECOA and Regulation B, GDPR Art. 22, AI
Act Art. 86), and a model that scores well for the wrong reason fails where nobody looks. A new version that
ranks its features in another order decides for other reasons, even at the same accuracy.

What good looks like: SHAP values that add up to the model's own output; weight spread over several features,
none of them protected, identifying or undeclared; a ranking like the champion's; and for each adverse
decision up to four reasons in words. `importance.svg` shows the weights, `reason_codes.json` the reasons.

How to fix it: when one feature dominates, check it for leakage: was it known at the time of decision? When
the ranking changed, say why in the model card, or train on comparable data. When SHAP values do not add up,
the explainer does not support the model (HistGradientBoosting with native categoricals is one such): encode
categories before the model. Remove a protected, undeclared or idle feature and train again. Helpful tool:
shap, on the same rows.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airlock.core.canonical import canonical_json
from airlock.core.columns import Task, label_text
from airlock.core.errors import InvalidInputError
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.held import HeldLimit
from airlock.core.judgement import judged
from airlock.core.statistics import Judge, exceeds, percent, wilson_interval
from airlock.gates._config import Uncertain
from airlock.gates._predictions import Predictions, read_predictions
from airlock.gates._reasons import printable, reason_texts
from airlock.gates.base import GateContext, Need, Scores, Stage, cannot_judge

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

STAGE = Stage.AFTER_SCORING
NEEDS = (Need.CURRENT, Need.REFERENCE, Need.ARTIFACT)

BASE, MARGIN = "_base", "_margin"


class Config(Uncertain):
    """Limits on attribution, and how much is explained case by case."""

    minimum_rows: Annotated[int, Field(ge=2, description="explained rows below which nothing is judged")]
    additivity_tolerance: Annotated[
        float, Field(gt=0, description="largest |sum of SHAP values + base - margin| of a row")
    ]
    top_k: Annotated[int, Field(ge=1, description="how many features count as the most important")]
    minimum_rank_correlation: Annotated[
        float, Field(ge=-1, le=1, description="Spearman's rho with the champion's importance")
    ]
    maximum_attribution_share: Annotated[
        float, Field(gt=0, le=1, description="share of all attribution one feature may carry")
    ]
    minimum_attribution_share: Annotated[
        float, Field(ge=0, lt=1, description="share below which a feature is collected for nothing")
    ]
    reason_cases: Annotated[int, Field(ge=1, le=1000, description="adverse decisions explained one by one")]
    tested_reasons: Annotated[
        int,
        Field(ge=0, le=10_000, description="adverse decisions whose first reason is taken away; 0 for none"),
    ]
    minimum_reason_effect: Annotated[
        float, Field(ge=0, le=1, description="share of them that must come out better without it")
    ]
    reasons_per_case: Annotated[
        int, Field(ge=1, le=10, description="reasons for each; Regulation B's commentary says up to four")
    ]


@dataclass(frozen=True)
class _Explanation:
    """One model's SHAP values, checked.

    Attributes:
        parts: SHAP values, a column per feature.
        importance: mean |SHAP| by feature, largest first, ties by name.
        share: the same as a share of all attribution.
        error: how far SHAP values are from adding up to the margin, in the worst row.
    """

    parts: pd.DataFrame
    importance: pd.Series[float]
    share: pd.Series[float]
    error: float

    def top(self, k: int) -> list[str]:
        """Names of the ``k`` most important features; one with no weight at all is not among them."""
        return [str(name) for name in self.importance[self.importance > 0].index[:k]]


@dataclass(frozen=True)
class _Comparison:
    """Candidate against champion; ``None`` where a number is undefined.

    Attributes:
        features: the union of both top k.
        correlation: Spearman's rho of mean |SHAP| over ``features``, 0 for a feature a model does not have.
        overlap: Jaccard index of the two top k.
        cosine: mean cosine between the two models' SHAP values of the same row.
        rows: how many rows ``cosine`` rests on: those where both models attribute anything.
    """

    features: list[str]
    correlation: float | None
    overlap: float
    cosine: float | None
    rows: int


HELD = (
    HeldLimit("maximum_attribution_share", "dominant_feature", metric="attribution_share", judge=Judge.POINT),
    HeldLimit(
        "minimum_rank_correlation",
        "explanation_changed",
        metric="rank_correlation",
        judge=Judge.POINT,
        verdict=Verdict.WARNED,
        may_be_absent=True,
    ),
    HeldLimit(
        "minimum_reason_effect",
        "reason_without_effect",
        metric="reason_effect",
        verdict=Verdict.WARNED,
        may_be_absent=True,
    ),
)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Judge the explanations of the candidate, alone and against the champion's."""
    scores, has_champion = context.scores(), context.has_champion
    predictions = read_predictions(context, minimum_rows=config.minimum_rows, outcomes=False)
    if isinstance(predictions, GateResult):
        return predictions
    try:
        candidate = _explain(scores.shap, scores, "candidate", config)
    except InvalidInputError as error:
        return cannot_judge("not_explained", error.what, fix=error.fix)
    models = {"candidate": candidate}
    comparison, findings = None, _attribution_findings(candidate, context, config)
    if has_champion:
        try:
            champion = _explain(scores.champion_shap, scores, "champion", config)
            comparison = _compare(candidate, champion, config.top_k)
            models["champion"] = champion
        except InvalidInputError as error:
            findings.append(_champion_finding(error.what))
    findings += _comparison_findings(comparison, config) if comparison else []
    adverse = _adverse(predictions[0], context)
    reasons = _reason_codes(candidate, adverse, context, config) if adverse is not None else None
    tested = _reason_metric(scores, config)
    findings += _reason_findings(reasons, context) + _test_findings(tested, config)
    explainer = scores.details.get("shap", {})
    context.attach("explanation.json", canonical_json(_table(models, comparison) | {"explainer": explainer}))
    context.attach("reason_codes.json", canonical_json(reasons or {"adverse_decisions": 0, "cases": []}))
    context.attach("importance.svg", _plot(models, context.title))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(candidate, comparison, findings),
        findings=findings,
        metrics=[*_metrics(candidate, comparison, config), *([tested] if tested else [])],
        engines=_engines(),
        details={"explainer": explainer, "top": candidate.top(config.top_k)},
    )


def _explain(shap: pd.DataFrame | None, scores: Scores, model: str, config: Config) -> _Explanation:
    """Sum up a model's SHAP values.

    Raises:
        InvalidInputError: they cannot be believed.
    """
    told = scores.details.get("shap") or {}
    prefix = "" if model == "candidate" else "champion_"
    if shap is None:
        refused = told.get(f"{prefix}refused")
        why = f": {refused}" if refused else ""
        raise InvalidInputError(f"there are no SHAP values of the {model}{why}", fix=_FIX)
    if f"{model}_score" not in scores.frame:
        raise InvalidInputError(f"there are no scores of the {model} that its SHAP values explain", fix=_FIX)
    unit = _unit(shap, told.get(f"{prefix}space", ""))
    if fault := next(_faults(shap, scores.frame[f"{model}_score"], config, unit), ""):
        raise InvalidInputError(f"SHAP values of the {model} {fault}", fix=_FIX)
    parts = shap.drop(columns=[BASE, MARGIN]).astype("float64").sort_index()
    importance = parts.abs().mean().sort_index().sort_values(ascending=False, kind="stable")
    total = float(importance.sum())
    if not 0 < total < math.inf:
        raise InvalidInputError(f"SHAP values of the {model} sum up to {total}, not to a weight", fix=_FIX)
    return _Explanation(parts, importance, importance / total, _additivity_error(shap) / unit)


_FIX = (
    "use a linear or tree model, which shap explains exactly, and encode categories and fill gaps in a step "
    "before it; sandbox.shap_rows in the policy says how many rows are explained"
)


def _unit(shap: pd.DataFrame, space: str) -> float:
    """What errors are measured in: 1, or for predicted quantities their standard deviation if above 1."""
    import numpy as np

    if space != "prediction" or MARGIN not in shap or shap[MARGIN].dtype.kind not in "iuf":
        return 1.0
    spread = float(np.std(shap[MARGIN].to_numpy("float64")))
    return spread if spread > 1 and math.isfinite(spread) else 1.0


def _faults(shap: pd.DataFrame, score: pd.Series[float], config: Config, unit: float) -> Iterator[str]:
    """What is wrong with SHAP values; only the first fault may be asked for, later checks rely on it."""
    import numpy as np

    names = [str(name) for name in shap.columns]
    if (
        len(set(names)) != len(names)
        or not {BASE, MARGIN} < set(names)
        or not all(map(str.isprintable, names))
    ):
        yield f"need a readable column for each feature, and {BASE} and {MARGIN}"
    if len(shap) < config.minimum_rows:
        yield f"cover {len(shap)} rows, but {config.minimum_rows} are needed"
    if shap.index.dtype.kind not in "iu" or not shap.index.is_unique or not _within(shap.index, len(score)):
        yield "name a row twice, or rows that are not in the evaluation batch"
    numbers = shap.select_dtypes("number")
    if numbers.shape != shap.shape or not np.isfinite(numbers.to_numpy("float64")).all():
        yield "are missing or no numbers in some places"
    error = _additivity_error(shap) / unit
    if exceeds(error, config.additivity_tolerance):
        yield f"do not add up to its output: off by {error:.3g}, {config.additivity_tolerance:g} is allowed"
    order = np.argsort(shap[MARGIN].to_numpy("float64"), kind="stable")
    ranked = score.to_numpy("float64")[shap.index.to_numpy()][order]
    if exceeds(float((np.maximum.accumulate(ranked) - ranked).max()) / unit, config.additivity_tolerance):
        yield "explain something else than its score: the two rank cases differently"


def _within(index: pd.Index[Any], rows: int) -> bool:
    return bool(index.min() >= 0 and index.max() < rows)


def _additivity_error(shap: pd.DataFrame) -> float:
    """Largest |sum of SHAP values + base - margin| over the rows."""
    return float((shap.drop(columns=MARGIN).sum(axis=1) - shap[MARGIN]).abs().max())


def _attribution_findings(candidate: _Explanation, context: GateContext, config: Config) -> list[Finding]:
    """What is wrong with the weights themselves."""
    columns, declared = context.columns, set(context.columns.features)
    findings = []
    for name, share in sorted((str(name), float(share)) for name, share in candidate.share.items()):
        carries = f"carries {percent(share)} of all attribution"
        if name in columns.sensitive or name in columns.identifiers:
            role = "protected" if name in columns.sensitive else "identifying"
            text, fix = f"{role} column {name} is an input and {carries}", "train without it"
            findings.append(_finding("forbidden_feature", Verdict.FAILED, text, fix, name))
        elif name not in declared:
            text = f"{name} is not a feature of the workload and {carries}"
            fix = "train without it, or declare it under model.features of the workload and explain it there"
            findings.append(_finding("undeclared_feature", Verdict.FAILED, text, fix, name))
        if exceeds(share, config.maximum_attribution_share):
            text = f"{name} {carries}, {percent(config.maximum_attribution_share)} is allowed"
            fix = "check that it was known at the time of decision (leakage), or give the model more to go by"
            findings.append(_finding("dominant_feature", Verdict.FAILED, text, fix, name))
        if exceeds(config.minimum_attribution_share, share):
            text = f"{name} carries {100 * share:.2g} % of all attribution: it is collected for nothing"
            fix = "train without it: data that is not needed should not be processed (GDPR Art. 5(1)(c))"
            findings.append(_finding("idle_feature", Verdict.WARNED, text, fix, name))
    return findings


def _compare(candidate: _Explanation, champion: _Explanation, k: int) -> _Comparison:
    """How alike the two models explain the same rows.

    Raises:
        InvalidInputError: the rows are not the same.
    """
    import numpy as np

    if not champion.parts.index.equals(candidate.parts.index):
        raise InvalidInputError("the champion was explained on other rows than the candidate")

    tops = set(candidate.top(k)), set(champion.top(k))
    union = sorted(tops[0] | tops[1])
    ours, theirs = (model.importance.reindex(union, fill_value=0.0) for model in (candidate, champion))
    columns = sorted({*candidate.parts.columns, *champion.parts.columns})
    left, right = (
        model.parts.reindex(columns=columns, fill_value=0.0).to_numpy() for model in (candidate, champion)
    )
    scale = np.sqrt((left * left).sum(axis=1) * (right * right).sum(axis=1))
    some = scale > 0
    cosines = (left * right).sum(axis=1)[some] / scale[some]
    return _Comparison(
        features=union,
        correlation=_rank_correlation(ours, theirs),
        overlap=len(tops[0] & tops[1]) / len(union),
        cosine=float(cosines.mean()) if len(cosines) else None,
        rows=len(cosines),
    )


def _rank_correlation(left: pd.Series[float], right: pd.Series[float]) -> float | None:
    """Spearman's rho: Pearson's correlation of average ranks; ``None`` when one side is all ties.

    Ranks are halves of integers, so every sum is exact and equal rankings give exactly 1.
    """
    a, b = (side.rank() - (len(side) + 1) / 2 for side in (left, right))
    spread = float((a * a).sum()) * float((b * b).sum())
    return float((a * b).sum()) / math.sqrt(spread) if spread else None


def _champion_finding(fault: str) -> Finding:
    # A warning and not an error: an unexplainable champion must not be what keeps its successor out.
    fix = "have a person compare the two models; this candidate will be comparable for the next release"
    return _finding("champion_not_explained", Verdict.WARNED, fault, fix)


def _comparison_findings(comparison: _Comparison, config: Config) -> list[Finding]:
    rho = comparison.correlation
    if rho is None and len(comparison.features) > 1:
        text = "the ranking cannot be compared with the champion's: one model weighs all its features alike"
    elif rho is not None and exceeds(config.minimum_rank_correlation, rho):
        text = (
            f"features are ranked differently from the champion: rank correlation {rho:.2f}, "
            f"{config.minimum_rank_correlation:.2f} is asked for"
        )
    else:
        return []
    fix = (
        "compare the bars in importance.svg, and say in the model card why the model now goes by other facts"
    )
    return [_finding("explanation_changed", Verdict.WARNED, text, fix)]


def _adverse(model: Predictions, context: GateContext) -> npt.NDArray[np.bool_] | None:
    """Rows that are declined; ``None`` where no outcome is adverse: a number, or no favourable class."""
    import numpy as np

    if model.task is Task.BINARY:
        return np.asarray(model.decision == 0)
    favourable = None if context.positive is None else label_text(context.positive)
    if model.task is Task.REGRESSION or favourable not in model.classes:
        return None
    return np.asarray(model.decision != model.classes.index(str(favourable)))


def _reason_codes(
    candidate: _Explanation, adverse: npt.NDArray[np.bool_], context: GateContext, config: Config
) -> dict[str, Any]:
    """Why cases were declined, for some of them, spread from the clearest to the closest call.

    A reason is what the workload declares for a feature, or what the model card says about it; features with
    the same words are one reason and their contributions are summed. Protected and identifying columns are
    never reasons. Values of features are left out: the table holds no personal data.
    """
    import pandas as pd

    hidden = {*context.columns.sensitive, *context.columns.identifiers}
    names = [str(name) for name in candidate.parts.columns if name not in hidden]
    declared = context.workload.model.reasons if context.workload is not None else {}
    features: dict[str, list[str]] = {}
    for name, text in reason_texts(names, declared, context.documentation()).items():
        features.setdefault(text, []).append(name)
    declined = candidate.parts[adverse[candidate.parts.index]]
    order = declined.sum(axis=1).sort_values(kind="stable").index
    reasons = pd.DataFrame(
        {text: declined[group].sum(axis=1) for text, group in features.items()}, index=declined.index
    )
    return {
        "adverse_decisions": int(adverse.sum()),
        "explained": len(reasons),
        "without_reason": int((reasons >= 0).all(axis=1).sum()),
        "cases": [
            {"row": int(row), "reasons": _strongest(reasons.loc[row], features, config.reasons_per_case)}
            for row in (order[position] for position in _spread(len(order), config.reason_cases))
        ],
    }


def _spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of the positions 0 … ``count`` - 1, evenly spread, both ends among them."""
    if count <= wanted:
        return list(range(count))
    return sorted({index * (count - 1) // max(wanted - 1, 1) for index in range(wanted)})


def _strongest(row: pd.Series[float], features: dict[str, list[str]], count: int) -> list[dict[str, Any]]:
    against = sorted((float(value), str(text)) for text, value in row.items() if value < 0)
    return [
        {"reason": text, "features": features[text], "contribution": value} for value, text in against[:count]
    ]


def _reason_findings(reasons: dict[str, Any] | None, context: GateContext) -> list[Finding]:
    if reasons is None:
        text = "no reasons for adverse decisions: " + (
            "a regression declines nobody"
            if context.task is Task.REGRESSION
            else "no class is named as the favourable one"
        )
        return [_finding("no_adverse_outcome", Verdict.PASSED, text, "")]
    total, explained, silent = (reasons[key] for key in ("adverse_decisions", "explained", "without_reason"))
    if total and not explained:
        text = f"none of the {total} adverse decisions is among the explained rows"
        fix = "raise sandbox.shap_rows in the policy, so that reasons for declining can be shown"
        return [_finding("no_adverse_case", Verdict.WARNED, text, fix)]
    if silent:
        text = f"{silent} of {explained} adverse decisions have no reason: no feature speaks against the case"
        fix = "look at the decision threshold: it declines cases that are better than the average"
        return [_finding("no_reason", Verdict.WARNED, text, fix)]
    return []


def _reason_metric(scores: Scores, config: Config) -> Metric | None:
    """Share of tested cases that come out better when their first reason is taken away."""
    tested = scores.reasons
    if tested is None or tested.empty or not {"score", "score_without"} <= set(tested.columns):
        return None
    better = int((tested["score_without"].astype("float64") > tested["score"].astype("float64")).sum())
    return Metric(
        name="reason_effect",
        value=better / len(tested),
        threshold=config.minimum_reason_effect,
        direction="higher",
        interval=wilson_interval(better, len(tested), config.confidence),
        confidence=config.confidence,
        n=len(tested),
        method="first reason replaced by typical values, scored again; Wilson",
    )


def _test_findings(tested: Metric | None, config: Config) -> list[Finding]:
    if tested is None:
        return []
    return judged(
        tested,
        config.judge,
        finding_id="reason_without_effect",
        failed=f"only {percent(tested.value or 0.0)} of {tested.n} declined cases come out better when their "
        f"first reason is taken away, {percent(config.minimum_reason_effect)} is asked for",
        fix="features that stand for one another share their attribution: give them one reason under "
        "model.reasons of the workload, or train on one of them",
        label="the effect of the first reason",
        verdict=Verdict.WARNED,
    )


def _table(models: dict[str, _Explanation], comparison: _Comparison | None) -> dict[str, Any]:
    """Everything that was computed, for ``explanation.json``."""
    return {
        **{
            name: {
                "rows": len(model.parts),
                "additivity_error": model.error,
                "mean_abs_shap": {str(key): float(value) for key, value in model.importance.items()},
                "share": {str(key): float(value) for key, value in model.share.items()},
            }
            for name, model in models.items()
        },
        "comparison": asdict(comparison) if comparison else None,
    }


def _plot(models: dict[str, _Explanation], title: str) -> bytes:
    """Bars of attribution shares as SVG: the same bytes for the same numbers, text kept as text."""
    import io

    import matplotlib as mpl
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shares = _largest_shares(models)
    names = [printable(str(name), 40) for name in shares.index]
    height = 0.8 / len(models)
    with style.context("default"), mpl.rc_context(_SVG), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the viewer has its own fonts
        figure = Figure(figsize=(8, 1.6 + 0.34 * len(names)), facecolor="white", layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for offset, label in enumerate(models):
            centre = [index + (offset - (len(models) - 1) / 2) * height for index in range(len(names))]
            axes.barh(
                centre, (100 * shares[label]).to_list(), height=height, color=_COLOURS[label], label=label
            )
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.invert_yaxis()
        axes.set_xlabel("share of the model's attribution, mean |SHAP|, %")
        axes.set_title(f"What moves the score: {printable(title, 60)}", loc="left", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower right", frameon=False)
        target = io.BytesIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": "airlock"})
    return target.getvalue()


def _largest_shares(models: dict[str, _Explanation]) -> pd.DataFrame:
    """Shares of the features that matter most to any of the models, the candidate's largest first."""
    import pandas as pd

    shares = pd.DataFrame({label: model.share for label, model in models.items()}).fillna(0.0).sort_index()
    largest = shares.max(axis=1).sort_values(ascending=False, kind="stable").index[:_BARS]
    return shares.loc[largest].sort_values("candidate", ascending=False, kind="stable")


_SVG: dict[Any, Any] = {"svg.hashsalt": "airlock", "svg.fonttype": "none", "font.family": "DejaVu Sans"}
_COLOURS = {"candidate": "#0b5394", "champion": "#b7b7b7"}
_BARS = 20
"""How many features the plot shows; `explanation.json` has all of them."""


def _metrics(candidate: _Explanation, comparison: _Comparison | None, config: Config) -> list[Metric]:
    rows, engine = len(candidate.parts), f"pandas {_engines()['pandas']}"
    allowed, tolerance = config.maximum_attribution_share, config.additivity_tolerance
    top = [(name, float(candidate.share[name])) for name in candidate.top(config.top_k)]
    numbers: list[tuple[str, float | None, float | None, Literal["higher", "lower"], int, str]] = [
        ("explained_rows", rows, config.minimum_rows, "higher", rows, ""),
        ("additivity_error", candidate.error, tolerance, "lower", rows, ""),
        *(("attribution_share", share, allowed, "lower", rows, name) for name, share in top),
    ]
    if comparison is not None:
        count, limit = len(comparison.features), config.minimum_rank_correlation
        numbers += [
            ("rank_correlation", comparison.correlation, limit, "higher", count, ""),
            ("top_k_overlap", comparison.overlap, None, "higher", count, ""),
            ("row_cosine", comparison.cosine, None, "higher", comparison.rows, ""),
        ]
    return [
        Metric(
            name=name,
            value=value,
            threshold=limit,
            direction=direction,
            n=n,
            where=where,
            engine=engine,
            unit="rows" if name == "explained_rows" else "1",
        )
        for name, value, limit, direction, n, where in numbers
    ]


def _summary(candidate: _Explanation, comparison: _Comparison | None, findings: Sequence[Finding]) -> str:
    """Most weight and the comparison, with what is wrong before it."""
    top = ", ".join(f"{name} {100 * candidate.share[name]:.0f} %" for name in candidate.top(3))
    if comparison is None:
        ranking = "there is no champion's ranking to compare with"
    elif comparison.correlation is None:
        ranking = "ranks of the two models cannot be correlated"
    elif any(finding.id == "explanation_changed" for finding in findings):
        ranking = f"ranking differs from the champion ({comparison.correlation:.2f})"
    else:
        ranking = f"ranking agrees with the champion ({comparison.correlation:.2f})"
    weight = f"most weight: {top}; {ranking}."
    text = "; ".join([*(f.message for f in findings if f.verdict is Verdict.FAILED), weight])
    return text[0].upper() + text[1:]


def _engines() -> dict[str, str]:
    import matplotlib as mpl
    import numpy as np
    import pandas as pd

    return {"matplotlib": mpl.__version__, "numpy": np.__version__, "pandas": pd.__version__}


def _finding(finding_id: str, verdict: Verdict, message: str, fix: str, where: str = "") -> Finding:
    return Finding(id=finding_id, verdict=verdict, message=message, fix=fix, where=where)
