"""Preflight answers for machines: JUnit XML, SARIF 2.1.0, and workflow commands of GitHub Actions."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree as ET

from airlock import __version__
from airlock.core.preflight import Level, Note, Preflight

SARIF_SCHEMA: Final = (
    "https://raw.githubusercontent.com/oasis-tcs/sarif-spec/main/sarif-2.1/schema/sarif-schema-2.1.0.json"
)

_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, escaped or not (section 2.2)."""


def junit(answers: list[Preflight], fail_on: Level) -> str:
    """JUnit XML as Jenkins and GitLab read it: a suite for each workload, a case for each finding.

    Findings below ``fail_on`` are cases that pass and say what they found. A workload without findings has
    one case that passes, so that an empty report is never taken for a good one.
    """
    root = ET.Element("testsuites", name="airlock preflight")
    for answer in answers:
        cases = [_case(answer, note, fail_on) for note in answer.notes] or [_fine(answer)]
        failed = sum(case.find("failure") is not None for case in cases)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_xml(f"airlock preflight {_subject(answer)}"),
            tests=str(len(cases)),
            failures=str(failed),
            errors="0",
            skipped="0",
            time=f"{sum(answer.seconds.values()):.3f}",
        )
        suite.extend(cases)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _case(answer: Preflight, note: Note, fail_on: Level) -> ET.Element:
    place = _place(note)
    name = _xml(f"{note.rule}: {note.message}")
    case = ET.Element("testcase", classname=_xml(f"airlock.{answer.workload}"), name=name, time="0")
    text = "\n".join(part for part in (note.message, place, f"How to fix it: {note.fix}") if part)
    if note.level.reaches(fail_on):
        failure = ET.SubElement(case, "failure", type=_xml(note.rule), message=_xml(note.message))
        failure.text = _xml(text)
    else:
        ET.SubElement(case, "system-out").text = _xml(f"{note.level}: {text}")
    return case


def _fine(answer: Preflight) -> ET.Element:
    return ET.Element("testcase", classname=_xml(f"airlock.{answer.workload}"), name="no findings", time="0")


def _xml(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def sarif(answers: list[Preflight]) -> dict[str, Any]:
    """SARIF 2.1.0 (OASIS): one run, one rule for each kind of finding, one result for each finding."""
    notes = [(answer, note) for answer in answers for note in answer.notes]
    rules: dict[str, dict[str, Any]] = {}
    for _, note in notes:
        rules.setdefault(note.rule, _sarif_rule(note))
    order = list(rules)
    results = [_sarif_result(answer, note, order.index(note.rule)) for answer, note in notes]
    driver = {"name": "airlock", "semanticVersion": __version__, "rules": list(rules.values())}
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": results,
                "properties": {"preflight": [_summary(answer) for answer in answers]},
            }
        ],
    }


def _sarif_rule(note: Note) -> dict[str, Any]:
    rule: dict[str, Any] = {"id": note.rule, "defaultConfiguration": {"level": str(note.level)}}
    if note.why:
        rule["fullDescription"] = {"text": note.why}
    if note.fix:
        rule["help"] = {"text": note.fix}
    return rule


def _sarif_result(answer: Preflight, note: Note, index: int) -> dict[str, Any]:
    fix = f". How to fix it: {note.fix}" if note.fix else ""
    # GitHub shows only results with a place; what has none is about the workload's file.
    file = note.file or f"config/workloads/{answer.workload}.yaml"
    region = {"region": {"startLine": note.line}} if note.line else {}
    place = {"artifactLocation": {"uri": _uri(file)}, **region}
    return {
        "ruleId": note.rule,
        "ruleIndex": index,
        "level": str(note.level),
        "message": {"text": f"{_subject(answer)}: {note.message}{fix}"},
        "locations": [{"physicalLocation": place}],
    }


def _uri(path: str) -> str:
    quoted = quote(path, safe="/")
    return f"file://{quoted}" if path.startswith("/") else quoted


def github(answers: list[Preflight]) -> str:
    """Workflow commands of GitHub Actions: an annotation for each finding, beside the line it is about."""
    return "".join(_annotation(answer, note) for answer in answers for note in answer.notes)


_COMMANDS: Final = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}


def _annotation(answer: Preflight, note: Note) -> str:
    fields = {
        "title": f"airlock {note.rule}",
        **({"file": note.file} if note.file else {}),
        **({"line": str(note.line)} if note.line else {}),
    }
    properties = ",".join(f"{name}={_property(value)}" for name, value in fields.items())
    fix = f"\nHow to fix it: {note.fix}" if note.fix else ""
    return f"::{_COMMANDS[note.level]} {properties}::{_message(f'{_subject(answer)}: {note.message}{fix}')}\n"


def _message(text: str) -> str:
    """Escaped as the runner of GitHub Actions unescapes it (``escapeData`` of its toolkit)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """The same for a property (``escapeProperty``)."""
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def _subject(answer: Preflight) -> str:
    return f"{answer.workload} version {answer.version}" if answer.version else answer.workload


def _place(note: Note) -> str:
    return f"{note.file}:{note.line}" if note.line else note.file


def _summary(answer: Preflight) -> dict[str, Any]:
    return {
        "workload": answer.workload,
        "version": answer.version,
        "outcome": None if answer.outcome is None else str(answer.outcome),
        "track": None if answer.track is None else str(answer.track),
        "atLeast": str(answer.at_least),
        "tier": None if answer.tier is None else str(answer.tier),
        "seats": [seat.role for seat in answer.seats],
    }
