"""Where features come from: the sources that data governance has approved."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from airlock.core.base import Value
from airlock.core.workload import Name

Pattern = Annotated[str, Field(min_length=1, max_length=200)]


class FeatureSource(Value):
    """A place features may be taken from without a further review (requirement T-3).

    Attributes:
        owner: role that answers for origin, consent and quality of what it holds.
        features: names of its features; ``*`` and ``?`` are wildcards, upper and lower case differ.
    """

    name: Name
    title: Annotated[str, Field(min_length=1)]
    owner: Name
    features: Annotated[list[Pattern], Field(min_length=1)]


def unapproved(features: Iterable[str], sources: Iterable[FeatureSource]) -> list[str]:
    """The features that no approved source holds, sorted.

    Laws: with no source every feature is unapproved; one more source never adds a feature to the list.
    """
    patterns = [pattern for source in sources for pattern in source.features]
    return sorted(name for name in features if not any(fnmatchcase(name, one) for one in patterns))
