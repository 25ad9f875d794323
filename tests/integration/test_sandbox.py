"""Real attacks on the sandbox: what it claims to take away must be gone.

Each attack runs in place of the runner, so it has every right that a model would have. It writes what
it achieved to ``output/loot.json``; only isolation that the result claims is asserted, because what a
machine offers differs. ``layers=()`` shows that the attacks work where nothing is in force.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from airlock.adapters.sandbox import LAYERS, ProcessSandbox
from airlock.adapters.sandbox.command import view
from airlock.adapters.sandbox.inside.confine import level_of
from airlock.core.errors import AirlockError, InvalidInputError, SandboxError, UnavailableError
from airlock.ports import SandboxRequest, SandboxResult

pytestmark = [pytest.mark.requirement("G-8"), pytest.mark.slow]

ALL = pytest.mark.parametrize(
    "layers",
    [LAYERS, ("unshare",), ("unshare", "seccomp"), ("landlock", "seccomp"), ("seccomp",), ()],
    ids=lambda layers: "+".join(layers) or "nothing",
)
PREAMBLE = """
import json, os, sys
from pathlib import Path
job = json.loads(Path("job.json").read_text())
loot = {}
def attempt(name, action):
    try:
        loot[name] = action()
    except BaseException as error:
        loot[name] = f"refused: {type(error).__name__}: {error}"
def leave():
    Path("output/loot.json").write_text(json.dumps(loot))
