"""The Merkle tree in tiles, against published vectors and the recursive definitions of RFC 9162."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlock.core.merkle import (
    TILE_WIDTH,
    Peak,
    Tile,
    Tree,
    complete_root,
    consistency_proof,
    inclusion_proof,
    root_at,
    root_of,
    split,
)
from airlock.proof import (
    EMPTY_ROOT,
    ProofError,
    hash_leaf,
    hash_node,
    verify_consistency,
    verify_inclusion,
)

# The leaves and results with which Certificate Transparency logs are tested.
LEAVES = [
    hash_leaf(bytes.fromhex(data))
    for data in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONTINUATIONS = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}

MOST = 70_000
"""Leaves of the largest tree here: a tile of level 2 is not complete in it, one of level 1 is."""


# The definitions, word for word and slowly. Leaf ``n`` of these tests is the hash of its number.


@cache
def leaf(number: int) -> bytes:
    return hash_leaf(str(number).encode())


@cache
def mth(start: int, end: int) -> bytes:
    """MTH(D[start:end]), RFC 9162, section 2.1.1."""
    if start == end:
        return EMPTY_ROOT
    if end - start == 1:
        return leaf(start)
    middle = start + largest_power_below(end - start)
    return hash_node(mth(start, middle), mth(middle, end))


def largest_power_below(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def path(m: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D[start:end]), RFC 9162, section 2.1.3.1."""
    if end - start == 1:
        return []
    k = largest_power_below(end - start)
    if m < k:
        return [*path(m, start, start + k), mth(start + k, end)]
    return [*path(m - k, start + k, end), mth(start, start + k)]


def subproof(m: int, start: int, end: int, *, complete: bool) -> list[bytes]:
    """SUBPROOF(m, D[start:end], b), RFC 9162, section 2.1.4.1."""
    if m == end - start:
        return [] if complete else [mth(start, end)]
    k = largest_power_below(end - start)
    if m <= k:
        return [*subproof(m, start, start + k, complete=complete), mth(start + k, end)]
    return [*subproof(m - k, start + k, end, complete=False), mth(start, start + k)]


def stored(leaves: list[bytes]) -> Peak:
    """A peak from what a database has: complete tiles, and leaves."""
    tiles = {(tile.level, tile.index): tile for tile in Tree().extend(leaves)}

    def peak(level: int, start: int, count: int) -> bytes:
        assert count in (1, 2, 4, 8, 16, 32, 64, 128)
        assert start % count == 0, "no question crosses a tile"
        tile = tiles.get((level, start // TILE_WIDTH))
        if tile is not None:
            return complete_root(split(tile.hashes)[start % TILE_WIDTH :][:count])
        if level == 0:
            return complete_root(leaves[start : start + count])
        return complete_root([tiles[level - 1, index].root for index in range(start, start + count)])

    return peak


@cache
def numbered() -> Peak:
    return stored([leaf(number) for number in range(MOST)])


# Published vectors


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    tree = Tree()
    tree.extend(LEAVES[:size])
    wanted = bytes.fromhex(ROOTS[size - 1])
    assert tree.root == root_of(LEAVES[:size]) == root_at(stored(LEAVES), size) == wanted


def test_an_empty_tree_has_the_hash_of_nothing_as_its_root() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Tree().root == root_of([]) == root_at(stored([]), 0) == bytes.fromhex(empty)


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_inclusion_proofs_are_those_of_certificate_transparency(index: int, size: int) -> None:
    proof = inclusion_proof(stored(LEAVES), index, size)
    assert [each.hex() for each in proof] == PATHS[index, size]
    verify_inclusion(LEAVES[index], index, size, proof, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("size", "later"), CONTINUATIONS)
def test_consistency_proofs_are_those_of_certificate_transparency(size: int, later: int) -> None:
    proof = consistency_proof(stored(LEAVES), size, later)
    assert [each.hex() for each in proof] == CONTINUATIONS[size, later]
    roots = [bytes.fromhex(ROOTS[each - 1]) for each in (size, later)]
    verify_consistency(size, roots[0], later, roots[1], proof)


# Against the definitions

EDGES = [0, 1, 2, 3, 4, 127, 255, 256, 257, 511, 512, 513, 1000, 65_535, 65_536, 65_537, 65_792, MOST]
SIZES = st.one_of(st.sampled_from(EDGES), st.integers(0, 1_100), st.integers(0, MOST))


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 700), max_size=8))
def test_however_leaves_are_cut_into_batches_root_and_tiles_are_the_same(cuts: list[int]) -> None:
    tree, tiles = Tree(), list[Tile]()
    for cut in cuts:
        before = tree.size
        tiles += tree.extend([leaf(number) for number in range(before, before + cut)])
        assert tree.root == mth(0, tree.size)
    whole = Tree()
    at_once = whole.extend([leaf(number) for number in range(sum(cuts))])
    assert whole.size == tree.size == sum(cuts)
    assert sorted(tiles, key=place) == sorted(at_once, key=place)
    # An edge that was opened and one that never was are the same tree.
    assert [edge for edge in whole.edges if edge] == [edge for edge in tree.edges if edge]


