"""Links from a model to what it was made of, each with what was claimed and what is there."""

from __future__ import annotations

from typing import Literal

from airlock.core.base import Value

LinkKind = Literal["data", "features", "code", "environment", "parameters"]


class Link(Value):
    """One link of the lineage, as it stood when the release was frozen.

    Attributes:
        kind: what it identifies.
        tool: what says so, such as ``dvc`` or ``git``.
        name: file, view, run or repository.
        claimed: digest that the tool or the artifact names; empty where nothing is claimed.
        found: digest of what is there; empty where there is nothing.
        problem: why it could not be followed, in words; empty when it could.
    """

    kind: LinkKind
    tool: str
    name: str
    claimed: str = ""
    found: str = ""
    problem: str = ""

    @property
    def broken(self) -> str:
        """What is wrong with it, in words; empty when it holds."""
        if self.problem:
            return self.problem
        if not self.found:
            return "is not there"
        if self.claimed and self.claimed != self.found:
            return f"is not what was claimed: {self.found[:12]} is there, {self.claimed[:12]} was claimed"
        return ""
