"""Training commands in the real sandbox: honest ones, broken ones, hostile ones."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.sandbox import ProcessSandbox
from airlock.core.declarations import TrainingSpec
from airlock.core.errors import InvalidInputError, SandboxError
from airlock.core.policy import SandboxRules
from airlock.demo.data import prepare
from airlock.services.model_files import declared, packages
from airlock.services.scoring import Scored, reviewed_types, run_model
from airlock.services.training import Trained, Training, code_files, train, training_parameters

pytestmark = [pytest.mark.requirement("G-11"), pytest.mark.slow]

ROOT = Path(__file__).parents[2]
RULES = SandboxRules(
    seconds=60,
    memory_mb=2048,
    output_mb=16,
    require_network_isolation=False,
    shap_rows=10,
    background_rows=10,
)
PREAMBLE = """
import json, os, sys
from pathlib import Path
data, model, parameters, metrics = map(Path, sys.argv[1:5])
def save(**files):
    model.mkdir(exist_ok=True)
    for name, text in {"MLmodel": "{}", **files}.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(text)
"""
WORDS = ["{data}", "{model}", "{parameters}", "{metrics}", "{seed}"]


class Bench:
    """Runs a training script of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, 0
        self.data = folder / "data.parquet"
        pd.DataFrame({"a": [1.0, 2.0, 3.0], "y": [0, 1, 1]}).to_parquet(self.data)

    def __call__(
        self, body: str, *, rules: SandboxRules = RULES, script: str = "train.py", **spec: Any
    ) -> Trained:
        self.runs += 1
        target = self.folder / f"run-{self.runs}"
        code = target / "code"
        (code / script).parent.mkdir(parents=True)
        (code / script).write_text(PREAMBLE + textwrap.dedent(body))
        (code / "helper.py").write_text("ANSWER = 42\n")
        values = {"command": ["python", script, *WORDS], **spec}
        told = {"seed": 5, "features": ["a"], "target": "y", "parameters": {"depth": "2"}}
        training = Training(TrainingSpec(**values), code, self.data, told)
        return train(ProcessSandbox(hidden=[self.folder / "secrets"]), training, rules, target)

    def fails(self, body: str, **changes: Any) -> SandboxError:
        with pytest.raises(SandboxError) as caught:
            self(body, **changes)
        return caught.value


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_command_gets_data_parameters_and_seed_and_gives_files_and_metrics(bench: Bench) -> None:
    trained = bench(
        """
        import pandas as pd
        from helper import ANSWER
        told = json.loads(parameters.read_text())
        assert data.suffix == ".parquet", data
        rows = len(pd.read_parquet(data))
        save(weights=f"{rows} {ANSWER} {told['parameters']['depth']} {sys.argv[5]} {sys.argv[0]}")
        save(**{"deep/er/notes.txt": "kept in its place"})
        metrics.write_text(json.dumps({"rows": rows}))
        print("done")
        """
    )
    weights = (trained.folder / "weights").read_text().split()
    assert weights[:4] == ["3", "42", "2", "5"]
    assert weights[4].endswith("train.py")
    assert (trained.folder / "deep/er/notes.txt").read_text() == "kept in its place"
    assert trained.metrics == {"rows": 3.0}
    assert trained.ran.attempts == []
    assert trained.ran.stdout == "done\n"


def test_a_module_runs_as_well_as_a_script(bench: Bench) -> None:
    trained = bench(
        "save(weights=__name__)",
        script="training/fit.py",
        command=["python", "-m", "training.fit", *WORDS],
    )
    assert (trained.folder / "weights").read_text() == "__main__"


def test_what_the_code_does_not_seed_is_seeded(bench: Bench) -> None:
    body = "import random, numpy; save(weights=f'{random.random()} {numpy.random.rand()}')"
    texts = {(bench(body).folder / "weights").read_text() for _ in range(2)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("print('epoch 1'); raise ValueError('no such column: income')", "no such column: income"),
        ("print('epoch 1'); sys.exit('the data is too small')", "ended with the data is too small"),
        ("print('epoch 1'); sys.exit(3)", "ended with 3"),
        ("print('epoch 1')", "wrote no folder"),
        ("print('epoch 1'); model.mkdir()", "wrote no model"),
        ("print('epoch 1'); model.mkdir(); (model / 'w').write_text('x')", "no MLmodel file"),
        ("print('epoch 1'); save(); (model / 'link').symlink_to('/etc/passwd')", "link or special file"),
        ("print('epoch 1'); save(); metrics.write_text('NaN and more')", "no JSON"),
        ("print('epoch 1'); save(); metrics.write_text('{\"auc\": NaN}')", "no finite number"),
        ("print('epoch 1'); save(); metrics.write_text('[1]')", "no object of numbers"),
        ("print('epoch 1'); save(); metrics.write_text('{\"auc\": true}')", "no finite number"),
    ],
)
def test_a_command_that_fails_says_why_with_its_last_lines(bench: Bench, body: str, words: str) -> None:
    error = bench.fails(body)
    assert words in error.what
    assert error.fix
    if "raise" in body or "sys.exit" in body:
        assert "epoch 1" in error.fix


