"""Every mistake in a YAML file is answered with file, line, field and what was probably meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airlock.adapters.config_files import ConfigFolder
from airlock.core.errors import AirlockError, ConfigurationError, NotFoundError
from airlock.services.submit import checked_policy
from tests.support.deployments import WORKLOAD, edit, open_world, write_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "config")


@pytest.fixture
def folder(config: Path) -> ConfigFolder:
    return ConfigFolder(config)


@pytest.fixture
def workload(config: Path) -> Path:
    return config / "workloads" / f"{WORKLOAD}.yaml"


@pytest.fixture
def policy(config: Path) -> Path:
    return config / "policies" / "1.0.0" / "policy.yaml"


def line_of(path: Path, text: str) -> int:
    """The only line that begins with ``text``."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    (found,) = [number for number, line in enumerate(lines, 1) if line.strip().startswith(text)]
    return found


def refused(folder: ConfigFolder, path: Path, at: str | int) -> ConfigurationError:
    """The error about the workload, which must name the file and the line that begins with ``at``."""
    with pytest.raises(ConfigurationError) as caught:
        folder.load_workload(path)
    line = at if isinstance(at, int) else line_of(path, at)
    assert re.fullmatch(rf"{re.escape(str(path))}:{line}(:\d+)?", caught.value.where), caught.value.where
    assert caught.value.fix
    return caught.value


def test_the_shipped_configuration_is_right(tmp_path: Path) -> None:
    """Nobody should meet an error before their first change."""
    folder = ConfigFolder(ROOT / "config")
    deployment = open_world(tmp_path).deployment
    object.__setattr__(deployment, "config", folder)
    assert folder.people().people
    files = folder.workload_files()
    assert files
    for path in files:
        found = folder.load_workload(path)
        assert folder.documentation(found).strip()
        assert folder.suite(found.data.expectations)["expectations"]
        checked_policy(deployment, found.policy)


# Fields


@pytest.mark.parametrize(
    ("right", "typo", "field", "meant"),
    [
        ("owner:", "ownr:", "ownr", "owner"),  # the missing `owner` must not hide what was meant
        ("  registered_model:", "  registred_model:", "model.registred_model", "registered_model"),
        ("  human_review:", "  human_reviw:", "risk.human_reviw", "human_review"),
        ("  sensitive:", "  sensitve:", "data.sensitve", "sensitive"),
    ],
)
def test_a_misspelt_field_is_answered_with_what_was_meant(
    folder: ConfigFolder, workload: Path, *, right: str, typo: str, field: str, meant: str
) -> None:
    edit(workload, f"\n{right}", f"\n{typo}")
    error = refused(folder, workload, typo.strip())
    assert error.what == f"{field}: unknown field; did you mean {meant!r}?"


def test_a_misspelt_field_inside_a_list_is_answered_too(folder: ConfigFolder, policy: Path) -> None:
    edit(policy, "when: workload.regulated", "whn: workload.regulated")
    with pytest.raises(ConfigurationError, match="did you mean 'when'") as caught:
        folder.policy("1.0.0")
    assert caught.value.what.startswith("rules.0.whn: unknown field")
    assert caught.value.where == f"{policy}:{line_of(policy, 'whn:')}"


def test_an_unknown_field_like_no_other_is_only_called_unknown(folder: ConfigFolder, workload: Path) -> None:
    workload.write_text(workload.read_text() + "zzz: 1\n")
    assert refused(folder, workload, "zzz:").what == "zzz: unknown field"


@pytest.mark.requirement("T-2")
@pytest.mark.parametrize("field", ["track: green", "tier: low", "risk_tier: low"])
def test_track_and_tier_cannot_be_written_into_a_workload(
    folder: ConfigFolder, workload: Path, field: str
) -> None:
    workload.write_text(f"{workload.read_text()}{field}\n")
    assert "unknown field" in refused(folder, workload, field).what
    edit(workload, f"{field}\n", "")
    edit(workload, "\nrisk:\n", f"\nrisk:\n  {field}\n")
    assert "unknown field" in refused(folder, workload, field).what


