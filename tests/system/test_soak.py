"""Campaigns that take minutes: ``make soak``."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

from airlock.core.audit import Kind
from airlock.core.release import State
from airlock.demo import models
from tests.system.conftest import World

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

CUTS = int(os.environ.get("AIRLOCK_SOAK_CUTS", "8"))


def test_airflow_killed_at_any_moment_goes_on_after_a_restart(world: World) -> None:
    """Everything is killed at a random moment of a release, again and again; each is promoted once."""
    seed = int(os.environ.get("AIRLOCK_SOAK_SEED", str(time.time_ns() % 2**32)))
    sys.stderr.write(f"AIRLOCK_SOAK_SEED={seed}\n")
    moments = np.random.default_rng(seed)
    for cut in range(CUTS):
        submitted = world.submit(models.RATE_TYPE, world.register(models.RATE_REFIT))
        pause = float(moments.uniform(0, 10))
        time.sleep(pause)
        world.cut_the_power()
        world.up()
        began = time.monotonic()
        assert submitted.wait(through_waiting=True) is State.PROMOTED
        seconds = time.monotonic() - began
        sys.stderr.write(f"cut {cut + 1} after {pause:.1f} s: promoted {seconds:.0f} s after the restart\n")
        assert world.champion(models.RATE_TYPE) == submitted.version
        assert len(submitted.events(Kind.PROMOTION_FINISHED)) == 1