def test_an_exception_is_told_with_its_place(bench: Bench) -> None:
    error = bench.fails("def fit():\n    raise ValueError('no rows')\nfit()")
    assert error.what == "the training command failed: ValueError: no rows"
    assert "in fit" in error.fix


@pytest.mark.parametrize(
    ("body", "changes", "words"),
    [
        ("while True: pass", {"seconds": 2}, "longer than 2 s"),
        ("x = bytearray(3 << 30)", {"memory_mb": 700}, "more than 700 MB"),
        ("save(weights='x' * (40 << 20))", {}, "16 MB"),
    ],
)
def test_limits_of_the_workload_and_of_the_policy_hold(
    bench: Bench, body: str, changes: dict[str, Any], words: str
) -> None:
    assert words in bench.fails(body, **changes).what


def test_the_workload_cannot_give_itself_more_than_the_policy(bench: Bench) -> None:
    rules = RULES.model_copy(update={"training_seconds": 2.0})
    assert "longer than 2 s" in bench.fails("while True: pass", rules=rules, seconds=500).what


@pytest.mark.requirement("G-8")
def test_training_code_is_kept_in_and_what_it_tried_is_told(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds no environment, no secrets, no network and cannot start a program."""
    secret = tmp_path / "secrets" / "token"
    secret.parent.mkdir()
    secret.write_text("hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    trained = bench(
        f"""
        import socket, subprocess
        loot = {{"environment": "hunter2" in json.dumps(dict(os.environ))}}
        def attempt(name, action):
            try:
                loot[name] = str(action())
            except BaseException as error:
                loot[name] = "refused"
        attempt("file", lambda: Path({str(secret)!r}).read_text())
        attempt("network", lambda: socket.create_connection(("127.0.0.1", 5432), 1))
        attempt("program", lambda: subprocess.run(["id"], check=True))
        attempt("input", lambda: (Path.cwd() / "helper.py").write_text("x"))
        save(weights=json.dumps(loot))
        """
    )
    loot = (trained.folder / "weights").read_text()
    assert "hunter2" not in loot
    assert '"environment": false' in loot
    if any(claim.startswith("no network") for claim in trained.ran.isolation):
        assert '"network": "refused"' in loot
    if any(claim.startswith("no new processes") for claim in trained.ran.isolation):
        assert '"program": "refused"' in loot
    assert any("connect" in attempt or "network" in attempt for attempt in trained.ran.attempts)


def test_code_is_taken_without_what_tools_leave_in_it(tmp_path: Path) -> None:
    for name in ("train.py", "pkg/mod.py", "pkg/__pycache__/mod.pyc", ".git/config", ".venv/x", "old.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in code_files(tmp_path)] == [
        "pkg/mod.py",
        "train.py",
    ]


@pytest.mark.parametrize("kind", ["empty", "link", "pipe"])
def test_code_that_cannot_be_pinned_is_refused(tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "train.py").symlink_to("/etc/passwd")
    if kind == "pipe":
        os.mkfifo(tmp_path / "train.py")
    with pytest.raises(InvalidInputError):
        code_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("mortgage-approval", {"model": "boosted"}),
        ("rate-type-forecast", {"model": "logistic", "share": "0.9"}),
    ],
)
def test_the_shipped_command_gives_the_same_model_each_time(
    tmp_path: Path, name: str, logged: dict[str, str]
) -> None:
    prepare(ROOT / "data/loanapp.csv", tmp_path)
    config = ConfigFolder(ROOT / "config")
    workload, policy = config.workload(name), config.policy("1.0.0")
    metadata = {"decision_threshold": 0.4, "seed": 0}
    told = training_parameters(workload.training, workload.model, metadata=metadata, logged=logged)
    data, rows = tmp_path / "loanapp/training.parquet", tmp_path / "loanapp/batches/clean.parquet"
    frames = []
    for number in range(2):
        training = Training(workload.training, ROOT / "config/workloads/loanapp", data, told)
        trained = train(ProcessSandbox(), training, policy.sandbox, tmp_path / f"train-{number}")
        assert trained.ran.attempts == []
        assert declared(trained.folder) == {"decision_threshold": 0.4, "seed": 0}
        assert set(packages(trained.folder)) == {"scikit-learn", "skops"}
        assert trained.metrics["training_accuracy"] > 0.6
        wanted = Scored(trained.folder, workload.model, rows, data, reviewed_types(policy))
        frames.append(run_model(ProcessSandbox(), wanted, policy.sandbox, tmp_path / f"score-{number}"))
    assert frames[0].equals(frames[1])
    assert np.isfinite(frames[0]["candidate_score"]).all()
    assert frames[0]["candidate_score"].nunique() > 100
