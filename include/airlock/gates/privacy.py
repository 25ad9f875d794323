"""Privacy: no personal data, no prohibited feature, and no stand-in for a protected attribute.

Why it matters: a model that reads an e-mail address or a card number can leak it, and the law (GDPR Art. 5
and 9, ECOA) forbids deciding by some facts at all. Leaving race out is not enough when another column tells
it: lenders learned that with postal codes.

What good looks like: names and values without personal data, identifiers and protected attributes kept out
of the features, and no feature that predicts a protected attribute. For each attribute the gate says how
well one feature, and all features together, tell who belongs to a group (AUC: 0.5 is chance, 1 is a copy),
with an interval. Columns that are declared as tokens look like tokens, every row has consent, and the data
lies where it may.

How to fix it: drop the column, or replace the value by a token or a coarser one before the data reaches
training. For a proxy, show in the model card why the feature is needed and no less telling one would do, or
train without it and compare. Personal data that must stay in the data is a question for data governance: ask
for a waiver of the finding, with a reason and an end.
Helpful tools: Microsoft Presidio for free text, fairlearn's CorrelationRemover for proxies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from airlock import __version__
from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.errors import InvalidInputError
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.names import name_tokens, says
from airlock.core.statistics import Judge, Standing, exceeds, settling_size, standing
from airlock.gates.base import MISSING_GROUP, GateContext, Need, Stage, cannot_judge, group_names
from airlock.profiles.personal import Forms, Hit, distinct, find_in_source, forms_of
from airlock.profiles.proxies import Auc, feature_of, joint_auc, matrix_of, single_auc
from airlock.profiles.source import Source, open_source

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from airlock.core.columns import Columns

STAGE = Stage.BEFORE_SCORING
NEEDS = (Need.CURRENT,)


class Config(Value):
    """What must not be in the data, and how much a feature may tell about a protected attribute."""

    proxy_auc: Annotated[
        float, Field(ge=0.5, le=1, description="AUC above which a feature is a proxy: a warning")
    ]
    copy_auc: Annotated[
        float, Field(ge=0.5, le=1, description="AUC above which a feature is a copy: a failure")
    ]
    joint_auc: Annotated[
        float, Field(ge=0.5, le=1, description="AUC of all features together that asks for a warning")
    ]
    judge: Annotated[Judge, Field(description="what the AUC limits are held against")]
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="confidence of the intervals")]
    joint_rows: Annotated[
        int, Field(ge=1000, description="rows that are enough to ask all features together")
    ]
    minimum_rows: Annotated[int, Field(ge=2, description="evaluation rows below which nothing is judged")]
    minimum_group_rows: Annotated[
        int, Field(ge=10, description="rows inside and outside a group below which it is not judged")
    ]
    personal_share: Annotated[
        float,
        Field(ge=0, lt=1, description="share of rows with personal data above which a column fails"),
    ]
    maximum_texts: Annotated[
        int,
        Field(ge=1000, description="suspicious distinct texts checked exactly, for each column and kind"),
    ]
    prohibited_names: Annotated[
        list[str], Field(min_length=1, description="words that must not be in the name of a feature")
    ]
    protected_names: Annotated[
        list[str], Field(min_length=1, description="words that name a protected attribute in any column")
    ]
    allowed_regions: Annotated[
        list[str], Field(description="regions where data may lie; an empty list sets no limit")
    ]
    required_declarations: Annotated[
        list[Literal["consent", "residency"]], Field(description="what every workload must declare")
    ]

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.copy_auc < self.proxy_auc:
            raise ValueError("copy_auc is below proxy_auc: every proxy would be a copy")
        for field in ("prohibited_names", "protected_names"):
            if not all(name_tokens(name) for name in getattr(self, field)):
                raise ValueError(f"{field} has an entry without a letter or digit")
        return self


@dataclass(frozen=True)
class _Group:
    """One group of a protected attribute, and how well features tell who belongs to it.

    Attributes:
        rows: rows whose value of the attribute is known.
        members: how many of them belong to the group.
        features: AUC of each feature; empty when there are too few rows inside or outside of the group.
        joint: cross-validated AUC of all features together.
        joint_rows: how many rows that rests on.
    """

    attribute: str
    group: str
    rows: int
    members: int
    features: dict[str, Auc]
    joint: Auc | None
    joint_rows: int

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.attribute}: {self.group}"

    @property
    def strongest(self) -> str:
        """The feature that tells most."""
        return max(sorted(self.features), key=lambda name: self.features[name].value)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Judge names, values, declarations and proxies."""
    with ExitStack() as stack:
        sources = _sources(context, stack)
        current = sources["evaluation"]
        if problem := _unusable(context, current, config):
            return problem
        hits = [
            hit
            for data, source in sources.items()
            for hit in find_in_source(source, data, config.maximum_texts)
        ]
        findings = [
            *_name_findings(context.columns, sources, config),
            *_value_findings(hits, context.columns, config),
            *(finding for data in sources for finding in _declared(context, data, sources[data], config)),
            *_declarations(context, config),
        ]
        rows = current.rows()
        groups = list(_groups(context, current, config))
    findings += _group_findings(groups, context, config)
    context.attach(
        "privacy.json",
        canonical_json(
            {
                "rows": rows,
                "values": [{**asdict(hit), "column": _printable(hit.column)} for hit in hits],
                "proxies": [_table(group) for group in groups],
            }
        ),
    )
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(findings, groups, config),
        findings=findings,
        metrics=_metrics(findings, hits, groups, rows, config),
        engines=_engines(),
        details={"protected": _protected(context.columns, sources, groups, config)},
    )


