"""The interview of a release: fill in what metadata answers, say from where, and name the rest."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from airlock.adapters.yaml_files import load_yaml
from airlock.core.audit import Kind
from airlock.core.canonical import parse_json
from airlock.core.decision import tier_of
from airlock.core.errors import AirlockError, InvalidInputError
from airlock.core.facts import workload_facts
from airlock.core.interview import Question, check_answers, read_answer, required
from airlock.core.manifest import AnswerValue
from airlock.core.policy import Policy
from airlock.core.rules import FactSet
from airlock.core.workload import Workload
from airlock.ports import PolicyEngine
from airlock.services.deployment import Deployment
from airlock.services.model_files import declared

GIT_SECONDS = 5
"""A repository that answers slower is not asked any further."""


@dataclass(frozen=True)
class Known:
    """A question, whether this release has to answer it, and the answer if there is one.

    Attributes:
        source: where the answer stands, in words; empty while there is none.
    """

    question: Question
    required: bool
    answer: AnswerValue | None = None
    source: str = ""


def prepare(
    deployment: Deployment,
    workload: Workload,
    *,
    version: str = "",
    given: Mapping[str, object] | None = None,
) -> list[Known]:
    """Every question of the workload's policy; what was given stands before what metadata says.

    Raises:
        InvalidInputError: a given answer does not fit its question.
        NotFoundError: the version does not exist.
    """
    policy = deployment.config.policy(workload.policy)
    answers = check_answers(policy.interview, given or {})
    today = datetime.fromtimestamp(deployment.clock.now_us() / 1e6, UTC).date()
    asked = set(required_questions(deployment.engine, workload, policy, as_of=today))
    sources = _Sources(deployment, workload, version)
    known = []
    for question in policy.interview:
        entry = Known(question, question.id in asked)
        if question.id in answers:
            entry = Known(question, entry.required, answers[question.id], "your answers")
        elif found := sources.answer(question):
            entry = Known(question, entry.required, *found)
        known.append(entry)
    return known


def required_questions(engine: PolicyEngine, workload: Workload, policy: Policy, *, as_of: date) -> list[str]:
    """What a release of the workload must answer, as far as that is known before anything is measured."""
    facts = FactSet(workload_facts(workload, policy))
    tier = tier_of(policy, facts, engine.begin(policy, facts), as_of)
    facts.learn("risk", {"tier": str(tier)})
    return required(policy.interview, facts.nested, engine.evaluate)


def given_answers(deployment: Deployment, workload: Workload, path: Path) -> dict[str, AnswerValue]:
    """Answers from a YAML file, checked against the questions of the workload's policy.

    Raises:
        NotFoundError: there is no such file.
        ConfigurationError: it is no YAML.
        InvalidInputError: it answers no question, or not as it was asked.
    """
    return check_answers(deployment.config.policy(workload.policy).interview, read_file(path))


def read_file(path: Path) -> dict[str, object]:
    """A file of answers: question → answer."""
    data = load_yaml(path)
    if not isinstance(data, dict):
        raise InvalidInputError(
            "a file of answers is a mapping",
            where=str(path),
            fix="write one line for each question: id: answer",
        )
    return {str(name): value for name, value in data.items()}


class _Sources:
    """Where answers may stand already. What does not answer is passed over: a person is asked instead."""

    def __init__(self, deployment: Deployment, workload: Workload, version: str) -> None:
        self._deployment = deployment
        self._workload = workload
        self._version = version
        self._tags = cache(self._read_tags)
        self._model = cache(self._read_model)
        self._previous = cache(self._read_previous)

    def answer(self, question: Question) -> tuple[AnswerValue, str] | None:
        """The first answer that fits, and where it stands."""
        for place in question.from_metadata:
            value, words = self._look(place, question.id)
            if value is None or value == "":
                continue
            try:
                return read_answer(question, value), words
            except InvalidInputError:
                continue
        return None

    def _look(self, place: str, question: str) -> tuple[object, str]:
        kind, _, name = place.partition(":")
        if kind == "tag":
            return self._tags().get(name), f"tag {name} of version {self._version}"
        if kind == "model":
            return self._model().get(name), f"metadata {name} in the MLmodel file of version {self._version}"
        if kind == "git":
            return _git(self._deployment.settings.config_dir, name), f"git, {name} of HEAD"
        if kind == "workload":
            return _field(self._workload.to_data(), name), f"workload file, {name}"
        answers, release = self._previous()
        return answers.get(question), f"answer of release {release}"

    def _read_tags(self) -> Mapping[str, str]:
        if not self._version:
            return {}
        registry, model = self._deployment.registry, self._workload.model.registered_model
        return registry.version(model, self._version).tags

    def _read_model(self) -> Mapping[str, Any]:
        if not self._version:
            return {}
        with tempfile.TemporaryDirectory(prefix="airlock-interview-") as folder:
            target = Path(folder) / "artifact"
            model = self._workload.model.registered_model
            self._deployment.registry.download(model, self._version, target)
            return declared(target)

    def _read_previous(self) -> tuple[Mapping[str, Any], str]:
        name = self._deployment.settings.deployment
        try:
            events = self._deployment.audit.events(
                workload=self._workload.name, kinds=[Kind.RELEASE_SUBMITTED], newest_first=True
            )
            for entry in events:
                event = entry.event
                if event.deployment == name and "answers" in event.data:
                    answers = parse_json(self._deployment.evidence.get(event.data["answers"]))
                    return answers, event.release_id
        except AirlockError:
            # Without the audit store, on a laptop, nobody knows what was answered before.
            return {}, ""
        return {}, ""


def _field(data: object, path: str) -> object:
    for part in path.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None
    return data


_GIT: dict[str, str] = {"commit": "%H", "subject": "%s"}


def _git(folder: Path, name: str) -> str:
    if name not in _GIT:
        return ""
    command = ["git", "-C", str(folder), "log", "-1", f"--format={_GIT[name]}"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return ran.stdout.strip()


Ask = Callable[[Known], AnswerValue | None]
"""Asks a person one question; ``None`` leaves it open."""


def ask_rest(known: list[Known], ask: Ask) -> list[Known]:
    """Ask what nothing answers, one question at a time, required ones first."""
    order = sorted(range(len(known)), key=lambda index: not known[index].required)
    done = list(known)
    for index in order:
        entry = done[index]
        if entry.answer is None and (answer := ask(entry)) is not None:
            done[index] = Known(entry.question, entry.required, answer, "you, now")
    return done


def answers_of(known: list[Known]) -> dict[str, AnswerValue]:
    """The answers alone, as they go into a manifest."""
    return {entry.question.id: entry.answer for entry in known if entry.answer is not None}
