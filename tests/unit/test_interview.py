"""The interview: metadata answers first, people answer the rest, and the manifest keeps it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airlock.airflow.dag_factory import release_dag
from airlock.cli import main
from airlock.core.audit import Kind
from airlock.core.errors import InvalidInputError
from airlock.core.interview import ANSWER_PREFIX, Question, check_answers, read_answer, required
from airlock.services.interview import answers_of, ask_rest, prepare
from airlock.services.releases import open_case
from tests.support.deployments import WORKLOAD, World, fast_folder, shipped_policy
from tests.support.rehearsals import make_stage, release

CUSTOMER = {"exposure": "customer"}


def question(kind: str = "text", **changes: Any) -> Question:
    choices = {"choices": ["few", "many"]} if kind == "choice" else {}
    return Question.model_validate(
        {"id": "q", "text": "What?", "why": "Because.", "type": kind, **choices, **changes}
    )


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as root:
        yield make_stage(root, risk=CUSTOMER)


# Answers


@pytest.mark.requirement("T-8")
@pytest.mark.parametrize(
    ("kind", "given", "read"),
    [("yes_no", "Yes", True), ("yes_no", " no ", False), ("yes_no", True, True), ("number", "3.5", 3.5),
     ("number", 3, 3.0), ("text", " words ", "words"), ("choice", "few", "few")],
)  # fmt: skip
def test_an_answer_is_read_in_the_type_of_its_question(kind: str, given: object, read: object) -> None:
    found = read_answer(question(kind), given)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("kind", "given"),
    [("yes_no", "maybe"), ("yes_no", 1), ("number", "many"), ("number", "nan"), ("number", 1e300),
     ("number", True), ("text", ""), ("text", 3), ("text", "x" * 2001), ("text", "\0"), ("choice", "some"),
     ("choice", ["few"]), ("number", None), ("number", 10**400), ("text", "\ud800")],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_refused_in_words(kind: str, given: object) -> None:
    with pytest.raises(InvalidInputError) as error:
        read_answer(question(kind), given)
    assert error.value.fix.startswith("answer")
    assert error.value.where == "answers.q"


@given(st.sampled_from(["yes_no", "number", "text", "choice"]), st.text() | st.floats() | st.booleans())
def test_an_answer_read_twice_is_the_same(kind: str, given: object) -> None:
    try:
        once = read_answer(question(kind), given)
    except InvalidInputError:
        return
    assert read_answer(question(kind), once) == once


def test_answers_to_no_question_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no question 'other'"):
        check_answers([question()], {"other": "x"})
    assert check_answers([question()], {"q": "x"}) == {"q": "x"}


@pytest.mark.parametrize(
    "changes",
    [{"choices": ["a", "b"]}, {"id": "With Space"}, {"from_metadata": ["secret:x"]}, {"text": ""},
     {"type": "choice", "choices": ["one"]}, {"type": "choice", "choices": ["a", "a"]}],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Question.model_validate({"id": "q", "text": "What?", "why": "x", "type": "text", **changes})


def test_a_question_whose_condition_breaks_is_asked() -> None:
    def broken(condition: str, facts: Any) -> bool:
        raise InvalidInputError(f"{condition} cannot be evaluated")

    assert required([question()], {}, broken) == ["q"]


# Metadata


@pytest.mark.requirement("T-8")
def test_metadata_is_filled_in_with_its_source_and_the_rest_is_asked(world: World) -> None:
    world.registry.models[WORKLOAD]["2"].tags.update({"downstream_told": "yes", "rollback_tested": "perhaps"})
    workload = world.deployment.config.workload(WORKLOAD)
    known = {entry.question.id: entry for entry in prepare(world.deployment, workload, version="2")}
    told = known["downstream_told"]
    assert (told.answer, told.source) == (True, "tag downstream_told of version 2")
    assert known["rollback_tested"].answer is None, "an answer that does not fit is none"
    asked: list[str] = []

    def ask(entry: Any) -> str | None:
        asked.append(entry.question.id)
        return "some customers" if entry.question.id == "people_affected" else None

    done = ask_rest(list(known.values()), ask)
    assert "downstream_told" not in asked
    assert answers_of(done)["people_affected"] == "some customers"
    order = [known[name].required for name in asked]
    assert order == sorted(order, reverse=True), "required questions come first"


@pytest.mark.requirement("T-8")
def test_what_a_release_must_answer_depends_on_the_workload(world: World) -> None:
    def must() -> list[str]:
        workload = world.deployment.config.workload(WORKLOAD)
        known = prepare(world.deployment, workload)
        return [entry.question.id for entry in known if entry.required]

    assert must() == ["purpose", "people_affected", "downstream_told", "rollback_tested"]
    data = yaml.safe_load(world.workload_file.read_text())
    data["risk"] |= {"exposure": "internal"}
    world.workload_file.write_text(yaml.safe_dump(data))
    assert must() == ["purpose", "downstream_told"]


@pytest.mark.requirement("T-8")
def test_the_last_release_answers_what_may_be_taken_over(world: World) -> None:
    release(world, answers={"people_affected": "many customers", "purpose": "Better offers."})
    workload = world.deployment.config.workload(WORKLOAD)
    known = {entry.question.id: entry for entry in prepare(world.deployment, workload)}
    assert known["people_affected"].answer == "many customers"
    assert known["people_affected"].source.startswith("answer of release loan-model-v2-")
    assert known["purpose"].source != known["people_affected"].source


# In a release


@pytest.mark.requirement("T-8", "A-7")
def test_answers_become_part_of_the_manifest_and_of_the_facts(world: World) -> None:
    silent = release(world, run="silent")
    reasons = {reason.rule: reason for reason in silent.reasons}
    assert reasons["interview-incomplete"].fired
    answers = {
        "purpose": "Fewer bad loans.",
        "people_affected": "some customers",
        "downstream_told": "yes",
        "rollback_tested": False,
    }
    told = release(world, run="told", answers=answers)
    assert not {reason.rule: reason for reason in told.reasons}["interview-incomplete"].fired
    manifest = open_case(world.deployment, told.release_id).manifest
    assert manifest.answers == {**answers, "downstream_told": True}
    assert manifest.unanswered == []
    assert told.risk is not None
    assert silent.risk is not None
    assert told.risk.components["business"] < silent.risk.components["business"]


def test_an_answer_that_does_not_fit_stops_the_submission(world: World) -> None:
    with pytest.raises(InvalidInputError, match="is no answer"):
        world.submit(answers={"downstream_told": "perhaps"})


@pytest.mark.requirement("T-6", "E-1")
def test_the_score_is_recorded_and_frozen_into_the_next_release(world: World) -> None:
    first = release(world, run="one")
    assert first.risk is not None
    (event,) = world.events(Kind.RELEASE_DECIDED, first.release_id)
    assert event.data["risk_score"] == first.risk.score
    second = release(world, run="two")
    assert open_case(world.deployment, second.release_id).manifest.risk_history == [first.risk.score]


@pytest.mark.requirement("T-8")
def test_the_trigger_form_asks_the_same_questions() -> None:
    with fast_folder() as root:
        workload = make_stage(root).deployment.config.workload(WORKLOAD)
    policy = shipped_policy()
    dag = release_dag(workload, policy)
    fields = {name: dag.params.get_param(name) for name in dag.params if name.startswith(ANSWER_PREFIX)}
    assert list(fields) == [f"{ANSWER_PREFIX}{entry.id}" for entry in policy.interview]
    for entry, field in zip(policy.interview, fields.values(), strict=True):
        assert field.schema["title"] == entry.text
        assert entry.why in str(field.description)
        assert field.resolve() is None
        right = {"yes_no": True, "number": 1.5, "text": "words", "choice": (entry.choices or [""])[0]}
        assert field.resolve(right[entry.type]) == right[entry.type]


# Command


def run_git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)  # noqa: S607  # as people do


def run(monkeypatch: pytest.MonkeyPatch, world: World, *words: str) -> int:
    monkeypatch.setattr("airlock.cli.interview.open_deployment", lambda: world.deployment)
    monkeypatch.setattr(sys, "argv", ["airlock", "interview", WORKLOAD, *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.mark.requirement("T-8")
def test_without_a_terminal_the_command_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    assert run(monkeypatch, world, "--format", "json") == 4
    questions = json.loads(capsys.readouterr().out)["questions"]
    assert [entry["id"] for entry in questions] == [entry.id for entry in shipped_policy().interview]
    assert all(entry["why"] for entry in questions)
    file = tmp_path / "answers.yaml"
    file.write_text(
        "purpose: Fewer bad loans.\npeople_affected: some customers\n"
        "downstream_told: true\nrollback_tested: false\n"
    )
    kept = tmp_path / "kept.yaml"
    assert run(monkeypatch, world, "--answers", str(file), "--write", str(kept)) == 0
    assert yaml.safe_load(kept.read_text()) == yaml.safe_load(file.read_text())
    file.write_text("downstream_told: perhaps\n")
    assert run(monkeypatch, world, "--answers", str(file)) == 1


@pytest.mark.requirement("T-8")
def test_on_a_terminal_each_question_is_asked_until_the_answer_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    replies = iter(["Fewer bad loans.", "everybody", "some customers", "yes", "no", "", "", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("airlock.cli.interview.typer.prompt", lambda *_, **__: next(replies))
    kept = tmp_path / "kept.yaml"
    assert run(monkeypatch, world, "--write", str(kept)) == 0
    shown = capsys.readouterr().err
    assert "Why it is asked" in shown
    assert "answer one of: nobody outside" in " ".join(shown.split())
    assert yaml.safe_load(kept.read_text())["people_affected"] == "some customers"


def test_git_answers_where_there_is_a_repository(world: World) -> None:
    workload = world.deployment.config.workload(WORKLOAD)

    def purpose() -> str:
        known = {entry.question.id: entry for entry in prepare(world.deployment, workload)}
        return known["purpose"].source

    assert purpose() == ""
    run_git(world.config, "init", "--quiet")
    identity = ("-c", "user.name=Dana", "-c", "user.email=dana@example.com")
    run_git(world.config, *identity, "commit", "--quiet", "--allow-empty", "-m", "Fewer bad loans")
    assert purpose() == "git, subject of HEAD"