def _sources(context: GateContext, stack: ExitStack) -> dict[str, Source]:
    """The evaluation data, and the training data where there is any."""
    sources: dict[str, Source] = {"evaluation": stack.enter_context(open_source(context.current_path()))}
    try:
        path = context.reference_path()
    except InvalidInputError:  # plain files need not come with reference data
        return sources
    return {**sources, "training": stack.enter_context(open_source(path))}


def _unusable(context: GateContext, current: Source, config: Config) -> GateResult | None:
    columns = context.columns
    if missing := [name for name in (*columns.features, *columns.sensitive) if name not in current.columns()]:
        return cannot_judge(
            "missing_column",
            f"the evaluation batch has no column {', '.join(map(_printable, missing))}",
            fix="add the columns to the evaluation batch, or correct the workload file",
        )
    if current.rows() < config.minimum_rows:
        return cannot_judge(
            "too_few_rows",
            f"the evaluation batch has {current.rows()} rows, but {config.minimum_rows} are needed",
            fix="choose an evaluation batch with more rows",
        )
    return None


def _plain(name: str) -> str:
    return "".join(name_tokens(name)) or name


def _name_findings(columns: Columns, sources: dict[str, Source], config: Config) -> Iterator[Finding]:
    roles = {_plain(name): ("protected", name) for name in columns.sensitive}
    roles |= {_plain(name): ("identifying", name) for name in columns.identifiers}
    for feature in columns.features:
        shown = _printable(feature)
        if words := [word for word in config.prohibited_names if says(feature, word)]:
            yield _finding(
                "prohibited_name",
                Verdict.FAILED,
                f"feature {shown} has {words[0]} in its name, which no model may use",
                "train without it; if the name misleads, rename the column to what it holds",
                shown,
            )
        if role := roles.get(_plain(feature)):
            yield _finding(
                "forbidden_feature",
                Verdict.FAILED,
                f"feature {shown} is the {role[0]} column {_printable(role[1])}",
                "train without it; keep the column in the evaluation batch for the bias gate alone",
                shown,
            )
    for name in _protected_columns(columns, sources, config):
        if name not in (*columns.sensitive, *columns.features):
            yield _finding(
                "undeclared_attribute",
                Verdict.WARNED,
                f"column {_printable(name)} is named like a protected attribute and is not declared as one",
                "declare it under data.sensitive of the workload, so that bias and proxies are judged, or "
                "drop it",
                _printable(name),
            )


def _protected_columns(columns: Columns, sources: dict[str, Source], config: Config) -> list[str]:
    """Columns that are declared as protected attributes, or named like one, in any of the data."""
    names = dict.fromkeys(name for source in sources.values() for name in source.columns())
    return sorted(
        name
        for name in names
        if name in columns.sensitive or any(says(name, word) for word in config.protected_names)
    )


def _value_findings(hits: Sequence[Hit], columns: Columns, config: Config) -> Iterator[Finding]:
    for column, found in groupby(sorted(hits, key=lambda hit: hit.column), key=lambda hit: hit.column):
        if column in columns.identifiers:
            continue  # known to identify, and kept out of the features
        these, shown = list(found), _printable(column)
        text = (
            f"column {shown} holds what looks like personal data: {'; '.join(_words(hit) for hit in these)}"
        )
        over = any(exceeds(hit.share, config.personal_share) for hit in these)
        verdict = Verdict.FAILED if over else Verdict.WARNED
        if column in columns.features:
            fix = "train without it, or replace each value by a token before the data reaches training"
            yield _finding("personal_data_in_feature", verdict, text, fix, shown)
        else:
            scope = f"gate-privacy:personal_data:{shown}"
            fix = f"{_WITHOUT}; if it must stay as it is, ask data governance for a waiver of {scope}"
            yield _finding("personal_data", verdict, text, fix, shown)


