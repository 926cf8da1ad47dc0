"""Node ids: how long they live, what they stand for."""

import pytest
from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.errors import StaleError
from hdfs_fuse.inodes import ROOT, Inode, InodeTable
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

DIRECTORY = FileStatus("", FileKind.DIRECTORY, 0, 0o755, "o", "g", 1)
FILE = FileStatus("f", FileKind.FILE, 5, 0o644, "o", "g", 1)


def table(root: str = "/data") -> InodeTable:
    return InodeTable(root, DIRECTORY)


def test_the_root_is_there_and_never_forgotten() -> None:
    inodes = table()
    inodes.forget(ROOT, 1000)
    assert inodes.get(ROOT) is inodes.root
    assert len(inodes) == 1


def test_an_unknown_number_is_stale() -> None:
    with pytest.raises(StaleError, match="17"):
        table().get(17)


@pytest.mark.parametrize(
    ("root", "expected"), [("/", "/d/f"), ("/data", "/data/d/f"), ("/data/", "/data/d/f"), ("/a/b", "/a/b/d/f")]
)
def test_paths_begin_at_the_root_of_the_mount(root: str, expected: str) -> None:
    inodes = table(root)
    directory = inodes.remember(inodes.root, "d", DIRECTORY, 0)
    file = inodes.remember(directory, "f", FILE, 0)
    assert inodes.path_of(file) == expected
    assert inodes.path_of(inodes.root) == (root.rstrip("/") or "/")


def test_a_name_keeps_its_number_while_the_kernel_holds_it() -> None:
    inodes = table()
    one = inodes.remember(inodes.root, "f", FILE, 1)
    again = inodes.remember(inodes.root, "f", FILE, 2)
    assert one is again
    assert (one.lookups, one.expires_s) == (2, 2)
    inodes.forget(one.number, 1)
    assert inodes.find(inodes.root, "f") is one
    inodes.forget(one.number, 1)
    assert inodes.find(inodes.root, "f") is None


def test_numbers_are_never_used_twice() -> None:
    inodes = table()
    one = inodes.remember(inodes.root, "f", FILE, 0)
    inodes.forget(one.number, 1)
    assert inodes.remember(inodes.root, "f", FILE, 0).number != one.number


def test_a_detached_inode_lives_until_it_is_forgotten() -> None:
    inodes = table()
    old = inodes.remember(inodes.root, "f", FILE, 0)
    inodes.detach(old)
    new = inodes.remember(inodes.root, "f", FILE, 0)
    assert new is not old
    assert inodes.get(old.number) is old
    inodes.forget(old.number, 1)
    assert inodes.find(inodes.root, "f") is new, "forgetting the old one must not take the name from the new one"
    with pytest.raises(StaleError):
        inodes.get(old.number)


def test_an_open_file_stays_when_the_kernel_forgets_its_name() -> None:
    inodes = table()
    file = inodes.remember(inodes.root, "f", FILE, 0)
    file.children += 1
    inodes.forget(file.number, 1)
    assert inodes.get(file.number) is file
    file.children -= 1
    inodes.release(file)
    assert len(inodes) == 1


def test_releasing_twice_is_harmless() -> None:
    inodes = table()
    directory = inodes.remember(inodes.root, "d", DIRECTORY, 0)
    file = inodes.remember(directory, "f", FILE, 0)
    inodes.forget(file.number, 1)
    inodes.forget(file.number, 1)
    inodes.release(file)
    assert directory.children == 0
    assert inodes.get(directory.number) is directory


def test_rotation_comes_to_every_inode_in_turn() -> None:
    inodes = table()
    made = [inodes.remember(inodes.root, f"n{i}", FILE, 0) for i in range(5)]
    seen = [inode for _ in range(3) for inode in inodes.rotate(2)]
    assert seen == [inodes.root, *made]
    assert inodes.rotate(1) == [inodes.root]
    assert [inodes.get(inode.number) for inode in made] == made
    assert len(inodes.rotate(100)) == 6


class Inodes(RuleBasedStateMachine):
    """Lookups, forgets, opens and releases in any order, against plain counts."""

    inodes_met = Bundle("inodes_met")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.table = table()
        self.counts: dict[int, int] = {}
        self.opened: dict[int, int] = {}
        self.names: dict[int, tuple[Inode | None, str]] = {ROOT: (None, "")}

    def is_alive(self, inode: Inode) -> bool:
        try:
            return self.table.get(inode.number) is inode
        except StaleError:
            return False

    @rule(target=inodes_met)
    def root(self) -> Inode:
        return self.table.root

    @rule(target=inodes_met, parent=inodes_met, name=st.sampled_from(["a", "b", "c\udcff"]))
    def look_up(self, parent: Inode, name: str) -> Inode:
        if not self.is_alive(parent):
            return parent
        known = self.table.find(parent, name)
        inode = self.table.remember(parent, name, DIRECTORY, 0)
        assert known is None or known is inode
        assert inode.number not in self.counts or known is inode, "a number came to mean something else"
        self.counts[inode.number] = self.counts.get(inode.number, 0) + 1
        self.names[inode.number] = (parent, name)
        return inode

    @rule(inode=inodes_met, share=st.floats(0, 1))
    def forget(self, inode: Inode, share: float) -> None:
        count = round(self.counts.get(inode.number, 0) * share)
        if count:
            self.counts[inode.number] -= count
            self.table.forget(inode.number, count)

    @rule(inode=inodes_met)
    def detach(self, inode: Inode) -> None:
        if inode.number != ROOT and self.is_alive(inode):
            self.table.detach(inode)

    @rule(target=held, inode=inodes_met)
    def open(self, inode: Inode) -> object:
        # The kernel opens only what it holds.
        if inode.number == ROOT or not self.counts.get(inode.number):
            return multiple()
        inode.children += 1
        self.opened[inode.number] = self.opened.get(inode.number, 0) + 1
        return inode

    @rule(inode=consumes(held))
    def close(self, inode: Inode) -> None:
        inode.children -= 1
        self.opened[inode.number] -= 1
        self.table.release(inode)

    def expected(self) -> set[int]:
        """Everything that is referred to, and the parents of that."""
        alive: set[int] = {ROOT}
        for number in self.names:
            if self.counts.get(number) or self.opened.get(number):
                node: int | None = number
                while node is not None:
                    alive.add(node)
                    parent = self.names[node][0]
                    node = parent.number if parent is not None else None
        return alive

    @invariant()
    def exactly_what_is_referred_to_is_there(self) -> None:
        expected = self.expected()
        assert len(self.table) == len(expected)
        for number in expected:
            inode = self.table.get(number)
            parent, name = self.names[number]
            if parent is not None:
                assert self.table.path_of(inode) == f"{self.table.path_of(parent)}/{name}"

    @precondition(lambda self: not any(self.opened.values()))
    @rule()
    def forget_all(self) -> None:
        for number, count in self.counts.items():
            self.table.forget(number, count)
        self.counts.clear()
        assert len(self.table) == 1
        assert self.table.root.children == 0


TestInodes = Inodes.TestCase
