"""Drift: whether the evaluation data still looks like the data the model was trained on.

Why it matters: a model is only known to work on data like its training data. When customers, prices or
upstream systems change, its quality decays silently, weeks before the outcomes arrive that would show it.

What good looks like: the population stability index (PSI) of nearly every feature is below 0.1, of
none above the limit; the share of missing values is stable; no classifier can tell the two data sets
apart; candidate and champion give a similar distribution of scores.

How to fix it: find out what moved: a true change in the population, a changed unit or code upstream, or
a batch from another region or season. Correct the data, or retrain on data that includes the change.
Helpful tools: drift.json has every bin of every feature; Evidently's report on a sample is beside it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.columns import Task
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.held import HeldLimit
from airlock.core.statistics import Judge, exceeds, percent
from airlock.gates.base import GateContext, Need, Stage, cannot_judge, unusable_scores
from airlock.profiles.compare import Comparison, compare
from airlock.profiles.effects import Effect, Limits, Moved, effects_of
from airlock.profiles.source import FrameSource, Source, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airlock.profiles.joint import Separability

STAGE = Stage.AFTER_SCORING
NEEDS = (Need.CURRENT, Need.REFERENCE)

_SEED = 20_240_603
_FIX = "find out whether the population, a unit or a code upstream changed; correct the data or retrain"
_ENGINE = "airlock profile"


class Config(Value):
    """Limits of the drift gate. A feature has drifted when it moved far and not by chance.

    Attributes:
        minimum_rows: a feature needs this many values in both data sets to be judged.
        psi: limit of the population stability index, in Evidently's bins and in the reference's deciles. A
            feature beyond any limit moved far. None of these grows with the number of rows.
        jensenshannon: limit of the Jensen-Shannon distance; ``null`` measures without judging.
        ks: the same for the Kolmogorov-Smirnov statistic of numbers.
        wasserstein: the same for the Wasserstein distance, in standard deviations of the reference.
        significance: chi-square tests of all features are corrected together (Benjamini-Hochberg); at
            most this share of the features called drifted moved by chance alone.
        maximum_drift_share: largest allowed share of drifted features.
        confidence: of the intervals. A feature whose interval reaches beyond a limit it keeps is
            reported as one that nobody can tell yet.
        classifier_rows: a classifier gets at most so many rows of each data set; 0 leaves it out.
        classifier_auc: it may tell the data sets apart no better than this, by the lower end of the
            interval and by the features that have not drifted one by one.
        report_rows: in a release Evidently's report is drawn on at most so many rows of each data set; 0
            leaves it out. Plain files get none: importing Evidently takes longer than judging them.
    """

    minimum_rows: Annotated[int, Field(ge=2)]
    psi: Annotated[float, Field(gt=0)]
    jensenshannon: Annotated[float, Field(gt=0)] | None
    ks: Annotated[float, Field(gt=0, le=1)] | None
    wasserstein: Annotated[float, Field(gt=0)] | None
    significance: Annotated[float, Field(gt=0, lt=1)]
    maximum_drift_share: Annotated[float, Field(ge=0, le=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    classifier_rows: Annotated[int, Field(ge=0)]
    classifier_auc: Annotated[float, Field(gt=0.5, le=1)]
    report_rows: Annotated[int, Field(ge=0)]

    @property
    def limits(self) -> Limits:
        """What decides about one feature."""
        return Limits(
            effects={
                "psi": self.psi, "psi_deciles": self.psi, "missing_psi": self.psi,
                "jensenshannon": self.jensenshannon, "ks": self.ks, "wasserstein": self.wasserstein,
            },
            significance=self.significance, confidence=self.confidence, minimum_rows=self.minimum_rows,
        )  # fmt: skip


HELD = (
    HeldLimit("maximum_drift_share", "drift_share", metric="drift_share"),
    HeldLimit(
        "classifier_auc",
        "joint_drift",
        metric="classifier_auc",
        judge=Judge.BOUND,
        only_sure=True,
        may_be_absent=True,
    ),
)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Compare each feature's distribution in the evaluation batch with the training data."""
    with ExitStack() as open_files:
        current = open_files.enter_context(open_source(context.current_path()))
        reference = open_files.enter_context(open_source(context.reference_path()))
        features = _features(context, reference)
        if problem := _incomparable(current, reference, features, config) or _bad_scores(
            context, current.rows(), config
        ):
            return problem
        compared = compare(reference, current, features)
        effects = effects_of(compared, config.limits)
        if not any(effect.judged for effect in effects):
            return cannot_judge(
                "features.unmeasurable",
                f"no feature has {config.minimum_rows} values in both evaluation batch and training data",
                fix="evaluate on more rows, or repair the features that are empty",
            )
        joint = _joint(current, reference, effects, config)
        predictions = _predictions(context, current, reference)
        if config.report_rows and context.manifest is not None:
            _attach_report(context, current, reference, features, config)
    drifted = [effect.name for effect in effects if effect.moved is Moved.FAR]
    share = len(drifted) / sum(effect.judged for effect in effects)
    findings = [*_findings(effects, drifted, share, config), *_joint_findings(joint, config)]
    context.attach("drift.json", canonical_json(_table(effects, drifted, share, predictions, config)))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(effects, drifted, findings, config),
        findings=findings,
        metrics=list(_metrics(effects, share, joint, predictions, config)),
        engines=_engines(config),
        details={"drifted": drifted, "share": share},
    )