_WITHOUT = (
    "drop the column, turn its values into tokens, or declare it under data.identifiers of the workload"
)


def _words(hit: Hit) -> str:
    about = "about " if hit.checked < hit.suspected else ""
    article = "an" if hit.kind[0] in "eI" else "a"
    return f"{about}{hit.cells} cells of the {hit.data} data with {article} {hit.kind} ({hit.example})"


def _declared(context: GateContext, data: str, source: Source, config: Config) -> Iterator[Finding]:
    """Whether the data is what the owner declares: tokens are tokens, rows have consent and a region."""
    spec = context.privacy
    wanted = [*spec.tokens, *([spec.consent.column] if spec.consent else [])]
    wanted += [spec.residency.column] if spec.residency and spec.residency.column else []
    for column in wanted:
        if column not in source.columns():
            yield _finding(
                "missing_column",
                Verdict.ERROR,
                f"the {data} data has no column {_printable(column)}, which the privacy declaration names",
                "add the column to the data, or correct the declaration",
                _printable(column),
            )
    for column in spec.tokens:
        if column in source.columns():
            yield from _token_findings(forms_of(source, column, config.maximum_texts), data)
    if spec.consent and spec.consent.column in source.columns():
        without = _others(source, spec.consent.column, spec.consent.accepted)
        if without:
            yield _finding(
                "consent_missing",
                Verdict.FAILED,
                f"{without} of {source.rows()} rows of the {data} data have no consent for this use",
                "leave these rows out of the data, or ask the people",
                _printable(spec.consent.column),
            )
    residency = spec.residency
    if residency and config.allowed_regions and residency.column in source.columns():
        outside = _others(source, str(residency.column), config.allowed_regions)
        if outside:
            yield _finding(
                "residency_rows",
                Verdict.FAILED,
                f"{outside} of {source.rows()} rows of the {data} data are of a region that is not allowed",
                f"leave these rows out of the data; allowed are {', '.join(config.allowed_regions)}",
                _printable(str(residency.column)),
            )


def _token_findings(forms: Forms, data: str) -> Iterator[Finding]:
    if forms.plain:
        yield _finding(
            "not_tokenised",
            Verdict.FAILED,
            f"{forms.plain} of {forms.cells} values of column {_printable(forms.column)} in the {data} data "
            "do not look like tokens, hashes or redactions",
            "tokenise the column before the data reaches training, or take it out of privacy.tokens",
            _printable(forms.column),
        )


def _others(source: Source, column: str, accepted: Sequence[str]) -> int:
    """Rows whose value is not one of the accepted ones; a missing value is none of them."""
    values, counts = distinct(source, column)
    good = sum(
        int(n) for text, n in zip(values.to_pylist(), counts, strict=True) if text.strip() in set(accepted)
    )
    return source.rows() - good


def _declarations(context: GateContext, config: Config) -> Iterator[Finding]:
    for name in config.required_declarations:
        if getattr(context.privacy, name) is None:
            yield _finding(
                f"{name}_undeclared",
                Verdict.FAILED,
                f"the policy asks for a declaration of {name}, and there is none",
                f"add privacy.{name} to the workload file",
            )
    residency = context.privacy.residency
    if residency and config.allowed_regions and residency.region not in config.allowed_regions:
        yield _finding(
            "residency",
            Verdict.FAILED,
            f"the data lies in {residency.region}; allowed are {', '.join(config.allowed_regions)}",
            "move the data, or have data governance allow the region in the policy",
        )


