"""The demo's story: what is released, what should become of it, and how that is shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import local_passwords
from airlock.core.errors import AirlockError, NotFoundError, UnavailableError
from airlock.core.release import Release, State
from airlock.demo import models
from airlock.demo.data import prepare
from airlock.reporting.terminal import STATE_STYLES, clean, gate_table
from airlock.services.adopt import adopt
from airlock.services.announce import fixes, outcome_sentence
from airlock.services.deployment import open_deployment
from airlock.services.releases import (
    find_release,
    quorum_of,
    read_decision,
)
from airlock.services.watch import (
    answer_release,
    pending_gates,
    start_release,
    wait_for,
)

SUBMITTER: Final = "dana"
APPROVERS: Final = ("grace", "ravi")
DAG_SECONDS: Final = 300


@dataclass(frozen=True)
class Chapter:
    """One release of the story."""

    letter: str
    title: str
    workload: str
    batch: str
    context: str
    expected: State


CHAPTERS: Final = (
    Chapter(
        "a",
        "A small refit of the champion",
        models.RATE_TYPE,
        "clean",
        "Refit on a tenth more rows. Nothing else changed.",
        State.PROMOTED,
    ),
    Chapter(
        "b",
        "A new architecture for credit decisions",
        models.APPROVAL,
        "clean",
        "Boosting instead of logistic regression: better ranking at the same approval threshold.",
        State.PROMOTED,
    ),
    Chapter(
        "c",
        "A stricter cut that hits one group",
        models.APPROVAL,
        "clean",
        "Same model with a stricter threshold, to approve as many as the bank did.",
        State.DENIED,
    ),
    Chapter(
        "d",
        "An evaluation batch with codes among the measurements",
        models.APPROVAL,
        "raw",
        "Same candidate, judged on the file as it was delivered.",
        State.DENIED,
    ),
    Chapter(
        "e",
        "A model file that would run a command",
        models.APPROVAL,
        "clean",
        "A model from a contractor.",
        State.QUARANTINED,
    ),
)


@dataclass
class Told:
    """How one chapter went."""

    chapter: Chapter
    release_id: str
    run_id: str
    seconds: float = 0.0
    state: State = State.CHECKING


class Story:
    """Sets up the demo's world, tells the story, and says whether it ended as it should."""

    dags: tuple[str, ...] = (f"release__{models.RATE_TYPE}", f"release__{models.APPROVAL}")
    """What Airflow must have parsed before the story begins."""

    def __init__(self, settings: Settings, url: str, console: Console) -> None:
        self._settings = settings
        self._deployment = open_deployment(settings)
        self._url = url
        self._console = console
        self.marker = settings.home / "the-pickle-was-loaded"
        self.versions: dict[str, str] = {}
        self._clients: dict[str, AirflowClient] = {}

    def set_up(self, source: Path, say: Callable[[str], None]) -> None:
        """Split the data, train and register all models, adopt the champions."""
        say("Splitting 1,989 real mortgage applications …")
        prepare(source, self._settings.data_root)
        say("Training champions and candidates …")
        for champion in (models.RATE_CHAMPION, models.APPROVAL_CHAMPION):
            version = self.register(champion)
            reason = "in production before Airlock was introduced"
            adopt(self._deployment, champion.workload, version, actor="admin", reason=reason)
        boosted = self.register(models.APPROVAL_BOOSTED)
        self.versions = {
            "a": self.register(models.RATE_REFIT),
            "b": boosted,
            "c": self.register(models.APPROVAL_STRICT),
            "d": boosted,
            "e": models.register_malicious(self._settings, models.APPROVAL, self.marker),
        }

    def register(self, model: models.DemoModel) -> str:
        """Train one more version of a demo model and return its number."""
        features = self._deployment.config.workload(model.workload).model.features
        return models.register(self._settings, model, features)

    def wait_for_dags(self) -> None:
        """Wait until Airflow has parsed the DAGs of the story.

        Raises:
            UnavailableError: it has not in time.
        """
        client = self._client(SUBMITTER)
        until = time.monotonic() + DAG_SECONDS
        for dag_id in self.dags:
            while not _is_there(client, dag_id):
                if time.monotonic() > until:
                    raise UnavailableError(
                        f"Airflow does not show {dag_id}",
                        where=self._url,
                        fix="look at Import Errors in the Airflow UI",
                    )
                time.sleep(0.5)

    def tell(self, answer: str | None) -> bool:
        """Run every release; returns whether all ended as they should."""
        told = []
        for chapter in CHAPTERS:
            entry = self._begin(chapter)
            self._follow(entry, answer)
            told.append(entry)
        for entry in told:
            if entry.state is State.WAITING:
                self._wait_for_people(entry)
        self._console.print(self._summary(told))
        loaded = self.marker.exists()
        if loaded:
            self._console.print("[bold red]The malicious pickle was loaded.[/]")
        return not loaded and all(self._as_expected(entry, answer) for entry in told)

    @staticmethod
    def _as_expected(entry: Told, answer: str | None) -> bool:
        rejected = entry.chapter.letter == "b" and answer == "reject"
        return entry.state is (State.REJECTED if rejected else entry.chapter.expected)

    def _client(self, user: str) -> AirflowClient:
        if user not in self._clients:
            password = local_passwords(self._settings).read()[user]
            self._clients[user] = AirflowClient(self._url, user, password)
        return self._clients[user]

    def _begin(self, chapter: Chapter) -> Told:
        version = self.versions[chapter.letter]
        self._console.rule(f"[bold]{chapter.letter}[/]  {chapter.title}", align="left", style="dim")
        self._console.print(f"[dim]{chapter.workload} version {version}: {chapter.context}[/]")
        release_id, run_id = start_release(
            self._deployment,
            self._client(SUBMITTER),
            chapter.workload,
            version=version,
            batch=chapter.batch,
            context=chapter.context,
        )
        return Told(chapter, release_id, run_id)

    def _follow(self, entry: Told, answer: str | None) -> None:
        """Show the gates as they answer, then how it ended or who is asked."""
        started = time.monotonic()
        with Live(console=self._console, transient=True, refresh_per_second=4) as live:
            entry.state = self._wait(entry, lambda release: live.update(self._progress(release)))
        self._console.print(self._gates(entry))
        if entry.state is State.WAITING:
            self._show_seats(entry)
            if answer:
                self._answer(entry, answer)
                entry.state = self._wait(entry, lambda _: None, through_waiting=True)
        entry.seconds = time.monotonic() - started
        if entry.state is not State.WAITING:
            self._console.print(self._ending(entry))

    def _wait(
        self, entry: Told, on_change: Callable[[Release], None], *, through_waiting: bool = False
    ) -> State:
        return wait_for(
            self._deployment,
            self._client(SUBMITTER),
            f"release__{entry.chapter.workload}",
            entry.run_id,
            entry.release_id,
            on_change=on_change,
            through_waiting=through_waiting,
        )

    def _progress(self, release: Release) -> Table:
        return gate_table(release, pending_gates(self._deployment, release))

    def _gates(self, entry: Told) -> Table:
        return gate_table(find_release(self._deployment, entry.release_id), [])

    def _show_seats(self, entry: Told) -> None:
        """Say where and as whom to answer."""
        release = find_release(self._deployment, entry.release_id)
        decision = read_decision(self._deployment, release)
        if decision is None:
            raise NotFoundError(f"release {entry.release_id} waits without a decision")
        self._console.print(
            f"[bold yellow]waiting for {len(decision.seats)} people[/], track [bold]{decision.track}[/]: "
            f"{escape(clean(decision.sentence))}"
        )
        for index, seat in enumerate(decision.seats):
            user = APPROVERS[index % len(APPROVERS)]
            self._console.print(f"  seat {index + 1}, {seat.role}: log in as [bold]{user}[/] and answer at")
            self._console.print(
                f"    {self._url}/dags/{release.dag_id}/runs/{release.run_id}/required_actions",
                soft_wrap=True,
            )
            self._console.print(
                f"    or run: AIRLOCK_HOME={self._settings.home} AIRLOCK_DEPLOYMENT=demo "
                f".venv/bin/airlock approve {entry.release_id} --user {user}",
                soft_wrap=True,
            )

    def _answer(self, entry: Told, answer: str) -> None:
        """Answer over REST: two people, two roles; a rejection ends it with the first."""
        comment = (
            "Reviewed the gates, the groups and the explanation."
            if answer == "approve"
            else ("The new architecture needs a month of shadow traffic first.")
        )
        for user in APPROVERS if answer == "approve" else APPROVERS[:1]:
            answer_release(
                self._deployment,
                self._client(user),
                entry.release_id,
                user=user,
                choice=answer.capitalize(),
                comment=comment,
            )
            self._console.print(f"  [dim]{user} answers over REST:[/] {answer}")

    def _wait_for_people(self, entry: Told) -> None:
        self._console.print(
            f"[yellow]Release {entry.chapter.letter} waits for its people (Ctrl-C to stop).[/]"
        )
        entry.state = self._wait(entry, lambda _: None, through_waiting=True)
        self._console.print(self._ending(entry))

    def _ending(self, entry: Told) -> Panel:
        release = find_release(self._deployment, entry.release_id)
        decision = read_decision(self._deployment, release)
        _, sentence = outcome_sentence(self._deployment, release)
        style = STATE_STYLES[entry.state]
        lines = [Text(clean(sentence))]
        if entry.state is not State.PROMOTED:
            lines += [Text(f"→ {clean(fix)}", style="cyan") for fix in fixes(decision)]
        if decision is not None and release.answers:
            quorum = quorum_of(self._deployment, release, decision)
            seats = [f"{decision.seats[index].role}: {user}" for index, user in sorted(quorum.filled.items())]
            lines.append(Text("; ".join(seats), style="dim"))
        return Panel(Group(*lines), title=str(entry.state), title_align="left", border_style=style)

    def _summary(self, told: list[Told]) -> Table:
        table = Table(
            title="How the five releases ended", title_justify="left", title_style="bold", pad_edge=False
        )
        for column in ("", "release", "track", "verdict", "why"):
            table.add_column(column, overflow="fold", no_wrap=column in ("release", "track"))
        table.add_column("s", justify="right")
        for entry in told:
            release = find_release(self._deployment, entry.release_id)
            decision = read_decision(self._deployment, release)
            _, sentence = outcome_sentence(self._deployment, release)
            track = str(decision.track or "-") if decision else "-"
            table.add_row(
                entry.chapter.letter,
                entry.release_id,
                Text(track, style=track if track in ("green", "yellow", "red") else "dim"),
                Text(str(entry.state), style=STATE_STYLES[entry.state]),
                Text(clean(sentence)),
                f"{entry.seconds:.0f}",
            )
        return table


def _is_there(client: AirflowClient, dag_id: str) -> bool:
    try:
        client.dag(dag_id)
    except AirlockError:
        return False
    return True
