"""Names of HDFS as ids of the node, where the node's user database answers, is slow or has no answer."""

import os
import pwd
import threading

import pytest
from hdfs_fuse import owners
from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.errors import InvalidArgumentError
from hdfs_fuse.owners import NOBODY, Owners


def status(owner: str, group: str) -> FileStatus:
    return FileStatus("file", FileKind.FILE, 0, 0o644, owner, group, 0)


async def test_own_known_and_unknown_names() -> None:
    names = Owners("alice-of-hdfs", None, None)
    games = pwd.getpwnam("games")
    for owner, group, ids in (
        ("games", "games", (games.pw_uid, games.pw_gid)),
        ("alice-of-hdfs", "nobody-here", (os.getuid(), NOBODY)),
        ("nobody-here", "", (NOBODY, NOBODY)),
    ):
        await names.learn(status(owner, group))
        assert names.ids_of(status(owner, group)) == ids
    assert names.names_of(games.pw_uid, None) == ("games", None)
    assert names.names_of(os.getuid(), games.pw_gid) == ("alice-of-hdfs", "games")
    with pytest.raises(InvalidArgumentError, match="3999999999"):
        names.names_of(3_999_999_999, None)
    with pytest.raises(InvalidArgumentError, match="3999999999"):
        names.names_of(None, 3_999_999_999)


async def test_a_user_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, asked = threading.Event(), []

    def hang(name: str) -> pwd.struct_passwd:
        asked.append(name)
        goes_on.wait()
        raise KeyError(name)

    monkeypatch.setattr(owners, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(pwd, "getpwnam", hang)
    names = Owners("alice", None, 7)
    for _ in range(2):
        await names.learn(status("bob", "any"))
        assert names.ids_of(status("bob", "any")) == (NOBODY, 7)
    goes_on.set()
    assert asked == ["bob"]  # the second one does not wait again
