"""Sets of byte ranges, against sets of numbers."""

import itertools

from hdfs_fuse.extents import Extents
from hypothesis import given
from hypothesis import strategies as st

END = 60
ranges = st.tuples(st.integers(0, END), st.integers(0, END))
changes = st.lists(st.tuples(st.sampled_from(["add", "cut", "discard"]), ranges), max_size=30)


@given(changes, ranges)
def test_extents_are_sets_of_bytes(changes: list[tuple[str, tuple[int, int]]], asked: tuple[int, int]) -> None:
    extents, model = Extents(), set[int]()
    for kind, (start, stop) in changes:
        if kind == "add":
            extents.add(start, stop)
            model |= set(range(start, stop))
        elif kind == "discard":
            extents.discard(start)
            model = {byte for byte in model if byte >= start}
        else:
            extents.cut(start)
            model = {byte for byte in model if byte < start}
    assert [byte for start, stop in extents for byte in range(start, stop)] == sorted(model)
    bounds = [bound for extent in extents for bound in extent]
    assert bounds == sorted(set(bounds))  # in order, and none touches the next
    start, stop = asked
    pieces = list(extents.pieces(start, stop))
    assert [byte for a, b, _ in pieces for byte in range(a, b)] == list(range(start, stop))
    assert all(a < b for a, b, _ in pieces)
    assert all((byte in model) == had for a, b, had in pieces for byte in range(a, b))
    assert all(one[2] != other[2] for one, other in itertools.pairwise(pieces))