def _features(context: GateContext, reference: Source) -> list[str]:
    """The named features; else every column of the reference that has no other role."""
    roles = context.columns
    if roles.features:
        return list(roles.features)
    others = {roles.label, roles.prediction, roles.score, roles.time, *roles.sensitive, *roles.identifiers}
    return [name for name in reference.columns() if name not in others]


def _incomparable(
    current: Source, reference: Source, features: list[str], config: Config
) -> GateResult | None:
    if not features:
        return cannot_judge(
            "features.none", "there is no feature to compare", fix="name the features in columns.features"
        )
    for name, source in (("evaluation batch", current), ("training data", reference)):
        if missing := [feature for feature in features if feature not in source.columns()]:
            return cannot_judge(
                "features.missing",
                f"the {name} has no column {', '.join(map(repr, missing))}, a feature",
                fix="see the data quality gate; restore the column at its source",
                where=missing[0],
            )
        if source.rows() < config.minimum_rows:
            return cannot_judge(
                "rows.too_few",
                f"the {name} has {source.rows()} rows, but {config.minimum_rows} are needed",
                fix="choose data with more rows; the training data is named under data.training in the "
                "workload file",
            )
    return None


def _bad_scores(context: GateContext, rows: int, config: Config) -> GateResult | None:
    """Scores of a release must be usable before anything is said about it."""
    import pandas as pd

    if not context.scored or context.manifest is None or context.task is not Task.BINARY:
        return None  # what other tasks predict is checked by the gates that judge it
    batch, scores = pd.DataFrame(index=range(rows)), context.scores().frame
    return unusable_scores(batch, scores, minimum_rows=config.minimum_rows, champion=context.has_champion)


def _joint(current: Source, reference: Source, effects: list[Effect], config: Config) -> Separability | None:
    """How well a classifier tells the data sets apart by features that have not drifted one by one."""
    from airlock.profiles.joint import separability

    steady = [effect.name for effect in effects if effect.judged and effect.moved is not Moved.FAR]
    if not config.classifier_rows or not steady:
        return None
    sides = [source.sample(steady, config.classifier_rows, _SEED) for source in (reference, current)]
    return separability(sides[0], sides[1], confidence=config.confidence, seed=_SEED)


def _predictions(context: GateContext, current: Source, reference: Source) -> list[Comparison]:
    """Scores of the candidate against the champion's, or of the current data against the reference's."""
    if context.scored and context.has_champion:
        scores = context.scores().frame
        sides = [
            FrameSource(scores[[f"{model}_score"]].set_axis(["champion to candidate"], axis=1))
            for model in ("champion", "candidate")
        ]
        return compare(sides[0], sides[1], ["champion to candidate"])
    named = [name for name in (context.columns.score, context.columns.prediction) if name]
    both = [name for name in named if name in current.columns() and name in reference.columns()]
    return compare(reference, current, both) if both else []


def _attach_report(
    context: GateContext, current: Source, reference: Source, features: list[str], config: Config
) -> None:
    from airlock.profiles.evidently_report import drift_report

    sides = [source.sample(features, config.report_rows, _SEED) for source in (reference, current)]
    context.attach("evidently.html", drift_report(sides[0], sides[1], config.psi))


