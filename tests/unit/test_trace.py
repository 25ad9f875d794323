"""``scripts/trace.py``: which tests prove which requirement."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TABLE = """# Requirements

| id | requirement | proof |
|---|---|---|
| T-1 | One thing: `a` ≤ 5 %. | stale |
| T-2 | Another thing. |
"""


@pytest.fixture(scope="module")
def trace() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trace_script", ROOT / "scripts" / "trace.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "requirements.md").write_text(TABLE)
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    return tmp_path


def write_test(project: Path, source: str, name: str = "test_x.py") -> None:
    (project / "tests" / "unit" / name).write_text(source)


def table(project: Path) -> str:
    return (project / "docs" / "requirements.md").read_text()


def test_marks_are_found_wherever_pytest_sees_them(trace: ModuleType, project: Path) -> None:
    write_test(
        project,
        """
import nothing_that_exists
pytestmark = [pytest.mark.slow, pytest.mark.requirement("T-2")]

@pytest.mark.parametrize("x", [1])
@pytest.mark.requirement("T-1", "T-2")
def test_function(x): ...

@pytest.mark.requirement("T-1")
class TestClass:
    async def test_method(self): ...
    def helper(self): ...
""",
    )
    found = [(mark.requirement, mark.test) for mark in trace.collect(project / "tests", project)]
    assert found == [
        ("T-2", "tests/unit/test_x.py::test_function"),
        ("T-1", "tests/unit/test_x.py::test_function"),
        ("T-2", "tests/unit/test_x.py::TestClass::test_method"),
        ("T-1", "tests/unit/test_x.py::TestClass::test_method"),
    ]


def test_proofs_and_gaps_are_written_and_the_rest_is_kept(trace: ModuleType, project: Path) -> None:
    write_test(project, '@pytest.mark.requirement("T-1")\ndef test_one(): ...\n')
    assert trace.main([], root=project) == 0
    written = table(project)
    assert "| T-1 | One thing: `a` ≤ 5 %. | `tests/unit/test_x.py::test_one` |\n" in written
    assert "| T-2 | Another thing. | **gap** |\n" in written
    assert written.startswith("# Requirements\n\n| id | requirement | proof |\n|---|---|---|\n")
    assert trace.main([], root=project) == 0
    assert table(project) == written, "a second run changes nothing"


def test_at_most_three_tests_are_named(trace: ModuleType, project: Path) -> None:
    tests = [f'@pytest.mark.requirement("T-1")\ndef test_{number}(): ...\n' for number in range(5)]
    write_test(project, "\n".join(tests))
    trace.main([], root=project)
    row = next(line for line in table(project).splitlines() if line.startswith("| T-1"))
    assert row.count("`tests/") == 3
    assert row.endswith("<br>+2 more |")


def test_check_fails_on_a_stale_table_and_writes_nothing(
    trace: ModuleType, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace.main(["--check"], root=project) == 1
    assert "make trace" in capsys.readouterr().err
    assert table(project) == TABLE
    trace.main([], root=project)
    assert trace.main(["--check"], root=project) == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('@pytest.mark.requirement("T-9")\ndef test_one(): ...\n', "no requirement 'T-9'"),
        ("@pytest.mark.requirement(ID)\ndef test_one(): ...\n", "write the ids out"),
        ("@pytest.mark.requirement\ndef test_one(): ...\n", "write the ids out"),
        ("@pytest.mark.requirement()\ndef test_one(): ...\n", "write the ids out"),
        ('@pytest.mark.requirement("T-1")\ndef check_one(): ...\n', "is no test"),
        ("def test_one(:\n", "not Python"),
    ],
)
def test_a_wrong_mark_is_an_error_that_says_where(
    trace: ModuleType,
    project: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
    message: str,
) -> None:
    write_test(project, source)
    for arguments in ([], ["--check"]):
        assert trace.main(arguments, root=project) == 1
        error = capsys.readouterr().err
        assert message in error
        assert "tests/unit/test_x.py:" in error
    assert table(project) == TABLE


@pytest.mark.parametrize("row", ["| T-1 | Twice. | |", "| T-3 | a | b | c |", "|T-3| no spaces |"])
def test_a_row_that_cannot_be_read_is_an_error(
    trace: ModuleType, project: Path, capsys: pytest.CaptureFixture[str], row: str
) -> None:
    (project / "docs" / "requirements.md").write_text(TABLE + row + "\n")
    assert trace.main([], root=project) == 1
    assert capsys.readouterr().err


def test_the_committed_table_is_current(trace: ModuleType) -> None:
    assert trace.main(["--check"]) == 0, "run `make trace`"
