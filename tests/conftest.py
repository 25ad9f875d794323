"""What every test gets: a clean environment, ``--no-skips``, and tests chosen by requirement.

Nothing heavy is imported here: this file is read before the first test can start.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SKIPS = pytest.StashKey[list[str]]()
_HOME = pytest.StashKey[Path]()
_SYSTEM = "tests/system/"

AFTER_THE_DEMO = {
    "test_pages",
    "test_reconcile",
    "test_releases",
    "test_soak",
    "test_waivers",
    "test_watched",
}
"""Files whose tests share the Airflow that `airlock demo` left; others share one with small workloads."""

ALONE = {"test_cluster", "test_drift_story"}
"""Files that start one of their own."""

AIRFLOW_SAID = "What Airflow said last"
"""Section of a failed test's report. The first one is told again at the end, where a long output is read."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="fail when a test is skipped, unless AIRLOCK_ALLOW_SKIPS=1",
    )
    parser.addoption(
        "--requirement",
        action="append",
        default=[],
        metavar="ID",
        help="run only the tests that prove this requirement; repeatable",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SKIPS] = []
    # What the developer's shell says about a deployment of theirs must not reach a test, nor a test it.
    for name in list(os.environ):
        if name.startswith(("AIRFLOW", "MLFLOW_")) or (
            name.startswith("AIRLOCK_") and not name.startswith(("AIRLOCK_ALLOW_", "AIRLOCK_TEST_"))
        ):
            del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="airlock-tests-"))
    config.stash[_HOME] = home
    os.environ |= {
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRLOCK_HOME": str(home / "airlock"),
        "DO_NOT_TRACK": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # As in the sandbox. Read when numba is first imported, so it cannot differ between test files.
        "NUMBA_DISABLE_JIT": "1",
        # Tests run beside each other; threads of one would fight for the cores of the others.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_HOME], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note what each test proves (it reaches the JUnit report), and choose by ``--requirement``.

    Those of a real Airflow come first, the longest before all: half of their time they wait, and other tests
    fill it. The cluster begins when those are up, because each needs the whole machine to start.
    """
    items.sort(key=_turn)
    wanted = set(config.getoption("--requirement"))
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        proved = [str(name) for mark in item.iter_markers("requirement") for name in mark.args]
        item.user_properties.extend(("requirement", name) for name in proved)
        (kept if not wanted or wanted & set(proved) else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def _turn(item: pytest.Item) -> int:
    if item.nodeid.startswith("tests/contract/"):
        return 2
    return {"demo": 0, "small": 1, "alone": 3}.get(_airflow(item.nodeid), 4)


def _airflow(nodeid: str) -> str:
    """Which Airflow a test shares with others, and nothing for a test without one."""
    if not nodeid.startswith(_SYSTEM):
        return ""
    name = nodeid.removeprefix(_SYSTEM).split(".py", maxsplit=1)[0]
    return "demo" if name in AFTER_THE_DEMO else "alone" if name in ALONE else "small"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped:  # a module that skips itself, as importorskip does, has no test to report
        collector.config.stash[_SKIPS].append(f"{report.nodeid}: {_reason(report)}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        item.config.stash[_SKIPS].append(f"{report.nodeid}: {_reason(report)}")


def _reason(report: Any) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one process, as ``loadfile`` does, and so all that share one Airflow."""
    from xdist.scheduler import LoadFileScheduling

    scheduling = LoadFileScheduling(config, log)
    file_of = scheduling._split_scope

    def group_of(nodeid: str) -> str:
        shared = _airflow(nodeid)
        return f"{_SYSTEM}{shared}" if shared in ("demo", "small") else str(file_of(nodeid))

    scheduling._split_scope = group_of
    return scheduling


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist skipped."""
    found = getattr(node, "workeroutput", {}).get("skips", [])
    seen = node.config.stash[_SKIPS]
    # Each worker collects all modules, so a module that skips itself is reported by every one.
    seen.extend(skip for skip in found if skip not in seen)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["skips"] = session.config.stash[_SKIPS]
    elif _forbidden(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    failed = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    said = [text for report in failed for name, text in report.sections if name == AIRFLOW_SAID]
    if said:
        terminalreporter.section(f"{AIRFLOW_SAID}, at the first failure")
        terminalreporter.write_line(said[0])
    if not (skips := _forbidden(config)):
        return
    terminalreporter.section("skipped tests are failures here (--no-skips)", red=True)
    for skip in skips:
        terminalreporter.line(skip)
    terminalreporter.line("Give the machine what they need, or set AIRLOCK_ALLOW_SKIPS=1 to accept the gap.")


def _forbidden(config: pytest.Config) -> list[str]:
    allowed = not config.getoption("--no-skips") or os.environ.get("AIRLOCK_ALLOW_SKIPS") == "1"
    return [] if allowed else config.stash[_SKIPS]
