"""Privacy: no personal data, no prohibited feature, and no stand-in for a protected attribute.

Why it matters: a model that reads an e-mail address or a card number can leak it, and the law (GDPR Art. 5
and 9, ECOA) forbids deciding by some facts at all. Leaving race out is not enough when another column tells
it: lenders learned that with postal codes.

What good looks like: feature names and values without personal data, identifiers kept out of the features,
and no single feature that predicts a protected attribute. For each attribute the gate says how well one
feature, and all features together, tell who belongs to a group (AUC: 0.5 is chance, 1 is a copy).

How to fix it: drop the column, or replace the value by a token or a coarser one before the data reaches
training. For a proxy, show in the model card why the feature is needed and no less telling one would do, or
train without it and compare. Personal data that must stay in the data needs the approval of data governance.
Helpful tools: Microsoft Presidio for free text, fairlearn's CorrelationRemover for proxies.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from airlock import __version__
from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.personal_data import find_personal_data, is_card_number, looks_like_card, mask
from airlock.core.statistics import exceeds
from airlock.gates.base import MISSING_GROUP, GateContext, Need, Stage, cannot_judge, group_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from airlock.core.columns import Columns

    Integers = npt.NDArray[np.int64]

STAGE = Stage.BEFORE_SCORING
NEEDS = (Need.CURRENT, Need.REFERENCE)


class Config(Value):
    """What must not be in the data, and how much a feature may tell about a protected attribute."""

    proxy_auc: Annotated[
        float, Field(ge=0.5, le=1, description="AUC above which a feature is a proxy: a warning")
    ]
    copy_auc: Annotated[
        float, Field(ge=0.5, le=1, description="AUC above which a feature is a copy: a failure")
    ]
    joint_rows: Annotated[
        int, Field(ge=1000, description="rows that are enough to ask all features together")
    ]
    minimum_rows: Annotated[int, Field(ge=2, description="evaluation rows below which nothing is judged")]
    minimum_group_rows: Annotated[
        int, Field(ge=10, description="rows inside and outside a group below which it is not judged")
    ]
    prohibited_names: Annotated[
        list[str], Field(min_length=1, description="words that must not be in the name of a feature")
    ]

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.copy_auc < self.proxy_auc:
            raise ValueError("copy_auc is below proxy_auc: every proxy would be a copy")
        if not all(name_tokens(name) for name in self.prohibited_names):
            raise ValueError("prohibited_names has an entry without a letter or digit")
        return self


@dataclass(frozen=True)
class _Hit:
    """Cells of one column with one kind of personal data; ``example`` is masked."""

    data: str
    column: str
    kind: str
    cells: int
    example: str


@dataclass(frozen=True)
class _Feature:
    """A column as integers, so that every question about it is answered by counting.

    Attributes:
        levels: place of each row's value among the distinct values in order; -1 where it is missing.
        count: how many distinct values there are.
        ordered: whether the order of values means something; it does not for text.
    """

    name: str
    levels: Integers
    count: int
    ordered: bool


@dataclass(frozen=True)
class _Group:
    """One group of a protected attribute, and how well features tell who belongs to it.

    Attributes:
        rows: rows whose value of the attribute is known.
        members: how many of them belong to the group.
        features: AUC of each feature; empty when there are too few rows inside or outside of the group.
        joint: cross-validated AUC of all features together.
    """

    attribute: str
    group: str
    rows: int
    members: int
    features: dict[str, float]
    joint: float | None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.attribute}: {self.group}"

    @property
    def strongest(self) -> str:
        """The feature that tells most."""
        return max(sorted(self.features), key=self.features.__getitem__)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Judge names, values and proxies."""
    frame, columns = context.evaluation(), context.columns
    features, sensitive = columns.features, columns.sensitive
    if missing := [name for name in (*features, *sensitive) if name not in frame]:
        return cannot_judge(
            "missing_column",
            f"the evaluation batch has no column {', '.join(missing)}",
            fix="add the columns to the evaluation batch, or correct the workload file",
        )
    if len(frame) < config.minimum_rows:
        return cannot_judge(
            "too_few_rows",
            f"the evaluation batch has {len(frame)} rows, but {config.minimum_rows} are needed",
            fix="choose an evaluation batch with more rows",
        )
    hits = [*_scan("evaluation", frame), *_scan("training", context.training())]
    groups = list(_groups(frame, features, sensitive, config))
    findings = [
        *_name_findings(columns, config),
        *_value_findings(hits, columns),
        *_group_findings(groups, context, config),
    ]
    table = {"values": [asdict(hit) for hit in hits], "proxies": [asdict(group) for group in groups]}
    context.attach("privacy.json", canonical_json({"rows": len(frame), **table}))
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(findings, groups, config),
        findings=findings,
        metrics=_metrics(findings, hits, groups, len(frame), config),
        engines=_engines(),
    )


