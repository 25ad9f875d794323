"""Seconds of a preflight without model scoring: from the shell, and in a process that has imported it.

    python -m benchmarks.preflight

The floor is a Python process that imports the libraries no command of this kind can do without (Typer,
rich, pydantic, PyYAML) and ends. Both take turns, so that whatever else the machine does meets both alike.
CPU seconds are what the processes used; wall-clock seconds also hold what the machine did meanwhile.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 7
CALLS = 20
FLOOR = "import typer, rich.table, pydantic, pydantic_settings, yaml"


def _run(*command: str) -> tuple[float, float]:
    """CPU and wall-clock seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def _imported(folder: Path) -> tuple[float, float]:
    """CPU and wall-clock seconds of one call, both the median of several, all workloads each time."""
    from airlock.adapters.cel_engine import CelEngine
    from airlock.adapters.config_files import ConfigFolder
    from airlock.services.preflight import Desk, check_files

    desk = Desk(
        config=ConfigFolder(ROOT / "config"),
        config_dir=ROOT / "config",
        data_root=folder / "data",
        engine=CelEngine(),
        today=date(2026, 1, 1),
    )
    cpu, wall = [], []
    for _ in range(CALLS):
        begun, started = time.process_time(), time.perf_counter()
        check_files(desk, "mortgage-approval")
        cpu.append(time.process_time() - begun)
        wall.append(time.perf_counter() - started)
    return statistics.median(cpu), statistics.median(wall)


def main() -> None:
    """Measure and print."""
    from airlock.demo.data import prepare

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(ROOT / "data" / "loanapp.csv", folder / "data")
        os.environ |= {"AIRLOCK_CONFIG_DIR": str(ROOT / "config"), "AIRLOCK_HOME": str(folder)}
        ours, floor = [], []
        for _ in range(ROUNDS):
            floor.append(_run(sys.executable, "-c", FLOOR))
            ours.append(_run(sys.executable, "-m", "airlock.cli", "preflight", "mortgage-approval"))
        shell, least = (tuple(map(statistics.median, zip(*runs, strict=True))) for runs in (ours, floor))
        cpu, wall = _imported(folder)
    print(f"from the shell: {shell[0]:.2f} s CPU, {shell[1]:.2f} s wall clock (median of {ROUNDS})")
    print(f"floor, imports alone: {least[0]:.2f} s CPU, {least[1]:.2f} s wall clock")
    print(f"ratio to the floor: {shell[0] / least[0]:.1f}")
    print(f"imported, one workload: {cpu:.3f} s CPU, {wall:.3f} s wall clock (median of {CALLS})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory from the shell: {peak:.0f} MB")


if __name__ == "__main__":
    main()