def test_a_missing_field_names_it_and_the_place_where_it_belongs(
    folder: ConfigFolder, workload: Path
) -> None:
    edit(workload, "  rollback: easy\n", "")
    assert refused(folder, workload, "risk:").what == "risk.rollback: required field is missing"
    edit(workload, "title: Loan model\n", "")
    assert refused(folder, workload, 1).what == "title: required field is missing (and 1 more)"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("owner: team", "owner: 5", "owner: this must be text; put it in quotes"),
        ("owner: team", "owner: 2026-01-01", "owner: this must be text; put it in quotes"),
        ("owner: team", "owner:", "owner: Input should be a valid string"),
        ("owner: team", "owner: [a]", "owner: Input should be a valid string"),
        ("policy: 1.0.0", "policy: 1.0", "policy: this must be text; put it in quotes"),
        ("regulated: false", "regulated: maybe", "risk.regulated: Input should be a valid boolean"),
        ("exposure: internal", "exposure: intern", "risk.exposure: Input should be 'internal', 'partner'"),
        (
            "loss_per_error_usd: 10",
            "loss_per_error_usd: -1",
            "risk.loss_per_error_usd: Input should be greater",
        ),
        (
            "loss_per_error_usd: 10",
            "loss_per_error_usd: .nan",
            "risk.loss_per_error_usd: Input should be a finite",
        ),
        (
            "loss_per_error_usd: 10",
            "loss_per_error_usd: .inf",
            "risk.loss_per_error_usd: Input should be a finite",
        ),
        ("'0': group A", "0: group A", "data.sensitive.group.0: this must be text; put it in quotes"),
        (
            "default_batch: clean",
            "default_batch: ../clean",
            "data.default_batch: String should match pattern",
        ),
        ("expectations: loan", "expectations: ../loan", "data.expectations: String should match pattern"),
    ],
)
def test_a_wrong_value_names_field_line_and_what_is_expected(
    folder: ConfigFolder, workload: Path, old: str, new: str, what: str
) -> None:
    edit(workload, old, new)
    assert refused(folder, workload, new).what.startswith(what)


@pytest.mark.requirement("G-7")
@pytest.mark.parametrize(
    ("old", "new", "what", "line"),
    [
        ("  - income", "  - income\n  - income", "model.features names a column twice", "features:"),
        ("  - debt", "  - y", "model.target 'y' is also a feature", "target:"),
        ("  - debt", "  - group", "model.features names 'group', which is sensitive", "features:"),
    ],
)
def test_a_rule_about_the_whole_file_still_has_a_line(
    folder: ConfigFolder, workload: Path, *, old: str, new: str, what: str, line: str
) -> None:
    edit(workload, old, new)
    assert refused(folder, workload, line).what.startswith(what)


@pytest.mark.parametrize(
    ("old", "path"),
    [
        ("loan/training.parquet", "/etc/passwd"),
        ("loan/training.parquet", "../training.parquet"),
        ("loan/training.parquet", "loan/../../training.parquet"),
        ("loan/training.parquet", "~/training.parquet"),
        ("loan/batches", "/batches"),
        ("loan/batches", ".."),
    ],
)
def test_a_path_that_leaves_the_data_directory_is_refused(
    folder: ConfigFolder, workload: Path, old: str, path: str
) -> None:
    edit(workload, old, path)
    error = refused(folder, workload, "data:")
    assert error.what == f"data: path {path!r} must be relative to the data directory and stay inside it"


# Syntax


def test_a_key_given_twice_is_refused_at_its_second_place(folder: ConfigFolder, workload: Path) -> None:
    """YAML itself would silently take the last."""
    lines = len(workload.read_text().splitlines())
    workload.write_text(workload.read_text() + "owner: somebody else\n")
    assert refused(folder, workload, lines + 1).what == "not valid YAML: key 'owner' is given twice"