def name_tokens(name: str) -> list[str]:
    """The words of a column name: ``zipCode2`` and ``ZIP_code-2`` are ``zip``, ``code``, ``2``."""
    plain = "".join(
        character for character in unicodedata.normalize("NFKD", name) if not unicodedata.combining(character)
    )
    return [token.casefold() for token in _TOKEN.findall(_CAMEL.sub(" ", plain))]


_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")


def says(name: str, word: str) -> bool:
    """Whether a column name has ``word`` in it as a whole word, singular or plural.

    Law: ``zip`` is in ``zip_code``, ``homeZip`` and ``zips``, and not in ``unzipped``.
    """
    tokens, wanted = name_tokens(name), "".join(name_tokens(word))
    runs = ("".join(tokens[i:j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1))
    return any(run in {wanted, f"{wanted}s", f"{wanted}es"} for run in runs)


def _plain(name: str) -> str:
    return "".join(name_tokens(name)) or name


def _name_findings(columns: Columns, config: Config) -> Iterator[Finding]:
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


def _scan(data: str, frame: pd.DataFrame) -> Iterator[_Hit]:
    """Personal data in the values of every column. Only a mask of what was found leaves this function."""
    for column, series in frame.items():
        cells: Counter[str] = Counter()
        examples: dict[str, str] = {}
        found = _scan_numbers(series) if series.dtype.kind in "iuf" else _scan_text(series)
        for kind, count, match in found:
            cells[kind] += count
            examples.setdefault(kind, mask(match))
        for kind in sorted(cells):
            yield _Hit(data, _printable(str(column)), kind, cells[kind], examples[kind])


def _scan_text(series: pd.Series[Any]) -> Iterator[tuple[str, int, str]]:
    """Each distinct text once: kind, number of cells, match."""
    if series.dtype.kind in "bmM":  # truth values and times
        return
    for text, count in Counter(map(_text, series.dropna().astype("object"))).items():
        for kind, match in find_personal_data(text).items():
            yield kind, count, match


def _scan_numbers(series: pd.Series[Any]) -> Iterator[tuple[str, int, str]]:
    """Card numbers kept as numbers, the only kind that can be told from a measurement.

    One in ten random numbers passes the check of a card number, so most of those that look like one have to.
    """
    present = series.dropna()
    large = present[(present >= _SMALLEST_CARD) & (present < _LARGEST_CARD)]
    like = [text for text in (str(int(value)) for value in large[large % 1 == 0]) if looks_like_card(text)]
    cards = [text for text in like if is_card_number(text)]
    if len(cards) > len(like) / 2:
        yield "payment card number", len(cards), cards[0]


_SMALLEST_CARD, _LARGEST_CARD = 1e12, 1e19


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _value_findings(hits: Sequence[_Hit], columns: Columns) -> Iterator[Finding]:
    features = {_printable(name) for name in columns.features}
    declared = {_printable(name) for name in columns.identifiers}
    for hit in hits:
        if hit.column in declared:
            continue  # known to identify, and kept out of the features
        where = f"{hit.data}.{hit.column}"
        article = "an" if hit.kind[0] in "eI" else "a"
        text = f"{hit.cells} cells of {where} hold what looks like {article} {hit.kind} ({hit.example})"
        if hit.column in features:
            fix = "train without it, or replace each value by a token before the data reaches training"
            yield _finding("personal_data_in_feature", Verdict.FAILED, text, fix, where)
        else:
            fix = (
                "drop the column, declare it under data.identifiers of the workload, or ask data governance "
                "to agree that it stays"
            )
            yield _finding("personal_data", Verdict.WARNED, text, fix, where)


def _groups(
    frame: pd.DataFrame, names: Sequence[str], sensitive: dict[str, dict[str, str]], config: Config
) -> Iterator[_Group]:
    """Ask each feature, and all together, about each group of each protected attribute."""
    import numpy as np

    if not sensitive:
        return
    features = [_feature(frame[name], _printable(name)) for name in names]
    some = np.unique(np.linspace(0, len(frame) - 1, min(len(frame), config.joint_rows)).astype(np.int64))
    matrix = _matrix(features, some)
    for attribute, words in sensitive.items():
        labels = np.array(group_names(frame[attribute], words), dtype=object)
        known = labels != MISSING_GROUP
        groups = _worth_asking({*words.values(), *labels[known].tolist()}, labels)
        for group in groups or [MISSING_GROUP]:
            member = known & (labels == group)
            inside, rows = int(member.sum()), int(known.sum())
            enough = min(inside, rows - inside) >= config.minimum_group_rows
            aucs = {f.name: _single_auc(f, member, known, config) for f in features} if enough else {}
            joint = _joint_auc(matrix[known[some]], member[some][known[some]]) if enough else None
            yield _Group(_printable(attribute), _printable(group), rows, inside, aucs, joint)


def _worth_asking(groups: set[str], labels: npt.NDArray[np.object_]) -> list[str]:
    """All groups, in order; of two only the smaller, because who tells one tells the other."""
    if len(groups) != 2:  # noqa: PLR2004 - one and the other
        return sorted(groups)
    return [min(sorted(groups), key=lambda group: int((labels == group).sum()))]


def _feature(series: pd.Series[Any], name: str) -> _Feature:
    import numpy as np
    import pandas as pd

    ordered = series.dtype.kind in "iufbmM"
    if ordered:
        levels, numbers = series.factorize(sort=True)
        return _Feature(name, levels.astype("int64"), len(numbers), ordered)
    texts = [None if gone else _text(value) for value, gone in zip(series, series.isna(), strict=True)]
    levels, words = pd.factorize(np.array(texts, dtype=object), sort=True)
    return _Feature(name, levels.astype("int64"), len(words), ordered)


def _single_auc(
    feature: _Feature, member: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_], config: Config
) -> float:
    """How well one feature tells who belongs to a group: by its value, or by whether it has one.

    A feature that goes down where membership goes up tells as much, so the larger of AUC and 1 - AUC counts.
    """
    import numpy as np

    present = known & (feature.levels >= 0)
    inside, outside = (int((group & present).sum()) for group in (member, ~member))
    all_inside, all_outside = int(member.sum()), int((known & ~member).sum())
    missing = all_inside - inside, all_outside - outside
    auc = _auc(np.array([missing[0], inside]), np.array([missing[1], outside])) if any(missing) else 0.5
    if min(inside, outside) < config.minimum_group_rows:
        return auc
    levels, belongs = feature.levels[present], member[present]
    if not feature.ordered:
        return max(auc, _text_auc(levels, feature.count, belongs))
    counts = (np.bincount(levels[rows], minlength=feature.count) for rows in (belongs, ~belongs))
    return max(auc, _auc(*counts))