def place(tile: Tile) -> tuple[int, int]:
    return tile.level, tile.index


def test_tiles_hold_the_hashes_of_complete_subtrees_and_are_complete_themselves() -> None:
    tiles = Tree().extend([leaf(number) for number in range(MOST)])
    assert sorted(place(tile) for tile in tiles) == [
        *((0, index) for index in range(MOST // TILE_WIDTH)),
        (1, 0),
    ]
    for tile in tiles:
        assert len(tile.hashes) == 8192
        width = TILE_WIDTH**tile.level
        first = tile.index * TILE_WIDTH
        assert split(tile.hashes) == [
            mth(number * width, (number + 1) * width) for number in range(first, first + TILE_WIDTH)
        ]
        assert tile.root == mth(first * width, (first + TILE_WIDTH) * width)


@settings(max_examples=100, deadline=None)
@given(size=SIZES)
def test_the_root_at_any_size_is_the_defined_one(size: int) -> None:
    assert root_at(numbered(), size) == mth(0, size)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=SIZES.filter(bool))
def test_inclusion_proofs_are_the_defined_ones_and_verify(data: Any, size: int) -> None:
    index = data.draw(st.one_of(st.integers(0, size - 1), st.just(size - 1), st.just(0)))
    proof = inclusion_proof(numbered(), index, size)
    assert proof == path(index, 0, size)
    verify_inclusion(leaf(index), index, size, proof, mth(0, size))


@settings(max_examples=100, deadline=None)
@given(sizes=st.tuples(SIZES, SIZES))
def test_consistency_proofs_are_the_defined_ones_and_verify(sizes: tuple[int, int]) -> None:
    size, later = sorted(sizes)
    proof = consistency_proof(numbered(), size, later)
    assert proof == ([] if size == 0 else subproof(size, 0, later, complete=True))
    verify_consistency(size, mth(0, size), later, mth(0, later), proof)


@pytest.mark.slow
def test_every_proof_of_every_small_tree_is_the_defined_one() -> None:
    peak = numbered()
    for later in range(1, 66):
        for size in range(later + 1):
            proof = consistency_proof(peak, size, later)
            assert proof == ([] if size == 0 else subproof(size, 0, later, complete=True))
            verify_consistency(size, mth(0, size), later, mth(0, later), proof)
        for index in range(later):
            proof = inclusion_proof(peak, index, later)
            assert proof == path(index, 0, later)
            verify_inclusion(leaf(index), index, later, proof, mth(0, later))


def test_what_no_tree_can_prove_is_refused_at_once() -> None:
    for index, size in ((-1, 5), (5, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match="is not in a tree"):
            inclusion_proof(numbered(), index, size)
    for size, later in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="does not continue"):
            consistency_proof(numbered(), size, later)


def test_a_row_that_is_no_complete_subtree_has_no_root() -> None:
    with pytest.raises(ValueError, match="zip"):
        complete_root([leaf(0), leaf(1), leaf(2)])


# What does not prove anything


def forged(proof: list[bytes], data: Any) -> list[bytes]:
    """The proof with one thing wrong."""
    nodes = [leaf(0), leaf(1), mth(0, 2), mth(0, 4), EMPTY_ROOT, bytes(32), *proof]
    ways = ["longer"]
    if proof:
        ways += ["shorter", "shorter in front", "other", "bit", "swapped"]
    way = data.draw(st.sampled_from(ways))
    at = data.draw(st.integers(0, max(0, len(proof) - 1)))
    if way == "longer":
        at = data.draw(st.integers(0, len(proof)))
        return [*proof[:at], data.draw(st.sampled_from(nodes)), *proof[at:]]
    if way == "shorter":
        return proof[:-1]
    if way == "shorter in front":
        return proof[1:]
    if way == "swapped":
        return [*proof[:at], *proof[at + 1 :], proof[at]]
    changed = bytearray(proof[at])
    if way == "bit":
        changed[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        changed[:] = data.draw(st.sampled_from(nodes))
    return [*proof[:at], bytes(changed), *proof[at + 1 :]]


@pytest.mark.requirement("E-2")
@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=st.integers(1, 600))
def test_an_inclusion_proof_with_anything_wrong_is_refused(data: Any, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root = path(index, 0, size), mth(0, size)
    wrong = forged(proof, data)
    if wrong != proof:
        with pytest.raises(ProofError):
            verify_inclusion(leaf(index), index, size, wrong, root)
    with pytest.raises(ProofError):
        verify_inclusion(leaf(index + 1), index, size, proof, root)
    with pytest.raises(ProofError):
        verify_inclusion(leaf(index), index, size, proof, hash_node(root, root))
    other = data.draw(st.integers(-1, size))
    if other != index:
        with pytest.raises(ProofError):
            verify_inclusion(leaf(index), other, size, proof, root)


@pytest.mark.requirement("E-2")
@settings(max_examples=100, deadline=None)
@given(data=st.data(), later=st.integers(1, 600))
def test_a_consistency_proof_with_anything_wrong_is_refused(data: Any, later: int) -> None:
    size = data.draw(st.integers(1, later))
    root, later_root = mth(0, size), mth(0, later)
    proof = subproof(size, 0, later, complete=True)
    wrong = forged(proof, data)
    if wrong != proof:
        with pytest.raises(ProofError):
            verify_consistency(size, root, later, later_root, wrong)
    for roots in ((later_root[::-1], later_root), (root, root[::-1]), (bytes(32), later_root)):
        with pytest.raises(ProofError):
            verify_consistency(size, roots[0], later, roots[1], proof)


@pytest.mark.requirement("E-2")
def test_a_log_that_was_cut_or_rewritten_has_no_proof() -> None:
    """Whatever hashes of both trees somebody puts together."""
    honest = [leaf(number) for number in range(7)]
    changed = [*honest[:2], hash_leaf(b"other"), *honest[3:], leaf(7)]
    root, later_root = root_of(honest), root_of(changed)
    for proof in ([], consistency_proof(stored(changed), 7, 8), subproof(7, 0, 8, complete=True)):
        with pytest.raises(ProofError):
            verify_consistency(7, root, 8, later_root, proof)
    with pytest.raises(ProofError, match="does not continue"):
        verify_consistency(8, later_root, 7, root, [])


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33), bytes(64)])
def test_something_that_is_no_hash_is_refused(wrong: bytes) -> None:
    proof = path(1, 0, 4)
    with pytest.raises(ProofError, match="no hash"):
        verify_inclusion(leaf(1), 1, 4, [proof[0], wrong], mth(0, 4))
    with pytest.raises(ProofError, match="no hash"):
        verify_consistency(3, mth(0, 3), 4, mth(0, 4), [wrong])