def _groups(context: GateContext, current: Source, config: Config) -> Iterator[_Group]:
    """Ask each feature, and all together, about each group of each protected attribute.

    Features are read one by one and kept as integers: texts of a whole table would be most of the memory.
    """
    import numpy as np

    names, sensitive = context.columns.features, context.columns.sensitive
    if not sensitive or not names:
        return
    total = current.rows()
    features = [feature_of(_whole(current, name), _printable(name)) for name in names]
    some = np.unique(np.linspace(0, total - 1, min(total, config.joint_rows)).astype(np.int64))
    matrix = matrix_of(features, some)
    for attribute, words in sensitive.items():
        labels = np.array(group_names(_whole(current, attribute), words), dtype=object)
        known = labels != MISSING_GROUP
        groups = _worth_asking({*words.values(), *labels[known].tolist()}, labels)
        for group in groups or [MISSING_GROUP]:
            member = known & (labels == group)
            inside, rows = int(member.sum()), int(known.sum())
            enough = min(inside, rows - inside) >= config.minimum_group_rows
            ask = (member, known, config.minimum_group_rows, config.confidence)
            aucs = {feature.name: single_auc(feature, *ask) for feature in features} if enough else {}
            asked = known[some]
            joint = joint_auc(matrix[asked], member[some][asked], config.confidence) if enough else None
            shown = _printable(attribute), _printable(group)
            yield _Group(*shown, rows, inside, aucs, joint, int(asked.sum()))


def _whole(source: Source, column: str) -> pd.Series[Any]:
    return source.sample([column], source.rows(), 0)[column]


def _worth_asking(groups: set[str], labels: npt.NDArray[np.object_]) -> list[str]:
    """All groups, in order; of two only the smaller, because who tells one tells the other."""
    if len(groups) != 2:  # noqa: PLR2004 - one and the other
        return sorted(groups)
    return [min(sorted(groups), key=lambda group: int((labels == group).sum()))]


def _group_findings(groups: Sequence[_Group], context: GateContext, config: Config) -> Iterator[Finding]:
    if not context.columns.sensitive and context.protected_class_data:
        yield _finding(
            "attributes_undeclared",
            Verdict.ERROR,
            "the workload says that its data holds protected attributes, but names none",
            "name the columns and their values under data.sensitive in the workload file",
        )
    if context.columns.sensitive and not context.columns.features:
        yield _finding(
            "features_undeclared",
            Verdict.ERROR,
            "no feature is named, so that nobody can tell whether one stands in for a protected attribute",
            "name the features of the model (columns.features)",
        )
    for attribute in map(_printable, context.columns.sensitive):
        yield from _size_findings(attribute, [g for g in groups if g.attribute == attribute], config)
    for group in groups:
        for name in sorted(group.features, key=lambda name: (-group.features[name].value, name)):
            yield from _proxy_findings(name, group, config)
        yield from _joint_findings(group, config)


def _proxy_findings(name: str, group: _Group, config: Config) -> Iterator[Finding]:
    auc = group.features[name]
    text = f"feature {name} tells who belongs to {group.name} (AUC {_number(auc)}"
    if _stands(auc, config.copy_auc, config) is Standing.WRONG:
        fix = "train without it: it is the protected attribute under another name"
        yield _finding("copy", Verdict.FAILED, f"{text}, above {config.copy_auc:g}: a copy)", fix, name)
        return
    stands = _stands(auc, config.proxy_auc, config)
    if stands is Standing.WRONG:
        fix = "say in the model card why nothing less telling will do, or train without it"
        yield _finding("proxy", Verdict.WARNED, f"{text}, above {config.proxy_auc:g}: a proxy)", fix, name)
    elif stands is not Standing.RIGHT:
        rows = settling_size(group.rows, auc.value, auc.interval, config.proxy_auc)
        text = f"whether feature {name} is a proxy of {group.name} cannot be told (AUC {_number(auc)}, limit"
        fix = f"about {rows} rows would settle it" if rows else "more rows would settle it"
        yield _finding("proxy_unsure", Verdict.WARNED, f"{text} {config.proxy_auc:g})", fix, name)


def _joint_findings(group: _Group, config: Config) -> Iterator[Finding]:
    if group.joint is not None and _stands(group.joint, config.joint_auc, config) is Standing.WRONG:
        yield _finding(
            "joint_proxy",
            Verdict.WARNED,
            f"all features together tell who belongs to {group.name} (AUC {_number(group.joint)}, above "
            f"{config.joint_auc:g})",
            "find the features that tell most together (privacy.json), and train without one of them",
            group.name,
        )


def _stands(auc: Auc, limit: float, config: Config) -> Standing:
    return standing(
        auc.value, limit, auc.interval, higher_is_better=False, by=config.judge, no_effect=_CHANCE
    )


_CHANCE = 0.5


def _number(auc: Auc) -> str:
    return f"{auc.value:.3f}, {auc.low:.3f} to {auc.high:.3f}"