def _auc(inside: Integers, outside: Integers, *, either_way: bool = True) -> float:
    """Area under the ROC curve from counts by level, lowest level first; never below 0.5.

    Formula: share of pairs (member, other) in which the member has the higher level, ties half; this is
    Mann-Whitney's U / (n m). Law: the larger of scikit-learn's ``roc_auc_score`` for the rows and 1 minus
    it. Pairs are counted in integers, so a value on its limit is exactly on it.
    """
    below = outside.cumsum() - outside
    twice = int((inside * (2 * below + outside)).sum())
    pairs = 2 * int(inside.sum()) * int(outside.sum())
    return max(twice, pairs - twice if either_way else pairs / 2) / pairs


def _text_auc(levels: Integers, count: int, member: npt.NDArray[np.bool_]) -> float:
    """AUC of text: each value stands for the share of members among rows of the other folds that have it.

    Shares over the same rows would make every column of distinct texts look like a copy.
    """
    import numpy as np

    cells = levels * _FOLDS + np.arange(len(levels)) % _FOLDS
    shape = (count, _FOLDS)
    inside = np.bincount(cells[member], minlength=count * _FOLDS).reshape(shape)
    every = np.bincount(cells, minlength=count * _FOLDS).reshape(shape)
    others_inside, others = (table.sum(axis=1, keepdims=True) - table for table in (inside, every))
    share = (others_inside + member.mean()) / (others + 1)
    _, place = np.unique(share, return_inverse=True)
    pooled = [
        np.bincount(place.ravel(), weights=table.ravel()).astype("int64")
        for table in (inside, every - inside)
    ]
    return _auc(*pooled, either_way=False)


