"""Drift: whether the evaluation data still looks like the data the model was trained on.

Why it matters: a model is only known to work on data like its training data. When customers, prices or
upstream systems change, its quality decays silently, weeks before the outcomes arrive that would show it.

What good looks like: the population stability index (PSI) of nearly every feature is below 0.1, of
none above the limit; the share of missing values is stable; candidate and champion give a similar
distribution of scores.

How to fix it: find out what moved: a true change in the population, a changed unit or code upstream, or
a batch from another region or season. Correct the data, or retrain on data that includes the change.
Helpful tools: Evidently's report on the same two files; the data quality gate for codes and units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.statistics import exceeds, percent
from airlock.gates.base import GateContext, Need, Stage, cannot_judge, unusable_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    Floats = npt.NDArray[np.float64]
    Counts = npt.NDArray[np.int64]
    Bins = Literal["equal width", "training deciles", "values"]

STAGE = Stage.AFTER_SCORING
NEEDS = (Need.CURRENT, Need.REFERENCE)

_SEED = 20_240_603
_FEW_VALUES = 20
"""Evidently counts numeric columns with at most so many distinct reference values by value."""
_FILL = 1e-4
"""The share Evidently gives to an empty bin."""
_FIX = "find out whether the population, a unit or a code upstream changed; correct the data or retrain"


class Config(Value):
    """Limits of the drift gate.

    Attributes:
        minimum_rows: a feature needs this many values in both data sets to be judged.
        psi: population stability index above which a feature has drifted.
        maximum_drift_share: largest allowed share of drifted features.
        maximum_bin_share: when extreme values push more than this share of all rows into one of
            Evidently's equal-width bins, its PSI is blind, and the bins are the training data's
            deciles instead.
        confidence: a PSI must also exceed this quantile of the PSI of random splits of the same
            rows; between the limit and that, the shift can be chance and is a warning.
        permutations: number of random splits.
        report_rows: Evidently gets at most so many rows of each data set, drawn with a fixed seed.
    """

    minimum_rows: Annotated[int, Field(ge=2)]
    psi: Annotated[float, Field(gt=0)]
    maximum_drift_share: Annotated[float, Field(ge=0, le=1)]
    maximum_bin_share: Annotated[float, Field(gt=0, le=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    permutations: Annotated[int, Field(ge=100, le=100_000)]
    report_rows: Annotated[int, Field(ge=1000)]


@dataclass
class FeatureDrift:
    """What is known about one feature.

    Attributes:
        feature: its name.
        bins: how PSI was binned: Evidently's ``equal width`` bins or ``values``, or ``training
            deciles`` where equal widths were blind.
        n: rows with a value, in the evaluation batch and in the training data.
        missing: share of rows without one, in the same order.
        psi: Σ (r - c) ln(r / c) over the bins' shares in reference and current data, by Evidently.
        noise: the PSI that random splits of the same rows stay below at the set confidence.
        missing_psi: the PSI of missing against present, by Evidently, when any value is missing.
        missing_noise: its noise.
        ks: two-sample Kolmogorov-Smirnov statistic of a numeric feature, for information.
        drifted: the answer, see :meth:`judge`.
    """

    feature: str
    bins: Bins = "values"
    n: tuple[int, int] = (0, 0)
    missing: tuple[float, float] = (0.0, 0.0)
    psi: float | None = None
    noise: float | None = None
    missing_psi: float | None = None
    missing_noise: float | None = None
    ks: float | None = None
    drifted: bool = False

    @property
    def judged(self) -> bool:
        """Whether there is an answer: values were compared, or it is plain that they disappeared."""
        return self.psi is not None or self.drifted

    def beyond(self, limit: float) -> list[str]:
        """What is above the limit, ``psi`` or ``missing_psi``, by drift or by chance."""
        return [name for name in ("psi", "missing_psi") if exceeds(getattr(self, name) or 0.0, limit)]

    def judge(self, limit: float) -> None:
        """A feature has drifted when PSI is above the limit, and above what chance does with so few rows."""
        pairs = (self.psi, self.noise), (self.missing_psi, self.missing_noise)
        self.drifted = any(exceeds(psi or 0.0, max(limit, noise or 0.0)) for psi, noise in pairs)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Compare each feature's distribution in the evaluation batch with the training data."""
    features = context.columns.features
    evaluation, training, scores = context.evaluation(), context.training(), context.scores().frame
    has_champion = context.has_champion
    problem = unusable_scores(
        evaluation, scores, minimum_rows=config.minimum_rows, champion=has_champion
    ) or _incomparable(evaluation, training, features, config)
    if problem:
        return problem
    current, reference = _sample(evaluation, config.report_rows), _sample(training, config.report_rows)
    drifts = _measure(current[features], reference[features], config)
    if not any(drift.judged for drift in drifts):
        return cannot_judge(
            "features.unmeasurable",
            f"no feature has {config.minimum_rows} values in both evaluation batch and training data",
            fix="evaluate on more rows, or repair the features that are empty",
        )
    prediction = _prediction_drift(scores, config) if has_champion else None
    drifted = [drift.feature for drift in drifts if drift.drifted]
    share = len(drifted) / sum(drift.judged for drift in drifts)
    findings = list(_findings(drifts, drifted, share, config))
    table = {
        "limit": config.psi,
        "drifted": drifted,
        "share": share,
        "prediction_psi": prediction,
        "rows": {"evaluation": len(evaluation), "training": len(training)},
        "compared": {"evaluation": len(current), "training": len(reference)},
        "features": [vars(drift) for drift in drifts],
    }
    context.attach("drift.json", canonical_json(table))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(drifts, drifted, findings, config),
        findings=findings,
        metrics=list(_metrics(drifts, share, prediction, len(current), config)),
        engines=_engines(),
        details={"drifted": drifted, "share": share},
    )


