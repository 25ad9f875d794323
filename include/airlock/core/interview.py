"""The interview: what only the submitter can answer, as questions of the policy (requirement T-8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from airlock.core.base import Value
from airlock.core.canonical import canonical_json
from airlock.core.errors import AirlockError, InvalidInputError
from airlock.core.manifest import AnswerValue

ANSWER_PREFIX = "answer_"
"""Begins the name of a question's field in the trigger form and in the run's configuration."""

MAX_TEXT = 2000
"""Characters of one answer; more belongs into the model card."""

MAX_NUMBER = 1e15
"""Numbers up to here have an exact JSON form."""

_YES_NO: dict[str, bool] = {"yes": True, "true": True, "no": False, "false": False}


class Question(Value):
    """One question, with why it is asked.

    Attributes:
        type: ``yes_no``, ``number``, ``text`` or ``choice`` (one of ``choices``).
        required_when: CEL expression over the facts of the workload and the release; a release without the
            answer is then incomplete. What cannot be evaluated counts as required.
        from_metadata: where the answer may stand already, first come first served: ``tag:NAME`` is a tag of
            the version in the registry, ``model:NAME`` an entry of ``metadata.airlock`` in the MLmodel file,
            ``git:commit`` and ``git:subject`` the repository, ``workload:FIELD`` the workload file, and
            ``previous`` what the last release of the workload answered.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    text: Annotated[str, Field(min_length=1, max_length=300)]
    why: Annotated[str, Field(min_length=1)]
    type: Literal["yes_no", "number", "text", "choice"]
    choices: list[Annotated[str, Field(min_length=1, max_length=100)]] = []
    required_when: Annotated[str, Field(min_length=1)] = "true"
    from_metadata: list[
        Annotated[str, Field(pattern=r"^((tag|model|git|workload):[A-Za-z0-9_.-]{1,100}|previous)$")]
    ] = []

    @model_validator(mode="after")
    def _choices_belong_to_choice(self) -> Self:
        if (self.type == "choice") is not (len(self.choices) > 1):
            raise ValueError("choices: a choice has at least two, every other type has none")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("choices: one stands twice")
        return self


def read_answer(question: Question, value: object) -> AnswerValue:
    """An answer in the type of its question; text such as ``yes`` and ``3.5`` is understood.

    Raises:
        InvalidInputError: the answer does not fit the question.
    """
    text = value.strip() if isinstance(value, str) else value
    if question.type == "yes_no":
        if isinstance(text, bool):
            return text
        if isinstance(text, str) and text.lower() in _YES_NO:
            return _YES_NO[text.lower()]
        raise _misfit(question, value, "answer yes or no")
    if question.type == "number":
        return _number(question, text)
    if not isinstance(text, str) or not text:
        raise _misfit(question, value, "answer in words")
    if question.type == "choice" and text not in question.choices:
        raise _misfit(question, value, f"answer one of: {', '.join(question.choices)}")
    if len(text) > MAX_TEXT:
        raise _misfit(question, text[:40], f"answer in at most {MAX_TEXT} characters")
    try:
        canonical_json(text)
    except AirlockError as error:
        raise _misfit(question, "…", "answer in plain text") from error
    return text


def _number(question: Question, value: object) -> float:
    try:
        number = (
            float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        )
    except (ValueError, OverflowError):
        number = None
    if number is None or not -MAX_NUMBER <= number <= MAX_NUMBER:  # NaN is in no range
        raise _misfit(question, value, "answer a number")
    return number


def _misfit(question: Question, value: object, fix: str) -> InvalidInputError:
    return InvalidInputError(
        f"{str(value)[:60]!r} is no answer to: {question.text}", where=f"answers.{question.id}", fix=fix
    )


def check_answers(questions: Sequence[Question], answers: Mapping[str, object]) -> dict[str, AnswerValue]:
    """Answers as they go into a manifest: known questions only, each in its type, in the policy's order.

    Raises:
        InvalidInputError: an answer to no question, or one that does not fit.
    """
    known = {question.id: question for question in questions}
    if unknown := sorted(set(map(str, answers)) - set(known)):
        raise InvalidInputError(
            f"the policy asks no question {unknown[0]!r}",
            where="answers",
            fix=f"its questions are: {', '.join(known) or 'none'}",
        )
    return {name: read_answer(question, answers[name]) for name, question in known.items() if name in answers}


def required(
    questions: Sequence[Question],
    facts: Mapping[str, Any],
    evaluate: Callable[[str, Mapping[str, Any]], bool],
) -> list[str]:
    """Ids of the questions this release must answer. What cannot be evaluated is required."""

    def is_required(question: Question) -> bool:
        try:
            return evaluate(question.required_when, facts)
        except Exception:  # noqa: BLE001  # whatever the reason: asking once too often does no harm
            return True

    return [question.id for question in questions if is_required(question)]
