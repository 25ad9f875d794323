"""What recording a prediction costs the server that makes it: a row of 25 features.

Ratios are against what a server does anyway at the least: make a JSON text of the same row. The thread's own
work (hashing, Parquet, fsync) is counted apart: it does not delay an answer, but takes its share of a core.
"""

from __future__ import annotations

import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

from airlock.record import Recorder

ROWS = 200_000
FEATURES = {f"feature_{i}": i * 1.25 for i in range(24)} | {"region": "Suffolk"}


def main() -> None:
    started = time.thread_time()
    for _ in range(20_000):
        json.dumps(FEATURES)
    floor = (time.thread_time() - started) / 20_000

    folder = Path(tempfile.mkdtemp(prefix="airlock-record-"))
    try:
        recorder = Recorder(folder, version="7", policy="1.0.0", queue_rows=ROWS, flush_seconds=600)
        recorder.record(FEATURES)
        whole, own = time.process_time(), time.thread_time()
        for _ in range(ROWS - 1):
            recorder.record(FEATURES, score=0.4, decision=0, latency_ms=3.0, caller="branch")
        in_call = (time.thread_time() - own) / ROWS
        assert recorder.close(300)
        all_cpu = (time.process_time() - whole) / ROWS
        assert (recorder.written, recorder.lost) == (ROWS, 0)
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    finally:
        shutil.rmtree(folder)
    print(f"record(): {in_call * 1e6:.1f} µs of the serving thread, {in_call / floor:.2f} x json.dumps")
    print(
        f"thread:   {(all_cpu - in_call) * 1e6:.1f} µs of CPU for each row, {size / ROWS:.0f} bytes on disk"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory with {ROWS:,} rows waiting: {peak} MB")


if __name__ == "__main__":
    main()
