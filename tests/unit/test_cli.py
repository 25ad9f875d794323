"""The command line: exit codes, JSON for programs, words for people, and nothing that acts on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from airlock import __version__
from airlock.cli import app
from airlock.cli.output import EXIT_CODES
from airlock.core.audit import Kind
from airlock.core.evidence import Verdict
from airlock.core.release import State
from airlock.reporting.terminal import clean
from airlock.services.announce import seal
from airlock.services.ask import ask, reply
from airlock.services.delegations import give
from airlock.services.promote import promote
from tests.support.commands import Cli
from tests.support.deployments import (
    WORKLOAD,
    World,
    edit,
    fast_folder,
    make_world,
    workload_data,
    write_yaml,
)
from tests.support.ports import free_port

HOSTILE = (
    "[red]RED[/red] [/] [/x] [bold [link=http://x]y[/link] :smile: "
    "\x1b[2J\x1b]0;title\x07\x9b31m\x9d\u202edesrever\u2066 \b\x7f\r\napprove by ravi as risk-officer: yes"
)
"""Rich markup, an emoji name, escape sequences in 7 and 8 bits, bidirectional marks, and a faked line."""
LITERAL = "[red]RED[/red] [/] [/x] [bold [link=http://x]y[/link] :smile:"


@pytest.fixture(scope="module")
def template() -> Iterator[World]:
    with fast_folder() as folder:
        yield make_world(folder / "world")


@pytest.fixture
def world(template: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A deployment the commands find through the environment; only MLflow and Airflow are not there."""
    with fast_folder() as folder:
        found = template.copy(folder / "world")
        _point_to(found, monkeypatch)
        yield found


