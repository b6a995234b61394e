"""Merkle trees as RFC 6962 hashes them: grown at their right edge, proven by the hashes of complete subtrees alone."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

# A complete subtree: its level (a leaf is at 0) and its place among those of the level. It has 2^level leaves.
Node = tuple[int, int]
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf, 32 bytes."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node, 32 bytes."""
    return sha256(b"\1" + left + right).digest()


def grow(size: int, edge: Sequence[bytes], leaves: Sequence[bytes]) -> list[tuple[Node, bytes]]:
    """The inner nodes that these leaf hashes complete, added to a tree of `size` leaves.

    `edge` are the hashes of `cover(0, size)`. Each leaf completes as many nodes as its number has low bits set, so that
    n leaves complete fewer than n + log(size) in all, however large the tree is.
    """
    stack, made = list(edge), []
    for index, leaf in enumerate(leaves, size):
        level, place, found = 0, index, leaf
        while place & 1:
            level, place, found = level + 1, place >> 1, node_hash(stack.pop(), found)
            made.append(((level, place), found))
        stack.append(found)
    return made


def cover(start: int, stop: int) -> Iterator[Node]:
    """The fewest complete subtrees whose leaves are those from `start` to before `stop`, from left to right."""
    while start < stop:
        # The largest that begins here: no larger than its place allows, nor than what is left.
        level = (stop - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        yield level, start >> level
        start += 1 << level


def fold(hashes: Sequence[bytes]) -> bytes:
    """The hash of a tree that these subtrees cover, each smaller than the one before; of the empty tree for none."""
    if not hashes:
        return EMPTY_ROOT
    *rest, found = hashes
    for left in reversed(rest):
        found = node_hash(left, found)
    return found


def inclusion_path(index: int, size: int) -> list[tuple[int, int]]:
    """The leaves, from start to before stop, of each subtree whose hash is in the proof that leaf `index` is in a tree
    of `size` leaves, in the proof's order: PATH of RFC 6962, section 2.1.1. Raises ValueError unless index < size."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path, start, stop = [], 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            path.append((middle, stop))
            stop = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_path(first: int, second: int) -> list[tuple[int, int]]:
    """The same of the proof that the tree of `second` leaves begins with that of `first`: PROOF of RFC 6962, section
    2.1.2; nothing for an empty tree. Raises ValueError unless first <= second."""
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {second} leaves does not begin with one of {first}")
    path, start, stop = [], 0, second
    if first == 0:
        return []
    while first != stop:
        middle = start + _split(stop - start)
        if first <= middle:
            path.append((middle, stop))
            stop = middle
        else:
            path.append((start, middle))
            start = middle
    # A verifier has the root of the earlier tree already when that is a complete subtree of the later one.
    if start:
        path.append((start, stop))
    return path[::-1]


def nodes_of(path: Sequence[tuple[int, int]]) -> set[Node]:
    """The nodes whose hashes `proof` needs for the path."""
    return {node for start, stop in path for node in cover(start, stop)}


def proof(path: Sequence[tuple[int, int]], hashes: Mapping[Node, bytes]) -> list[bytes]:
    """The proof's hashes; that of a subtree which is not complete is made of the complete ones in it."""
    return [fold([hashes[node] for node in cover(start, stop)]) for start, stop in path]


def root(size: int, hashes: Mapping[Node, bytes]) -> bytes:
    """The root of the tree of the first `size` leaves, of the hashes of `cover(0, size)`."""
    return fold([hashes[node] for node in cover(0, size)])


def _split(size: int) -> int:
    """The largest power of two that is smaller than the size."""
    return int(1 << (size - 1).bit_length() - 1)
