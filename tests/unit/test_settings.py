"""Settings reach child processes as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlock.adapters.settings import Settings, load_settings


@pytest.mark.parametrize("given", [{}, {"advisories": Path("/srv/osv"), "anonymous_per_minute": 7}])
def test_a_child_process_reads_what_its_parent_had(
    given: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, **given)  # type: ignore[arg-type]  # fields by name
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert "None" not in settings.environment().values()
