"""The training command in a workload file: what can run, what cannot, and why."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from airlock.core.declarations import TrainingSpec
from airlock.core.workload import ModelSpec
from airlock.services.training import DEFAULT_SEED, training_parameters

GOOD = ["python", "train.py", "--data", "{data}", "--out={model}"]


@pytest.mark.requirement("G-11")
@pytest.mark.parametrize(
    "command",
    [
        [],
        GOOD,
        ["python3", "-m", "training.fit", "{data}", "{model}", "{seed}", "{parameters}", "{metrics}"],
        ["python", "deep/er/train.py", "{data}:{model}"],
    ],
)
def test_a_python_command_that_says_where_data_and_model_go_is_taken(command: list[str]) -> None:
    assert TrainingSpec(command=command).command == command


@pytest.mark.requirement("G-11", "G-8")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["bash", "train.sh", "{data}", "{model}"], "begins with python"),
        (["python"], "begins with python"),
        (["python", "-m"], "begins with python"),
        (["python", "-c", "{data}{model}"], "inside the code folder"),
        (["python", "/etc/train.py", "{data}", "{model}"], "inside the code folder"),
        (["python", "../train.py", "{data}", "{model}"], "inside the code folder"),
        (["python", "~/train.py", "{data}", "{model}"], "inside the code folder"),
        (["python", "train.py", "{data}"], "where {model} goes"),
        (["python", "train.py", "{model}"], "where {data} goes"),
        (["python", "train.py", "{data}", "{model}", "{password}"], "nothing is filled in for {password}"),
        (["python", "train.py", "{data}", "{model}", "{}"], "nothing is filled in for {}"),
    ],
)
def test_a_command_that_cannot_run_is_refused_in_words(command: list[str], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainingSpec(command=command)
    assert words in str(caught.value)


@pytest.mark.parametrize("changes", [{"seconds": 0}, {"memory_mb": 0}, {"tolerance": -1}, {"seed": -1}])
def test_limits_are_limits(changes: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrainingSpec.model_validate({"command": GOOD, **changes})


MODEL = ModelSpec(registered_model="m", target="y", features=["a", "b"], positive="yes")


@pytest.mark.requirement("G-11")
@pytest.mark.parametrize(
    ("declared", "named", "seed"),
    [
        (7, 3, 7),
        (None, 3, 3),
        (None, None, DEFAULT_SEED),
        (True, 3, 3),
        ("7", 3, 3),
        (-1, None, DEFAULT_SEED),
    ],
)
def test_the_seed_is_that_of_the_version_else_of_the_workload(
    declared: object, named: int | None, seed: int
) -> None:
    metadata = {} if declared is None else {"seed": declared}
    told = training_parameters(TrainingSpec(seed=named), MODEL, metadata=metadata, logged={"C": "0.1"})
    assert told["seed"] == seed
    assert told["parameters"] == {"C": "0.1"}
    assert (told["features"], told["target"], told["positive"]) == (["a", "b"], "y", "yes")
    assert told["threshold"] == 0.5


def test_the_threshold_is_that_of_the_version() -> None:
    told = training_parameters(TrainingSpec(), MODEL, metadata={"decision_threshold": 0.4}, logged={})
    assert told["threshold"] == 0.4
