"""Runs the job in ``job.json``: ``scan`` reads model files, ``score``, ``trial`` and ``train`` run code.

It runs in the sandbox and imports nothing of Airlock. A failure is told in ``output/error.json``.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import traceback
from pathlib import Path

JOBS = {"scan": "inside.scan", "score": "inside.score", "train": "inside.train", "trial": "inside.trial"}


def main() -> int:
    """Run the job in the working folder; 0 when it succeeded."""
    output = Path("output").resolve()
    # Python asks a program for the processor's name, which libraries ask of Python in good faith.
    if (processor := getattr(platform, "_Processor", None)) is not None:
        processor.get = staticmethod(str)
    try:
        job = json.loads(Path("job.json").read_text())
        if job["kind"] != "train":
            # shap draws nothing here, but would import matplotlib for 0.4 s, and build its font cache for
            # seconds in a home folder that is always new. Without it shap leaves its plots out, by design.
            sys.modules.setdefault("matplotlib", None)  # type: ignore[arg-type]
        importlib.import_module(JOBS[job["kind"]]).run(job, Path("inputs").resolve(), output)
    except BaseException as error:  # noqa: BLE001 - whatever a model raises, SystemExit too, must be told
        report = {
            "type": type(error).__name__,
            "message": str(error)[:10_000],
            "traceback": "".join(traceback.format_exception(error, limit=-8))[-10_000:],
        }
        (output / "error.json").write_text(json.dumps(report))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
