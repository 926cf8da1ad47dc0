"""What clients raise, as our exceptions; the texts are those of real HDFS 3.5 answers, shortened."""

import pytest
from hdfs_fuse import errors
from hdfs_fuse.backend.java_errors import from_java
from hdfs_fuse.backend.native_errors import Translated

ACCESS = "org.apache.hadoop.security.AccessControlException"
PROTOCOL = "org.apache.hadoop.hdfs.protocol"


def rpc(java_class: str, message: str, kind: str = "RPCError") -> RuntimeError:
    return RuntimeError(f'{kind}("{java_class}", "{message}\\n\\tat org.apache.hadoop.X.y(X.java:1)")')


class PanicException(BaseException):
    """What a Rust panic becomes."""

    __module__ = "pyo3_runtime"


CASES: list[tuple[BaseException, type[errors.HdfsFuseError]]] = [
    (FileNotFoundError("/x"), errors.NotFoundError),
    (FileNotFoundError("File does not exist: /x\n\tat org.apache"), errors.NotFoundError),
    (FileNotFoundError("Path is not a file: /x\n\tat org.apache"), errors.IsDirectoryError),
    (FileExistsError("/x for client 127.0.0.1 already exists"), errors.AlreadyExistsError),
    (FileExistsError("Failed to CREATE_FILE /x because this file lease is currently owned by z"), errors.BusyError),
    (IsADirectoryError("/x"), errors.IsDirectoryError),
    (NotImplementedError("x"), errors.UnsupportedError),
    (OSError("Connection refused (os error 111)"), errors.UnavailableError),
    (OSError("RPC listener disconnected"), errors.UnavailableError),
    (OSError("failed to lookup address information: Name or service not known"), errors.UnavailableError),
    (rpc(ACCESS, 'Permission denied: user=a, inode=\\"/x\\":b:c:drwx------'), errors.PermissionDeniedError),
    (rpc(ACCESS, "/x (is not a directory)"), errors.NotDirectoryError),
    (rpc("org.apache.hadoop.fs.ParentNotDirectoryException", "/x (is not a directory)"), errors.NotDirectoryError),
    (
        rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "Cannot delete /x. Name node is in safe mode."),
        errors.ReadOnlyError,
    ),
    (
        rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "Zero blocklocations for /x. Name node is in"),
        errors.UnavailableError,
    ),
    (
        rpc(
            "org.apache.hadoop.ipc.RetriableException",
            "org.apache.hadoop.hdfs.server.namenode.SafeModeException: Cannot delete /x. Name node is in safe mode.",
        ),
        errors.StartingError,
    ),
    (
        rpc(
            "org.apache.hadoop.ipc.RetriableException",
            "org.apache.hadoop.hdfs.server.namenode.SafeModeException: Zero blocklocations for /x. Name node is",
        ),
        errors.UnavailableError,
    ),
    (rpc("org.apache.hadoop.ipc.RetriableException", "Server too busy"), errors.UnavailableError),
    (rpc("org.apache.hadoop.ipc.StandbyException", "READ is not supported in state standby"), errors.UnavailableError),
    (rpc(f"{PROTOCOL}.DSQuotaExceededException", "The DiskSpace quota of /x is exceeded"), errors.QuotaExceededError),
    (rpc(f"{PROTOCOL}.NSQuotaExceededException", "The NameSpace quota"), errors.QuotaExceededError),
    (rpc(f"{PROTOCOL}.SnapshotAccessControlException", "Modification on a read-only snapshot"), errors.ReadOnlyError),
    (rpc(f"{PROTOCOL}.FSLimitException$PathComponentTooLongException", "The maximum"), errors.NameTooLongError),
    (rpc("java.io.IOException", "mkdirs: Pathname too long.  Limit 8000 characters"), errors.NameTooLongError),
    (
        rpc("java.io.IOException", "File /x could only be written to 0 of the 1 minReplication nodes."),
        errors.NoSpaceError,
    ),
    (rpc("org.apache.hadoop.fs.PathIsNotEmptyDirectoryException", "`/x is non empty'"), errors.DirectoryNotEmptyError),
    (rpc("org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException", "No lease on /x"), errors.BusyError),
    (rpc("javax.security.sasl.SaslException", "GSS initiate failed", "FatalRPCError"), errors.AuthenticationError),
    (rpc("org.apache.hadoop.security.authorize.AuthorizationException", "User: a"), errors.PermissionDeniedError),
    (rpc("com.example.NeverSeenException", "what"), errors.BackendError),
    (RuntimeError('DataTransferError("All DataNodes failed: []")'), errors.UnavailableError),
    (RuntimeError("ChecksumError"), errors.UnavailableError),
    (RuntimeError('SASLError("x")'), errors.AuthenticationError),
    (RuntimeError("NoSASLMechanism"), errors.AuthenticationError),
    (RuntimeError('UnsupportedErasureCodingPolicy("x")'), errors.UnsupportedError),
    (RuntimeError("a new kind of error"), errors.BackendError),
    (PanicException("range end index 4 out of range"), errors.BackendError),
    (ZeroDivisionError("x"), errors.BackendError),
]


