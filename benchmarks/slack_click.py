"""From a press on Approve in Slack to the decision applied and the message updated, in a real Airflow.

    python -m benchmarks.slack_click

A local Slack signs the press and takes the update. The floor is the same answer given through Airflow's own
API, until it is in the audit log: what Slack and the courier cost is the rest. Applied means that the answer
is recorded, signed and anchored. Memory is the peak proportional set size of all processes Airlock started.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import yaml
from pydantic import SecretStr
from rich.console import Console
from tests.support.fake_slack import CHANNEL, SECRET, TEAM, TOKEN, FakeSlack, fake_slack, press, signed
from tests.support.ports import free_port

from airlock.adapters.airflow_api import AirflowClient
from airlock.adapters.settings import Settings
from airlock.adapters.supervisor import Supervisor, local_passwords
from airlock.cli.local import prepare
from airlock.core.audit import Kind
from airlock.core.release import State
from airlock.demo import models
from airlock.demo.story import Story
from airlock.services.deployment import Deployment, open_deployment
from airlock.services.releases import find_release
from airlock.services.watch import answer_release, start_release, wait_for
from benchmarks.green_release import Memory

ROOT = Path(__file__).parents[1]
SEATS, DIRECT, RELEASES = 24, 3, 1
"""Seats of a release, how many of them are answered without Slack, and releases. One seat stays open, so that
the champion stays and the next release is judged like the first."""


def configure(config: Path, slack: FakeSlack) -> None:
    """A red release asks many people, all of whom have an account in the local Slack."""
    approval = yaml.safe_load((config / "policies/1.0.0/approval.yaml").read_text())
    seat = {"role": "governance-analyst", "reason": "a benchmark"}
    approval["approval"]["seats"]["red"] = [seat] * SEATS
    (config / "policies/1.0.0/approval.yaml").write_text(yaml.safe_dump(approval))
    people = yaml.safe_load((config / "people.yaml").read_text())
    people["people"] += [
        {"user": f"analyst{n}", "name": f"Analyst {n}", "roles": [seat["role"]], "slack": f"U0ANALYST{n}"}
        for n in range(SEATS)
    ]
    (config / "people.yaml").write_text(yaml.safe_dump(people))
    channel = {"name": "governance", "type": "slack", "to": CHANNEL, "secret": "AIRLOCK_SLACK_TOKEN"}
    channels = {"channels": [{**channel, "options": {"base_url": slack.url}}]}
    (config / "notifications.yaml").write_text(yaml.safe_dump(channels))


def wait_until(probe: Any, seconds: float = 120) -> Any:
    """Call ``probe`` often until it returns something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := probe():
            return found
        time.sleep(0.01)
    raise TimeoutError


def click(url: str, slack: FakeSlack, ts: str, account: str) -> float:
    """Press Approve, and return the seconds until the message says who approved."""
    button = slack.buttons(ts)["airlock_approve"]
    body, headers = signed(press(button, account=account, ts=ts, nonce=f"{ts}{account}"))
    start = time.monotonic()
    reply = httpx.post(f"{url}/airlock/slack/actions", content=body, headers=headers, timeout=30)
    reply.raise_for_status()
    wait_until(lambda: not slack.buttons(ts) or slack.whispers)
    if slack.whispers:
        raise RuntimeError(slack.whispers[-1]["text"])
    return time.monotonic() - start


def one_release(
    deployment: Deployment, settings: Settings, url: str, slack: FakeSlack, version: str
) -> tuple[list[float], list[float], list[float]]:
    """Seconds of answers through Airflow's API, of clicks, and of those until the answer was applied."""
    passwords = local_passwords(settings).read()
    dana = AirflowClient(url, "dana", passwords["dana"])
    release_id, run_id = start_release(
        deployment, dana, models.APPROVAL, version=version, batch="clean", context="Benchmark."
    )
    dag_id = f"release__{models.APPROVAL}"
    state = wait_for(deployment, dana, dag_id, run_id, release_id, on_change=lambda _: None)
    assert state is State.WAITING, state
    mine = wait_until(lambda: _messages(slack, release_id))
    time.sleep(5)  # people read first
    direct = []
    for seat in range(DIRECT):
        user = f"analyst{seat}"
        client = AirflowClient(url, user, passwords[user])
        start = time.monotonic()
        answer_release(deployment, client, release_id, user=user, choice="Approve", comment="", seat=seat + 1)
        direct.append(time.monotonic() - start)
    clicks, applied = [], []
    for seat in range(DIRECT, SEATS - 1):
        start = time.time()
        clicks.append(click(url, slack, mine[seat], f"U0ANALYST{seat}"))
        recorded = find_release(deployment, release_id).all(Kind.APPROVAL_RECORDED)[-1]
        applied.append(recorded.occurred_us / 1e6 - start)
    return direct, clicks, applied


def _messages(slack: FakeSlack, release_id: str) -> dict[int, str]:
    """Time stamp of the message of each seat, once all are there."""
    found = {}
    for ts in list(slack.messages):
        for button in slack.buttons(ts).values():
            value = button["value"]
            if release_id in value:
                found[int(value.split('"seat": ')[1].rstrip("}"))] = ts
    return found if len(found) == SEATS else {}


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airlock-benchmark-") as name, fake_slack() as slack:
        folder = Path(name)
        for part in ("config", "dags", "plugins"):
            shutil.copytree(ROOT / part, folder / part)
        configure(folder / "config", slack)
        settings = Settings(
            home=folder / "home",
            config_dir=folder / "config",
            deployment="benchmark",
            slack_signing_secret=SecretStr(SECRET),
            slack_team=TEAM,
            slack_token=SecretStr(TOKEN),
            slack_api=slack.url,
        )
        deployment = open_deployment(settings)
        memory = Memory()
        memory.start()
        prepare(settings)
        supervisor = Supervisor(settings, deployment.config.people(), port=free_port())
        story = Story(settings, supervisor.url, Console(quiet=True))
        supervisor.start()
        try:
            supervisor.wait_healthy()
            story.set_up(ROOT / "data" / "loanapp.csv", lambda _: None)
            story.wait_for_dags()
            versions = [story.versions["b"]]
            versions += [story.register(models.APPROVAL_BOOSTED) for _ in range(RELEASES - 1)]
            runs = [one_release(deployment, settings, supervisor.url, slack, version) for version in versions]
        finally:
            supervisor.stop()
        peak = memory.stop()
    direct, clicks, applied = ([*chain(*column)] for column in zip(*runs, strict=True))
    p95 = quantiles(clicks, n=20)[-1]
    print(
        f"Slack click to applied and updated, {len(clicks)} clicks: median {median(clicks):.2f} s, "
        f"p95 {p95:.2f} s, slowest {max(clicks):.2f} s"
    )
    print(f"  of that until the answer was recorded:   median {median(applied):.2f} s")
    floor = median(direct)
    ratio = median(clicks) / floor
    print(f"  the same through Airflow's own API:      median {floor:.2f} s, ratio {ratio:.2f}")
    print(f"peak memory of all processes:              {peak / 1e9:.2f} GB proportional set size")


if __name__ == "__main__":
    main()
