"""Stored tiles are compared with computed ones in the same way at every level."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.adapters.audit.scan import MODIFIED, TILE, Suspect, compare_tiles
from airlock.core.merkle import TILE_WIDTH, Tree, hash_leaves
from airlock.proof import hash_leaf

HASHES = hash_leaves(str(number).encode() for number in range(2 * TILE_WIDTH + 3))
TREE_TILES = Tree().extend(HASHES)
STORED = {tile.index: (tile.root, tile.hashes) for tile in TREE_TILES if tile.level == 0}


@given(st.lists(st.binary(max_size=70), max_size=5))
def test_many_leaves_are_hashed_as_one_is(bodies: list[bytes]) -> None:
    assert hash_leaves(bodies) == [hash_leaf(body) for body in bodies]


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("first", [0, 7])
def test_tiles_that_are_what_was_signed_give_their_roots(level: int, first: int) -> None:
    stored = {first + index: tile for index, tile in STORED.items()}
    assert compare_tiles(level, first, HASHES, stored) == ([STORED[0][0], STORED[1][0]], [])


@pytest.mark.requirement("E-2")
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_tile_that_is_not_what_was_signed_is_named_at_every_level(level: int) -> None:
    root, data = STORED[1]
    changed = bytes([data[0] ^ 1]) + data[1:]
    for kept, words in (
        (None, "is missing"),
        ((bytes(32), data), "has another root"),
        ((root, changed), "is not what was signed"),
    ):
        stored = {0: STORED[0], **({1: kept} if kept else {})}
        roots, (suspect,) = compare_tiles(level, 0, HASHES, stored)
        assert roots == [STORED[0][0], root], "what is computed does not depend on what is stored"
        seq = TILE_WIDTH ** (level + 1)
        if kept == (root, changed) and level == 0:  # the leaves say which event it is
            assert suspect == Suspect(MODIFIED, seq, f"entry {seq} is not what was signed")
        else:
            assert (suspect.what, suspect.seq) == (TILE, seq)
            assert words in suspect.detail