"""


def make_request(**changes: Any) -> SandboxRequest:
    values: dict[str, Any] = {
        "job": {},
        "inputs": {},
        "seconds": 60,
        "memory_mb": 1024,
        "output_mb": 16,
        "require_network_isolation": False,
    }
    return SandboxRequest(**{**values, **changes})


class Attack:
    """Runs a hostile script in the sandbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "scripts" / "attack.py"
        self.output = folder / "output"
        self.script.parent.mkdir()

    def __call__(
        self,
        body: str,
        *,
        layers: Sequence[str] = LAYERS,
        hidden: Sequence[Path] = (),
        **changes: Any,
    ) -> tuple[SandboxResult, dict[str, Any]]:
        self.script.write_text(PREAMBLE + textwrap.dedent(body) + "\nleave()\n")
        sandbox = ProcessSandbox(runner=self.script, layers=layers, hidden=hidden)
        result = sandbox.run(make_request(**changes), self.output)
        return result, json.loads((self.output / "loot.json").read_text())

    def refused(self, body: str, error: type[AirlockError] = SandboxError, **changes: Any) -> AirlockError:
        with pytest.raises(error) as raised:
            self(body, **changes)
        return raised.value


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attack]:
    """Every attack, whatever becomes of it, must leave neither files nor processes behind."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    yield Attack(tmp_path)
    assert list(scratch.iterdir()) == []
    assert processes(str(scratch)) == []


def processes(token: str) -> list[str]:
    """Command lines that hold a token: a folder of this test, so that tests can run side by side."""
    return [line for process in psutil.process_iter() if token in (line := command_line(process))]


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def claims(result: SandboxResult, *starts: str) -> bool:
    return any(claim.startswith(starts) for claim in result.isolation)


def was_refused(value: object) -> bool:
    return isinstance(value, str) and value.startswith("refused: ")


@ALL
def test_says_what_is_in_force_and_a_plain_job_works(attack: Attack, layers: Sequence[str]) -> None:
    result, loot = attack("loot['sum'] = 1 + job['one']; print('hello')", layers=layers, job={"one": 1})
    assert loot == {"sum": 2}
    assert result.stdout == "hello\n"
    assert {"own process", "no environment"} <= set(result.isolation)
    assert claims(result, "resource limits")
    if not layers:
        assert len(result.isolation) == 3


@ALL
def test_cannot_reach_the_network_where_it_says_so(attack: Attack, layers: Sequence[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result, loot = attack(
            """
            import socket
            attempt("connected", lambda: bool(socket.create_connection(("127.0.0.1", job["port"]), 5)))
            """,
            layers=layers,
            job={"port": port},
        )
    assert was_refused(loot["connected"]) is claims(result, "no network")


def test_refuses_to_run_when_the_network_must_be_isolated_and_cannot_be(attack: Attack) -> None:
    error = attack.refused(
        "Path(job['marker']).write_text('ran')",
        layers=(),
        require_network_isolation=True,
        job={"marker": str(attack.folder / "marker")},
    )
    assert "without network" in error.what
    assert "bubblewrap" in error.fix
    assert "require_network_isolation: false" in error.fix
    assert not (attack.folder / "marker").exists()


@ALL
def test_sees_no_environment(attack: Attack, layers: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SECRET", "hunter2")
    result, loot = attack(
        """
        loot["own"] = dict(os.environ)
        attempt("parent", lambda: Path(f"/proc/{job['parent']}/environ").read_bytes().decode("latin-1"))
        """,
        layers=layers,
        job={"parent": os.getpid()},
    )
    assert "hunter2" not in json.dumps(loot["own"])
    if claims(result, "own process table", "other files out of reach"):
        assert was_refused(loot["parent"])


@ALL
def test_cannot_read_hidden_folders(attack: Attack, layers: Sequence[str]) -> None:
    beside = attack.folder / "state"  # nothing that a job sees lies around it
    within = attack.script.parent / "state"  # lies in a folder that is shown
    for folder in (beside, within):
        folder.mkdir()
        (folder / "secret").write_text("hunter2")
    result, loot = attack(
        """
        import ctypes
        for number, path in enumerate(job["secrets"]):
            attempt(f"secret{number}", lambda: Path(path, "secret").read_text())
        if job["mounts"]:  # take the cover away; never tried where that would work on this machine
            loot["umount"] = ctypes.CDLL(None).umount2(job["secrets"][1].encode(), 2)
            attempt("again", lambda: Path(job["secrets"][1], "secret").read_text())
        """,
        layers=layers,
        hidden=[beside, within],
        job={"secrets": [str(beside), str(within)], "mounts": "unshare" in layers},
    )
    if claims(result, "other files out of reach", "hidden folders out of reach"):
        assert was_refused(loot["secret0"])
        assert was_refused(loot["secret1"])
    if "unshare" in layers and claims(result, "own process table"):
        assert loot["umount"] == -1
        assert was_refused(loot["again"])
    if not layers:
        assert loot["secret0"] == "hunter2"


class _WithoutRoot(ProcessSandbox):
    """A system on which namespaces can be had, but no root of its own can be built."""

    def _command(self, request: SandboxRequest, base: Path) -> list[str]:
        command = super()._command(request, base)
        path = base / "work" / "confine.json"
        path.write_text(path.read_text().replace(str(base / "root"), str(base / "missing")))
        return command


def test_covers_hidden_folders_where_it_cannot_build_a_root(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = attack.folder / "state"
    state.mkdir()
    (state / "secret").write_text("hunter2")
    monkeypatch.setattr("tests.integration.test_sandbox.ProcessSandbox", _WithoutRoot)
    result, loot = attack(
        """
        import ctypes
        attempt("secret", lambda: Path(job["state"], "secret").read_text())
        if os.getpid() == 1:
            loot["umount"] = ctypes.CDLL(None).umount2(job["state"].encode(), 2)
            attempt("again", lambda: Path(job["state"], "secret").read_text())
        """,
        layers=("unshare",),
        hidden=[state],
        job={"state": str(state)},
    )
    if claims(result, "hidden folders out of reach"):
        assert was_refused(loot["secret"])
        assert loot["umount"] == -1
        assert was_refused(loot["again"])
    assert not claims(result, "read-only files")


@ALL
def test_cannot_write_outside_its_folder(attack: Attack, layers: Sequence[str]) -> None:
    target = attack.folder / "written"
    result, loot = attack(
        """
        attempt("outside", lambda: Path(job["target"]).write_text("x"))
        attempt("own_code", lambda: Path(__file__).write_text("x"))
        """,
        layers=layers,
        job={"target": str(target)},
    )
    if claims(result, "read-only files"):
        assert not target.exists()
        assert was_refused(loot["own_code"])


@ALL
def test_cannot_change_its_inputs_for_others(attack: Attack, layers: Sequence[str]) -> None:
    source = attack.folder / "data"
    source.write_text("original")
    _, loot = attack(
        """
        loot["read"] = Path("inputs/data").read_text()
        attempt("written", lambda: Path("inputs/data").write_text("tampered"))
        """,
        layers=layers,
        inputs={"data": str(source)},
    )
    assert loot["read"] == "original"
    assert source.read_text() == "original"


@ALL
def test_leaves_no_child_behind(attack: Attack, layers: Sequence[str]) -> None:
    """The child keeps the script's command line; the fixture looks for it when the test is over."""
    result, loot = attack(
        """
        import time
        def leave_child_behind():
            if (child := os.fork()) == 0:
                time.sleep(120)
                os._exit(0)
            return child
        attempt("child", leave_child_behind)
        """,
        layers=layers,
    )
    assert was_refused(loot["child"]) is claims(result, "no new processes")
    assert result.seconds < 30