def _size_findings(attribute: str, groups: Sequence[_Group], config: Config) -> Iterator[Finding]:
    small = [group for group in groups if not group.features]
    if not small:
        return
    sizes = ", ".join(f"{g.group} {g.members} of {g.rows}" for g in small[:_SHOWN])
    needed = f"{config.minimum_group_rows} rows inside and outside are needed"
    none = len(small) == len(groups)
    yield _finding(
        "too_few_rows" if none else "group_too_small",
        Verdict.ERROR if none else Verdict.WARNED,
        f"proxies of {attribute} cannot be judged for {len(small)} of {len(groups)} groups ({sizes}): "
        f"{needed}",
        "choose an evaluation batch with more rows of these groups",
        attribute,
    )


_SHOWN = 10
"""How many groups fit into a sentence."""


def _table(group: _Group) -> dict[str, object]:
    aucs = {name: asdict(auc) for name, auc in group.features.items()}
    return {**asdict(group), "features": aucs, "joint": asdict(group.joint) if group.joint else None}


def _protected(
    columns: Columns, sources: dict[str, Source], groups: Sequence[_Group], config: Config
) -> dict[str, list[str]]:
    """What rules ask: which protected attributes are in the data, and which features stand in for one."""
    telling = {
        name
        for group in groups
        for name, auc in group.features.items()
        if _stands(auc, config.proxy_auc, config) is Standing.WRONG
    }
    present = _protected_columns(columns, sources, config)
    return {"columns_present": [_printable(name) for name in present], "proxies": sorted(telling)}


def _metrics(
    findings: Sequence[Finding], hits: Sequence[Hit], groups: Sequence[_Group], rows: int, config: Config
) -> list[Metric]:
    own, sklearn = (f"{name} {_engines()[name]}" for name in ("airlock", "scikit-learn"))
    named = sum(finding.id == "prohibited_name" for finding in findings)
    places = {finding.where for finding in findings if finding.id == "personal_data_in_feature"}
    cells = sum(hit.cells for hit in hits if _printable(hit.column) in places)
    metrics = [
        Metric(name=name, value=value, threshold=0, direction="lower", unit=unit, n=rows, engine=own)
        for name, value, unit in (
            ("prohibited_names", named, "features"),
            ("personal_data_in_features", cells, "cells"),
        )
    ]
    for hit in hits:
        where = f"{hit.data}.{_printable(hit.column)}: {hit.kind}"
        limit = config.personal_share
        metrics.append(
            Metric(
                name="personal_share",
                value=hit.share,
                threshold=limit,
                direction="lower",
                n=hit.rows,
                where=where,
            )
        )
    for group in groups:
        auc = group.features[group.strongest] if group.features else None
        metrics += [
            _auc_metric(auc, config, name="proxy_auc", where=group.name, n=group.rows, engine=own),
            _auc_metric(
                group.joint, config, name="joint_auc", where=group.name, n=group.joint_rows, engine=sklearn
            ),
        ]
    return metrics


def _auc_metric(auc: Auc | None, config: Config, *, name: str, **about: Any) -> Metric:
    return Metric(
        name=name,
        value=auc.value if auc else None,
        interval=auc.interval if auc else None,
        confidence=config.confidence if auc else None,
        method="DeLong" if auc else "",
        threshold=getattr(config, name),
        direction="lower",
        **about,
    )


def _summary(findings: Sequence[Finding], groups: Sequence[_Group], config: Config) -> str:
    """One plain sentence: the worst finding, or what was looked at."""
    for verdict in (Verdict.ERROR, Verdict.FAILED, Verdict.WARNED):
        these = [finding for finding in findings if finding.verdict is verdict]
        if these:
            more = f" (and {len(these) - 1} more)" if len(these) > 1 else ""
            return f"{these[0].message[0].upper()}{these[0].message[1:]}{more}."
    if not groups:
        return (
            "No personal data found; the workload declares no protected attributes that a feature could tell."
        )
    top = max(groups, key=lambda group: group.features[group.strongest].value)
    return (
        f"No personal data found; no feature tells a protected attribute: closest is {top.strongest} "
        f"for {top.name} (AUC {top.features[top.strongest].value:.2f}, {config.proxy_auc:g} is allowed)."
    )


def _engines() -> dict[str, str]:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import sklearn

    return {
        "airlock": __version__,
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "pyarrow": pa.__version__,
        "scikit-learn": sklearn.__version__,
    }


def _finding(finding_id: str, verdict: Verdict, message: str, fix: str, where: str = "") -> Finding:
    return Finding(id=finding_id, verdict=verdict, message=message, fix=fix, where=where)


def _printable(text: str) -> str:
    """A column name that is safe to show: it comes from a file."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)[:_NAME_LENGTH]


_NAME_LENGTH = 200
