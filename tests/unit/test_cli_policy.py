"""``airlock policy``: exit codes, JSON for programs, words for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Cli
from tests.support.deployments import edit
from tests.support.policies import SHIPPED, copy_bundle, rule_text


@pytest.fixture(autouse=True)
def _shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_CONFIG_DIR", str(SHIPPED.parents[1]))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copy_bundle(tmp_path)


def test_list_names_versions_and_who_they_judge(cli: Cli) -> None:
    rows = cli("policy", "list", "--format", "json").json
    (row,) = [row for row in rows if row["version"] == "1.0.0"]
    assert "mortgage-approval" in row["workloads"]
    assert row["rules"] > 10
    assert "1.0.0" in cli("policy", "list").err


@pytest.mark.requirement("P-1")
def test_check_and_test_are_green_on_the_shipped_bundle(cli: Cli) -> None:
    checked = cli("policy", "check", "--format", "json")
    assert (checked.code, checked.json["ok"]) == (0, True)
    tested = cli("policy", "test", "1.0.0", "--format", "json")
    assert tested.code == 0
    assert tested.json["1.0.0"]["coverage"]["percent"] == 100
    assert "100 %" in cli("policy", "test").err


@pytest.mark.requirement("P-1")
def test_check_is_red_with_file_and_line(cli: Cli, bundle: Path) -> None:
    edit(bundle / "rules" / "20-track.yaml", "when: change.data_source", "when: change.data_sorce")
    result = cli("policy", "check", str(bundle))
    assert result.code == 1
    assert "did you mean 'change.data_source'?" in result.err
    assert "20-track.yaml:" in result.err
    problem = cli("policy", "check", str(bundle), "--format", "json").json["bundles"][str(bundle)][0]
    assert problem["id"] == "unknown-fact"


@pytest.mark.requirement("P-1")
def test_test_is_red_where_a_rule_does_not_do_what_it_says(cli: Cli, bundle: Path) -> None:
    edit(bundle / "rules" / "20-track.yaml", "when: change.data_source", "when: '!change.data_source'")
    result = cli("policy", "test", str(bundle), "--format", "json")
    assert result.code == 1
    report = result.json[str(bundle)]
    assert {failure["rule"] for failure in report["failed"]} == {"track-red-data-source"}
    assert {failure["problem"] for failure in report["failed"]} == {"it fired", "it stayed silent"}
    assert report["coverage"]["missing"] == [
        {"rule": "track-red-data-source", "fired": False, "silent": False}
    ]
    shown = cli("policy", "test", str(bundle))
    assert "it stayed silent" in shown.err
    assert "never seen fired and silent" in shown.err


@pytest.mark.requirement("P-1")
def test_a_rule_without_tests_is_not_covered(cli: Cli, bundle: Path) -> None:
    (bundle / "rules" / "90.yaml").write_text(rule_text(tests=""))
    assert cli("policy", "test", str(bundle)).code == 1
    assert cli("policy", "check", str(bundle)).code == 1


@pytest.mark.requirement("T-5")
def test_show_says_everything_about_a_rule(cli: Cli) -> None:
    shown = cli("policy", "show", "1.0.0", "track-red-performance")
    for word in ("when", "fix", "owner", "governance-analyst", "limits.red_change"):
        assert word in shown.err
    rule = cli("policy", "show", "1.0.0", "track-red-performance", "--format", "json").json
    assert rule["effect"]["track"] == "red"
    assert cli("policy", "show", "1.0.0", "--format", "json").json["digest"]
    assert "red_change = 15 %" in cli("policy", "show", "1.0.0").err
    assert "### track-red-performance" in cli("policy", "show", "1.0.0", "--format", "markdown").out
    one = cli("policy", "show", "1.0.0", "track-red-performance", "--format", "markdown").out
    assert one.startswith("# track-red-performance")
    missing = cli("policy", "show", "1.0.0", "track-red-performnce")
    assert missing.code == 2
    assert "did you mean 'track-red-performance'?" in missing.err


@pytest.mark.requirement("P-3")
def test_diff_tells_in_words(cli: Cli, bundle: Path) -> None:
    edit(bundle / "limits.yaml", "value: 0.15", "value: 0.1")
    words = "limit red_change falls from 15 % to 10 %: owner governance-analyst"
    assert words in cli("policy", "diff", "1.0.0", str(bundle)).err
    (change,) = cli("policy", "diff", "1.0.0", str(bundle), "--format", "json").json
    assert (change["sentence"], change["owner"]) == (words, "governance-analyst")
    assert "say the same" in cli("policy", "diff", "1.0.0", "1.0.0").err


@pytest.mark.parametrize("command", ["check", "test", "show"])
def test_an_unknown_version_is_answered_with_those_there_are(cli: Cli, command: str) -> None:
    result = cli("policy", command, "9.9.9", "--format", "json")
    assert result.code == 2
    assert "there is no policy 9.9.9" in result.out


@pytest.mark.parametrize("command", ["check", "test"])
def test_a_folder_without_policies_is_said(
    cli: Cli, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_CONFIG_DIR", str(tmp_path))
    result = cli("policy", command)
    assert result.code == 2
    assert "there is no policy" in result.err
    assert cli("policy", "list").code == 0
