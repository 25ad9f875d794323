"""The privacy gate on 1M rows and 25 columns, against a pure read of the same file.

    python -m benchmarks.privacy_gate [ROWS]

Seven of the columns are text, four of them a million distinct texts: addresses, tokens, sentences, times.
The figures are CPU seconds, because other work on the machine does not change them, and the peak memory of
a process that judged and did nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from rich.console import Console

from airlock.services.run_gate import run_gate
from benchmarks.drift_profile import peak

ROWS = 1_000_000


def make_file(path: Path, rows: int) -> None:
    """Write the data: features, a protected group that one feature tells, and texts."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(20260101)
    columns: dict[str, object] = {f"f{number}": rng.normal(size=rows) for number in range(14)}
    group = rng.integers(0, 2, rows)
    columns |= {"group": group, "y": rng.integers(0, 2, rows), "proxy": group * 1.5 + rng.normal(size=rows)}
    columns |= {name: rng.choice(["Boston", "Lynn", "Quincy"], rows) for name in ("city", "branch", "home")}
    columns |= {
        "mail": [f"person{number}@example.org" for number in range(rows)],
        "ref": [f"tok_{number:012x}" for number in range(rows)],
        "note": [f"case {number} of branch {number % 97}, call back" for number in range(rows)],
        "seen": [f"2024-01-01 {n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}.{n:07}" for n in range(rows)],
        "account": np.arange(rows) * 7919 + 4_000_000_000_000_000,
    }
    pd.DataFrame(columns).to_parquet(path)


def judged(data: Path, config: Path) -> dict[str, object]:
    """The gate alone, in a process that did nothing else: CPU seconds, peak memory, findings."""
    small = config.parent / "small.parquet"
    make_file(small, 2000)
    run_gate("privacy", config, current=small)  # imports are no part of the figure
    started = time.process_time()
    run = run_gate("privacy", config, current=data)
    return {
        "cpu": time.process_time() - started,
        **peak(),
        "found": sorted({one.id for one in run.result.findings}),
    }


def main() -> None:
    """Measure and print."""
    import pandas as pd

    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(judged(*map(Path, sys.argv[2:]))))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    console = Console()
    with tempfile.TemporaryDirectory(prefix="airlock-benchmark-") as name:
        data, config = Path(name) / "data.parquet", Path(name) / "gate.yaml"
        make_file(data, rows)
        features = [*(f"f{number}" for number in range(14)), "proxy", "city"]
        columns = {"label": "y", "sensitive": ["group"], "features": features}
        config.write_text(yaml.safe_dump({"columns": columns, "positive": 1, "privacy": {"tokens": ["ref"]}}))
        started = time.process_time()
        pd.read_parquet(data)
        read = time.process_time() - started
        command = [sys.executable, "-m", "benchmarks.privacy_gate", "--child", str(data), str(config)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    mine = json.loads(done.stdout.splitlines()[-1])
    console.print(
        f"privacy gate, {rows:,} rows x 25 columns: {mine['cpu']:.1f} CPU s, pure read {read:.1f} CPU s"
    )
    console.print(f"peak memory {mine['peak_mb']:.0f} MB; found {', '.join(mine['found'])}")


if __name__ == "__main__":
    main()