@ALL
def test_a_child_of_its_own_session_dies_with_it(attack: Attack, layers: Sequence[str]) -> None:
    """Where neither layer is in force it would live on, so there it is not tried."""
    result, loot = attack(
        """
        import time
        def escape():
            if os.getpid() != 1 and not job["filtered"]:
                raise PermissionError("not tried")
            if (child := os.fork()) == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(120)
                os._exit(0)
            return child
        attempt("child", escape)
        """,
        layers=layers,
        job={"filtered": "seccomp" in layers},
    )
    assert was_refused(loot["child"]) or claims(result, "own process table")


def test_a_fork_bomb_does_not_go_off(attack: Attack) -> None:
    result, loot = attack(
        """
        import subprocess
        def bomb():
            for _ in range(20):
                if os.fork() == 0:
                    os._exit(0)
            return "went off"
        attempt("fork", bomb)
        attempt("program", lambda: subprocess.run(["/bin/true"]).returncode)
        attempt("system", lambda: os.system("true"))
        """
    )
    if claims(result, "no new processes"):
        assert was_refused(loot["fork"])
        assert was_refused(loot["program"])
        assert loot["system"] != 0


def test_threads_still_work(attack: Attack) -> None:
    _, loot = attack(
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            loot["sum"] = sum(pool.map(lambda x: x * x, range(10)))
        """
    )
    assert loot == {"sum": 285}


@ALL
def test_cannot_signal_or_trace_others(attack: Attack, layers: Sequence[str]) -> None:
    """Signal 0 does nothing to the process it is sent to, but tells whether it could be reached."""
    result, loot = attack(
        """
        attempt("signal", lambda: os.kill(job["parent"], 0))
        """,
        layers=layers,
        job={"parent": os.getpid()},
    )
    reachable = loot["signal"] is None
    assert reachable is not claims(result, "own process table", "no new processes")


@ALL
def test_is_stopped_when_it_never_ends(attack: Attack, layers: Sequence[str]) -> None:
    started = time.monotonic()
    error = attack.refused(
        """
        import signal, time
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(600)
        """,
        layers=layers,
        seconds=1,
    )
    assert "ran longer than 1 s" in error.what
    assert "sandbox.seconds" in error.fix
    assert time.monotonic() - started < 300


def test_is_stopped_when_it_prints_gigabytes(attack: Attack) -> None:
    error = attack.refused("while True: print('x' * 1_000_000)")
    assert "printed without end" in error.what


def test_keeps_the_beginning_and_the_end_of_what_it_prints(attack: Attack) -> None:
    result, _ = attack("print('begin', 'x' * 1_000_000, chr(27) + '[31mend')")
    assert result.stdout.startswith("begin xxx")
    assert result.stdout.endswith("\N{REPLACEMENT CHARACTER}[31mend\n")
    assert "bytes left out" in result.stdout
    assert len(result.stdout) < 70_000


def test_is_stopped_when_it_takes_too_much_memory(attack: Attack) -> None:
    error = attack.refused("hoard = [bytearray(1 << 24) for _ in range(1000)]", memory_mb=256)
    assert "more than 256 MB of memory" in error.what
    assert "sandbox.memory_mb" in error.fix


@pytest.mark.parametrize(
    "body",
    [
        "Path('output/huge').write_bytes(bytes(64 << 20))",
        "[Path(f'output/{n}').write_bytes(bytes(1 << 20)) for n in range(64)]",
        "[Path(f'scratch/{n}').write_bytes(bytes(1 << 20)) for n in range(64)]",
        "[Path(f'output/{n}').touch() for n in range(5000)]",
    ],
    ids=["one-file", "many-files", "scratch", "empty-files"],
)
def test_is_stopped_when_it_writes_too_much(attack: Attack, body: str) -> None:
    error = attack.refused(body, output_mb=4)
    assert "more than 4 MB" in error.what
    assert "sandbox.output_mb" in error.fix
    assert not attack.output.exists() or not list(attack.output.iterdir())


@pytest.mark.parametrize(
    "body",
    [
        "os.symlink('/etc/passwd', 'output/scores.parquet')",
        "os.mkfifo('output/scores.parquet')",
        "os.mkdir('output/scores.parquet')",
    ],
    ids=["link", "pipe", "folder"],
)
def test_only_regular_files_come_out(attack: Attack, body: str) -> None:
    error = attack.refused(body)
    assert "'scores.parquet', which is not a regular file" in error.what


def test_tells_why_a_model_failed(attack: Attack) -> None:
    error = attack.refused("raise ValueError('the matrix is ' + chr(27) + '[2J singular' + '!' * 1000)")
    assert "singular" in error.what
    assert "\x1b" not in str(error)
    assert len(error.what) < 2100


def test_a_forged_error_file_is_cut_and_cleaned(attack: Attack) -> None:
    error = attack.refused(
        """
        report = {"type": "Nice" + chr(7), "message": "m" * 100_000, "traceback": "t" * 100_000}
        Path("output/error.json").write_text(json.dumps(report))
        sys.exit(1)
        """
    )
    assert "\x07" not in str(error)
    assert len(str(error)) < 5000


def test_a_crash_is_told_as_one(attack: Attack) -> None:
    error = attack.refused("import ctypes; ctypes.string_at(0)")
    assert "killed by signal 11" in error.what


def test_locked_folders_are_removed_all_the_same(attack: Attack) -> None:
    attack("os.makedirs('scratch/a/b'); os.chmod('scratch/a', 0)")


def test_input_links_are_not_followed(attack: Attack) -> None:
    secret = attack.folder / "secret"
    secret.write_text("hunter2")
    artifact = attack.folder / "artifact"
    artifact.mkdir()
    (artifact / "model.skops").symlink_to(secret)
    (artifact / "real").write_text("real")
    result, loot = attack(
        """
        folder = Path("inputs/artifact")
        loot["real"] = (folder / "real").read_text()
        loot["link"] = (folder / "model.skops").is_symlink()
        attempt("followed", lambda: (folder / "model.skops").read_text())
        """,
        inputs={"artifact": str(artifact)},
    )
    assert (loot["real"], loot["link"]) == ("real", True)
    if claims(result, "other files out of reach"):
        assert was_refused(loot["followed"])


def test_unusable_inputs_are_named(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = attack.folder / "artifact"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        error = attack.refused("", InvalidInputError, inputs={"artifact": str(folder)})
    assert "device or socket" in error.what
    error = attack.refused("", InvalidInputError, inputs={"gone": str(folder / "gone")})
    assert "missing" in error.what
    attack.refused("", InvalidInputError, inputs={"../escape": str(folder)})


def test_a_full_disk_may_heal(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    source = attack.folder / "data"
    source.write_text("data")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    error = attack.refused("", UnavailableError, inputs={"data": str(source)})
    assert "disk is full" in error.what


@pytest.mark.parametrize("layers", [LAYERS, ()], ids=["everything", "nothing"])
def test_dies_with_a_killed_parent(tmp_path: Path, layers: Sequence[str]) -> None:
    script = tmp_path / "sleep.py"
    script.write_text(
        "from pathlib import Path; Path('output/started').touch(); import time; time.sleep(120)"
    )
    body = f"""
        import tempfile
        tempfile.tempdir = {str(tmp_path)!r}
        from pathlib import Path
        from airlock.adapters.sandbox import ProcessSandbox
        from tests.integration.test_sandbox import make_request
        ProcessSandbox(runner=Path({str(script)!r}), layers={tuple(layers)!r}).run(
            make_request(), Path({str(tmp_path / "output")!r}))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(body)], cwd=Path(__file__).parents[2])
    try:
        wait_for(lambda: bool(list(tmp_path.glob("airlock-sandbox-*/work/output/started"))))
        assert processes(f"{tmp_path}/airlock-sandbox")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not processes(f"{tmp_path}/airlock-sandbox"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_view_shows_python_even_inside_a_hidden_folder() -> None:
    shown = ["/usr", "/home/x/app/.venv", "/usr/lib/python3"]
    assert view(shown, ["/home/x/app"]) == [("show", "/usr"), ("show", "/home/x/app/.venv")]
    assert view(["/usr", "/usr/app/venv"], ["/usr/app"]) == [
        ("show", "/usr"),
        ("cover", "/usr/app"),
        ("show", "/usr/app/venv"),
    ]
    assert view(["/usr"], ["/usr"]) == [("show", "/usr")]


# What it got, and what was tried


@ALL
def test_the_level_sums_up_what_is_in_force(attack: Attack, layers: Sequence[str]) -> None:
    result, _ = attack("", layers=layers)
    if not layers:
        assert result.level == "process"
    if claims(result, "own process table") and claims(result, "no new processes"):
        assert result.level in ("namespace", "full")
    if layers == ("landlock", "seccomp") and claims(result, "other files out of reach"):
        assert result.level == "filter"
    if layers == ("seccomp",):
        assert result.level == "process"


@pytest.mark.parametrize(
    ("claims", "level"),
    [
        ([], "none"),
        (["own process", "no environment"], "none"),
        (["own process", "no environment", "resource limits except memory"], "process"),
        (["no network (x)", "no new processes (x)", "other files out of reach (landlock)"], "filter"),
        (["no network (bwrap)", "own process table (bwrap)", "other files out of reach (bwrap)"], "process"),
        (["no network", "own process table", "other files out of reach (landlock)", "no new processes"],
         "filter"),
        (["no network (x)", "own process table (x)", "other files out of reach (x)", "no new processes"],
         "namespace"),
        (["no network (x)", "own process table (x)", "other files out of reach (x)", "no new processes",
          "own user"], "full"),
        (["no network (x)", "own process table (x)", "other files out of reach (x)", "no new processes",
          "not root"], "full"),
    ],
)  # fmt: skip
def test_a_level_holds_everything_of_those_before_it(claims: list[str], level: str) -> None:
    always = ["own process", "no environment", "resource limits"] if len(claims) > 2 else []
    assert level_of([*always, *claims]) == level


def test_refuses_to_run_below_the_level_that_is_demanded(attack: Attack) -> None:
    error = attack.refused(
        "Path(job['marker']).write_text('ran')",
        layers=("seccomp",),
        require_level="namespace",
        job={"marker": str(attack.folder / "marker")},
    )
    assert "asks for a sandbox of level namespace, and only level process" in error.what
    assert "sandbox.require_level" in error.fix
    assert not (attack.folder / "marker").exists()


def test_runs_at_the_level_that_is_demanded(attack: Attack) -> None:
    got, _ = attack("")
    result, loot = attack("loot['ran'] = True", require_level=got.level)
    assert (result.level, loot) == (got.level, {"ran": True})


@ALL
def test_is_not_root_where_it_says_so(attack: Attack, layers: Sequence[str]) -> None:
    result, loot = attack(
        """
        loot["ids"] = [os.getuid(), os.geteuid(), os.getgid(), *os.getgroups()]
        attempt("back", lambda: os.setuid(0))
        attempt("device", lambda: os.mknod("scratch/disk", 0o60600, os.makedev(254, 0)))
        """,
        layers=layers,
    )
    if claims(result, "own user", "not root"):
        assert 0 not in loot["ids"]
        assert was_refused(loot["back"])
        assert was_refused(loot["device"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import socket; socket.create_connection(('192.0.2.7', 443), 1)", ["use the network", "192.0.2.7"]),
        (
            "import socket; socket.getaddrinfo('evil.example', 80)",
            ["use the network", "look up evil.example"],
        ),
        ("os.fork()", ["start a process", "fork"]),
        ("os.system('curl evil.example')", ["start a process", "start curl evil.example"]),
        (
            "import subprocess; subprocess.run(['/bin/sh', '-c', 'id'])",
            ["start a process", "start /bin/sh -c id"],
        ),
        ("import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)", ["reach another process (ptrace)"]),
        ("os.kill(1 if os.getpid() != 1 else 2, 9)", ["reach another process (kill)"]),
        ("import ctypes; ctypes.CDLL(None).unshare(0x10000000)", ["change the system (unshare)"]),
        ("Path('/etc/cron.d/evil').write_text('x')", ["write /etc/cron.d/evil"]),
        ("Path(job['secret']).read_text()", ["reach ", "state/secret"]),
        ("Path('/proc/1234567/environ').read_bytes()", ["read /proc/1234567/environ"]),
    ],
    ids=[
        "connect",
        "look-up",
        "fork",
        "shell",
        "program",
        "ptrace",
        "kill",
        "unshare",
        "write",
        "secret",
        "proc",
    ],
)
def test_what_was_tried_and_refused_is_recorded(attack: Attack, body: str, words: list[str]) -> None:
    """Whether the code swallows the refusal or dies of it."""
    state = attack.folder / "state"
    state.mkdir()
    (state / "secret").write_text("hunter2")
    about: dict[str, Any] = {"hidden": [state], "job": {"secret": str(state / "secret")}}
    swallowed = f"""
        def act():
            {body}
        attempt("it", act)
        """
    result, _ = attack(swallowed, **about)
    recorded = " | ".join(result.attempts)
    seen = [word for word in words if word.startswith(("use ", "start a", "reach ", "change "))]
    if not claims(result, "refused calls are recorded"):
        words = [word for word in words if word not in seen]
    assert all(word in recorded for word in words), recorded
    error = attack.refused(f"{body}\nraise SystemExit('it was refused')", **about)
    assert isinstance(error, SandboxError)
    assert list(error.attempts) == result.attempts
    assert result.attempts[0] in error.what


def test_an_honest_job_has_nothing_recorded(attack: Attack) -> None:
    result, _ = attack(
        """
        import numpy, pandas, pyarrow, sklearn.ensemble, threading, tempfile, uuid, multiprocessing
        Path("output/x").write_text("x"); Path(tempfile.mkdtemp(), "y").write_text("y")
        threading.Thread(target=print).start()
        uuid.uuid4(); multiprocessing.cpu_count()
        """,
        memory_mb=4096,
    )
    assert result.attempts == []


def test_a_job_that_does_nothing_but_try_is_stopped(attack: Attack) -> None:
    body = """
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """
    if claims(attack("")[0], "refused calls are recorded"):
        error = attack.refused(body)
        assert "did nothing but ask" in error.what
        assert "start a process" in error.what


def test_a_job_cannot_answer_its_own_calls(attack: Attack) -> None:
    """The handle of the filter allows whatever it is told to: it must not be in the job."""
    _, loot = attack(
        """
        links = [f"/proc/self/fd/{number}" for number in range(256)]
        loot["open"] = [os.readlink(link) for link in links if os.path.islink(link)]
        """
    )
    assert loot["open"]
    assert not [name for name in loot["open"] if "seccomp" in name or "socket" in name]


def test_small_disks_of_its_own_cannot_be_filled_without_end(attack: Attack) -> None:
    """Files below the limit of one file, in every folder that is writable: memory is what they would take."""
    result, loot = attack(
        """
        def fill(folder):
            written = 0
            try:
                for number in range(200):
                    written += Path(folder, f"fill{number}").write_bytes(bytes(1 << 20))
            except OSError:
                pass
            return written >> 20
        for folder in ("/tmp", "/dev/shm", "/dev", "/", "/run", "/var/tmp"):
            attempt(folder, lambda: fill(folder))
        """,
        output_mb=64,
    )
    if claims(result, "other files out of reach"):
        assert all(was_refused(value) or value <= 16 for value in loot.values()), loot


def test_a_job_cannot_open_files_without_end(attack: Attack) -> None:
    _, loot = attack("attempt('files', lambda: len([open('job.json') for _ in range(100_000)]))")
    assert was_refused(loot["files"])


def test_cpu_time_ends_a_job_that_spins(attack: Attack) -> None:
    error = attack.refused("while True: pass", seconds=1)
    assert "ran longer than 1 s" in error.what
