"""First script of a sandbox: confine this process, then run the job's script in it.

Started as ``python -I enter.py confine.json 3 4``, where 3 is the socket to report to and 4 the pipe for
notes about what the job's code asks Python for. Nothing of Airlock is imported, so that neither its settings
nor its code are within reach of a model; the folder ``inside`` is given a name of its own.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
import types
from pathlib import Path


def main() -> None:
    """Confine, then run."""
    package = types.ModuleType("inside")
    package.__path__ = [str(Path(__file__).parent / "inside")]
    sys.modules["inside"] = package
    config = json.loads(Path(sys.argv[1]).read_text())
    importlib.import_module("inside.confine").confine(config, int(sys.argv[2]))
    importlib.import_module("inside.notes").watch(config, int(sys.argv[3]))
    sys.argv = [config["runner"]]
    sys.path[:0] = config["packages"]
    sys.path += [path for path in config["site_packages"] if path not in sys.path]
    runpy.run_path(config["runner"], run_name="__main__")


if __name__ == "__main__":
    main()
