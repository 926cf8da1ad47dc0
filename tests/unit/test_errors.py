"""The one table from exception to errno."""

import errno
import inspect
import re
from pathlib import Path

import pytest
from hdfs_fuse import errors
from hdfs_fuse.cache import content
from hdfs_fuse.handover import Failed

OURS = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.HdfsFuseError) and value is not errors.HdfsFuseError
]
EIO_IS_RIGHT = {errors.UnavailableError, errors.ShortReadError, errors.MountError, errors.BackendError}


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_exception_has_an_errno_of_its_own(kind: type[errors.HdfsFuseError]) -> None:
    number = errors.errno_of(kind("why"))
    assert number in errno.errorcode
    assert number not in {errno.EAGAIN, errno.EINTR, errno.ENOSYS}
    assert (number == errno.EIO) == (kind in EIO_IS_RIGHT), "EIO by omission: the table lacks it"


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_exception_survives_the_way_to_the_supervisor(kind: type[errors.HdfsFuseError]) -> None:
    error = Failed.of(kind("the reason")).as_error()
    assert type(error) is kind
    assert str(error) == "the reason"


def test_an_unknown_name_from_the_daemon_is_a_mount_error() -> None:
    for name in ("NoSuchError", "errno", "errno_of", "OSError", ""):
        assert type(Failed(name, "the reason").as_error()) is errors.MountError


def test_a_subclass_counts_as_the_nearest_class() -> None:
    class Special(errors.NotFoundError):
        pass

    assert errors.errno_of(Special()) == errno.ENOENT


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        OSError(errno.EAGAIN, "x"),
        KeyboardInterrupt(),
        errors.HdfsFuseError("x"),
        content.BlockUnavailableError("x"),
        content.LoadCancelledError("x"),
    ],
    ids=repr,
)
def test_the_unknown_is_eio(error: BaseException) -> None:
    assert errors.errno_of(error) == errno.EIO


def test_what_kubelet_and_applications_rely_on() -> None:
    table = {
        errors.NotFoundError: errno.ENOENT,
        errors.StaleError: errno.ESTALE,
        errors.FileChangedError: errno.ESTALE,
        errors.PermissionDeniedError: errno.EACCES,
        errors.QuotaExceededError: errno.EDQUOT,
        errors.ReadOnlyError: errno.EROFS,
        errors.BusyError: errno.EBUSY,
        errors.DeadlineError: errno.ETIMEDOUT,
        errors.CrossDeviceError: errno.EXDEV,
    }
    assert {kind: errors.errno_of(kind()) for kind in table} == table


def test_the_table_of_the_docs_is_whole_and_names_tests_that_are_there() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "semantics.md").read_text()
    rows = [line.split("|")[1:4] for line in text.splitlines() if re.match(r"\| E[A-Z0-9]+", line)]
    named = {code for codes, _, _ in rows for code in re.findall(r"E[A-Z0-9]+", codes)}
    assert {errno.errorcode[errors.errno_of(kind())] for kind in OURS} <= named | {"EOPNOTSUPP"}
    for _, _, tests in rows:
        module = ""
        for path, name in re.findall(r"`([\w/]*\.py)?(?:::(\w+))?`", tests):
            module = path or module
            source = (root / module if "/" in module else root / "tests" / "mount" / module).read_text()
            assert f"def {name or 'test_'}" in source, f"{module}: no {name}"
        assert module, "a row without a test"
