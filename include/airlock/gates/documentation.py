"""Documentation: the model card says what the model is for, what it rests on and where it ends.

Why it matters: whoever approves, operates or audits a model was not there when it was built. A use its
authors never intended, a limit nobody wrote down or a column nobody can explain is how a good model does
harm. The EU AI Act (Annex IV), SR 26-2 and ECOA ask for this text before they ask for any number.

What good looks like: a Markdown model card with every section the policy asks for, each in whole sentences
for a reader from outside the team; a feature dictionary that says what each column means; and a business
context, given with the submission, that says why this release is wanted now.

How to fix it: open the model card named in the workload file, add the headings the finding lists, word for
word, and replace TODO, TBD and template text with what you know, even where that is "we do not know". One
line per feature is enough, such as `| obrat | other obligations, % of income |`. Any Markdown editor will do;
the card is read as text, so headings inside code blocks and HTML comments do not count.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from airlock import __version__
from airlock.core.base import Value
from airlock.core.evidence import Finding, GateResult, Metric, Verdict, passed_or_worst
from airlock.core.held import HeldLimit
from airlock.gates.base import GateContext, Need, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STAGE = Stage.BEFORE_SCORING
NEEDS = (Need.CARD, Need.CONTEXT)

ENGINE = f"airlock {__version__}"
_SHOWN = 10
"""How many names fit into a sentence."""


class Config(Value):
    """What a model card must contain."""

    required_sections: Annotated[
        list[str], Field(min_length=1, description="headings a model card must have, at any level")
    ]
    feature_section: Annotated[str, Field(description="the required section that explains the features")]
    minimum_words: Annotated[int, Field(ge=1, description="words each required section must have")]

    @model_validator(mode="after")
    def _sections_are_distinct(self) -> Self:
        names = [_normal(name) for name in self.required_sections]
        if not all(names) or len(set(names)) != len(names):
            raise ValueError("required_sections has an empty heading or names one twice")
        if self.feature_section not in self.required_sections:
            raise ValueError(f"feature_section {self.feature_section!r} is not one of required_sections")
        return self


@dataclass(frozen=True)
class _Section:
    """A heading and what stands under it, up to the next heading of its level or that is required itself.

    ``name`` is the heading as it is compared, ``first`` the number of the line after it; ``prose`` is
    ``text`` with code blanked out.
    """

    name: str
    first: int
    prose: list[str]
    text: list[str]


_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*")
_NOT_A_PARAGRAPH = re.compile(r"\s*(?:[|>#]|[-*+][ \t]|\d+[.)][ \t]|[-=*_]{2,}[ \t]*$|$)")
_NUMBERING = re.compile(r"(?:\d+(?:\.\d+)*[.)]?|[a-z][.)])\s+")
_ENTRY = re.compile(r"[-*+]\s+(\S.*?)(?::\**\s|\s[-\u2013\u2014]\s)(.*)")
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[([^\[\]\n]*)\]\([^()\n]*\)")
_NOT_PROSE = re.compile(r"<[^<>\n]*>|https?://\S+|\b\w{1,64}@[\w.-]+")
# Chinese, Japanese and Korean put no spaces between words: each character counts, as in word processors.
_WORD = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\\W\\d_]+(?:['\u2019-][^\\W\\d_]+)*"
)
_PLACEHOLDERS = {
    "TODO, TBD, FIXME or XXX": re.compile(r"\b(?:TODO|FIXME|XXX|TBC|[Tt][Bb][Dd])\b|\b[Tt]o-?do:"),
    "lorem ipsum": re.compile(r"\blorem\s+ipsum\b", re.IGNORECASE),
    "an ellipsis in place of text": re.compile(
        r"^[\s>*+-]*(?:\u2026|\.{3,})\s*$|\|\s*(?:\u2026|\.{3,})\s*(?=\||$)"
    ),
    "template text in brackets": re.compile(
        r"[\[<{]\s*(?:insert|describe|enter|your|fill in|placeholder)\b[^\]>}\n]{0,200}[\]>}](?!\()",
        re.IGNORECASE,
    ),
}


HELD = (HeldLimit("minimum_words", "short_section", metric="section_words"),)


def evaluate(context: GateContext, config: Config) -> GateResult:
    """Judge the model card and the business context of the release."""
    text = _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), context.documentation())
    lines = unicodedata.normalize("NFC", text).split("\n")
    sections = _sections(lines, config.required_sections)
    found = {name: _find(sections, name) for name in config.required_sections}
    words = {name: len(_words(section.prose)) if section else 0 for name, section in found.items()}
    dictionary = found[config.feature_section]
    features = context.columns.features
    unexplained = _unexplained(dictionary.text, features) if dictionary else list(features)

    findings = _missing_findings(lines, found)
    findings += _section_findings(found, words, config)
    findings += _placeholders_elsewhere(lines, found)
    if dictionary and unexplained:
        findings.append(_unexplained_finding(unexplained, config.feature_section))
    findings += _context_findings(context.business_context)
    return GateResult(
        verdict=passed_or_worst(findings),
        summary=_summary(findings, found, unexplained, len(features)),
        findings=findings,
        metrics=_metrics(found, words, config, len(features), len(features) - len(unexplained)),
        engines={"airlock": __version__},
        details={"words": words, "unexplained_features": unexplained},
    )


def feature_meanings(markdown: str, features: Sequence[str]) -> dict[str, str]:
    """What a model card says each feature means, from its table rows and list items.

    Understands ``| a | meaning |``, ``| a, b | meaning of a; meaning of b |``, ``- a: meaning`` and
    ``- **a** - meaning``, names in backticks or not. The first entry of a feature counts; features without
    an entry are absent; a row with empty cells has an empty meaning.
    """
    known = {unicodedata.normalize("NFC", name): name for name in features}
    meanings: dict[str, str] = {}
    text = unicodedata.normalize("NFC", _COMMENT.sub("", markdown)).replace("\\_", "_")
    for key, meaning in _entries(text.split("\n")):
        names = [part.strip(" \t`*") for part in key.split(",")]
        parts = [part.strip() for part in meaning.split(";")]
        each = parts if len(parts) == len(names) else [meaning] * len(names)
        for name, part in zip(names, each, strict=True):
            if name in known:
                meanings.setdefault(known[name], part)
    return meanings


def _entries(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each line that looks like an entry of a dictionary: what it is about and what it says."""
    for line in (line.strip() for line in lines):
        if line.startswith("|"):
            key, *cells = line.strip("|").split("|")
            yield key, ", ".join(cell.strip() for cell in cells if _WORD.search(cell))
        elif (item := _ENTRY.match(line)) and _WORD.search(item[2]):
            yield item[1], item[2].strip()


