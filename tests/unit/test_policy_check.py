"""A wrong bundle is refused before a release meets it, with file and line."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from airlock.adapters.policy_files import MAX_BUNDLE_BYTES, PolicyFiles
from airlock.core.errors import ConfigurationError, NotFoundError
from airlock.core.people import People, Person
from airlock.services.policy_check import Problem
from tests.support.deployments import edit
from tests.support.policies import SHIPPED, copy_bundle, problems_of, rule_text


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copy_bundle(tmp_path)


def only(problems: list[Problem]) -> Problem:
    (problem,) = problems
    return problem


def with_rule(bundle: Path, **changes: str) -> list[Problem]:
    (bundle / "rules" / "90-extra.yaml").write_text(rule_text(**changes))
    return problems_of(bundle)


@pytest.mark.requirement("P-1")
def test_the_shipped_bundle_has_nothing_to_mend() -> None:
    assert problems_of(SHIPPED) == []


@pytest.mark.requirement("P-1", "T-5")
@pytest.mark.parametrize(
    ("changes", "kind", "words", "line"),
    [
        ({"when": "workload.reglated"}, "unknown-fact", "did you mean 'workload.regulated'?", 8),
        ({"when": "limits.red_chnge > 1.0"}, "unknown-fact", "did you mean 'limits.red_change'?", 8),
        ({"when": "gates.biass == 'FAILED'"}, "unknown-fact", "did you mean 'gates.bias'?", 8),
        ({"when": "size(monitor.raised) > 0"}, "misplaced", "is about production", 8),
        ({"when": "signals.performance > 0.5"}, "misplaced", "is about production", 8),
        ({"when": "release.first", "effect": "{action: alert}"}, "misplaced", "is about a release", 8),
        ({"when": "signals.latncy > 0.5", "effect": "{action: alert}"}, "unknown-fact", "did you mean", 8),
        ({"when": "workload.exposure > 1"}, "type", "compares string with int", 8),
        ({"when": "workload.exposure"}, "type", "gives string, not true or false", 8),
        ({"when": "'workload.regulated &&'"}, "condition", "ends too early", 8),
        ({"when": "now() > 1"}, "condition", "no function 'now'", 8),
        ({"because": "'{workload.nam}'"}, "unknown-fact", "did you mean 'workload.name'?", 10),
        ({"because": "'{workload.name|shout}'"}, "sentence", "unknown format 'shout'", 10),
        ({"expires": "2025-12-31"}, "expired", "it expired on 2025-12-31", 12),
        ({"tests": ""}, "untested", "no test case for fires and silent", 2),
        ({"tests": "{fires: [{workload.regulated: true}]}"}, "untested", "for silent", 13),
        (
            {"tests": "{fires: [{workload.regulatd: true}], silent: [{}]}"},
            "test",
            "did you mean 'workload.regulated'?",
            13,
        ),
        ({"tests": "{fires: [{workload.regulated: 1}], silent: [{}]}"}, "test", "is bool, not 1", 13),
    ],
)
def test_a_wrong_rule_is_named_with_its_line(
    bundle: Path, changes: dict[str, str], kind: str, words: str, line: int
) -> None:
    problem = next(one for one in with_rule(bundle, **changes) if one.level == "error")
    assert (problem.id, problem.rule) == (kind, "extra")
    assert words in problem.what
    assert problem.where == f"{bundle / 'rules' / '90-extra.yaml'}:{line}"
    assert problem.fix


@pytest.mark.requirement("P-1")
def test_a_rule_that_can_never_change_an_outcome_is_shadowed(bundle: Path) -> None:
    weak = "{fires: [{change.architecture: true}], silent: [{}]}"
    shadowed = only(
        with_rule(bundle, when="change.architecture || release.first", effect="{track: yellow}", tests=weak)
    )
    assert (shadowed.id, shadowed.rule) == ("shadowed", "extra")
    assert "track-red-architecture (track red) fires on every case" in shadowed.what
    strong = "{fires: [{change.architecture: true}, {workload.regulated: true}], silent: [{}]}"
    assert (
        with_rule(
            bundle, when="change.architecture || workload.regulated", effect="{track: yellow}", tests=strong
        )
        == []
    )


@pytest.mark.requirement("P-1")
def test_the_same_condition_twice_is_shadowed(bundle: Path) -> None:
    copy = "'risk.tier==\"high\"'"
    tests = "{fires: [{risk.tier: high}], silent: [{}]}"
    assert (
        "has the same condition"
        in only(with_rule(bundle, when=copy, effect="{track: red}", tests=tests)).what
    )


@pytest.mark.requirement("P-1", "P-3")
def test_a_bare_limit_is_answered_with_what_a_limit_says(bundle: Path) -> None:
    path = bundle / "limits.yaml"
    text = path.read_text()
    path.write_text(text + "  extra: 0.5\n")
    problem = only(problems_of(bundle))
    assert "limits.extra: a bare number says neither its unit nor who may change it" in problem.what
    assert problem.where.startswith(f"{path}:")
    path.write_text(text + "  extra: {value: 1, unit: rows, owner: nobody, why: x}\n")
    assert "limits.extra.owner: there is no role 'nobody'" in only(problems_of(bundle)).what
    path.write_text(text + "  extra: {value: 1, unit: rows, owner: security, why: x}\n")
    assert only(problems_of(bundle)).id == "unused-limit"


@pytest.mark.requirement("P-1", "A-1")
@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("approval.yaml", "role: risk-officer", "role: risk-oficer", "did you mean 'risk-officer'?"),
        ("gates.yaml", "\n  drift:", "\n  drft:", "did you mean 'drift'?"),
        ("gates.yaml", "maximum_worsening: 0.05", "maximum_worsening: lots", "gates.performance.maximum_w"),
        ("bundle.yaml", "description:", "descripton:", "did you mean 'description'?"),
        ("tests.yaml", "regulated: false", "regulated: 0.5", "fact workload.regulated is bool, not 0.5"),
        ("tests.yaml", "    regulated: false", "    regulatd: false", "did you mean 'workload.regulated'?"),
    ],
)
def test_a_wrong_section_is_named_with_its_line(
    bundle: Path, file: str, old: str, new: str, words: str
) -> None:
    edit(bundle / file, old, new)
    problem = next(one for one in problems_of(bundle) if words in one.what + one.fix)
    assert problem.level == "error"
    assert problem.where.startswith(f"{bundle / file}:")


@pytest.mark.requirement("A-1")
def test_a_seat_that_nobody_can_fill_is_a_warning(bundle: Path) -> None:
    people = People(people=[Person(user="a", name="A", roles=["ml-platform-engineer", "data-governance"])])
    found = problems_of(bundle, people=people)
    assert {problem.id for problem in found} == {"role-without-people"}
    assert {problem.level for problem in found} == {"warning"}
    assert "governance-analyst" in found[0].what


# The folder


def test_what_does_not_belong_into_a_bundle_is_refused(bundle: Path) -> None:
    (bundle / "limit.yml").write_text("limits: {}\n")
    assert "limit.yml does not belong into a policy bundle" in only(problems_of(bundle)).what


def test_a_section_stands_in_one_file(bundle: Path) -> None:
    (bundle / "more.yaml").write_text("limits: {}\n")
    assert only(problems_of(bundle)).what == "limits: this section is also in limits.yaml"
    (bundle / "more.yaml").unlink()
    (bundle / "rules" / "more.yaml").write_text("limits: {}\n")
    assert "only rules stand below rules/" in only(problems_of(bundle)).what
    (bundle / "rules" / "more.yaml").write_text("rego: {a.rego: x}\n")
    assert "Rego is not written in YAML" in only(problems_of(bundle)).what


@pytest.mark.parametrize("content", ["- a\n", "5\n", "", "{}\n"])
def test_a_file_without_sections_is_refused_or_adds_nothing(bundle: Path, content: str) -> None:
    (bundle / "more.yaml").write_text(content)
    assert len(problems_of(bundle)) == (content != "{}\n")


def test_an_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no YAML file"):
        PolicyFiles(tmp_path)
    with pytest.raises(NotFoundError, match="no such policy folder"):
        PolicyFiles(tmp_path / "none")


@pytest.mark.requirement("P-1")
def test_ten_megabytes_of_data_are_refused_unread(bundle: Path) -> None:
    (bundle / "data.yaml").write_text("base_case: {x: '" + "y" * 10_000_000 + "'}\n")
    assert f"the limits are 500 and {MAX_BUNDLE_BYTES}" in only(problems_of(bundle)).what


@pytest.mark.requirement("P-1")
def test_ten_lines_that_stand_for_a_billion_values_are_refused(bundle: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (bundle / "bomb.yaml").write_text("base_case:\n  " + "\n  ".join(lines) + "\n")
    edit(bundle / "tests.yaml", "base_case:", "unused:")
    assert "values" in only(problems_of(bundle)).what


def test_a_version_stands_in_its_own_folder(bundle: Path) -> None:
    moved = bundle.rename(bundle.with_name("2.0.0"))
    with pytest.raises(ConfigurationError, match=r"1\.0\.0 stands in the folder of 2\.0\.0"):
        PolicyFiles(moved).policy()


@pytest.mark.requirement("P-1")
def test_a_rule_is_in_force_on_its_last_day(bundle: Path) -> None:
    last = date(2026, 6, 30)
    assert with_rule(bundle, expires="2026-06-30") == []
    assert problems_of(bundle, today=last) == []
    assert only(problems_of(bundle, today=date(2026, 7, 1))).id == "expired"
