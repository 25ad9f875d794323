"""The ``config/`` folder of a deployment."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from airlock.adapters.policy_files import PolicyFiles, versions
from airlock.adapters.yaml_files import line_of, load_model, load_yaml
from airlock.core.canary import Canary
from airlock.core.errors import ConfigurationError, NotFoundError
from airlock.core.notices import Notifications
from airlock.core.people import People
from airlock.core.policy import Policy
from airlock.core.retention import Regime, Retention
from airlock.core.workload import Workload


class ConfigFolder:
    """The ``config/`` folder of a deployment."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def workload_files(self) -> list[Path]:
        """Every workload file, sorted by name."""
        return sorted((self._root / "workloads").glob("*.yaml"))

    def workload(self, name: str) -> Workload:
        """Read one workload, whose retention regimes must be known here.

        Raises:
            NotFoundError: no such workload; names the nearest.
            ConfigurationError: the file is wrong.
        """
        files = {path.stem: path for path in self.workload_files()}
        if name not in files:
            near = difflib.get_close_matches(name, files, n=1)
            known = f"did you mean {near[0]!r}? " if near else ""
            raise NotFoundError(
                f"there is no workload {name!r}",
                where=str(self._root / "workloads"),
                fix=f"{known}known workloads: {', '.join(files) or 'none yet'}",
            )
        workload = self.load_workload(files[name])
        self.regimes(workload)
        return workload

    @staticmethod
    def load_workload(path: Path) -> Workload:
        """Read a workload file; its name must be the workload's name."""
        workload = load_model(path, Workload)
        if workload.name != path.stem:
            raise ConfigurationError(
                f"name: {workload.name!r} does not match the file name",
                where=f"{path}:{line_of(path, ['name'])}",
                fix=f"rename the file to {workload.name}.yaml or the workload to {path.stem}",
            )
        return workload

    def policy(self, version: str) -> Policy:
        """Read a policy version.

        Raises:
            NotFoundError: the version was never published here.
            ConfigurationError: the bundle is wrong, or says another version than its folder.
        """
        return self.policy_files(version).policy()

    def policy_versions(self) -> list[str]:
        """Versions that have a folder here, oldest first."""
        return versions(self._root / "policies")

    def policy_files(self, version: str) -> PolicyFiles:
        """The files of a policy version.

        Raises:
            NotFoundError: the version was never published here.
            ConfigurationError: a file cannot be read, or does not belong into a bundle.
        """
        if version not in self.policy_versions():
            raise NotFoundError(
                f"there is no policy {version}",
                where=str(self._root / "policies"),
                fix=f"published here: {', '.join(self.policy_versions()) or 'none yet'}",
            )
        return PolicyFiles(self._root / "policies" / version)

    def canary(self) -> Canary | None:
        """The policy that is tried beside the binding one; ``None`` where there is no such file.

        Raises:
            ConfigurationError: the file is wrong.
        """
        path = self._root / "canary.yaml"
        return load_model(path, Canary) if path.is_file() else None

    def people(self) -> People:
        """Read people and roles."""
        return load_model(self._root / "people.yaml", People)

    def notifications(self) -> Notifications:
        """Read the channels that people are told through; none where there is no such file.

        Raises:
            ConfigurationError: the file is wrong.
        """
        path = self._root / "notifications.yaml"
        return load_model(path, Notifications) if path.is_file() else Notifications(channels=[])

    def retention(self) -> Retention:
        """Read the retention regimes.

        Raises:
            NotFoundError: there is no such file.
            ConfigurationError: the file is wrong.
        """
        return load_model(self._root / "retention.yaml", Retention)

    def regimes(self, workload: Workload) -> list[Regime]:
        """The retention regimes a workload is under.

        Raises:
            NotFoundError: it names regimes, and there is no file of them.
            ConfigurationError: it names one that is not in the file; names the nearest.
        """
        if not workload.regimes:
            return []
        retention = self.retention()
        found = [retention.find(regime_id) for regime_id in workload.regimes]
        if None in found:
            place = found.index(None)
            near = difflib.get_close_matches(workload.regimes[place], retention.ids, n=1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigurationError(
                f"regimes.{place}: there is no regime {workload.regimes[place]!r}",
                where=self._place_in_workload(workload.name, "regimes", place),
                fix=f"{guess}regimes of {self._root / 'retention.yaml'}: {', '.join(retention.ids)}",
            )
        return [regime for regime in found if regime is not None]

    def _place_in_workload(self, name: str, *location: str | int) -> str:
        path = self._root / "workloads" / f"{name}.yaml"
        return f"{path}:{line_of(path, location)}" if path.is_file() else f"{path}, which is gone"

    def suite(self, name: str) -> dict[str, Any]:
        """Read an expectation suite as plain data; the data quality gate judges its content."""
        path = self._root / "expectations" / f"{name}.yaml"
        data = load_yaml(path)
        if not isinstance(data, dict):
            raise ConfigurationError("an expectation suite is a mapping", where=f"{path}:1")
        return data

    def documentation(self, workload: Workload) -> str:
        """The model card as text; empty when the file does not exist, which its gate refuses."""
        folder = (self._root / "workloads").resolve()
        path = (folder / workload.documentation).resolve()
        if not path.is_relative_to(folder):
            raise ConfigurationError(
                f"documentation: {workload.documentation!r} leaves the workloads folder",
                where=str(folder / f"{workload.name}.yaml"),
                fix="put the model card beside the workload file",
            )
        try:
            return path.read_text(encoding="utf-8") if path.is_file() else ""
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                "documentation: the model card is not UTF-8 text", where=str(path), fix="save it as UTF-8"
            ) from error