def _normal(title: str) -> str:
    """A heading as it is compared: no emphasis, numbering, trailing colon, case or extra space."""
    plain = unicodedata.normalize("NFKC", title).replace("*", "").replace("`", "").casefold()
    return _NUMBERING.sub("", " ".join(plain.split()), count=1).strip(" _:")


def _sections(lines: Sequence[str], required: Sequence[str]) -> list[_Section]:
    """Every section with a required heading, and what stands under it."""
    prose = _without_code(lines)
    wanted = {_normal(name) for name in required}
    result = []
    opened: tuple[int, int, str] | None = None
    for level, start, first, title in [*_headings(prose), (0, len(lines), len(lines), "")]:
        name = _normal(title)
        if opened and (level <= opened[0] or name in wanted):
            _, begin, of = opened
            result.append(_Section(of, begin + 1, prose[begin:start], list(lines[begin:start])))
            opened = None
        if name in wanted:
            opened = (level, first, name)
    return result


def _without_code(lines: Sequence[str]) -> list[str]:
    """Blank out front matter and fenced code, line by line."""
    result: list[str] = []
    fence = ""
    stripped = [line.rstrip() for line in lines]
    until = stripped.index("---", 1) if stripped[0] == "---" and "---" in stripped[1:] else -1
    for number, line in enumerate(lines):
        mark = _FENCE.fullmatch(line)
        if number <= until:
            kept = ""
        elif fence:
            closes = mark and mark[1].startswith(fence) and not mark[2].strip()
            kept, fence = "", "" if closes else fence
        elif mark and not (mark[1][0] == "`" and "`" in mark[2]):
            kept, fence = "", mark[1]
        else:
            kept = line
        result.append(kept)
    return result


