"""Builds model artifacts as MLflow 3 writes them, and hostile files to put into them."""

from __future__ import annotations

import bz2
import cProfile
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

REVIEWED = [
    "numpy.dtype",
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
]
FEATURES = ["income", "debt", "self", "kind"]
"""``self`` because a column may be called like a parameter, ``kind`` because it holds text."""


def make_data(rows: int = 300, seed: int = 1) -> pd.DataFrame:
    """Data with a gap, text, and an outcome that the features explain in part."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": rng.normal(50, 10, rows),
            "debt": rng.normal(20, 5, rows),
            "self": rng.integers(0, 2, rows),
            "kind": rng.choice(["a", "b", "c"], rows),
        }
    )
    logit = 0.1 * (frame["income"] - 50) - 0.2 * (frame["debt"] - 20) + (frame["kind"] == "a")
    frame["y"] = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype("int64")
    frame.loc[:5, "income"] = np.nan
    return frame


def make_pipeline_for(final: Any | None = None) -> Any:
    """An unfitted pipeline over ``FEATURES`` that ends with ``final``."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [("numbers", numbers, FEATURES[:3]), ("words", OneHotEncoder(handle_unknown="ignore"), FEATURES[3:])]
    )
    return make_pipeline(columns, LogisticRegression() if final is None else final)


def write_artifact(folder: Path, model: Any) -> Path:
    """The files that ``mlflow.sklearn.log_model`` of MLflow 3.17 writes with its default, skops."""
    folder.mkdir(parents=True, exist_ok=True)
    skops.io.dump(model, folder / "model.skops")
    texts = {
        "MLmodel": "flavors:\n  sklearn:\n    pickled_model: model.skops\n    serialization_format: skops\n",
        "conda.yaml": "channels:\n- conda-forge\ndependencies:\n- python=3.11.7\n- pip\nname: mlflow-env\n",
        "python_env.yaml": "python: 3.11.7\nbuild_dependencies:\n- pip\n",
        "requirements.txt": "cloudpickle\nnumpy\nmlflow==3.17.2\nscikit-learn\n",
        "registered_model_meta": "model_name: mm\nmodel_version: '1'\n",
        "input_example.json": '{"columns": ["income"], "data": [[1.0]]}',
        "serving_input_example.json": '{"dataframe_split": {"columns": ["income"], "data": [[1.0]]}}',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


class Runs:
    """Unpickling it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def add_hostile_files(folder: Path, marker: Path) -> None:
    """Every way in that is known; loading most of them would create ``marker``."""
    command = f"touch {marker}"
    attack = pickle.dumps(Runs(os.system, command))
    (folder / "model.pkl").write_bytes(attack)
    (folder / "model.txt").write_bytes(pickle.dumps(Runs(os.system, command), protocol=0))
    (folder / "no-end.txt").write_bytes(pickle.dumps(Runs(os.system, command), protocol=0)[:-1] + b"garbage")
    (folder / "profile.bin").write_bytes(
        pickle.dumps(Runs(cProfile.run, f"import os; os.system({command!r})"))
    )
    (folder / "looks-like.skops").write_bytes(attack)
    joblib.dump([Runs(os.system, command)], folder / "zlib.joblib", compress=("zlib", 3))
    (folder / "packed.gz").write_bytes(gzip.compress(attack))
    (folder / "packed.bz2").write_bytes(bz2.compress(attack))
    (folder / "packed.xz").write_bytes(lzma.compress(attack))
    (folder / "packed.lz4").write_bytes(b"\x04\x22\x4d\x18" + attack)
    np.save(folder / "objects.npy", np.array([Runs(os.system, command)], dtype=object), allow_pickle=True)
    np.save(folder / "numbers.npy", np.arange(3.0))
    write_zip(folder / "torch.pt", {"archive/data.pkl": attack, "archive/version": b"3"})
    write_zip(folder / "bomb.skops", {"schema.json": b"{}", "0.npy": bytes(80 << 20)})
    (folder / "deflated-bomb.bin").write_bytes(zlib.compress(bytes(80 << 20)))
    (folder / "flow.py").write_text("import os\n")
    (folder / "objects.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    (folder / "binary.json").write_bytes(b"{\x00\xff")
    (folder / "controls.md").write_text("\x1b[2J")
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "link.yaml").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.yaml")


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """A compressed archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def add_safe_files(folder: Path) -> None:
    """The smallest files of the other formats that only hold data."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (folder / "m.ubj").write_bytes(b"{L" + struct.pack(">q", 7) + b"learner{}}")
    (folder / "m.lgb").write_text("tree\nversion=v4\nnum_class=1\n")
    (folder / "m.onnx").write_bytes(b"\x08\x09\x12\x04test\x3a\x02\x12\x00\x42\x02\x10\x11")


def skops_with(model: Any) -> bytes:
    """A skops file."""
    buffer = io.BytesIO()
    skops.io.dump(model, buffer)
    return buffer.getvalue()
