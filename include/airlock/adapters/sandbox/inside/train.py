"""The job ``train``: run a training command on a data file, and hand out the model folder it wrote.

The code is as untrusted as a model. It runs in this process, because the sandbox starts no other programs.
"""

from __future__ import annotations

import json
import math
import os
import random
import runpy
import stat
import sys
from pathlib import Path
from typing import Any

from .score import JobError

_MAXIMUM_FILES, _MAXIMUM_METRICS = 500, 200
_MAXIMUM_METRICS_BYTES = 1 << 16


def run(job: dict[str, Any], inputs: Path, output: Path) -> None:
    """Write ``model-0``, ``model-1`` … with the model's files, ``index.json`` and ``metrics.json``."""
    scratch = output.parent / "scratch"
    places = {name: str(scratch / f"airlock-{name}") for name in ("data", "parameters", "metrics")}
    places = {name: f"{path}.{'parquet' if name == 'data' else 'json'}" for name, path in places.items()}
    model = scratch / "airlock-model"  # not there yet: some savers refuse a folder that is
    Path(places["data"]).symlink_to(inputs / "data")
    Path(places["parameters"]).write_text(json.dumps(job["parameters"], indent=1, sort_keys=True))
    places |= {"model": str(model), "seed": str(job["seed"])}
    metrics = Path(places["metrics"])
    words = [_filled(word, places) for word in job["words"]]
    _seed_everything(job["seed"])
    _call(words, inputs / "code")
    os.chdir(output.parent)
    _hand_out(model, output)
    (output / "metrics.json").write_text(json.dumps(_metrics(metrics), sort_keys=True))


def _filled(word: str, places: dict[str, str]) -> str:
    for name, value in places.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _seed_everything(seed: int) -> None:
    """What the code does not seed itself is the same each time too."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is the one that others forget


def _call(words: list[str], code: Path) -> None:
    """Run a script or module as ``python`` would, with its folder first on the path."""
    os.chdir(code)
    module = words[0] == "-m"
    name, arguments = (words[1], words[2:]) if module else (words[0], words[1:])
    script = (code / name).resolve()
    if not module and not (script.is_relative_to(code) and script.is_file()):
        raise JobError(f"the training code has no file {name}. How to fix it: correct training.command")
    sys.path.insert(0, str(code if module else script.parent))
    sys.argv = [str(script), *arguments]
    try:
        if module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise JobError(f"the training command ended with {end.code}") from end
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _hand_out(model: Path, output: Path) -> None:
    """Copy the model's files under plain names; the index says where each belongs."""
    if not model.is_dir() or model.is_symlink():
        raise JobError("the training command wrote no folder at {model}. How to fix it: save the model there")
    index: list[dict[str, str]] = []
    for path in sorted(model.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise JobError(f"the model holds {path.name!r}, which is a link or special file")
        if len(index) >= _MAXIMUM_FILES:
            raise JobError(f"the model has more than {_MAXIMUM_FILES} files")
        name = f"model-{len(index)}"
        path.rename(output / name)
        index.append({"file": name, "path": path.relative_to(model).as_posix()})
    (output / "index.json").write_text(json.dumps(index))


def _metrics(path: Path) -> dict[str, float]:
    """Numbers that the command wrote down; nothing where it wrote none."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _MAXIMUM_METRICS_BYTES:
        raise JobError("the metrics are larger than 64 KiB. How to fix it: write a few numbers")
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise JobError(f"the metrics are no JSON: {error}") from error
    if not isinstance(found, dict) or len(found) > _MAXIMUM_METRICS:
        raise JobError("the metrics are no object of numbers")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise JobError(f"the metric {name!r} is no finite number")
    return {str(name)[:100]: float(value) for name, value in found.items()}