def _matrix(features: Sequence[_Feature], rows: Integers) -> npt.NDArray[np.float64]:
    """Features as numbers between 0 and 1: ranks, missing marks, and the most frequent texts."""
    import numpy as np

    columns = []
    for feature in features:
        present = feature.levels >= 0
        counts = np.bincount(feature.levels[present], minlength=max(feature.count, 1))
        if feature.ordered:
            ranks = (counts.cumsum() - counts / 2) / max(int(counts.sum()), 1)
            columns.append(np.where(present, ranks[feature.levels], 0.5)[rows])
        else:
            frequent = np.argsort(-counts, kind="stable")[:_TEXTS]
            columns += [(feature.levels == level)[rows].astype("float64") for level in frequent]
        if not present.all():
            columns.append((~present)[rows].astype("float64"))
    return np.column_stack(columns)


def _joint_auc(matrix: npt.NDArray[np.float64], member: npt.NDArray[np.bool_]) -> float | None:
    """Cross-validated AUC of a logistic regression on all features; ``None`` for too few rows to fold.

    Rounded, because the last digits of a fitted model depend on the machine.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if min(int(member.sum()), int((~member).sum())) < _FOLDS:
        return None
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=1000)
    scores = cross_val_predict(model, matrix, member, cv=folds, method="decision_function")
    return round(float(roc_auc_score(member, scores)), 4)


_FOLDS = 5
_TEXTS = 20
"""Texts of a column that get a coefficient of their own."""


def _group_findings(groups: Sequence[_Group], context: GateContext, config: Config) -> Iterator[Finding]:
    if not context.columns.sensitive and context.protected_class_data:
        yield _finding(
            "attributes_undeclared",
            Verdict.ERROR,
            "the workload says that its data holds protected attributes, but names none",
            "name the columns and their values under data.sensitive in the workload file",
        )
    for attribute in map(_printable, context.columns.sensitive):
        yield from _size_findings(attribute, [g for g in groups if g.attribute == attribute], config)
    for group in groups:
        for name in sorted(group.features, key=lambda name: (-group.features[name], name)):
            auc = group.features[name]
            text = f"feature {name} tells who belongs to {group.name} (AUC {auc:.3f}"
            if exceeds(auc, config.copy_auc):
                fix = "train without it: it is the protected attribute under another name"
                text = f"{text}, above {config.copy_auc:g}: a copy)"
                yield _finding("copy", Verdict.FAILED, text, fix, name)
            elif exceeds(auc, config.proxy_auc):
                fix = "say in the model card why nothing less telling will do, or train without it"
                text = f"{text}, above {config.proxy_auc:g}: a proxy)"
                yield _finding("proxy", Verdict.WARNED, text, fix, name)


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


def _metrics(
    findings: Sequence[Finding], hits: Sequence[_Hit], groups: Sequence[_Group], rows: int, config: Config
) -> list[Metric]:
    own, sklearn = (f"{name} {_engines()[name]}" for name in ("airlock", "scikit-learn"))
    named = sum(finding.id == "prohibited_name" for finding in findings)
    in_features = {finding.where for finding in findings if finding.id == "personal_data_in_feature"}
    cells = sum(hit.cells for hit in hits if f"{hit.data}.{hit.column}" in in_features)
    numbers: list[tuple[str, float | None, float | None, str, int, str, str]] = [
        ("prohibited_names", named, 0, "features", rows, "", own),
        ("personal_data_in_features", cells, 0, "cells", rows, "", own),
    ]
    for group in groups:
        auc = group.features[group.strongest] if group.features else None
        numbers.append(("proxy_auc", auc, config.proxy_auc, "1", group.rows, group.name, own))
        numbers.append(("joint_auc", group.joint, None, "1", group.rows, group.name, sklearn))
    return [
        Metric(
            name=name,
            value=value,
            threshold=limit,
            direction="lower",
            unit=unit,
            n=n,
            where=where,
            engine=engine,
        )
        for name, value, limit, unit, n, where, engine in numbers
    ]


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
    top = max(groups, key=lambda group: group.features[group.strongest])
    return (
        f"No personal data found; no feature tells a protected attribute: closest is {top.strongest} "
        f"for {top.name} (AUC {top.features[top.strongest]:.2f}, {config.proxy_auc:g} is allowed)."
    )


def _engines() -> dict[str, str]:
    import numpy as np
    import pandas as pd
    import sklearn

    versions = {"numpy": np.__version__, "pandas": pd.__version__, "scikit-learn": sklearn.__version__}
    return {"airlock": __version__, **versions}


def _finding(finding_id: str, verdict: Verdict, message: str, fix: str, where: str = "") -> Finding:
    return Finding(id=finding_id, verdict=verdict, message=message, fix=fix, where=where)


def _printable(text: str) -> str:
    """A column name that is safe to show: it comes from a file."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)[:_NAME_LENGTH]


_NAME_LENGTH = 200