def _headings(lines: Sequence[str]) -> Iterator[tuple[int, int, int, str]]:
    """Each heading: its level, its line, the line after it (both from 0) and its title."""
    for number, line in enumerate(lines):
        hashes = line.strip().split(maxsplit=1)[:1]
        if hashes and hashes[0] in _LEVELS and len(line) - len(line.lstrip()) <= _INDENT:
            yield len(hashes[0]), number, number + 1, line.strip().strip("#").strip()
        elif number and (under := _SETEXT.fullmatch(line)) and not _NOT_A_PARAGRAPH.match(lines[number - 1]):
            yield 1 if under[1][0] == "=" else 2, number - 1, number + 1, lines[number - 1].strip()


_LEVELS = ("#", "##", "###", "####", "#####", "######")
_INDENT = 3
"""Spaces before a heading; with more it is code (CommonMark 4.2)."""


def _find(sections: Sequence[_Section], name: str) -> _Section | None:
    """The section with this heading; of several, the one with most words."""
    same = [section for section in sections if section.name == _normal(name)]
    return max(same, key=lambda section: len(_words(section.prose)), default=None)


def _words(lines: Sequence[str]) -> list[str]:
    """Words of prose: no headings, code, links or markup; a word repeated in a row counts once."""
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    text = _NOT_PROSE.sub(" ", _LINK.sub(r"\1", _CODE.sub(" ", text)))
    return [word for word, _ in groupby(match[0].casefold() for match in _WORD.finditer(text))]


def _placeholders(lines: Sequence[str], first: int) -> list[tuple[int, str]]:
    """Number and kind of each line that only holds the place of text."""
    return [
        (number, kind)
        for number, line in enumerate(lines, start=first)
        for kind, pattern in _PLACEHOLDERS.items()
        if pattern.search(_CODE.sub("", line))
    ]


def _unexplained(lines: Sequence[str], features: Sequence[str]) -> list[str]:
    """Features the dictionary does not mention, or mentions without a word about them."""
    text = "\n".join(lines).replace("\\_", "_")
    meanings = feature_meanings(text, features)
    return [name for name in features if meanings.get(name) == "" or not _mentions(text, name)]


def _mentions(text: str, name: str) -> bool:
    """Whether the whole name is there and not as a part of another: ``liq`` is not in "liquid" or "liq-2"."""
    whole = re.escape(unicodedata.normalize("NFC", name))
    return re.search(rf"(?<![\w-])(?<!\w\.){whole}(?![\w-])(?!\.\w)", text) is not None


def _missing_findings(lines: Sequence[str], found: dict[str, _Section | None]) -> list[Finding]:
    if not _words(_without_code(lines)):
        return [
            Finding(
                id="empty_document",
                verdict=Verdict.FAILED,
                message="the model card is empty",
                fix=f"write a model card with these headings: {_as_headings(list(found))}",
            )
        ]
    missing = [name for name, section in found.items() if section is None]
    if not missing:
        return []
    return [
        Finding(
            id="missing_section",
            verdict=Verdict.FAILED,
            message=f"the model card has no section {_listed(missing)}",
            fix=f"add to the model card: {_as_headings(missing)}",
        )
    ]


