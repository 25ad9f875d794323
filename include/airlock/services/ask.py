"""Questions about a release: asked before answering, answered on record, shown where people decide."""

from __future__ import annotations

from dataclasses import dataclass

from airlock.core.audit import Event, Kind
from airlock.core.canonical import sha256_hex
from airlock.core.errors import InvalidInputError, NotFoundError, RefusedError
from airlock.core.release import Release
from airlock.services.deployment import Deployment
from airlock.services.releases import find_release, read_decision
from airlock.services.requests import words_problem


@dataclass(frozen=True)
class Question:
    """One question, and what was answered.

    Attributes:
        question_id: names it within its release.
        seat: number of the seat it was asked for, from 0.
        answers: who answered, what, and when (microseconds since 1970).
    """

    question_id: str
    seat: int
    user: str
    text: str
    asked_us: int
    answers: tuple[tuple[str, str, int], ...] = ()


def questions_of(release: Release) -> list[Question]:
    """What was asked about a release, in order."""
    answers = release.all(Kind.QUESTION_ANSWERED)
    return [
        Question(
            question_id=_id_of(event),
            seat=int(event.data["seat"]),
            user=event.actor,
            text=str(event.data["question"]),
            asked_us=event.occurred_us,
            answers=tuple(
                (said.actor, str(said.data["answer"]), said.occurred_us)
                for said in answers
                if said.data["question_id"] == _id_of(event)
            ),
        )
        for event in release.all(Kind.QUESTION_ASKED)
    ]


def _id_of(event: Event) -> str:
    return event.key.rsplit("/", 1)[-1]


def ask(deployment: Deployment, release_id: str, seat: int, *, user: str, text: str) -> str:
    """Record a question to the submitter, and return its id. The same words again change nothing.

    Raises:
        RefusedError: nobody active in ``people.yaml`` asks.
        InvalidInputError: the question is empty or too long.
        NotFoundError: unknown release, or it has no such seat.
    """
    release = find_release(deployment, release_id)
    text = _checked(deployment, user, text, "question")
    decision = read_decision(deployment, release)
    if decision is None or not 0 <= seat < len(decision.seats):
        raise NotFoundError(
            f"there is no seat {seat + 1}", where=release_id, fix="see `airlock release show`"
        )
    question_id = sha256_hex(f"{user}\x1f{text}".encode())[:16]
    deployment.record(
        Kind.QUESTION_ASKED,
        f"release/{release_id}/question/{question_id}",
        actor=user,
        release_id=release_id,
        workload=release.workload,
        version=release.version,
        data={"seat": seat, "question": text},
    )
    return question_id


def reply(deployment: Deployment, release_id: str, question_id: str, *, user: str, text: str) -> None:
    """Record the answer to a question. The same words again change nothing.

    Raises:
        RefusedError: nobody active in ``people.yaml`` answers.
        InvalidInputError: the answer is empty or too long.
        NotFoundError: there is no such question.
    """
    release = find_release(deployment, release_id)
    if all(question.question_id != question_id for question in questions_of(release)):
        raise NotFoundError(f"there is no question {question_id[:40]!r}", where=release_id)
    text = _checked(deployment, user, text, "answer")
    digest = sha256_hex(f"{user}\x1f{text}".encode())[:16]
    deployment.record(
        Kind.QUESTION_ANSWERED,
        f"release/{release_id}/question/{question_id}/answer/{digest}",
        actor=user,
        release_id=release_id,
        workload=release.workload,
        version=release.version,
        data={"question_id": question_id, "answer": text},
    )


def _checked(deployment: Deployment, user: str, text: str, what: str) -> str:
    if deployment.config.people().active(user) is None:
        raise RefusedError(f"people.yaml knows nobody active named {user}", fix="ask for an entry there")
    if problem := words_problem(text, minimum=1, what=what):
        raise InvalidInputError(problem, fix="write it shorter, in plain words")
    return text.strip()