@pytest.mark.requirement("P-1")
def test_a_gate_given_twice_is_refused(folder: ConfigFolder, policy: Path) -> None:
    edit(policy, "\nrules:", "\n  documentation: {}\nrules:")
    with pytest.raises(ConfigurationError, match="key 'documentation' is given twice"):
        folder.policy("1.0.0")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("  target: y", "\ttarget: y", "tab"),
        ("  target: y", " target: y", "not valid YAML"),
        ("owner: team", "owner: a: b", "mapping values are not allowed"),
        ("owner: team", "owner: [a", "not valid YAML"),
        ("owner: team", "owner: 2026-13-45", "month must be in 1..12; put what is meant as text in quotes"),
        ("owner: team", "owner: " + "9" * 5_000, "Exceeds the limit"),
        ("owner: team", "owner: !!python/object/apply:os.system ['false']", "python/object/apply:os.system"),
        ("owner: team", "owner: *nobody", "undefined alias"),
        ("owner: team", "? [a, b]\n: c", "a key must be text"),
        ("owner: team", "? {a: b}\n: c", "a key must be text"),
        ("owner: team", "owner: team\n---\nowner: team", "another document"),
        ("owner: team", "owner: team # \x07", "control characters are not allowed"),
        ("owner: team", "owner: team # \0", "control characters are not allowed"),
    ],
)
def test_broken_yaml_names_the_line(
    folder: ConfigFolder, workload: Path, old: str, new: str, what: str
) -> None:
    number = line_of(workload, old.strip())
    edit(workload, f"\n{old}", f"\n{new}")
    with pytest.raises(ConfigurationError) as caught:
        folder.load_workload(workload)
    assert what in caught.value.what
    assert "\n" not in caught.value.what
    place = caught.value.where.removeprefix(f"{workload}:").split(":")
    assert abs(int(place[0]) - number) <= 1, caught.value.where
    assert caught.value.fix


def test_text_in_another_encoding_names_the_line(folder: ConfigFolder, workload: Path) -> None:
    line = line_of(workload, "owner:")
    workload.write_bytes(workload.read_bytes().replace(b"owner: team", "owner: größe".encode("latin-1")))
    error = refused(folder, workload, line)
    assert (error.what, error.fix) == ("the file is not UTF-8 text", "save it as UTF-8")


