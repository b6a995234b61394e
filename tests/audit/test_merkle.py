"""Trees have the hashes of RFC 6962, and proofs prove what they say and nothing else."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit import merkle
from tools.verify_audit import includes

# The tree that implementations of Certificate Transparency are tested with: its leaves, and its root at each size.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
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
}
CONSISTENCY = {
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
SIZES = st.integers(0, 300)
DEEP = st.integers(1, 2**40)


def naive(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not hashes:
        return merkle.EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return merkle.node_hash(naive(hashes[:k]), naive(hashes[k:]))


def naive_path(m: int, hashes: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m < k:
        return [*naive_path(m, hashes[:k]), naive(hashes[k:])]
    return [*naive_path(m - k, hashes[k:]), naive(hashes[:k])]


def naive_proof(m: int, hashes: list[bytes], *, known: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2."""
    if m == len(hashes):
        return [] if known else [naive(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m <= k:
        return [*naive_proof(m, hashes[:k], known=known), naive(hashes[k:])]
    return [*naive_proof(m - k, hashes[k:], known=False), naive(hashes[:k])]


def continues(first: int, second: int, path: Sequence[bytes], first_root: bytes, second_root: bytes) -> bool:
    """Whether the proof shows that the tree with the second root begins with that of the first (RFC 9162, section
    2.1.4.2). Every tree begins with the empty one."""
    if not 0 < first < second:
        roots = first_root == (merkle.EMPTY_ROOT if first == 0 else second_root)
        return not path and roots and 0 <= first <= second
    # A complete first tree is a node of the second one, and its root is not said twice.
    hashes = list(path) if first & (first - 1) else [first_root, *path]
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not hashes:
        return False
    before = after = hashes[0]
    for one in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            before, after = merkle.node_hash(one, before), merkle.node_hash(one, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = merkle.node_hash(after, one)
        place, last = place >> 1, last >> 1
    return last == 0 and before == first_root and after == second_root


def hashes_of(count: int) -> list[bytes]:
    return [merkle.leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


def tree(leaves: list[bytes], batches: list[int]) -> dict[merkle.Node, bytes]:
    """All nodes, made by appending the leaves in batches that end at these sizes."""
    nodes: dict[merkle.Node, bytes] = {}
    for start, stop in pairwise([0, *sorted(one for one in batches if one < len(leaves)), len(leaves)]):
        edge = [nodes[node] for node in merkle.cover(0, start)]
        nodes |= {(0, start + place): leaf for place, leaf in enumerate(leaves[start:stop])}
        nodes |= dict(merkle.grow(start, edge, leaves[start:stop]))
    return nodes


class TestVectors:
    def test_roots_are_those_of_every_other_implementation(self) -> None:
        hashes = [merkle.leaf_hash(one) for one in LEAVES]
        nodes = tree(hashes, [])
        assert [merkle.root(size, nodes).hex() for size in range(9)] == ROOTS

    @pytest.mark.parametrize(("index", "size"), INCLUSION)
    def test_inclusion_proofs_are_too(self, index: int, size: int) -> None:
        nodes = tree([merkle.leaf_hash(one) for one in LEAVES], [])
        found = merkle.proof(merkle.inclusion_path(index, size), nodes)
        assert [one.hex() for one in found] == INCLUSION[index, size]

    @pytest.mark.parametrize(("first", "second"), CONSISTENCY)
    def test_consistency_proofs_are_too(self, first: int, second: int) -> None:
        nodes = tree([merkle.leaf_hash(one) for one in LEAVES], [])
        found = merkle.proof(merkle.consistency_path(first, second), nodes)
        assert [one.hex() for one in found] == CONSISTENCY[first, second]


class TestGrow:
    @given(size=SIZES, batches=st.lists(SIZES))
    def test_makes_the_same_tree_whatever_the_batches(self, size: int, batches: list[int]) -> None:
        leaves = hashes_of(size)
        nodes = tree(leaves, batches)
        assert merkle.root(size, nodes) == naive(leaves)
        # Every complete subtree, once, and nothing else.
        assert nodes == {
            (level, place): naive(leaves[place << level : place + 1 << level])
            for level in range(size.bit_length())
            for place in range(size >> level)
        }

    def test_completes_few_nodes_however_large_the_tree(self) -> None:
        made = merkle.grow(2**40 - 1000, [b"x" * 32] * 64, hashes_of(999))
        assert len(made) < 999 + 40


class TestCover:
    @given(start=DEEP, length=DEEP)
    def test_is_gapless_and_as_short_as_the_tree_is_deep(self, start: int, length: int) -> None:
        nodes = list(merkle.cover(start, start + length))
        edges = [start, *(place + 1 << level for level, place in nodes)]
        assert [place << level for level, place in nodes] == edges[:-1]
        assert edges[-1] == start + length
        assert len(nodes) <= 2 * 41

    @given(size=DEEP)
    def test_of_a_whole_tree_has_a_subtree_for_each_bit_of_its_size(self, size: int) -> None:
        assert len(list(merkle.cover(0, size))) == size.bit_count()


class TestInclusion:
    @given(data=st.data(), size=st.integers(1, 300))
    def test_proofs_are_those_of_the_definition_and_prove_it(self, data: Any, size: int) -> None:
        index = data.draw(st.integers(0, size - 1))
        # Of a tree that has grown since.
        leaves = hashes_of(size + data.draw(st.integers(0, 50)))
        nodes = tree(leaves, [])
        found = merkle.proof(merkle.inclusion_path(index, size), nodes)
        assert found == naive_path(index, leaves[:size])
        assert includes(leaves[index], index, size, found, naive(leaves[:size]))

    @given(data=st.data(), size=st.integers(1, 100))
    def test_proofs_prove_nothing_else(self, data: Any, size: int) -> None:
        index = data.draw(st.integers(0, size - 1))
        leaves = hashes_of(size)
        root, path = naive(leaves), naive_path(index, leaves)
        other = merkle.leaf_hash(b"other")
        assert not includes(other, index, size, path, root)
        assert not includes(leaves[index], index, size, path, other)
        assert not includes(leaves[index], index, size, [*path, other], root)
        elsewhere = set(range(-1, size + 2)) - {index}
        assert not any(includes(leaves[index], one, size, path, root) for one in elsewhere)
        for place in range(len(path)):
            assert not includes(leaves[index], index, size, path[:place] + path[place + 1 :], root)
            assert not includes(leaves[index], index, size, [*path[:place], other, *path[place + 1 :]], root)

    @given(size=DEEP, data=st.data())
    def test_proofs_are_as_long_as_the_tree_is_deep(self, size: int, data: Any) -> None:
        index = data.draw(st.integers(0, size - 1))
        path = merkle.inclusion_path(index, size)
        assert len(path) <= (size - 1).bit_length()
        assert len(merkle.nodes_of(path)) <= 2 * (size - 1).bit_length()

    @pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5)])
    def test_of_a_leaf_that_is_not_there_is_refused(self, index: int, size: int) -> None:
        with pytest.raises(ValueError, match="no leaf"):
            merkle.inclusion_path(index, size)
        assert not includes(b"", index, size, [], b"")


class TestConsistency:
    @given(data=st.data(), second=SIZES)
    def test_proofs_are_those_of_the_definition_and_prove_it(self, data: Any, second: int) -> None:
        first = data.draw(st.integers(0, second))
        leaves = hashes_of(second + data.draw(st.integers(0, 50)))
        found = merkle.proof(merkle.consistency_path(first, second), tree(leaves, []))
        assert found == (naive_proof(first, leaves[:second]) if first else [])
        assert continues(first, second, found, naive(leaves[:first]), naive(leaves[:second]))

    @given(data=st.data(), second=st.integers(2, 100))
    def test_proofs_prove_nothing_else(self, data: Any, second: int) -> None:
        first = data.draw(st.integers(1, second - 1))
        leaves = hashes_of(second)
        path, before, after = naive_proof(first, leaves), naive(leaves[:first]), naive(leaves)
        other = merkle.leaf_hash(b"other")
        assert not continues(first, second, path, other, after)
        assert not continues(first, second, path, before, other)
        assert not continues(first, second, [*path, other], before, after)
        assert not continues(second, first, path, after, before)
        for place in range(len(path)):
            assert not continues(first, second, path[:place] + path[place + 1 :], before, after)
            assert not continues(first, second, [*path[:place], other, *path[place + 1 :]], before, after)

    def test_of_a_tree_that_was_changed_cannot_be_made(self) -> None:
        for size in range(2, 40):
            leaves = hashes_of(size)
            changed = [merkle.leaf_hash(b"changed"), *leaves[1:]]
            for first in range(1, size):
                path = naive_proof(first, changed)
                assert not continues(first, size, path, naive(leaves[:first]), naive(changed))

    def test_of_equal_trees_is_empty(self) -> None:
        assert merkle.consistency_path(5, 5) == []
        root = naive(hashes_of(5))
        assert continues(5, 5, [], root, root)
        assert not continues(5, 5, [], root, merkle.EMPTY_ROOT)
        assert not continues(5, 5, [root], root, root)

    def test_of_a_longer_tree_before_a_shorter_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="does not begin"):
            merkle.consistency_path(6, 5)
