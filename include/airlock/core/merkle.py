"""The Merkle tree over the audit log, in tiles: roots and proofs from a few stored rows.

The tree is that of RFC 9162, cut into tiles of 256 hashes (https://c2sp.org/tlog-tiles): tile ``i`` of
level ``l`` holds the hashes of the complete subtrees with ``256**l`` leaves from number ``256 * i`` on.
Only complete tiles are stored, so a stored tile never changes; the hashes beyond them are few and
follow from the tiles below, at level 0 from the entries themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from airlock.proof import EMPTY_ROOT, HASH_SIZE, hash_node

TILE_WIDTH = 256
_TILE_HEIGHT = 8


@dataclass(frozen=True)
class Tile:
    """256 neighbouring hashes of one level; ``level`` 0 holds leaf hashes."""

    level: int
    index: int
    hashes: bytes
    """8,192 bytes: the hashes one after another."""

    @property
    def root(self) -> bytes:
        """Hash of the subtree over the whole tile, which is one hash of the level above."""
        return complete_root(split(self.hashes))


def split(hashes: bytes) -> list[bytes]:
    """Cut a row of hashes into single ones."""
    return [hashes[start : start + HASH_SIZE] for start in range(0, len(hashes), HASH_SIZE)]


# Copying what has hashed the first byte takes two thirds of the time of beginning anew, and the whole log
# passes through the two functions that do; elsewhere ``airlock.proof`` says the same more plainly.
_LEAF, _NODE = hashlib.sha256(b"\x00"), hashlib.sha256(b"\x01")


def hash_leaves(bodies: Iterable[bytes]) -> list[bytes]:
    """``hash_leaf`` of each."""
    hashes, begun = [], _LEAF.copy
    for body in bodies:
        leaf = begun()
        leaf.update(body)
        hashes.append(leaf.digest())
    return hashes


def complete_root(row: Sequence[bytes]) -> bytes:
    """Root of a complete subtree; ``row`` has a power of two of hashes."""
    begun = _NODE.copy
    while len(row) > 1:
        above, pairs = [], iter(row)
        for left, right in zip(pairs, pairs, strict=True):
            node = begun()
            node.update(left)
            node.update(right)
            above.append(node.digest())
        row = above
    return row[0]


def root_of(row: Sequence[bytes]) -> bytes:
    """Root over any number of subtrees of equal height, the last ones possibly missing."""
    if not row:
        return EMPTY_ROOT
    roots = []
    start = 0
    while start < len(row):
        width = 1 << ((len(row) - start).bit_length() - 1)
        roots.append(complete_root(row[start : start + width]))
        start += width
    return _fold(roots)


def _fold(peaks: Sequence[bytes]) -> bytes:
    """Root over the complete subtrees of a tree, the largest first."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = hash_node(peak, root)
    return root


@dataclass
class Tree:
    """A tree that grows at its end; it remembers only the hashes that are in no complete tile.

    Law: however a sequence of leaf hashes is cut into calls of ``extend``, roots and tiles are the same.
    """

    size: int = 0
    edges: list[list[bytes]] = field(default_factory=list)
    """For each level the hashes after its last complete tile."""

    def extend(self, leaf_hashes: Sequence[bytes]) -> list[Tile]:
        """Append leaves and return the tiles that were completed by them, lower levels first."""
        tiles: list[Tile] = []
        new: list[bytes] = list(leaf_hashes)
        level, before = 0, self.size
        self.size += len(new)
        while new:
            if level == len(self.edges):
                self.edges.append([])
            edge = self.edges[level]
            index = before >> _TILE_HEIGHT
            edge.extend(new)
            new = []
            while len(edge) >= TILE_WIDTH:
                tile = Tile(level, index, b"".join(edge[:TILE_WIDTH]))
                del edge[:TILE_WIDTH]
                tiles.append(tile)
                new.append(tile.root)
                index += 1
            level, before = level + 1, before >> _TILE_HEIGHT
        return tiles

    @property
    def root(self) -> bytes:
        """Root of the whole tree (RFC 9162, section 2.1.1)."""
        peaks: list[bytes] = []
        for edge in self.edges:
            lower: list[bytes] = []
            start = 0
            while start < len(edge):
                width = 1 << ((len(edge) - start).bit_length() - 1)
                lower.append(complete_root(edge[start : start + width]))
                start += width
            peaks[:0] = lower
        return _fold(peaks) if peaks else EMPTY_ROOT


Peak = Callable[[int, int, int], bytes]
"""``peak(level, start, count)``: root over that many neighbouring subtrees with ``256**level`` leaves each.

``count`` is a power of two, at most 128 or a whole tile, and ``start`` a multiple of it.
"""


def root_at(peak: Peak, size: int) -> bytes:
    """Root of the tree when it had ``size`` leaves."""
    return _range(peak, 0, size) if size else EMPTY_ROOT


def inclusion_proof(peak: Peak, index: int, size: int) -> list[bytes]:
    """Proof that leaf ``index`` is in the tree of ``size`` leaves (RFC 9162, section 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"entry {index} is not in a tree of {size}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_range(peak, middle, end))
            end = middle
        else:
            proof.append(_range(peak, start, middle))
            start = middle
    return proof[::-1]


def consistency_proof(peak: Peak, size: int, later: int) -> list[bytes]:
    """Proof that the tree of ``later`` leaves continues that of ``size`` (RFC 9162, section 2.1.4.1)."""
    if not 0 <= size <= later:
        raise ValueError(f"a tree of {later} does not continue one of {size}")
    if size in (0, later):
        return []
    proof: list[bytes] = []
    start, end = 0, later
    whole = True
    while size != end:
        middle = start + _split(end - start)
        if size <= middle:
            proof.append(_range(peak, middle, end))
            end = middle
        else:
            proof.append(_range(peak, start, middle))
            start, whole = middle, False
    if not whole:
        proof.append(_range(peak, start, end))
    return proof[::-1]


def _split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << ((count - 1).bit_length() - 1)


def _range(peak: Peak, start: int, end: int) -> bytes:
    """Root over the leaves from ``start`` to ``end``; ``start`` is a multiple of each subtree in it."""
    peaks: list[bytes] = []
    while start < end:
        width = 1 << ((end - start).bit_length() - 1)
        level, rest = divmod(width.bit_length() - 1, _TILE_HEIGHT)
        peaks.append(peak(level, start >> (_TILE_HEIGHT * level), 1 << rest))
        start += width
    return _fold(peaks)
