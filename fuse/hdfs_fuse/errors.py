"""The exceptions that this project raises towards its users, and the one table from exception to errno.

Adapters raise only these, `from` their cause. What modules tell each other alone stands with them (DraftEndedError,
UploaderLostError, LoadCancelledError, BlockUnavailableError). Of an exception that is a defect ops.py makes EIO.
"""

import errno


class HdfsFuseError(Exception):
    """Anything that this project reports; the message names what was given and what is accepted."""


class NotFoundError(HdfsFuseError):
    """The path does not exist."""


class PermissionDeniedError(HdfsFuseError):
    """The NameNode refused this identity."""


class NotPermittedError(HdfsFuseError):
    """Nobody may: HDFS has no such thing."""


class AuthenticationError(HdfsFuseError):
    """No credentials, or credentials that are expired or refused."""


class AlreadyExistsError(HdfsFuseError):
    """The path exists already."""


class NotDirectoryError(HdfsFuseError):
    """A file stands where a directory is needed."""


class IsDirectoryError(HdfsFuseError):
    """A directory stands where a file is needed."""


class DirectoryNotEmptyError(HdfsFuseError):
    """The directory still has entries."""


class QuotaExceededError(HdfsFuseError):
    """A space or namespace quota of HDFS is used up."""


class ReadOnlyError(HdfsFuseError):
    """The NameNode is in safe mode, the path is a snapshot, or the mount is read-only."""


class BusyError(HdfsFuseError):
    """Another client holds the lease, or a mountpoint is in use."""


class NoSpaceError(HdfsFuseError):
    """No DataNode can take a block, or the local disk is full."""


class DeadlineError(HdfsFuseError):
    """No answer within the deadline. The outcome is unknown."""


class UnavailableError(HdfsFuseError):
    """The service can't be reached or is not ready: worth another try later."""


class StartingError(UnavailableError):
    """A NameNode of a highly available pair has become active and is still in safe mode: worth another try later."""


class FileChangedError(HdfsFuseError):
    """The file is no longer the version (modification time and length) that was opened."""


class StaleError(HdfsFuseError):
    """A file or directory that the kernel still holds is gone."""


class ShortReadError(HdfsFuseError):
    """Fewer bytes came than the file has. Never turned into zeros or an early end of file."""


class CrossDeviceError(HdfsFuseError):
    """A rename across namespaces or encryption zones."""


class NameTooLongError(HdfsFuseError):
    """A path component is longer than the filesystem takes."""


class FileTooLargeError(HdfsFuseError):
    """The file would have more blocks than the cluster allows."""


class NoAttributeError(HdfsFuseError):
    """The file or directory has no extended attribute of that name."""


class TooLargeError(HdfsFuseError):
    """The value of an extended attribute is longer than the filesystem takes."""


class InvalidArgumentError(HdfsFuseError):
    """A parameter is unknown or malformed."""


class UnsupportedError(HdfsFuseError):
    """This backend or this cluster does not offer the operation."""


class MountError(HdfsFuseError):
    """A mount could not be made, served or removed."""


class BackendError(HdfsFuseError):
    """The client failed in a way that no other class names."""


_ERRNO: dict[type[HdfsFuseError], int] = {
    NotFoundError: errno.ENOENT,
    PermissionDeniedError: errno.EACCES,
    NotPermittedError: errno.EPERM,
    AuthenticationError: errno.EACCES,
    AlreadyExistsError: errno.EEXIST,
    NotDirectoryError: errno.ENOTDIR,
    IsDirectoryError: errno.EISDIR,
    DirectoryNotEmptyError: errno.ENOTEMPTY,
    QuotaExceededError: errno.EDQUOT,
    ReadOnlyError: errno.EROFS,
    BusyError: errno.EBUSY,
    NoSpaceError: errno.ENOSPC,
    DeadlineError: errno.ETIMEDOUT,
    UnavailableError: errno.EIO,
    StartingError: errno.EROFS,
    # Not ENOENT: the kubelet takes that for "not mounted" and leaves the pod in Terminating.
    StaleError: errno.ESTALE,
    # The bytes of the version that was opened can't be had any more, as NFS says of a replaced file.
    FileChangedError: errno.ESTALE,
    ShortReadError: errno.EIO,
    CrossDeviceError: errno.EXDEV,
    NameTooLongError: errno.ENAMETOOLONG,
    FileTooLargeError: errno.EFBIG,
    NoAttributeError: errno.ENODATA,
    TooLargeError: errno.E2BIG,
    InvalidArgumentError: errno.EINVAL,
    UnsupportedError: errno.EOPNOTSUPP,
    MountError: errno.EIO,
    BackendError: errno.EIO,
}


def named(name: str, message: str, otherwise: type[HdfsFuseError] = BackendError) -> HdfsFuseError:
    """An exception that came from another process.

    Args:
        name: of its class.
        message: its message.
        otherwise: the class to use where there is none of that name here.
    """
    cls = globals().get(name)
    if isinstance(cls, type) and issubclass(cls, HdfsFuseError):
        return cls(message)
    return otherwise(message)


def errno_of(error: BaseException) -> int:
    """The errno that an application sees for `error`; EIO for whatever the table does not name.

    Args:
        error: what a handler raised; subclasses count as the nearest class in the table.

    Returns:
        A positive errno, never EAGAIN or EINTR: applications repeat those without end.
    """
    for cls in type(error).__mro__:
        if cls in _ERRNO:
            return _ERRNO[cls]
    return errno.EIO