def test_an_endless_proof_is_refused_without_work() -> None:
    endless = [bytes(32)] * 1_000_000
    with pytest.raises(ProofError):
        verify_inclusion(leaf(0), 0, 2**62, endless, bytes(32))
    with pytest.raises(ProofError):
        verify_consistency(1, leaf(0), 2**62, bytes(32), endless)


def test_trees_without_entries_and_of_the_same_size_need_no_proof_and_accept_none() -> None:
    verify_consistency(0, EMPTY_ROOT, 5, mth(0, 5), [])
    verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    verify_consistency(5, mth(0, 5), 5, mth(0, 5), [])
    for size, root, later, later_root, proof in (
        (0, bytes(32), 5, mth(0, 5), []),
        (0, EMPTY_ROOT, 5, mth(0, 5), [leaf(0)]),
        (5, mth(0, 5), 5, mth(0, 4), []),
        (5, mth(0, 5), 5, mth(0, 5), [leaf(0)]),
        (0, bytes(32), 0, bytes(32), []),
        (-1, EMPTY_ROOT, 5, mth(0, 5), []),
    ):
        with pytest.raises(ProofError):
            verify_consistency(size, root, later, later_root, proof)
    with pytest.raises(ProofError, match="cannot be in a tree of 0"):
        verify_inclusion(leaf(0), 0, 0, [], EMPTY_ROOT)