def _incomparable(
    evaluation: pd.DataFrame, training: pd.DataFrame, features: list[str], config: Config
) -> GateResult | None:
    for name, frame in (("evaluation batch", evaluation), ("training data", training)):
        if missing := [feature for feature in features if feature not in frame]:
            return cannot_judge(
                "features.missing",
                f"the {name} has no column {', '.join(map(repr, missing))}, a feature",
                fix="see the data quality gate; restore the column at its source",
                where=missing[0],
            )
    if len(training) < config.minimum_rows:
        return cannot_judge(
            "rows.too_few",
            f"the training data has {len(training)} rows, but {config.minimum_rows} are needed",
            fix="name the file the champion was trained on under data.training in the workload file",
        )
    return None


def _sample(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """At most ``rows`` rows, always the same ones: Evidently's cost grows with rows, PSI's does not."""
    if len(frame) <= rows:
        return frame
    return frame.sample(rows, random_state=_SEED).sort_index()


def _measure(current: pd.DataFrame, reference: pd.DataFrame, config: Config) -> list[FeatureDrift]:
    """All features in one run of Evidently, then the noise level of each."""
    import numpy as np

    drifts: list[FeatureDrift] = []
    columns: dict[str, tuple[pd.Series[Any], pd.Series[Any]]] = {}
    for feature in current.columns:
        now, before = _comparable(current[feature], reference[feature])
        drift = FeatureDrift(
            feature,
            n=(int(now.notna().sum()), int(before.notna().sum())),
            missing=(float(now.isna().mean()), float(before.isna().mean())),
        )
        drifts.append(drift)
        if any(drift.missing):
            columns[f"missing:{feature}"] = now.isna().astype(str), before.isna().astype(str)
        if min(drift.n) >= config.minimum_rows:
            drift.bins = _bins(now, before, config)
            if now.dtype.kind == "f":
                drift.ks = _ks(now.dropna(), before.dropna())
            columns[f"value:{feature}"] = (
                _deciles(now, before) if drift.bins == "training deciles" else (now, before)
            )
    values = evidently_psi(columns)
    rng = np.random.default_rng(_SEED)
    noises = {name: psi_noise(*bin_counts(*pair), config, rng) for name, pair in sorted(columns.items())}
    for drift in drifts:
        value, missing = f"value:{drift.feature}", f"missing:{drift.feature}"
        drift.psi, drift.noise = values.get(value), noises.get(value)
        drift.missing_psi, drift.missing_noise = values.get(missing), noises.get(missing)
        drift.judge(config.psi)
    return drifts


def _comparable(current: pd.Series[Any], reference: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Both as floats, infinities as missing; or, unless both are numbers, both as text."""
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    pair = (current.reset_index(drop=True), reference.reset_index(drop=True))
    if all(is_numeric_dtype(column) and not is_bool_dtype(column) for column in pair):
        floats = [column.astype("float64").replace([np.inf, -np.inf], np.nan) for column in pair]
        return floats[0], floats[1]
    texts = [column.astype(object).where(column.notna()).map(str, na_action="ignore") for column in pair]
    return texts[0], texts[1]


def _bins(current: pd.Series[Any], reference: pd.Series[Any], config: Config) -> Bins:
    """How Evidently will bin the feature, and whether that would leave nearly all rows in one bin."""
    if current.dtype.kind != "f" or reference.nunique() <= _FEW_VALUES:
        return "values"
    before, now = bin_counts(current, reference)
    together = before + now
    blind = exceeds(float(together.max() / together.sum()), config.maximum_bin_share)
    return "training deciles" if blind else "equal width"


def _deciles(current: pd.Series[Any], reference: pd.Series[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """The number of the training data's decile each value falls into, as text."""
    import numpy as np
    import pandas as pd

    edges = np.unique(np.quantile(reference.dropna(), np.arange(1, 10) / 10))

    def place(column: pd.Series[Any]) -> pd.Series[Any]:
        return pd.Series(np.searchsorted(edges, column.dropna()), dtype="int64").astype(str)

    return place(current), place(reference)


def _ks(current: pd.Series[Any], reference: pd.Series[Any]) -> float:
    """Largest distance between the two distribution functions."""
    import numpy as np

    now, before = np.sort(current.to_numpy()), np.sort(reference.to_numpy())
    values = np.concatenate([now, before])
    below_now = np.searchsorted(now, values, side="right") / len(now)
    below_before = np.searchsorted(before, values, side="right") / len(before)
    return float(np.abs(below_now - below_before).max())


def evidently_psi(columns: dict[str, tuple[pd.Series[Any], pd.Series[Any]]]) -> dict[str, float]:
    """Evidently's PSI of each column, given as (current, reference).

    Missing values are dropped by Evidently. The order of the columns does not matter.
    """
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    if not columns:
        return {}
    numeric = [name for name, (current, _) in columns.items() if current.dtype.kind == "f"]
    definition = DataDefinition(
        numerical_columns=numeric, categorical_columns=[name for name in columns if name not in numeric]
    )
    current, reference = (
        Dataset.from_pandas(
            pd.DataFrame({name: pair[side] for name, pair in columns.items()}), data_definition=definition
        )
        for side in (0, 1)
    )
    report = Report([ValueDrift(column=name, method="psi") for name in columns], include_tests=False)
    measured = report.run(current, reference).dict()["metrics"]
    return {metric["config"]["column"]: float(metric["value"]) for metric in measured}


def bin_counts(current: pd.Series[Any], reference: pd.Series[Any]) -> tuple[Counts, Counts]:
    """Counts per bin of reference and current data, binned as Evidently 0.7.23 does.

    Numbers with more than 20 distinct reference values go into equal-width bins, as many as
    Sturges' rule gives for both data sets together; everything else is counted by value.
    """
    import numpy as np

    columns = before, now = reference.dropna(), current.dropna()
    if now.dtype.kind == "f" and before.nunique() > _FEW_VALUES:
        edges = np.histogram_bin_edges(np.concatenate(columns), bins="sturges")
        counted = [np.histogram(column, edges)[0] for column in columns]
    else:
        values = sorted(set(before.unique()) | set(now.unique()))
        counted = [column.value_counts().reindex(values, fill_value=0).to_numpy() for column in columns]
    return counted[0].astype(np.int64), counted[1].astype(np.int64)


def psi_of_counts(reference: Counts, current: Counts) -> Floats:
    """PSI of each row of counts, with Evidently's filling of empty bins.

    An empty bin counts as 1e-4, or as a millionth of the smallest share where that is 1e-4 or less.
    """
    import numpy as np

    def shares(counts: Counts) -> Floats:
        share = counts / counts.sum(axis=-1, keepdims=True)
        smallest = np.where(share > 0, share, np.inf).min(axis=-1, keepdims=True)
        filled: Floats = np.where(share > 0, share, np.where(smallest <= _FILL, smallest / 1e6, _FILL))
        return filled

    before, now = shares(reference), shares(current)
    result: Floats = ((before - now) * np.log(before / now)).sum(axis=-1)
    return result


def psi_noise(reference: Counts, current: Counts, config: Config, rng: np.random.Generator) -> float:
    """The PSI that splits of the same rows at random stay below: an exact permutation test.

    The bins depend on both data sets together, so shuffling rows between the two is a
    hypergeometric draw of the bins' counts. It makes the rule robust to sample size: with few rows
    PSI is large by chance (its mean is about (bins - 1)(1/n + 1/m)), with many it is not.
    """
    import numpy as np

    together = reference + current
    drawn = rng.multivariate_hypergeometric(
        together, int(current.sum()), size=config.permutations, method="marginals"
    )
    return float(np.quantile(psi_of_counts(together - drawn, drawn), config.confidence))


def _prediction_drift(scores: pd.DataFrame, config: Config) -> float:
    """PSI of the candidate's scores against the champion's, on the same rows."""
    sample = _sample(scores, config.report_rows)
    pair = sample["candidate_score"].astype("float64"), sample["champion_score"].astype("float64")
    return evidently_psi({"prediction": pair})["prediction"]


def _findings(
    drifts: list[FeatureDrift], drifted: list[str], share: float, config: Config
) -> Iterator[Finding]:
    if exceeds(share, config.maximum_drift_share):
        yield Finding(
            id="drift_share",
            verdict=Verdict.FAILED,
            message=f"{len(drifted)} of {sum(drift.judged for drift in drifts)} features have drifted "
            f"({percent(share)}, limit {percent(config.maximum_drift_share)}): {', '.join(drifted)}",
            fix=_FIX,
        )
    for drift in drifts:
        beyond = drift.beyond(config.psi)
        if beyond:
            yield Finding(
                id="drifted" if drift.drifted else "drift_uncertain",
                verdict=Verdict.WARNED,
                message="; ".join(_describe(drift, name, config) for name in beyond),
                where=drift.feature,
                fix=_FIX if drift.drifted else "evaluate on more rows to be sure",
            )
        if drift.psi is None:
            yield Finding(
                id="feature_unmeasurable",
                verdict=Verdict.WARNED,
                message=f"cannot tell for {drift.feature}: {drift.n[0]} values in the evaluation batch and "
                f"{drift.n[1]} in the training data, {config.minimum_rows} are needed in both",
                where=drift.feature,
                fix="repair the feature at its source, or evaluate on more rows",
            )


def _describe(drift: FeatureDrift, name: str, config: Config) -> str:
    if name == "missing_psi":
        value, noise = drift.missing_psi, drift.missing_noise
        now, before = (percent(share) for share in drift.missing)
        text = f"{drift.feature}: missing values went from {before} to {now}"
    else:
        value, noise = drift.psi, drift.noise
        text = f"{drift.feature}: the distribution of its values moved"
    text += f", PSI {value:.3f}, limit {config.psi:g}"
    if value is not None and noise is not None and not exceeds(value, noise):
        text += f"; with so few rows chance alone gives up to {noise:.3f}"
    return text


def _metrics(
    drifts: list[FeatureDrift], share: float, prediction: float | None, rows: int, config: Config
) -> Iterator[Metric]:
    engine = f"evidently {_engines()['evidently']}"
    yield Metric(
        name="drift_share",
        value=share,
        threshold=config.maximum_drift_share,
        direction="lower",
        n=sum(drift.judged for drift in drifts),
    )
    if prediction is not None:
        yield Metric(name="prediction_psi", value=prediction, n=rows, engine=engine)
    for drift in drifts:
        for name, value, n in (("psi", drift.psi, drift.n[0]), ("missing_psi", drift.missing_psi, rows)):
            if name == "psi" or value is not None:
                yield Metric(
                    name=name,
                    value=value,
                    threshold=config.psi,
                    direction="lower",
                    n=n,
                    where=drift.feature,
                    engine=engine,
                )
        if drift.ks is not None:
            yield Metric(name="ks_statistic", value=drift.ks, n=drift.n[0], where=drift.feature)


def _summary(drifts: list[FeatureDrift], drifted: list[str], findings: list[Finding], config: Config) -> str:
    measured = sum(drift.judged for drift in drifts)
    if any(finding.verdict is Verdict.FAILED for finding in findings):
        return (
            f"{len(drifted)} of {measured} features no longer look like the training data "
            f"({percent(len(drifted) / measured)}, limit {percent(config.maximum_drift_share)}): "
            f"{', '.join(drifted)}."
        )
    if drifted:
        return (
            f"{', '.join(drifted)} moved away from the training data, but that is only {len(drifted)} of "
            f"{measured} features, within the limit of {percent(config.maximum_drift_share)}."
        )
    unsure = f"; {len(findings)} could not be told for sure" if findings else ""
    return f"No feature has moved away from the training data ({measured} compared{unsure})."


def _engines() -> dict[str, str]:
    from importlib.metadata import version

    return {"evidently": version("evidently"), "numpy": version("numpy")}