def _section_findings(
    found: dict[str, _Section | None], words: dict[str, int], config: Config
) -> list[Finding]:
    """What is wrong inside the required sections that are there."""
    findings = []
    for name, section in found.items():
        if section and words[name] < config.minimum_words:
            findings.append(
                Finding(
                    id="short_section",
                    verdict=Verdict.FAILED,
                    where=name,
                    message=f"section {name!r} has {words[name]} words, {config.minimum_words} are asked for",
                    fix=f"say more under {name!r}, from line {section.first} on, in whole sentences",
                )
            )
        findings += [
            Finding(
                id="placeholder",
                verdict=Verdict.FAILED,
                where=name,
                message=f"section {name!r} still has {kind} in line {line}",
                fix=f"replace line {line} of the model card with what is known, or say that it is not known",
            )
            for line, kind in (_placeholders(section.prose, section.first) if section else [])
        ]
    return findings


def _placeholders_elsewhere(lines: Sequence[str], found: dict[str, _Section | None]) -> list[Finding]:
    """Placeholders outside of required sections: untidy, but no policy asked for that text."""
    judged = {
        number
        for section in found.values()
        if section
        for number in range(section.first, section.first + len(section.prose))
    }
    numbers = sorted({number for number, _ in _placeholders(_without_code(lines), 1)} - judged)
    if not numbers:
        return []
    return [
        Finding(
            id="placeholder_elsewhere",
            verdict=Verdict.WARNED,
            message=f"the model card still has placeholders in line {_listed([str(n) for n in numbers])}",
            fix="write the text, or remove the line",
        )
    ]


def _unexplained_finding(unexplained: Sequence[str], section: str) -> Finding:
    rows = ", ".join(f"`| {name} | what it means |`" for name in unexplained)
    return Finding(
        id="unexplained_feature",
        verdict=Verdict.FAILED,
        where=section,
        message=f"section {section!r} does not explain {_listed(unexplained)}",
        fix=f"add to {section!r} a row for each: {rows}",
    )


def _context_findings(business_context: str) -> list[Finding]:
    if _words([business_context]) and not _placeholders(business_context.split("\n"), 1):
        return []
    return [
        Finding(
            id="no_business_context",
            verdict=Verdict.WARNED,
            message="the submission does not say why this release is wanted",
            fix="submit with a business context: one or two sentences on what changes for whom, and why now",
        )
    ]


def _metrics(
    found: dict[str, _Section | None], words: dict[str, int], config: Config, features: int, explained: int
) -> list[Metric]:
    present = sum(section is not None for section in found.values())
    numbers = [
        ("sections_present", "sections", "", present, len(found)),
        ("features_explained", "features", "", explained, features),
        *(("section_words", "words", name, count, config.minimum_words) for name, count in words.items()),
    ]
    return [
        Metric(
            name=name,
            value=value,
            threshold=threshold,
            direction="higher",
            unit=unit,
            where=where,
            n=value,
            engine=ENGINE,
        )
        for name, unit, where, value, threshold in numbers
    ]


def _summary(
    findings: Sequence[Finding],
    found: dict[str, _Section | None],
    unexplained: Sequence[str],
    features: int,
) -> str:
    """One plain sentence."""
    where: dict[str, list[str]] = {}
    for finding in findings:
        where.setdefault(finding.id, []).append(finding.where)
    missing = [name for name, section in found.items() if section is None]
    phrases = {
        "empty_document": "is empty",
        "missing_section": f"lacks {len(missing)} of {len(found)} sections ({_listed(missing)})",
        "short_section": f"is too short in {_listed(where.get('short_section', []))}",
        "placeholder": f"has placeholders in {_listed(list(dict.fromkeys(where.get('placeholder', []))))}",
        "unexplained_feature": f"does not explain {_listed(unexplained)}",
    }
    faults = [phrase for finding_id, phrase in phrases.items() if finding_id in where]
    if faults:
        return f"The model card {', '.join(faults)}."
    good = f"The model card has all {len(found)} sections and explains all {features} features"
    return "; ".join([good, *(finding.message for finding in findings)]) + "."


def _listed(names: Sequence[str]) -> str:
    """The first names, for a sentence."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _as_headings(names: Sequence[str]) -> str:
    return ", ".join(f"`## {name}`" for name in names)
