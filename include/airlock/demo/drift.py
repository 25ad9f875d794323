"""The demo's other story: weeks of production, from calm to drift to a new release, and a rollback.

A bank forecasts with a model that it trained on 100 applications, before it lent in Boston itself. Then
Boston arrives. Every week runs through Airflow as its schedule would have run it; the log is written by the
recorder, from real applications. At the end a server takes the wrong column of the new version's answers, and
somebody puts the version back that was rolled back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from airlock.core.audit import Event, Kind
from airlock.core.errors import UnavailableError
from airlock.core.monitoring import Action
from airlock.core.production import DAY_US, Window, moment
from airlock.core.release import State
from airlock.core.retraining import RetrainState
from airlock.core.task import GUARD_DAG
from airlock.demo import models, weeks
from airlock.demo.story import SUBMITTER, Chapter, Story, Told
from airlock.reporting.production import signal_table
from airlock.reporting.terminal import clean
from airlock.services.actions import answered, ended, proposal_of, sentence_of
from airlock.services.adopt import adopt
from airlock.services.follow import answer_request
from airlock.services.monitor import evaluated, read_window
from airlock.services.moves import moves_of
from airlock.services.production_history import history, page
from airlock.services.retrain import list_retrainings

WORKLOAD: Final = models.RATE_TYPE
MONITOR: Final = f"monitor__{WORKLOAD}"
ROWS: Final = 400
"""Applications in a week."""
STEP_SECONDS: Final = 300
"""The most that one DAG run may take."""
RISK_OFFICER: Final = "ravi"
PAGE: Final = "drift.html"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Week:
    """A week of the story: who applies, how they are answered, and what policy should make of it."""

    title: str
    moved: float
    column: int
    expected: Action


BEFORE: Final = (
    Week("A week like those before", 0.0, 1, Action.NONE),
    Week("Boston itself arrives: four applications of ten", 0.4, 1, Action.ALERT),
    Week("It lasts: more than half", 0.55, 1, Action.RETRAIN),
)
AFTER: Final = (
    Week("The new version, on the same people", 0.55, 1, Action.NONE),
    Week("A server takes the wrong column of its answers", 0.55, 0, Action.ROLLBACK),
)


class DriftStory(Story):
    """Replays weeks of production and shows what Airlock makes of them."""

    dags = (MONITOR, f"retrain__{WORKLOAD}", f"release__{WORKLOAD}", GUARD_DAG)

    def set_up(self, source: Path, say: Callable[[str], None]) -> None:
        """Split the data, train the champion on what there was, adopt it."""
        say("Splitting 1,989 real mortgage applications …")
        self._pools = weeks.pools(source, training=0.06, evaluation=0.24, known=60)
        weeks.write_training(self._pools, self._settings.data_root)
        say("Training the champion …")
        version = self.register(models.RATE_SMALL)
        reason = "in production before Airlock was introduced"
        adopt(self._deployment, WORKLOAD, version, actor="admin", reason=reason)
        self._today_us = self._deployment.clock.now_us() // DAY_US * DAY_US

    def tell(self, answer: str | None) -> bool:
        """Run every week, the retraining, its release and the rollback; whether all went as it should."""
        del answer  # nobody is there: its people answer by themselves
        rows = Table(title="How the weeks went", title_justify="left", title_style="bold", pad_edge=False)
        for column in ("week", "version", "signals", "action", "what came of it"):
            rows.add_column(column, overflow="fold")
        well = all(self._chapters(rows))  # what follows rests on what went before
        self._console.print(rows)
        path = self._settings.home / PAGE
        path.write_text(page(self._deployment, history(self._deployment, WORKLOAD)), encoding="utf-8")
        self._console.print(f"All of it as a page: [bold]{path}[/]", soft_wrap=True)
        return well

    def _chapters(self, rows: Table) -> Iterator[bool]:
        """Each part of the story, and whether it went as it should."""
        for number, week in enumerate(BEFORE):
            yield self._week(number, week, rows)
        yield self._retraining()
        for number, week in enumerate(AFTER, len(BEFORE)):
            yield self._week(number, week, rows)
        yield self._guard()

    def _window(self, number: int) -> Window:
        """The weeks follow each other up to today."""
        end_us = self._today_us - (len(BEFORE) + len(AFTER) - 1 - number) * 7 * DAY_US
        return Window(start_us=end_us - 7 * DAY_US, end_us=end_us)

    def _week(self, number: int, week: Week, rows: Table) -> bool:
        """Log a week, let its DAG judge it, and show what was seen and done."""
        self._console.rule(f"[bold]week {number + 1}[/]  {week.title}", align="left", style="dim")
        started, window = time.monotonic(), self._window(number)
        self._log_week(number, week, window)
        run = self._start(MONITOR, moment(window.end_us).isoformat())
        event, proposal = self._until(run, lambda: self._proposal(window))
        if loud := [name for name, found in event.data["readings"].items() if found not in ("calm", "off")]:
            self._console.print(signal_table(read_window(self._deployment, event), calm=False))
        else:
            self._console.print(clean(str(event.data["sentence"])))
        self._console.print(f"[bold]{escape(clean(sentence_of(proposal)))}[/]", soft_wrap=True)
        if proposal.data["restraint"] == "ask":
            self._answer_seat(proposal, run)
        state = self._until(run, lambda: self._state(run))
        done = ended(self._deployment, proposal)
        said = "" if done is None else clean(str(done.data["sentence"]))
        if said:
            self._console.print(f"[dim]{escape(said)}[/]", soft_wrap=True)
        self._console.print(f"[dim]{time.monotonic() - started:.0f} s[/]")
        action = str(proposal.data["action"])
        rows.add_row(window.text, event.version, Text(", ".join(loud) or "calm"), action, Text(said))
        return state == "success" and action == week.expected and (done is None or self._taken(done))

    @staticmethod
    def _taken(done: Event) -> bool:
        return done.kind is Kind.ACTION_TAKEN

    def _log_week(self, number: int, week: Week, window: Window) -> None:
        workload = self._deployment.config.workload(WORKLOAD)
        rows = weeks.week(self._pools, week.moved, number, ROWS)
        threshold = models.RATE_SMALL.threshold
        weeks.replay(self._settings, workload, rows, window, threshold=threshold, column=week.column)

    def _start(self, dag_id: str, logical_date: str = "") -> tuple[str, str]:
        started = self._client(SUBMITTER).trigger(dag_id, {}, logical_date=logical_date)
        return dag_id, str(started["dag_run_id"])

    def _state(self, run: tuple[str, str]) -> str | None:
        state = str(self._client(SUBMITTER).run(*run)["state"])
        return state if state in ("success", "failed") else None

    def _until(self, run: tuple[str, str], probe: Callable[[], _T | None]) -> _T:
        """Wait for something that a run brings about.

        Raises:
            UnavailableError: the run failed before, or the time is over.
        """
        until = time.monotonic() + STEP_SECONDS
        while time.monotonic() < until:
            # On a busy machine Airflow may take longer to answer than one request waits.
            with contextlib.suppress(UnavailableError):
                state = self._state(run)
                if (found := probe()) is not None:
                    return found
                if state is not None:
                    break
            time.sleep(0.5)
        raise UnavailableError(
            f"{run[0]} did not do what the story waits for",
            where=run[1],
            fix="look at the red task of this run in Airflow",
        )

    def _proposal(self, window: Window) -> tuple[Event, Event] | None:
        """How a window was judged, and what was proposed then; ``None`` before there is both."""
        found = evaluated(self._deployment, WORKLOAD)
        event = next((event for event in found if event.data["end_us"] == window.end_us), None)
        proposal = None if event is None else proposal_of(self._deployment, event)
        return None if event is None or proposal is None else (event, proposal)

    def _answer_seat(self, proposal: Event, run: tuple[str, str]) -> None:
        subject = str(proposal.data["subject"])
        answer_request(
            self._deployment,
            self._client(RISK_OFFICER),
            subject,
            0,
            run=run,
            choice="Approve",
            comment="The evidence of the window says so.",
            recorded=lambda: answered(self._deployment, subject) is not None,
        )
        self._console.print(f"  [dim]{RISK_OFFICER} answers over REST:[/] approve")

    def _retraining(self) -> bool:
        """Follow the retraining that was asked for, and its release with the people it asks."""
        self._console.rule("[bold]retraining[/]  On the week itself", align="left", style="dim")
        started = time.monotonic()
        asked = list_retrainings(self._deployment, WORKLOAD)[0].events[0]
        self._until((asked.data["dag_id"], asked.data["run_id"]), lambda: self._state_of(asked))
        found = list_retrainings(self._deployment, WORKLOAD)[0]
        compared = found.data(Kind.RETRAIN_COMPARED) or {}
        if compared:
            self._console.print(clean(str(compared["text"])), soft_wrap=True)
        self._console.print(
            f"[bold]{escape(clean(found.sentence))}[/] [dim]{time.monotonic() - started:.0f} s[/]"
        )
        if found.state is not RetrainState.SUBMITTED:
            return False
        said = found.data(Kind.RETRAIN_SUBMITTED) or {}
        chapter = Chapter("r", "The retrained version", WORKLOAD, "clean", "", State.PROMOTED)
        entry = Told(chapter, str(said["release"]), str(said["run_id"]))
        self._follow(entry, "approve")
        return entry.state is State.PROMOTED

    def _state_of(self, asked: Event) -> str | None:
        return self._state((str(asked.data["dag_id"]), str(asked.data["run_id"])))

    def _guard(self) -> bool:
        """Somebody moves the alias back behind Airlock's back, and the guard undoes it."""
        self._console.rule(
            "[bold]guard[/]  Somebody moves the alias in MLflow by hand", align="left", style="dim"
        )
        model = self._deployment.config.workload(WORKLOAD).model.registered_model
        moves = moves_of(self._deployment, WORKLOAD)
        ours = moves.champion
        if ours is None or not moves.left:
            self._console.print("[red]Nothing was rolled back, so there is nothing to move.[/]")
            return False
        (left,) = moves.left
        models.move_alias(self._settings, model, left)
        run = self._start(GUARD_DAG)
        self._until(run, lambda: self._state(run))
        found = self._deployment.registry.champion(model)
        back = found is not None and found.version == ours
        self._console.print(
            f"the alias went to version {left}; the guard looked, and it is at version "
            f"[bold]{'none' if found is None else found.version}[/]"
        )
        return back