@pytest.mark.parametrize(("raised", "expected"), CASES, ids=[str(raised)[:50] for raised, _ in CASES])
def test_what_the_native_client_raises(raised: BaseException, expected: type[errors.HdfsFuseError]) -> None:
    with pytest.raises(errors.HdfsFuseError) as caught, Translated("hdfs://h:1", "/x"):
        raise raised
    assert type(caught.value) is expected
    assert caught.value.__cause__ is raised
    assert "\n" not in str(caught.value)


def test_a_name_that_hdfs_can_not_hold() -> None:
    invalid = rpc("org.apache.hadoop.fs.InvalidPathException", "Invalid path name Invalid file name: /a:b")
    with pytest.raises(errors.NotFoundError), Translated("hdfs://h:1", "/a:b"):
        raise invalid
    with pytest.raises(errors.InvalidArgumentError), Translated("hdfs://h:1", "/a:b", "change"):
        raise invalid


@pytest.mark.parametrize("passing", [KeyboardInterrupt(), SystemExit(1), GeneratorExit(), errors.ReadOnlyError("x")])
def test_what_is_not_the_clients_passes(passing: BaseException) -> None:
    with pytest.raises(type(passing)) as caught, Translated("hdfs://h:1", "/x"):
        raise passing
    assert caught.value is passing


def test_messages_say_what_and_where() -> None:
    with (
        pytest.raises(errors.UnavailableError, match=r"hdfs://h:1/x: Connection refused"),
        Translated("hdfs://h:1", "/x"),
    ):
        raise OSError("Connection refused (os error 111)")
    with pytest.raises(errors.PermissionDeniedError) as caught, Translated("hdfs://h:1", "/x"):
        raise rpc(ACCESS, 'inode=\\"/\u00fcn\u00ef\\u{301}\\"')
    assert str(caught.value) == 'inode="/\u00fcn\u00ef\u0301"'
    nodes = (
        r"id: DatanodeIdProto { ip_addr: \"10.0.0.1\", host_name: \"a\", xfer_port: 9866, info_port: 1 }, capacity: 2"
    )
    with (
        pytest.raises(errors.UnavailableError, match=r"^/x: All DataNodes failed: 10\.0\.0\.1:9866$"),
        Translated("hdfs://h:1", "/x"),
    ):
        raise RuntimeError(f'DataTransferError("All DataNodes failed: [DatanodeInfoProto {{ {nodes} }}]")')


def test_a_path_can_not_pass_for_a_message() -> None:
    # Messages quote paths, and a path may be called anything.
    path = "/Path is not a file: (is not a directory)/could only be written to 0 of the "
    assert type(from_java("java.io.FileNotFoundException", f"File does not exist: {path}")) is errors.NotFoundError
    denied = f'Permission denied: user=alice, access=READ, inode="{path}":root:root:drwx------'
    assert type(from_java(ACCESS, denied)) is errors.PermissionDeniedError