def _findings(effects: list[Effect], drifted: list[str], share: float, config: Config) -> Iterator[Finding]:
    if exceeds(share, config.maximum_drift_share):
        yield Finding(
            id="drift_share",
            verdict=Verdict.FAILED,
            message=f"{len(drifted)} of {sum(effect.judged for effect in effects)} features have drifted "
            f"({percent(share)}, limit {percent(config.maximum_drift_share)}): {', '.join(drifted)}",
            fix=_FIX,
        )
    for effect in effects:
        if effect.moved is Moved.FAR:
            yield Finding(
                id="drifted", verdict=Verdict.WARNED, message=effect.text, where=effect.name, fix=_FIX
            )
        elif effect.moved is Moved.UNSURE:
            needed = f"about {effect.needed:,}" if effect.needed else "more"
            yield Finding(
                id="cannot_tell.drifted",
                verdict=Verdict.WARNED,
                message=effect.text,
                where=effect.name,
                fix=f"evaluate on {needed} rows to be sure",
            )
        if not effect.measured:
            before, now = effect.comparison.n
            yield Finding(
                id="cannot_tell.feature",
                verdict=Verdict.WARNED,
                message=f"cannot tell for {effect.name}: {now} values in the evaluation batch and "
                f"{before} in the training data, {config.minimum_rows} are needed in both",
                where=effect.name,
                fix="repair the feature at its source, or evaluate on more rows",
            )


def _joint_findings(joint: Separability | None, config: Config) -> Iterator[Finding]:
    if joint is not None and exceeds(joint.interval[0], config.classifier_auc):
        yield Finding(
            id="joint_drift",
            verdict=Verdict.FAILED,
            message="features moved together: by those that did not drift one by one a classifier tells the "
            f"evaluation batch from the training data with an AUC of {joint.auc:.3f} "
            f"({joint.interval[0]:.3f} to {joint.interval[1]:.3f} on {joint.n} rows, "
            f"limit {config.classifier_auc:g})",
            fix="look for relations between features that changed, such as a unit of one of them; "
            "correct the data or retrain",
        )


def _metrics(
    effects: list[Effect],
    share: float,
    joint: Separability | None,
    predictions: list[Comparison],
    config: Config,
) -> Iterator[Metric]:
    yield Metric(
        name="drift_share",
        value=share,
        threshold=config.maximum_drift_share,
        direction="lower",
        n=sum(effect.judged for effect in effects),
    )
    if joint is not None:
        yield Metric(
            name="classifier_auc",
            value=joint.auc,
            threshold=config.classifier_auc,
            direction="lower",
            interval=joint.interval,
            confidence=config.confidence,
            n=joint.n,
            engine=f"sklearn {_engines(config)['scikit-learn']}",
            method="DeLong, held-out half",
        )
    for one in predictions:
        for name in ("psi", "jensenshannon", "ks", "wasserstein"):
            yield Metric(
                name=f"prediction_{name}",
                value=getattr(one, name),
                n=one.n[1],
                where=one.column,
                engine=_ENGINE,
            )
    for effect in effects:
        yield from effect.metrics(config.limits, _ENGINE)


def _table(
    effects: list[Effect],
    drifted: list[str],
    share: float,
    predictions: list[Comparison],
    config: Config,
) -> dict[str, Any]:
    """What drift.json holds: every number and every bin, reference before current."""
    rows = effects[0].comparison.rows
    return {
        "limits": {name: limit for name, limit in config.limits.effects.items() if limit is not None},
        "drifted": drifted,
        "share": share,
        "prediction_psi": predictions[0].psi if predictions else None,
        "rows": {"training": rows[0], "evaluation": rows[1]},
        "features": [effect.to_table() for effect in effects],
    }


def _summary(effects: list[Effect], drifted: list[str], findings: list[Finding], config: Config) -> str:
    measured = sum(effect.judged for effect in effects)
    ids = {finding.id for finding in findings}
    if "drift_share" in ids:
        return (
            f"{len(drifted)} of {measured} features no longer look like the training data "
            f"({percent(len(drifted) / measured)}, limit {percent(config.maximum_drift_share)}): "
            f"{', '.join(drifted)}."
        )
    if "joint_drift" in ids:
        return (
            "The features no longer belong together as in the training data: a classifier tells them apart."
        )
    if drifted:
        return (
            f"{', '.join(drifted)} moved away from the training data, but that is only {len(drifted)} of "
            f"{measured} features, within the limit of {percent(config.maximum_drift_share)}."
        )
    unsure = f"; {len(findings)} could not be told for sure" if findings else ""
    return f"No feature has moved away from the training data ({measured} compared{unsure})."


def _engines(config: Config) -> dict[str, str]:
    from importlib.metadata import version

    used = ["pyarrow", "numpy", "scikit-learn"] + ["evidently"] * bool(config.report_rows)
    return {name: version(name) for name in used}
