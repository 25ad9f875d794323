"""``--no-skips`` and ``--requirement``, on a small suite of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each test starts a pytest of its own

SUITE = """
import os
import pytest

@pytest.mark.requirement("T-1")
def test_passes():
    assert "AIRLOCK_AUDIT_URL" not in os.environ

@pytest.mark.xfail(strict=True)
def test_fails_as_expected():
    assert False
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = requirement(*ids)\n")
    (tmp_path / "test_suite.py").write_text(SUITE)
    return tmp_path


def run(suite: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    environment = {"PATH": os.environ["PATH"], "AIRLOCK_AUDIT_URL": "postgresql://nobody", **variables}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=suite, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("parallel", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_suite_without_skips_passes(suite: Path, parallel: tuple[str, ...]) -> None:
    code, output = run(suite, "--no-skips", *parallel)
    assert code == 0, output


@pytest.mark.parametrize("parallel", [(), ("-n", "1")], ids=["one process", "xdist"])
@pytest.mark.parametrize(
    "skipping",
    [
        "import pytest\n@pytest.mark.skip(reason='no time')\ndef test_skipped(): ...\n",
        "import pytest\ndef test_skips_itself():\n    pytest.skip('no time')\n",
        "import pytest\npytest.skip('no time', allow_module_level=True)\n",
    ],
    ids=["mark", "call", "module"],
)
def test_a_skipped_test_fails_the_run(suite: Path, skipping: str, parallel: tuple[str, ...]) -> None:
    (suite / "test_more.py").write_text(skipping)
    code, output = run(suite, "--no-skips", *parallel)
    assert code == 1, output
    assert "test_more.py" in output
    assert "no time" in output


def test_a_skip_is_accepted_only_where_someone_says_so(suite: Path) -> None:
    (suite / "test_more.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    assert run(suite)[0] == 0
    assert run(suite, "--no-skips")[0] == 1
    assert run(suite, "--no-skips", AIRLOCK_ALLOW_SKIPS="1")[0] == 0


def test_the_proofs_of_one_requirement_can_be_run(suite: Path) -> None:
    code, output = run(suite, "--requirement", "T-1")
    assert code == 0, output
    assert "1 passed, 1 deselected" in output
