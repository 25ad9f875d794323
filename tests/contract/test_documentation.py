"""The documentation gate: Markdown as people really write it, and as they write it to get past a gate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airlock.core.evidence import GateResult, Verdict
from airlock.core.workload import ModelSpec, Workload
from airlock.gates.documentation import feature_meanings
from tests.support.gates import make_context, make_workload
from tests.support.judge import configuration, finding, judge, metric

SECTIONS = ["Intended use", "Training data", "Limits", "Feature dictionary", "Narrative"]
PROSE = (
    "The planners of the back office use this forecast to see how many contracts they will have to prepare."
)
DICTIONARY = f"""{PROSE}

| feature | meaning |
|---|---|
| income | monthly income, dollars |
| debt | other obligations, per cent of income |
"""
WORKLOADS = Path(__file__).parents[2] / "config/workloads"


def card(**sections: str) -> str:
    """A good model card, with the text of some sections replaced; ``limits=...`` is "Limits"."""
    text = dict.fromkeys(SECTIONS, PROSE) | {"Feature dictionary": DICTIONARY}
    text |= {key.replace("_", " ").capitalize(): value for key, value in sections.items()}
    return "# Test model\n\n" + "\n\n".join(f"## {title}\n\n{body}" for title, body in text.items()) + "\n"


def judge_card(text: str, workload: Workload | None = None, **changes: Any) -> GateResult:
    return judge("documentation", make_context(documentation=text, workload=workload), **changes)[0]


def ids(result: GateResult) -> list[str]:
    return [one.id for one in result.findings]


@pytest.mark.requirement("G-12")
def test_a_whole_model_card_passes() -> None:
    result = judge_card(card())
    assert result.verdict is Verdict.PASSED
    assert result.findings == []
    assert result.summary == "The model card has all 5 sections and explains all 2 features."
    assert (metric(result, "sections_present").value, metric(result, "sections_present").threshold) == (5, 5)
    assert metric(result, "features_explained").value == 2
    assert metric(result, "section_words", "Limits").value == len(PROSE.split())
    assert metric(result, "section_words", "Limits").threshold == 15


@pytest.mark.parametrize("name", sorted(path.stem for path in WORKLOADS.glob("*.yaml")))
def test_the_shipped_model_cards_pass(name: str) -> None:
    data = yaml.safe_load((WORKLOADS / f"{name}.yaml").read_text(encoding="utf-8"))
    workload = Workload.model_validate(data)
    text = (WORKLOADS / workload.documentation).read_text(encoding="utf-8")
    assert judge_card(text, workload).verdict is Verdict.PASSED


@pytest.mark.requirement("G-12")
@pytest.mark.parametrize(
    "text", ["", "   \n\n\t", "<!-- nothing yet -->", "```\ncode only\n```", "# ", "---", "12 34 %"]
)
def test_an_empty_card_fails_with_the_headings_to_add(text: str) -> None:
    result = judge_card(text)
    assert result.verdict is Verdict.FAILED
    assert result.summary == "The model card is empty."
    for section in SECTIONS:
        assert f"`## {section}`" in finding(result, "empty_document").fix


@pytest.mark.requirement("G-12")
@pytest.mark.parametrize("missing", SECTIONS)
def test_a_missing_section_is_named(missing: str) -> None:
    result = judge_card(card().replace(f"## {missing}\n", f"## About {missing}\n"))
    assert result.verdict is Verdict.FAILED
    assert finding(result, "missing_section").fix == f"add to the model card: `## {missing}`"
    assert f"lacks 1 of 5 sections ({missing})" in result.summary
    assert metric(result, "sections_present").value == 4


@pytest.mark.parametrize(
    "heading",
    [
        "# Limits", "###### Limits", "## limits", "## LIMITS:", "## Limits ##", "##   Limits   ",
        "## 3. Limits",
        "## 2.1 Limits", "## a) Limits", "## **Limits**", "## _Limits_", "  ## Limits", "##\tLimits",
        "Limits\n======",
        "Limits\n---", "## \uff2c\uff49\uff4d\uff49\uff54\uff53",
    ],
)  # fmt: skip
def test_a_heading_counts_however_it_is_written(heading: str) -> None:
    assert judge_card(card().replace("## Limits", heading)).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "heading",
    [
        "Limits", "**Limits**", "####### Limits", "    ## Limits", "##Limits", "```\n## Limits\n```",
        "<!--\n## Limits\n-->",
        "~~~~\n```\n## Limits\n~~~~", "> ## Limits", "- Limits\n---", "## Limits and risks",
    ],
)  # fmt: skip
def test_what_is_no_such_heading_does_not_count(heading: str) -> None:
    assert "missing_section" in ids(judge_card(card().replace("## Limits", heading)))


def test_front_matter_is_not_text() -> None:
    front = "---\ntitle: Limits\nstatus: TODO\n---\n"
    assert judge_card(front + card()).verdict is Verdict.PASSED
    assert "missing_section" in ids(judge_card(front + card().replace("## Limits", "## Other")))


def test_windows_line_ends_are_line_ends() -> None:
    assert judge_card(card().replace("\n", "\r\n")).verdict is Verdict.PASSED


def test_subsections_belong_to_their_section_but_required_sections_stand_alone() -> None:
    nested = card(limits=f"### Known gaps\n\n{PROSE}")
    assert judge_card(nested).verdict is Verdict.PASSED
    hollow = card(intended_use="").replace("## Training data", "### Training data")
    assert finding(judge_card(hollow), "short_section", "Intended use")


# Words


@pytest.mark.requirement("G-12")
@pytest.mark.parametrize(
    ("count", "verdict"), [(14, Verdict.FAILED), (15, Verdict.PASSED), (16, Verdict.PASSED)]
)
def test_exactly_the_minimum_of_words_is_enough(count: int, verdict: Verdict) -> None:
    words = " ".join(("some words of a text that is counted by one person " * 3).split()[:count])
    result = judge_card(card(limits=words))
    assert result.verdict is verdict
    assert metric(result, "section_words", "Limits").value == count


@pytest.mark.parametrize(
    "filler",
    [
        "word " * 50, "1 2 3 " * 50, "- - - " * 50, "`a b c d` " * 50,
        "https://example.org/a/b/c " * 50, "<br> " * 50,
        f"```\n{PROSE}\n```", f"<!-- {PROSE} -->", "![](a.png) " * 50, "| | | |\n" * 50,
        "ann@example.org " * 50,
    ],
)  # fmt: skip
def test_filler_is_not_words(filler: str) -> None:
    result = judge_card(card(limits=filler))
    assert finding(result, "short_section", "Limits").fix
    assert "too short in Limits" in result.summary


@pytest.mark.parametrize(
    "text",
    [
        "Модель не проверена на заявках из других городов, и прогнозы годятся только для сумм, не для людей.",
        "该模型仅适用于波士顿地区的申请不得用于其他城市也不得用于定价",
        "Das Modell gilt nur in Boston; Änderungen der Zinsen kennt es nicht, und es rät sehr oft falsch.",
        "It's a well-known, _weak_ [rank](https://a.example): **only** sums over cases are of any use to us.",
    ],
)  # fmt: skip
def test_words_of_every_script_count(text: str) -> None:
    assert judge_card(card(limits=text)).verdict is Verdict.PASSED


# Placeholders


@pytest.mark.requirement("G-12")
@pytest.mark.parametrize(
    "text",
    [
        "TODO", "TBD", "tbd.", "Todo: ask Ann", "FIXME later", "XXX", "Lorem ipsum dolor sit amet",
        "\u2026", "...", "- ...",
        "> \u2026", "[insert limits here]", "<describe the limits>", "{your text}", "[Fill in later]",
        "| a | ... |",
    ],
)  # fmt: skip
def test_a_placeholder_fails_however_much_text_is_around_it(text: str) -> None:
    result = judge_card(card(limits=f"{PROSE}\n\n{text}\n\n{PROSE}"))
    assert result.verdict is Verdict.FAILED
    assert "line 15" in finding(result, "placeholder", "Limits").message
    assert "has placeholders in Limits" in result.summary


@pytest.mark.parametrize(
    "text",
    [
        "The law (ECOA, GDPR, \u2026) applies.", "and so on...", "Todo el mundo.",
        "Rows marked `TODO` are dropped.",
        "[your rights](https://example.org)", "Use [income] and <b>debt</b>.", "Autodo and xxxl sizes.",
    ],
)  # fmt: skip
def test_prose_is_not_a_placeholder(text: str) -> None:
    assert judge_card(card(limits=f"{PROSE}\n\n{text}")).verdict is Verdict.PASSED


def test_a_placeholder_where_no_text_is_required_is_a_warning() -> None:
    result = judge_card(card() + "\n## Contacts\n\nTBD\n")
    assert result.verdict is Verdict.WARNED
    assert finding(result, "placeholder_elsewhere").message.endswith("in line 31")


# The feature dictionary


@pytest.mark.requirement("G-12")
def test_features_without_explanation_are_named() -> None:
    result = judge_card(card(feature_dictionary=PROSE))
    assert result.verdict is Verdict.FAILED
    assert "does not explain income, debt" in result.summary
    assert "`| debt | what it means |`" in finding(result, "unexplained_feature").fix
    assert metric(result, "features_explained").value == 0


@pytest.mark.parametrize(
    "entry",
    [
        "| debt | obligations |", "| `debt` | obligations |", "| a, debt | obligations |",
        "- debt: obligations",
        "- **debt** - obligations", "* `debt` \u2014 obligations", "The column debt holds obligations.",
        "(debt)", "debt.",
        "```\ndebt  obligations\n```", "### debt\n\nObligations.",
    ],
)  # fmt: skip
def test_a_feature_is_explained_in_any_form(entry: str) -> None:
    assert (
        judge_card(card(feature_dictionary=f"{PROSE}\n\n- income: money\n\n{entry}\n")).verdict
        is Verdict.PASSED
    )


@pytest.mark.parametrize(
    "entry",
    ["| debts | obligations |", "| debt_ratio | x |", "debt-to-income", "| debt | |", "| debt | 12 |",
    "Debt", "<!-- debt -->",
     "x.debt", "debt.x", "indebted"],
)  # fmt: skip
def test_another_name_or_an_empty_row_explains_nothing(entry: str) -> None:
    result = judge_card(card(feature_dictionary=f"{PROSE}\n\n- income: money\n\n{entry}\n"))
    assert "does not explain debt" in result.summary


def test_a_name_elsewhere_in_the_card_explains_nothing() -> None:
    result = judge_card(card(feature_dictionary=f"{PROSE} income", limits=f"{PROSE} debt"))
    assert "does not explain debt" in result.summary


@pytest.mark.parametrize(
    "name", ["loan_amt", "a.b", "c++", "$x$", "größe", "e\u0301t\u00e9", "收入", "a|b", "(x", "x" * 200]
)
def test_a_feature_may_have_any_name(name: str) -> None:
    workload = make_workload(model=ModelSpec(registered_model="m", target="y", features=[name]))
    explained = card(feature_dictionary=f"{PROSE}\n\nThe column {name} holds money.")
    assert judge_card(explained, workload).verdict is Verdict.PASSED
    assert judge_card(card(feature_dictionary=PROSE), workload).verdict is Verdict.FAILED


def test_an_escaped_underscore_is_an_underscore() -> None:
    workload = make_workload(model=ModelSpec(registered_model="m", target="y", features=["loan_amt"]))
    assert judge_card(
        card(feature_dictionary=f"{PROSE}\n\n| loan\\_amt | dollars |"), workload
    ).verdict.allows


def test_meanings_are_read_from_rows_and_items() -> None:
    text = """
