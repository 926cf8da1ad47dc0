"""How long a publication that fails is tried again."""

import pytest
from hdfs_fuse.errors import HdfsFuseError, NoSpaceError, UnavailableError
from hdfs_fuse.upload.uploads import Patience

AWAY, FULL = UnavailableError("connection refused"), NoSpaceError("0 of the 1 minReplication nodes")


@pytest.mark.parametrize(
    ("failures", "ends_s"),
    [
        # One each second, and whether that is the last.
        ([AWAY] * 70, 61),
        ([FULL] * 70, 11),
        # A NameNode that is away, and then knows nothing of its DataNodes for a while.
        ([AWAY] * 30 + [FULL] * 40, 41),
        ([FULL] * 5 + [AWAY] * 20 + [FULL] * 40, 36),
        ([AWAY] * 55 + [FULL] * 20, 61),
        # The two ways of storing a file fail in turns.
        ([FULL, AWAY] * 35, 12),
    ],
)
def test_the_last_attempt(failures: list[HdfsFuseError], ends_s: int) -> None:
    patience = Patience(0.0, deadline_s=60.0)
    ended = [now_s for now_s, failure in enumerate(failures) if patience.is_over(now_s + 1, failure, float(now_s))]
    assert ended[0] == ends_s


def test_three_attempts_at_least() -> None:
    patience = Patience(0.0, deadline_s=1.0)
    assert [patience.is_over(attempt, FULL, 100.0 * attempt) for attempt in (1, 2, 3)] == [False, False, True]
