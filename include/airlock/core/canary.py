"""A candidate policy beside the binding one, on a share of releases (requirement P-4)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from airlock.core.base import Value
from airlock.core.canonical import sha256
from airlock.core.workload import Name


class Canary(Value):
    """Which policy is tried on which releases; ``config/canary.yaml``. What it says never binds."""

    policy: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$", description="version that is tried")]
    share: Annotated[float, Field(ge=0, le=1, description="share of releases it is tried on")]
    workloads: Annotated[
        list[Name], Field(description="workloads it is tried on; empty stands for all of them")
    ] = []

    def takes(self, release_id: str, workload: str) -> bool:
        """Whether a release is among those it is tried on.

        Law: the same release and policy always give the same answer, and a larger share takes all that a
        smaller one takes.
        """
        if self.workloads and workload not in self.workloads:
            return False
        place = int.from_bytes(sha256(f"{self.policy}/{release_id}".encode())[:8], "big") / 2**64
        return place < self.share