@pytest.mark.parametrize("content", ["", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_file_is_invalid(folder: ConfigFolder, workload: Path, content: str) -> None:
    workload.write_text(content)
    assert refused(folder, workload, 1).what == "the file is empty"


@pytest.mark.parametrize("content", ["- a\n", "just text\n", "5\n", "[]\n"])
def test_a_file_that_is_no_mapping_is_invalid(folder: ConfigFolder, workload: Path, content: str) -> None:
    workload.write_text(content)
    assert "valid dictionary" in refused(folder, workload, 1).what


def test_a_byte_order_mark_and_merged_keys_are_fine(folder: ConfigFolder, workload: Path) -> None:
    edit(workload, "model:\n", "model: &model\n")
    workload.write_bytes(b"\xef\xbb\xbf" + workload.read_bytes())
    assert folder.load_workload(workload).owner == "team"
    edit(workload, "\nrisk:\n", "\nrisk:\n  <<: {rollback: hard}\n")
    assert folder.load_workload(workload).risk.rollback == "easy", "the file's own key wins"


def test_a_folder_where_a_file_should_be_is_said(folder: ConfigFolder, config: Path) -> None:
    (config / "workloads" / "folder.yaml").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        folder.workload("folder")


# Names


def test_a_workload_must_be_named_like_its_file(folder: ConfigFolder, workload: Path) -> None:
    edit(workload, "name: loan-model", "name: other-model")
    error = refused(folder, workload, "name:")
    assert error.what == "name: 'other-model' does not match the file name"
    assert error.fix == "rename the file to other-model.yaml or the workload to loan-model"


@pytest.mark.parametrize("name", ["loan-modle", "loan_model", "loanmodel"])
def test_an_unknown_workload_is_answered_with_the_nearest(folder: ConfigFolder, name: str) -> None:
    with pytest.raises(NotFoundError, match="there is no workload") as caught:
        folder.workload(name)
    assert caught.value.fix == "did you mean 'loan-model'? known workloads: loan-model"


@pytest.mark.parametrize("name", ["", "zzz", "../people", "loan-model.yaml", "/etc/passwd"])
def test_a_name_that_is_no_workload_reads_no_file(folder: ConfigFolder, name: str) -> None:
    with pytest.raises(NotFoundError, match="known workloads: loan-model"):
        folder.workload(name)


def test_a_folder_without_workloads_says_so(tmp_path: Path) -> None:
    assert ConfigFolder(tmp_path).workload_files() == []
    with pytest.raises(NotFoundError, match="none yet"):
        ConfigFolder(tmp_path).workload("any")


@pytest.mark.requirement("G-12")
@pytest.mark.parametrize("path", ["../people.yaml", "/etc/passwd", "cards/../../people.yaml"])
def test_documentation_that_leaves_its_folder_is_refused(
    folder: ConfigFolder, workload: Path, path: str
) -> None:
    edit(workload, f"documentation: {WORKLOAD}.md", f"documentation: {path}")
    with pytest.raises(ConfigurationError, match="leaves the workloads folder") as caught:
        folder.documentation(folder.workload(WORKLOAD))
    assert caught.value.where == str(workload)


@pytest.mark.requirement("G-12")
def test_documentation_behind_a_link_that_leaves_its_folder_is_refused(
    folder: ConfigFolder, workload: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.md").write_text("secret")
    card = workload.with_name(f"{WORKLOAD}.md")
    card.unlink()
    card.symlink_to(tmp_path / "secret.md")
    with pytest.raises(ConfigurationError, match="leaves the workloads folder"):
        folder.documentation(folder.workload(WORKLOAD))


@pytest.mark.requirement("G-12")
def test_documentation_that_is_no_text_is_said_and_missing_is_empty(
    folder: ConfigFolder, workload: Path
) -> None:
    card = workload.with_name(f"{WORKLOAD}.md")
    card.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8 text"):
        folder.documentation(folder.workload(WORKLOAD))
    card.unlink()
    assert folder.documentation(folder.workload(WORKLOAD)) == ""


# Policy, people, suites


@pytest.mark.requirement("P-2")
def test_a_policy_must_say_the_version_of_its_folder(folder: ConfigFolder, policy: Path) -> None:
    edit(policy, "version: 1.0.0", "version: 1.0.1")
    with pytest.raises(ConfigurationError, match=r"1\.0\.1 stands in the folder of 1\.0\.0") as caught:
        folder.policy("1.0.0")
    assert caught.value.where == f"{policy}:1"
    assert "publish a new version" in caught.value.fix


@pytest.mark.requirement("P-2")
def test_an_unknown_policy_version_is_answered_with_those_there_are(folder: ConfigFolder) -> None:
    with pytest.raises(NotFoundError, match=r"there is no policy 9\.9\.9") as caught:
        folder.policy("9.9.9")
    assert caught.value.fix == "published here: 1.0.0"


def refused_policy(tmp_path: Path) -> AirlockError:
    with pytest.raises(ConfigurationError) as caught:
        checked_policy(open_world(tmp_path).deployment, "1.0.0")
    return caught.value


@pytest.mark.requirement("P-1")
def test_an_unknown_gate_names_file_line_and_the_nearest_gate(policy: Path, tmp_path: Path) -> None:
    edit(policy, "\n  performance:", "\n  performence:")
    error = refused_policy(tmp_path)
    assert error.what == "gates.performence: there is no such gate"
    assert error.where == f"{policy}:{line_of(policy, 'performence:')}"
    assert error.fix.startswith("did you mean 'performance'? gates: bias, ")


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize(
    ("old", "new", "what", "line"),
    [
        (
            "minimum_words: 15",
            "minimum_words: none",
            "gates.documentation.minimum_words: Input",
            "minimum_words:",
        ),
        (
            "minimum_words: 15",
            "minimum_wrds: 15",
            "gates.documentation.minimum_words: Field req",
            "documentation:",
        ),
        (
            "calibration_bins: 10",
            "calibration_bins: ten",
            "gates.performance.calibration_bins: ",
            "calibration_bins:",
        ),
        (
            "maximum_worsening: 0.05",
            "maximum_worsening: 5",
            "gates.performance.maximum_worsening: Input",
            "maximum_w",
        ),
    ],
)
def test_a_wrong_gate_configuration_names_file_line_and_field(
    policy: Path, tmp_path: Path, *, old: str, new: str, what: str, line: str
) -> None:
    edit(policy, old, new)
    error = refused_policy(tmp_path)
    assert error.what.startswith(what)
    assert error.where == f"{policy}:{line_of(policy, line)}"
    assert "the fields are" in error.fix


@pytest.mark.requirement("P-1", "A-1")
@pytest.mark.parametrize(
    ("old", "new", "what", "line"),
    [
        ("id: track-red", "id: track-first", "rules: ids must be unique; twice: ['track-first']", "rules:"),
        (
            "effect:\n    track: yellow",
            "effect: {}",
            "rules.3.effect: an effect names exactly one",
            "effect: {}",
        ),
        ("track: yellow", "track: pink", "rules.3.effect.track: Input should be 'green'", "track: pink"),
        (
            "expires_hours: 72",
            "expires_hours: 0",
            "approval.expires_hours: Input should be gr",
            "expires_hours:",
        ),
        (
            "expires_hours: 72",
            "expires_hours: 2161",
            "approval.expires_hours: Input should be le",
            "expires_hours:",
        ),
        (
            "yellow:\n",
            "yellow: []\n    unused:\n",
            "approval.seats.unused: Input should be 'green'",
            "unused:",
        ),
        ("    green: []\n", "", "approval: seats are missing for track", "approval:"),
    ],
)
def test_a_policy_that_would_let_releases_through_is_refused(
    folder: ConfigFolder, policy: Path, *, old: str, new: str, what: str, line: str
) -> None:
    edit(policy, old, new)
    with pytest.raises(ConfigurationError) as caught:
        folder.policy("1.0.0")
    assert caught.value.what.startswith(what)
    assert caught.value.where == f"{policy}:{line_of(policy, line)}"


@pytest.mark.requirement("P-1", "A-1")
@pytest.mark.parametrize("track", ["yellow", "red"])
def test_a_heavier_track_without_a_seat_is_refused(folder: ConfigFolder, policy: Path, track: str) -> None:
    text = policy.read_text()
    start = text.index(f"    {track}:\n")
    end = text.index("    red:\n") if track == "yellow" else text.index("sandbox:")
    policy.write_text(f"{text[:start]}    {track}: []\n{text[end:]}")
    with pytest.raises(ConfigurationError, match=f"track {track} has no seat"):
        folder.policy("1.0.0")


@pytest.mark.requirement("P-1")
@pytest.mark.parametrize("part", ["gates", "rules", "limits"])
def test_an_empty_part_of_a_policy_is_invalid(folder: ConfigFolder, policy: Path, part: str) -> None:
    lines = policy.read_text().splitlines()
    start = lines.index(f"{part}:")
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith((" ", "-")))
    empty = "[]" if part == "rules" else "{}"
    policy.write_text("\n".join([*lines[:start], f"{part}: {empty}", *lines[end:]]))
    with pytest.raises(ConfigurationError, match=f"{part}: .*at least 1 item") as caught:
        folder.policy("1.0.0")
    assert caught.value.where == f"{policy}:{start + 1}"


@pytest.mark.requirement("A-2")
@pytest.mark.parametrize(
    ("old", "new", "what", "line"),
    [
        ("user: petra", "user: dana", "people: a user appears twice", "people:"),
        ("user: petra", "user: ''", "people.1.user: String should have at least 1", "- user: ''"),
        ("- ml-platform-engineer", "- ML engineer", "people.1.roles.0: String should match", "- ML engineer"),
        (
            "airflow_role: viewer",
            "airflow_role: god",
            "people.5.airflow_role: Input should be",
            "airflow_role:",
        ),
        (
            "airflow_role: viewer",
            "role: viewer",
            "people.5.role: unknown field; did you mean 'roles'",
            "role:",
        ),
    ],
)
def test_a_mistake_in_people_names_line_and_field(
    folder: ConfigFolder, config: Path, *, old: str, new: str, what: str, line: str
) -> None:
    path = config / "people.yaml"
    edit(path, old, new)
    with pytest.raises(ConfigurationError) as caught:
        folder.people()
    assert caught.value.what.startswith(what)
    assert caught.value.where == f"{path}:{line_of(path, line)}"


@pytest.mark.requirement("G-1")
def test_a_suite_that_is_no_mapping_or_not_there_is_said(folder: ConfigFolder, config: Path) -> None:
    (config / "expectations" / "list.yaml").write_text("- a\n")
    with pytest.raises(ConfigurationError, match="an expectation suite is a mapping"):
        folder.suite("list")
    with pytest.raises(NotFoundError, match="file not found"):
        folder.suite("missing")