def _point_to(found: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_HOME", str(found.deployment.settings.home))
    monkeypatch.setenv("AIRLOCK_CONFIG_DIR", str(found.config))
    monkeypatch.setenv("AIRLOCK_DEPLOYMENT", "test")
    monkeypatch.setenv("AIRLOCK_AIRFLOW_URL", f"http://127.0.0.1:{free_port()}")
    for module in ("release", "workload"):
        monkeypatch.setattr(f"airlock.cli.{module}.open_deployment", lambda: found.deployment)


def harmless(text: str) -> bool:
    """Nothing in it acts on a terminal."""
    return all(character.isprintable() or character == "\n" for character in text)


# Everything has help


def commands() -> list[list[str]]:
    """Every command and group there is."""

    def walk(command: Any, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, [*path, name])

    return list(walk(typer.main.get_command(app), []))


@pytest.mark.requirement("U-3")
@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_explains_itself_and_its_options(path: list[str]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "Usage" in result.output
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    assert str(command.help).strip()
    if not hasattr(command, "commands"):
        silent = [
            option.name
            for option in command.params
            if not getattr(option, "help", None) and option.name not in ("help", "limit")
        ]
        assert silent == []


@pytest.mark.requirement("U-3")
def test_the_exit_codes_are_written_down() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert "0 allowed, 1 error, 2 usage, 3 denied, 4 waiting" in result.output


def test_the_version_goes_to_stdout(cli: Cli) -> None:
    assert cli("version").out == f"{__version__}\n"


@pytest.mark.requirement("U-3")
@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["release", "nonsense"],
        ["release", "show"],
        ["release", "list", "--limit", "0"],
        ["release", "list", "--format", "xml"],
        ["audit", "tail", "--kind", "nonsense"],
        ["submit", "x"],
        ["reject", "x"],
        ["up", "--port", "0"],
        ["up", "--port", "99999"],
        ["demo", "--story", "nonsense"],
        ["demo", "--story", "drift", "--answer", "reject"],
    ],
)
def test_a_wrong_call_is_usage_and_exits_with_2(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "Usage" in result.err


# Errors in words


@pytest.mark.requirement("U-3")
def test_an_unknown_release_is_said_with_the_way_out(cli: Cli, world: World) -> None:
    result = cli("release", "show", "loan-model-v9-00000000")
    assert result.code == 2
    assert result.out == ""
    assert "Error: there is no release 'loan-model-v9-00000000'" in result.err
    assert "airlock release list" in result.err


@pytest.mark.requirement("U-3")
@pytest.mark.parametrize("option", [["--format", "json"], ["--format=json"]])
def test_an_error_is_json_too_where_json_was_asked_for(cli: Cli, world: World, option: list[str]) -> None:
    result = cli("release", "show", "nope", *option)
    assert result.code == 2
    assert set(result.json["error"]) == {"what", "where", "fix"}
    assert "there is no release 'nope'" in result.json["error"]["what"]
    assert "Error:" in result.err


@pytest.mark.requirement("U-3")
def test_a_name_that_happens_to_be_json_asks_for_nothing(cli: Cli, world: World) -> None:
    assert cli("release", "show", "json").out == ""
    assert cli("approve", "json", "--user", "json").out == ""


@pytest.mark.requirement("U-3")
@pytest.mark.parametrize(
    ("name", "value", "code", "words"),
    [
        ("AIRLOCK_AUDIT_URL", "garbage", 2, "neither SQLite nor PostgreSQL"),
        ("AIRLOCK_AUDIT_URL", "sqlite:////nowhere/audit.db", 1, "airlock audit migrate"),
        ("AIRLOCK_AUDIT_URL", "postgresql+psycopg://a:s3cret@127.0.0.1:1/x", 1, "does not answer"),
    ],
)
def test_a_deployment_that_cannot_be_opened_is_said_in_words(
    cli: Cli, world: World, monkeypatch: pytest.MonkeyPatch, *, name: str, value: str, code: int, words: str
) -> None:
    monkeypatch.setenv(name, value)
    result = cli("audit", "tail", "--format", "json")
    assert result.code == code
    assert words in result.err
    assert "s3cret" not in result.err + result.out
    assert result.json["error"]["what"]


def command(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``airlock`` as a process of its own."""
    line = [os.fsencode(sys.executable), b"-m", b"airlock.cli", *(os.fsencode(each) for each in arguments)]
    return subprocess.run(
        line, env={**os.environ, **environment}, capture_output=True, timeout=300, check=False
    )


@pytest.mark.requirement("U-3")
@pytest.mark.slow
def test_the_process_exits_with_the_code_and_no_traceback(world: World) -> None:
    done = command("release", "show", "nope", "--format", "json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["fix"]
    assert b"Traceback" not in done.stderr
    assert b"Error: there is no release 'nope'" in done.stderr


@pytest.mark.requirement("U-3")
@pytest.mark.slow
def test_an_argument_that_is_no_text_is_an_error_in_words(world: World) -> None:
    done = command("release", "show", b"\xff\xfe", "--format", "json")
    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["what"]


# Colour


def on_a_terminal(**environment: str) -> bytes:
    """What people see of an error on a terminal."""
    master, slave = pty.openpty()
    clean_environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        [sys.executable, "-m", "airlock.cli", "release", "show", "nope"],
        env={**clean_environment, "TERM": "xterm-256color", **environment},
        stdout=subprocess.DEVNULL,
        stderr=slave,
        stdin=slave,
        timeout=300,
        check=False,
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(master)
    return seen


@pytest.mark.requirement("U-3")
@pytest.mark.slow
def test_no_color_is_honoured_on_a_terminal(world: World) -> None:
    colours = re.compile(rb"\x1b\[[0-9;]*3[0-7][0-9;]*m")
    assert colours.search(on_a_terminal())
    plain = on_a_terminal(NO_COLOR="1")
    assert b"Error:" in plain
    assert not colours.search(plain)


# Lists and details


def test_an_empty_deployment_says_what_to_do_next(cli: Cli, world: World) -> None:
    listed = cli("release", "list")
    assert listed.code == 0
    assert "No releases yet. Submit one with airlock submit WORKLOAD --version N." in listed.err
    assert cli("release", "list", "--format", "json").json == []
    assert "No events." in cli("audit", "tail").err
    # Reading was itself recorded.
    assert [event["kind"] for event in cli("audit", "tail", "--format", "json").json] == ["audit.read"]


@pytest.mark.requirement("U-3")
def test_releases_are_listed_newest_first_for_people_and_programs(cli: Cli, world: World) -> None:
    first = world.granted()
    promote(world.deployment, first)
    second = world.judged("3", run="run-2", track="yellow")
    result = cli("release", "list", "--format", "json")
    assert result.err == ""
    assert [(entry["release"], entry["state"]) for entry in result.json] == [
        (second, "waiting for approval"),
        (first, "promoted"),
    ]
    assert result.json[1]["decision"]["track"] == "red"
    assert [answer["user"] for answer in result.json[1]["answers"]] == ["grace", "ravi"]
    assert [
        entry["release"] for entry in cli("release", "list", "--limit", "1", "--format", "json").json
    ] == [second]
    assert cli("release", "list", "--workload", "other", "--format", "json").json == []
    pretty = cli("release", "list")
    assert pretty.out == ""
    for words in (first, second, "dana", "promoted", "waiting for approval"):
        assert words in pretty.err


@pytest.mark.requirement("A-4", "T-5")
def test_a_waiting_release_shows_gates_reasons_and_who_is_asked(cli: Cli, world: World) -> None:
    release_id = world.judged()
    world.answer(release_id, "grace", comment="The intervals are fine.")
    text = cli("release", "show", release_id).err
    for words in (
        "waiting for approval",
        "submitted by dana",
        "performance says PASSED",
        "PENDING, track red, risk low, policy 1.0.0",
        "approve by grace as governance-analyst: The intervals are fine.",
        f"waiting for risk-officer: airlock approve {release_id} --user NAME",
    ):
        assert words in text
    data = cli("release", "show", release_id, "--format", "json").json
    assert (data["state"], data["context"]) == ("waiting for approval", "A test.")


def test_one_release_whose_evidence_was_changed_does_not_hide_the_others(cli: Cli, world: World) -> None:
    good = world.judged()
    bad = world.judged("3", run="run-2")
    decided = world.release(bad).first(Kind.RELEASE_DECIDED)
    assert decided is not None
    world.evidence_file(decided.data["decision"]).write_bytes(b"{}")
    listed = {entry["release"]: entry for entry in cli("release", "list", "--format", "json").json}
    assert listed[good]["state"] == "waiting for approval"
    assert "was changed on disk" in listed[bad]["why"]
    assert listed[bad]["state"] == "failed"
    shown = cli("release", "show", bad)
    assert shown.code == 1
    assert "was changed on disk" in shown.err


@pytest.mark.requirement("E-1")
def test_the_tail_of_the_audit_is_narrowed_and_in_order(cli: Cli, world: World) -> None:
    release_id = world.judged()
    world.judged("3", run="run-2")
    events = cli("audit", "tail", "--release", release_id, "--format", "json").json
    assert {event["release_id"] for event in events} == {release_id}
    assert [event["ingest_id"] for event in events] == sorted(event["ingest_id"] for event in events)
    kinds = ["--kind", "release.submitted", "--kind", "release.decided"]
    found = cli("audit", "tail", *kinds, "--limit", "3", "--format", "json").json
    assert [event["kind"] for event in found] == ["release.decided", "release.submitted", "release.decided"]


def test_migrating_is_safe_to_repeat(cli: Cli, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_HOME", str(world.root / "new"))
    for _ in range(2):
        assert "up to date" in cli("audit", "migrate").err


# Workloads


@pytest.mark.requirement("P-1")
def test_a_good_configuration_passes_its_check(cli: Cli, world: World) -> None:
    result = cli("workload", "check")
    assert (result.code, result.out) == (0, "")
    assert "✔ loan-model" in result.err
    assert cli("workload", "check", "--format", "json").json == {"loan-model": []}
    assert cli("workload", "check", WORKLOAD).code == 0


@pytest.mark.requirement("P-1")
def test_a_check_finds_everything_that_is_wrong_at_once(cli: Cli, world: World) -> None:
    edit(world.workload_file, f"documentation: {WORKLOAD}.md", "documentation: ../../secret.md")
    edit(world.workload_file, "loan/training.parquet", "loan/none.parquet")
    edit(world.policy_file, "minimum_words: 15", "minimum_words: 0")
    edit(world.config / "people.yaml", "user: petra", "user: dana")
    write_yaml(world.config / "workloads" / "other.yaml", workload_data(name="typo"))
    result = cli("workload", "check", "--format", "json")
    assert result.code == 2
    problems = "\n".join(result.json[WORKLOAD])
    for words in (
        "leaves the workloads folder",
        "data file not found",
        "gates.documentation.minimum_words",
        "a user appears twice",
    ):
        assert words in problems
    assert "does not match the file name" in result.json["other"][0]
    assert "✘ loan-model" in cli("workload", "check").err


@pytest.mark.requirement("G-12")
def test_a_missing_model_card_is_a_finding(cli: Cli, world: World) -> None:
    (world.config / "workloads" / f"{WORKLOAD}.md").write_text(" \n")
    result = cli("workload", "check")
    assert result.code == 2
    assert "documentation: loan-model.md is missing or empty" in result.err


def test_no_workload_and_an_unknown_one_are_findings(cli: Cli, world: World) -> None:
    result = cli("workload", "check", "loan-modle")
    assert result.code == 2
    assert "did you mean 'loan-model'" in result.err
    world.workload_file.unlink()
    assert cli("workload", "check").code == 2
    assert "empty is invalid" in cli("workload", "check").err
    assert "No workloads yet" in cli("workload", "list").err


def test_a_broken_workload_does_not_hide_the_others_from_the_list(cli: Cli, world: World) -> None:
    write_yaml(world.config / "workloads" / "broken.yaml", {"name": "broken"})
    rows = {row["workload"]: row for row in cli("workload", "list", "--format", "json").json}
    assert rows[WORKLOAD]["champion"] == "1"
    assert "required field is missing" in rows["broken"]["problem"]
    pretty = cli("workload", "list")
    assert pretty.code == 0
    assert "loan-model  champion 1, owner team, policy 1.0.0" in pretty.err
    assert "required field is missing" in pretty.err


@pytest.mark.requirement("R-1")
def test_adopting_works_once_and_then_is_refused_with_3(cli: Cli, world: World) -> None:
    del world.registry.champions[WORKLOAD]
    adopt = ("workload", "adopt", WORKLOAD, "--version", "1", "--reason")
    assert cli(*adopt, "in production").code == 0
    refused = cli(*adopt, "again")
    assert refused.code == 3
    assert "already has a champion: version 1" in refused.err


# Status


def test_status_says_what_does_not_answer_and_exits_with_1(cli: Cli, world: World) -> None:
    result = cli("status", "--format", "json")
    assert result.code == 1
    assert result.json["healthy"] is False
    assert result.json["components"]["audit store"] == "healthy"
    assert "does not answer" in result.json["components"]["Airflow"]


def test_status_shows_where_a_mistake_is_and_does_not_stumble_over_brackets(cli: Cli, world: World) -> None:
    """The place stands in brackets and begins with a slash: for rich, a closing tag."""
    edit(world.config / "people.yaml", "user: petra", "usr: petra")
    result = cli("status")
    assert result.code == 1
    assert f"[{world.config}/people.yaml:4]" in result.err


# Approving and waiting, against an Airflow that is only as real as needed


@pytest.mark.requirement("A-2")
def test_answering_a_release_that_does_not_wait_is_refused_with_3(
    cli: Cli, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_PASSWORD", "x")
    release_id = world.judged(track="green")
    result = cli("approve", release_id, "--user", "grace")
    assert result.code == 3
    assert "does not wait for approval: it is approved" in result.err
    waiting = world.judged("3", run="run-2")
    result = cli("reject", waiting, "--user", "petra", "--comment", "No.")
    assert result.code == 3
    assert "petra holds no role that is open here; roles held: ml-platform-engineer" in result.err


def test_answering_needs_a_user_who_is_known(cli: Cli, world: World) -> None:
    release_id = world.judged()
    assert "no user is named" in cli("approve", release_id).err
    unknown = cli("approve", release_id, "--user", "grace")
    assert unknown.code == 2
    assert "no local Airflow was started here" in unknown.err


@pytest.fixture
def airflow(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accepts a login and a trigger; every run is called run-1 and goes on for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # named by the standard library
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._reply({"access_token": "t", "dag_run_id": "run-1", "state": "running"})

        def do_GET(self) -> None:
            self._reply({"dag_run_id": "run-1", "state": "running"})

        def _reply(self, data: dict[str, Any]) -> None:
            body = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setenv("AIRLOCK_AIRFLOW_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AIRLOCK_PASSWORD", "x")
    settings = world.deployment.settings.model_copy(
        update={"airflow_url": f"http://127.0.0.1:{server.server_address[1]}"}
    )
    object.__setattr__(world.deployment, "settings", settings)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def promoted(world: World) -> None:
    release_id = world.granted()
    promote(world.deployment, release_id)
    seal(world.deployment, release_id)


def denied(world: World) -> None:
    seal(world.deployment, world.judged(verdicts={"performance": Verdict.FAILED}))


def rejected(world: World) -> None:
    release_id = world.judged()
    world.answer(release_id, "grace", 0, "reject", "Show a month of traffic.")
    seal(world.deployment, release_id)


def failed(world: World) -> None:
    seal(world.deployment, world.frozen())


def not_promoted(world: World) -> None:
    seal(world.deployment, world.granted())


def waiting(world: World) -> None:
    world.judged()


@pytest.mark.requirement("U-3")
@pytest.mark.usefixtures("airflow")
@pytest.mark.parametrize(
    ("happen", "code", "state"),
    [
        (promoted, 0, "promoted"),
        (failed, 1, "failed"),
        (not_promoted, 1, "failed"),
        (denied, 3, "denied"),
        (rejected, 3, "rejected"),
        (waiting, 4, "waiting for approval"),
    ],
)
def test_submit_and_wait_exits_with_how_it_ended(
    cli: Cli, world: World, happen: Callable[[World], None], code: int, state: str
) -> None:
    happen(world)
    result = cli("submit", WORKLOAD, "--version", "2", "--user", "dana", "--wait", "--format", "json")
    assert result.code == code, result.err
    assert result.json["state"] == state


@pytest.mark.requirement("U-3")
@pytest.mark.usefixtures("airflow")
def test_submit_without_waiting_prints_the_release(cli: Cli, world: World) -> None:
    result = cli("submit", WORKLOAD, "--version", "2", "--user", "dana", "--format", "json")
    assert result.code == 0
    assert result.json["dag_id"] == "release__loan-model"
    assert result.json["run_id"] == "run-1"
    assert result.json["release"].startswith("loan-model-v2-")
    assert cli("submit", WORKLOAD, "--version", "99", "--user", "dana").code == 2
    assert cli("submit", "loan-modle", "--version", "2", "--user", "dana").code == 2


@pytest.mark.usefixtures("airflow")
def test_a_context_file_that_is_no_text_is_said(cli: Cli, world: World, tmp_path: Path) -> None:
    (tmp_path / "why.txt").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "why.txt", tmp_path / "missing.txt", tmp_path):
        result = cli("submit", WORKLOAD, "--version", "2", "--user", "dana", "--context", str(path))
        assert result.code == 1
        assert "cannot be read" in result.err


@pytest.mark.requirement("U-3")
def test_every_state_that_can_end_a_wait_has_an_exit_code() -> None:
    assert set(State) - set(EXIT_CODES) == {State.CHECKING, State.READY}
    assert {state for state, code in EXIT_CODES.items() if code == 0} == {State.PROMOTED}


# Hostile text


@pytest.fixture
def hostile(world: World) -> str:
    """A release in which every text a person can choose is hostile."""
    people = (world.config / "people.yaml").read_text().replace("name: Grace", f"name: {json.dumps(HOSTILE)}")
    (world.config / "people.yaml").write_text(people)
    summary = f"performance {HOSTILE}"
    release_id = world.judged(user=HOSTILE, context=HOSTILE, summary=summary)
    world.answer(release_id, "grace", comment=HOSTILE)
    return release_id


@pytest.mark.requirement("U-3")
def test_hostile_text_is_shown_as_it_is_and_acts_on_nothing(cli: Cli, world: World, hostile: str) -> None:
    for arguments in (
        ("release", "show", hostile),
        ("release", "list"),
        ("audit", "tail", "--limit", "100"),
        ("audit", "tail", "--release", hostile),
    ):
        result = cli(*arguments)
        assert result.code == 0, arguments
        assert harmless(result.err), arguments
        assert "[red]RED[/red]" in re.sub(r"\s+", "", result.err), arguments
    shown = cli("release", "show", hostile).err
    assert LITERAL in shown
    lines = [line for line in shown.splitlines() if line.startswith("approve by")]
    assert len(lines) == 1, "a line break in a comment must not look like another person's answer"


@pytest.mark.requirement("U-3")
@pytest.mark.parametrize(
    "arguments", [("release", "list"), ("audit", "tail", "--limit", "100"), ("release", "show", "{release}")]
)
def test_hostile_text_reaches_programs_whole_and_a_terminal_harmless(
    cli: Cli, world: World, hostile: str, arguments: tuple[str, ...]
) -> None:
    call = [argument.format(release=hostile) for argument in arguments]
    result = cli(*call, "--format", "json")
    assert harmless(result.out)
    assert HOSTILE in [text for text in _texts(result.json) if text == HOSTILE], (
        "escaped in JSON, and the same text for who parses it"
    )


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value)


@pytest.mark.requirement("U-3")
def test_hostile_arguments_and_files_are_shown_harmlessly(
    cli: Cli, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_PASSWORD", "x")
    edit(world.workload_file, "owner: team", f"owner: {json.dumps(HOSTILE)}")
    edit(world.config / "people.yaml", "user: petra", f"{json.dumps(HOSTILE)}: petra")
    for arguments in (
        ("release", "show", HOSTILE),
        ("release", "show", HOSTILE, "--format", "json"),
        ("workload", "check", HOSTILE),
        ("workload", "check", HOSTILE, "--format", "json"),
        ("workload", "check"),
        ("workload", "list"),
        ("workload", "list", "--format", "json"),
        ("workload", "adopt", WORKLOAD, "--version", HOSTILE, "--reason", HOSTILE),
        ("approve", HOSTILE, "--user", HOSTILE),
        ("submit", HOSTILE, "--version", "1", "--user", HOSTILE),
        ("status",),
        ("status", "--format", "json"),
    ):
        result = cli(*arguments)
        assert harmless(result.err), (arguments, result.err)
        assert harmless(result.out), (arguments, result.out)


@pytest.mark.requirement("U-3")
def test_an_error_of_another_system_is_shown_harmlessly(
    cli: Cli, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airlock.core.errors import UnavailableError

    def broken() -> Any:
        raise UnavailableError(f"MLflow failed: {HOSTILE}", where=HOSTILE, fix=HOSTILE)

    monkeypatch.setattr("airlock.cli.release.open_deployment", broken)
    result = cli("release", "list", "--format", "json")
    assert result.code == 1
    assert harmless(result.err)
    assert harmless(result.out)
    assert LITERAL in result.err
    assert result.json["error"]["where"] == HOSTILE


def test_clean_text_keeps_words_in_every_script() -> None:
    for text in ("Größe 5 %", "日本語", "עברית", "🙂", "a\u0301"):
        assert clean(text) == text
    assert clean("a\u00a0b\tc\nd") == "a b c d"
    assert clean("a\nb", lines=True) == "a\nb"
    assert clean("\x1b[0m\u202e") == "\ufffd[0m\ufffd"


@pytest.mark.slow
def test_the_installed_command_is_this_one() -> None:
    path = shutil.which("airlock", path=str(Path(sys.executable).parent))
    assert path is not None
    done = subprocess.run([path, "version"], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == f"{__version__}\n"


def test_a_command_imports_nothing_it_does_not_use() -> None:
    code = (
        "import sys; from airlock.cli import app; import typer.main; typer.main.get_command(app); "
        "print([n for n in ('sqlalchemy', 'httpx', 'jinja2', 'pandas', 'mlflow') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


@pytest.mark.requirement("A-6", "A-7")
def test_a_release_shows_for_whom_and_on_what_somebody_approved_and_what_was_asked(
    cli: Cli, world: World
) -> None:
    rules = "delegate_days: 31\n  condition_days: 30"
    edit(world.policy_file, "expires_hours: 72", f"expires_hours: 72\n  {rules}")
    release_id = world.judged("2", track="red")
    give(
        world.deployment, delegation_id="delegation-1", giver="ravi", to="petra", roles=["risk-officer"],
        start="2026-01-01", until="2026-01-05", reason="On holiday today.", when="now",
    )  # fmt: skip
    question = ask(world.deployment, release_id, 0, user="grace", text="Why so few women?")
    reply(world.deployment, release_id, question, user="dana", text="A third of the applicants.")
    world.answer(release_id, "petra", 1, condition="Show a month of shadow traffic.", until="2026-01-20")
    text = cli("release", "show", release_id).err
    for words in (
        "approve by petra for ravi as risk-officer",
        "on condition, until 2026-01-20, open: Show a month of shadow traffic.",
        "grace asks: Why so few women?",
        "dana answers: A third of the applicants.",
    ):
        assert words in text
    (delegation,) = cli("delegate", "list", "--format", "json").json
    assert (delegation["giver"], delegation["to"], delegation["until"]) == ("ravi", "petra", "2026-01-05")
    assert delegation["start"] == "2026-01-01"
    (condition,) = cli("condition", "list", "--format", "json").json
    assert (condition["seat"], condition["user"], condition["until"]) == (2, "petra", "2026-01-20")
    assert "petra" in cli("delegate", "list").err
    assert "shadow traffic" in cli("condition", "list").err
