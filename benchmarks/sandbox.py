"""What the sandbox costs: an empty job in it against the same script in a bare Python process.

    python -m benchmarks.sandbox

Both run in turn, so that load on the machine hits them alike; the figure is the difference of the medians in
milliseconds for each set of layers, with the level it reaches. Memory is the peak of this process: the
sandbox adds a supervisor's buffers and nothing else here.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from airlock.adapters.sandbox import LAYERS, ProcessSandbox
from airlock.ports import SandboxRequest, SandboxResult

ROUNDS = 20
SETS = {
    "everything": LAYERS,
    "without bubblewrap": LAYERS[1:],
    "filters alone": ("landlock", "seccomp"),
    "limits alone": (),
}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airlock-benchmark-") as name:
        folder = Path(name)
        script = folder / "script" / "empty.py"
        script.parent.mkdir()
        script.write_text("pass\n")
        boxes = {label: ProcessSandbox(runner=script, layers=layers) for label, layers in SETS.items()}
        results = {label: _run(box, folder) for label, box in boxes.items()}  # also finds out what works here
        bare: list[float] = []
        taken: dict[str, list[float]] = {label: [] for label in boxes}
        for _ in range(ROUNDS):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-I", "-B", str(script)], check=True, env={})
            bare.append(time.perf_counter() - started)
            for label, box in boxes.items():
                started = time.perf_counter()
                _run(box, folder)
                taken[label].append(time.perf_counter() - started)
    _print(bare, taken, results)


def _run(box: ProcessSandbox, folder: Path) -> SandboxResult:
    request = SandboxRequest(
        job={}, inputs={}, seconds=60, memory_mb=512, output_mb=8, require_network_isolation=False
    )
    return box.run(request, folder / "output")


def _print(bare: list[float], taken: dict[str, list[float]], results: dict[str, SandboxResult]) -> None:
    floor = statistics.median(bare)
    table = Table("layers", "level", "median", "over a bare process")
    table.add_row("bare process", "none", f"{floor * 1000:.0f} ms", "")
    for label, times in taken.items():
        median = statistics.median(times)
        over = f"{(median - floor) * 1000:.0f} ms"
        table.add_row(label, results[label].level, f"{median * 1000:.0f} ms", over)
    console = Console()
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    console.print(f"{ROUNDS} rounds; peak memory of this process {peak / 1024:.0f} MB")


if __name__ == "__main__":
    main()
