"""Policy bundles by version or by folder: published ones, and those that are being written."""

from __future__ import annotations

from pathlib import Path

from airlock.adapters.config_files import ConfigFolder
from airlock.adapters.policy_files import PolicyFiles
from airlock.adapters.settings import Settings, load_settings
from airlock.core.errors import AirlockError
from airlock.core.people import People


class Bundles:
    """The bundles of a deployment, and any folder somebody names. Nothing but files is opened."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.config = ConfigFolder((settings or load_settings()).config_dir)

    def versions(self) -> list[str]:
        """Versions that have a folder, oldest first."""
        return self.config.policy_versions()

    def files(self, name: str) -> PolicyFiles:
        """The files of a version, or of the folder ``name`` when it is a path.

        Raises:
            NotFoundError: there is no such version or folder.
            ConfigurationError: a file cannot be read, or does not belong into a bundle.
        """
        if "/" in name or (name not in self.versions() and Path(name).is_dir()):
            return PolicyFiles(Path(name))
        return self.config.policy_files(name)

    def people(self) -> People | None:
        """People of the deployment; ``None`` where the file is missing or wrong, which others report."""
        try:
            return self.config.people()
        except AirlockError:
            return None

    def workloads_under(self, version: str) -> list[str]:
        """Workloads that name a version; files that cannot be read name none."""
        found = []
        for path in self.config.workload_files():
            try:
                workload = self.config.load_workload(path)
            except AirlockError:
                continue
            if workload.policy == version:
                found.append(workload.name)
        return found
