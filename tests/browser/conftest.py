"""One browser and one gallery of releases for all browser tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browsers import chromium
from tests.support.deployments import fast_folder, make_world
from tests.support.gallery import Gallery, make_gallery, sequence, served


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    # A machine that does much else at once is slow, and that proves nothing about the pages.
    expect.set_options(timeout=300_000)
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def gallery(browser: Browser) -> Iterator[Gallery]:  # without a browser nothing is prepared
    with fast_folder() as folder, served(make_gallery(folder / "world")) as found:
        yield found


@pytest.fixture(scope="session")
def empty(browser: Browser) -> Iterator[Gallery]:
    """A deployment in which nothing has happened yet."""
    with fast_folder() as folder:
        world = make_world(folder / "world")
        sequence(world)
        with served(Gallery(world, {})) as found:
            yield found
