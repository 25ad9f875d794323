"""What laws and guidance ask about a release, and which part of an evidence pack answers it.

The texts are short forms of what is asked, for finding one's way; they are not legal advice. Where nothing
in a pack answers, the row says so: a gap that is written down can be closed, one that is hidden cannot.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """One thing that is asked for.

    Attributes:
        where: article, section or topic.
        what: what it asks for, in short.
        sources: what answers it: ``gate:NAME``, or one of ``workload``, ``manifest``, ``card``, ``changes``,
            ``decision``, ``policy``, ``approvals``, ``log``; none means that Airlock does not cover it.
        gap: what of it stays open, in words; empty when nothing does.
    """

    where: str
    what: str
    sources: tuple[str, ...] = ()
    gap: str = ""


@dataclass(frozen=True)
class Regime:
    """A law or guidance with what it asks for."""

    name: str
    source: str
    asked: tuple[Asked, ...]


_ANNEX_IV = Regime(
    "EU AI Act, Annex IV",
    "Regulation (EU) 2024/1689, Article 11 and Annex IV: technical documentation",
    (
        Asked(
            "1 (a)",
            "Intended purpose, provider, version and how it relates to earlier ones",
            ("workload", "card", "changes"),
            "The provider is named as the team that owns it.",
        ),
        Asked(
            "1 (b) to (h)",
            "Interaction with other systems, software versions, hardware, instructions",
            ("manifest",),
            "Only the versions of software are recorded.",
        ),
        Asked(
            "2 (a) to (c)",
            "How it was developed: methods, design, logic, architecture",
            ("card", "changes"),
            "What the model card does not say is not here.",
        ),
        Asked(
            "2 (d)",
            "Data: origin, scope, characteristics, labelling, cleaning",
            ("manifest", "gate:data_quality", "card"),
            "Labelling and origin as far as the model card says.",
        ),
        Asked(
            "2 (e)",
            "Assessment of the human oversight that is needed",
            ("workload", "approvals"),
            "About the release; oversight of single outcomes is a matter of operation.",
        ),
        Asked(
            "2 (f)",
            "Changes that were determined beforehand",
            ("policy", "changes"),
            "As far as rules of the policy tell changes apart.",
        ),
        Asked(
            "2 (g)",
            "Validation and testing: data, metrics, robustness, discrimination; dated test logs",
            ("gate:performance", "gate:bias", "gate:drift", "log"),
            "Reports are signed by the log, not by a person.",
        ),
        Asked("2 (h)", "Cybersecurity measures", ("gate:security",), "Of the model files alone."),
        Asked(
            "3",
            "Limits, accuracy for groups of people, unintended outcomes, how outputs are interpreted",
            ("gate:bias", "gate:explainability", "card"),
            "At the time of the release; not in operation.",
        ),
        Asked(
            "4",
            "Why the performance metrics are appropriate",
            ("policy", "card"),
            "As far as policy and model card give reasons.",
        ),
        Asked(
            "5",
            "Risk management system under Article 9",
            ("decision",),
            "The risk tier and its reasons only; the system itself is kept elsewhere.",
        ),
        Asked("6", "Relevant changes through the lifecycle", ("changes", "log"), "Of this release."),
        Asked("7 to 8", "Harmonised standards; EU declaration of conformity"),
        Asked("9", "Post-market monitoring plan under Article 72"),
    ),
)

_ARTICLE_12 = Regime(
    "EU AI Act, Article 12",
    "Regulation (EU) 2024/1689, Article 12: record-keeping",
    (
        Asked(
            "12 (1)",
            "Events are recorded automatically over the lifetime",
            ("log",),
            "Events of this release; what the model answers in operation is not in this pack.",
        ),
        Asked("12 (2) (a)", "Events that show a risk or a substantial modification", ("decision", "changes")),
        Asked("12 (2) (b) to (c)", "Events for post-market monitoring and for watching the operation"),
    ),
)

_ARTICLE_14 = Regime(
    "EU AI Act, Article 14",
    "Regulation (EU) 2024/1689, Article 14: human oversight",
    (
        Asked(
            "14 (4) (a)",
            "Overseers understand capacities and limits",
            ("approvals", "card"),
            "What approvers were shown is recorded, not whether they understood it.",
        ),
        Asked("14 (4) (b)", "Awareness of automation bias"),
        Asked(
            "14 (4) (c)",
            "Outputs can be interpreted",
            ("gate:explainability",),
            "Explanations of a sample at the release.",
        ),
        Asked(
            "14 (4) (d)",
            "People can decide not to use it",
            ("approvals",),
            "Of the release; overriding a single outcome is a matter of operation.",
        ),
        Asked("14 (4) (e)", "People can stop it in operation"),
    ),
)

_SR_26_2 = Regime(
    "SR 26-2",
    "Federal Reserve, OCC and FDIC, 17 April 2026: revised guidance on model risk management, after SR 11-7",
    (
        Asked("Materiality", "Rigour follows exposure and purpose", ("decision", "workload")),
        Asked(
            "Development",
            "Purpose, design, data and limits are documented and tested",
            ("card", "manifest", "gate:data_quality", "gate:performance"),
        ),
        Asked(
            "Validation",
            "Conceptual soundness, outcomes analysis, effective challenge by people who are "
            "independent of development",
            ("gate:performance", "gate:explainability", "approvals"),
            "The submitter cannot approve; whether approvers are independent otherwise is not known here.",
        ),
        Asked(
            "Monitoring",
            "Performance and drift are watched after release",
            ("gate:drift",),
            "Drift at the time of the release; what came after is not in this pack.",
        ),
        Asked(
            "Governance",
            "Roles, policies, inventory, internal audit",
            ("policy", "approvals", "log"),
            "The inventory of all models is not in this pack.",
        ),
        Asked("Vendor models", "Products of others are validated too"),
    ),
)

_ECOA = Regime(
    "ECOA, Regulation B",
    "15 U.S.C. 1691 and 12 CFR part 1002: equal credit opportunity",
    (
        Asked(
            "1002.4 (a)",
            "No discrimination on a prohibited basis",
            ("gate:bias", "gate:privacy"),
            "Disparities are measured; whether they are lawful is for people to judge.",
        ),
        Asked(
            "1002.6 (b)",
            "Prohibited information is not used in evaluating applicants",
            ("gate:privacy", "manifest"),
            "By names, values and proxies of columns.",
        ),
        Asked(
            "1002.9 (b) (2)",
            "Specific principal reasons for an adverse action",
            ("gate:explainability",),
            "Reason codes of sample cases; notices to applicants are sent by the lender.",
        ),
        Asked(
            "1002.12 (b)",
            "Records are kept for 25 months, 12 for business credit",
            ("log",),
            "Records of the release; application files are kept by the lender.",
        ),
        Asked(
            "1002.2 (p)",
            "An empirically derived credit system is validated",
            ("gate:performance", "gate:drift"),
            "At the time of the release.",
        ),
    ),
)

_LL144 = Regime(
    "NYC Local Law 144",
    "NYC Administrative Code 20-870 to 20-874, 6 RCNY 5-300 to 5-304: employment decision tools",
    (
        Asked(
            "5-301",
            "Selection rates and impact ratios by sex, race, ethnicity and intersections",
            ("gate:bias",),
            "For the protected attributes that the workload declares.",
        ),
        Asked(
            "20-871 (a) (1)",
            "A bias audit within one year before use",
            ("gate:bias", "log"),
            "The date is proved; an independent auditor has to make the audit.",
        ),
        Asked("20-871 (a) (2)", "A summary of the audit is published"),
        Asked("20-871 (b)", "Candidates are told, ten business days before"),
    ),
)

_GDPR_22 = Regime(
    "GDPR, Article 22",
    "Regulation (EU) 2016/679, Article 22: automated individual decision-making",
    (
        Asked("22 (1)", "Whether decisions about people are solely automated", ("workload",)),
        Asked("22 (2)", "Contract, law or explicit consent allow it"),
        Asked("22 (3)", "People can have a human intervene, say their view and contest it"),
        Asked(
            "22 (4)",
            "Special categories of data are not used",
            ("gate:privacy", "gate:bias"),
            "Names, values and proxies are looked for; a legal basis is not.",
        ),
        Asked(
            "13 to 15",
            "Meaningful information about the logic involved",
            ("gate:explainability", "card"),
            "What people are told is written elsewhere.",
        ),
    ),
)

REGIMES = (_ANNEX_IV, _ARTICLE_12, _ARTICLE_14, _SR_26_2, _ECOA, _LL144, _GDPR_22)
"""Everything a pack is held against."""