| feature | type | meaning |
|---|---|---|
| `a` | number | monthly income |
| b, c | debt; assets |
| d, e | either of the two |
| f |  |
- g: opened lines
- **h** - rate: yearly
* i \u2013 term
"""
    assert feature_meanings(text, list("abcdefghij")) == {
        "a": "number, monthly income",
        "b": "debt",
        "c": "assets",
        "d": "either of the two",
        "e": "either of the two",
        "f": "",
        "g": "opened lines",
        "h": "rate: yearly",
        "i": "term",
    }


# The business context


@pytest.mark.parametrize("text", ["", "  ", "TBD", "...", "12", "\n"])
def test_no_business_context_is_a_warning(text: str) -> None:
    result, _ = judge("documentation", make_context(documentation=card(), business_context=text))
    assert result.verdict is Verdict.WARNED
    assert finding(result, "no_business_context").fix
    assert "does not say why" in result.summary


# Hostile text


@pytest.mark.parametrize(
    "text",
    [
        "\x00", "\ud800", "# " * 1000, "\u202eLimits", "#" * 100_000, "[" * 100_000, "<" * 100_000,
        "`" * 100_001,
        " " * 100_000 + "x", "- a" + " " * 100_000 + "b", "lorem" + " " * 100_000, "..." * 50_000 + "x",
        "a" * 100_000,
        "|" * 100_000, "<!--" * 30_000, "1." * 50_000 + " x", "[insert" * 20_000, "# a\n" * 20_000,
        "---\n" * 20_000, "*" * 100_000,
        "word@" * 30_000, "a.b" * 30_000, "[a](" * 30_000,
    ],
    ids=range(23),
)  # fmt: skip
def test_hostile_text_is_judged_quickly(text: str) -> None:
    started = time.perf_counter()
    for document in (text, card(limits=text, feature_dictionary=f"{DICTIONARY}\n{text}")):
        result = judge_card(document)
        assert GateResult.from_bytes(result.to_bytes()) == result
    assert time.perf_counter() - started < 5


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=300))
def test_any_text_is_judged(text: str) -> None:
    result = judge_card(text)
    assert result.verdict is Verdict.FAILED
    assert result.to_bytes() == judge_card(text).to_bytes()


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(SECTIONS), st.text(max_size=100).filter(lambda text: "#" not in text))
def test_text_after_the_card_never_repairs_a_missing_section(section: str, text: str) -> None:
    broken = card().replace(f"## {section}\n", "## Something else\n")
    assert judge_card(f"{broken}\n{text}").verdict is Verdict.FAILED


# Configuration


@pytest.mark.parametrize(
    "changes",
    [
        {"required_sections": []},
        {"required_sections": ["Feature dictionary", " "]},
        {"required_sections": ["Feature dictionary", "Limits", "limits:"]},
        {"feature_section": "Features"},
        {"minimum_words": 0},
    ],
)
def test_a_configuration_that_judges_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configuration("documentation", **changes)
