"""Names of blocks: another version, file, cluster, block size or index is another name."""

import dataclasses

import pytest
from hdfs_fuse.cache.keys import BlockKeys, FileVersion
from hypothesis import assume, given
from hypothesis import strategies as st

VERSION = FileVersion("hdfs://nn:8020", "/data/a", 1_700_000_000_000, 10 * 4096 + 7)
KEYS = BlockKeys(VERSION, 4096)

# Paths of HDFS, names that are not UTF-8 included, without NUL.
paths = st.text(st.characters(exclude_characters="\0"), max_size=40)
versions = st.builds(
    FileVersion, cluster=st.text("abc:/", max_size=8), path=paths, mtime_ms=st.integers(0), length_bytes=st.integers(1)
)


def test_only_the_last_block_is_shorter() -> None:
    assert len(KEYS) == 11
    assert [KEYS[i].length_bytes for i in range(11)] == [4096] * 10 + [7]


@pytest.mark.parametrize(("length_bytes", "count"), [(0, 0), (1, 1), (4095, 1), (4096, 1), (4097, 2), (8192, 2)])
def test_the_number_of_blocks(length_bytes: int, count: int) -> None:
    keys = BlockKeys(dataclasses.replace(VERSION, length_bytes=length_bytes), 4096)
    assert len(keys) == count
    assert sum(keys[i].length_bytes for i in range(count)) == length_bytes


@pytest.mark.parametrize("index", [-1, 11, 1 << 70])
def test_there_is_nothing_beyond_the_file(index: int) -> None:
    with pytest.raises(IndexError):
        KEYS[index]


def test_names_are_hex_digits_that_spread_over_the_shards() -> None:
    names = [KEYS[i].name for i in range(len(KEYS))]
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)
    assert len({name[:3] for name in names}) > 5


def test_names_stay_the_same_for_ever() -> None:
    # The cache survives updates of this program, so a change of the scheme needs a new layout (store.py).
    assert KEYS[0].name == BlockKeys(VERSION, 4096)[0].name
    assert KEYS[0].name == "b8805454ec97b4801641e95b8dc105bb"
    assert KEYS[10].name == "87f1e6002fd5cb15944865eace830218"


@given(one=versions, other=versions, sizes=st.tuples(st.sampled_from([4096, 8192]), st.sampled_from([4096, 8192])))
def test_what_differs_in_anything_has_other_names(one: FileVersion, other: FileVersion, sizes: tuple[int, int]) -> None:
    assume((one, sizes[0]) != (other, sizes[1]))
    assert BlockKeys(one, sizes[0])[0].name != BlockKeys(other, sizes[1])[0].name


def test_parts_of_different_fields_do_not_run_together() -> None:
    one = FileVersion("hdfs://a", "/b", 12, 3)
    other = FileVersion("hdfs://a/", "b", 1, 23)
    assert BlockKeys(one, 4096)[0].name != BlockKeys(other, 4096)[0].name
