"""A model's own environment: built from wheels alone, once, and seen by the job in front of the worker's."""

from __future__ import annotations

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airlock.adapters.environments import Environments, installed
from airlock.adapters.sandbox import ProcessSandbox
from airlock.core.errors import InvalidInputError
from airlock.ports import SandboxRequest

pytestmark = [pytest.mark.requirement("G-8"), pytest.mark.slow]


def write_wheel(folder: Path, name: str, version: str) -> None:
    """A package of one module that says its version."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(
            f"{about}/RECORD", f"{name}.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n"
        )


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    for version in ("1.0", "2.0"):
        write_wheel(tmp_path / "wheels", "airlocktiny", version)
    return Environments(tmp_path / "wheels", tmp_path / "cache")


def test_a_job_sees_the_packages_its_model_pins(environments: Environments, tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "job.py"
    script.parent.mkdir()
    script.write_text(
        "import json, airlocktiny, numpy\nfrom pathlib import Path\n"
        "changed = True\n"
        "try:\n    Path(airlocktiny.__file__).write_text('x')\nexcept OSError:\n    changed = False\n"
        "Path('output/x.json').write_text(json.dumps([airlocktiny.VERSION, changed, numpy.__version__]))\n"
    )
    for version in ("1.0", "2.0"):
        packages = environments.provide([("airlocktiny", version)])
        assert packages is not None
        request = SandboxRequest(
            job={},
            inputs={},
            seconds=60,
            memory_mb=2048,
            output_mb=8,
            require_network_isolation=False,
            packages=str(packages),
        )
        ran = ProcessSandbox(runner=script, hidden=[tmp_path / "cache"]).run(request, tmp_path / "output")
        found, changed, numpy = json.loads((tmp_path / "output" / "x.json").read_text())
        assert (found, numpy) == (version, installed("numpy"))
        if any(claim.startswith("read-only files") for claim in ran.isolation):
            assert not changed


def test_an_environment_is_built_once_also_by_many_at_once(
    environments: Environments, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(lambda _: environments.provide([("airlocktiny", "1.0")]), range(3)))
    (folder,) = found
    assert folder is not None
    before = (folder / ".complete").stat().st_mtime_ns
    assert environments.provide([("airlocktiny", "1.0")]) == folder
    assert (folder / ".complete").stat().st_mtime_ns == before
    (folder / ".complete").unlink()  # as if the build had been killed
    assert environments.provide([("airlocktiny", "1.0")]) == folder
    assert (folder / ".complete").is_file()


def test_the_worker_s_own_packages_need_no_environment(environments: Environments) -> None:
    assert environments.provide([("numpy", installed("numpy"))]) is None
    assert environments.provide([]) is None


def test_a_missing_wheel_is_named_and_leaves_nothing_behind(
    environments: Environments, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError) as raised:
        environments.provide([("airlocktiny", "3.0")])
    assert "cannot be built" in raised.value.what
    assert str(tmp_path / "wheels") in raised.value.fix
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_source_distribution_is_never_run(environments: Environments, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with zipfile.ZipFile(tmp_path / "wheels" / "airlockevil-1.0.zip", "w") as archive:
        archive.writestr("airlockevil-1.0/setup.py", f"open({str(marker)!r}, 'w')\n")
    with pytest.raises(InvalidInputError):
        environments.provide([("airlockevil", "1.0")])
    assert not marker.exists()
