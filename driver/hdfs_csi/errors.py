"""The driver's own exceptions, and the one table from exception to gRPC status.

Nothing else in the driver names a gRPC code. CSI "Error Scheme" gives the codes that hold for every RPC; the tables
"... Errors" of each RPC give the rest.
"""

from grpc import StatusCode
from hdfs_fuse import errors


class VolumeBusyError(errors.HdfsFuseError):
    """Another call for the same volume is still running (CSI Error Scheme: "Operation pending for volume")."""


class NotReadyError(errors.HdfsFuseError):
    """A step that must come first has not been made, or something foreign is in the way."""


class OutOfRangeError(errors.HdfsFuseError):
    """The capacity range can't be satisfied."""


class NotOfferedError(errors.HdfsFuseError):
    """An RPC that this driver has, and does not offer as it is configured."""


class InvalidTokenError(errors.HdfsFuseError):
    """A list was asked to go on from a place that it does not have (CSI "ListVolumes Errors")."""


class RecordError(errors.HdfsFuseError):
    """What HDFS remembers of a volume can't be understood."""


_STATUS: dict[type[errors.HdfsFuseError], StatusCode] = {
    VolumeBusyError: StatusCode.ABORTED,
    NotReadyError: StatusCode.FAILED_PRECONDITION,
    NotOfferedError: StatusCode.UNIMPLEMENTED,
    InvalidTokenError: StatusCode.ABORTED,
    OutOfRangeError: StatusCode.OUT_OF_RANGE,
    RecordError: StatusCode.INTERNAL,
    errors.NotFoundError: StatusCode.NOT_FOUND,
    errors.StaleError: StatusCode.NOT_FOUND,
    errors.PermissionDeniedError: StatusCode.PERMISSION_DENIED,
    errors.NotPermittedError: StatusCode.PERMISSION_DENIED,
    errors.AuthenticationError: StatusCode.UNAUTHENTICATED,
    errors.AlreadyExistsError: StatusCode.ALREADY_EXISTS,
    # Both say that a parameter names the wrong kind of thing: only another parameter helps.
    errors.NotDirectoryError: StatusCode.INVALID_ARGUMENT,
    errors.IsDirectoryError: StatusCode.INVALID_ARGUMENT,
    errors.DirectoryNotEmptyError: StatusCode.FAILED_PRECONDITION,
    errors.QuotaExceededError: StatusCode.RESOURCE_EXHAUSTED,
    errors.ReadOnlyError: StatusCode.FAILED_PRECONDITION,
    errors.BusyError: StatusCode.FAILED_PRECONDITION,
    errors.NoSpaceError: StatusCode.RESOURCE_EXHAUSTED,
    # Not DEADLINE_EXCEEDED: in a pod's events that reads as if the sidecar had been too impatient. Both codes mean
    # to the external-provisioner that the outcome is unknown and that it must try again.
    errors.DeadlineError: StatusCode.UNAVAILABLE,
    errors.UnavailableError: StatusCode.UNAVAILABLE,
    errors.StartingError: StatusCode.UNAVAILABLE,
    errors.FileChangedError: StatusCode.UNAVAILABLE,
    errors.CrossDeviceError: StatusCode.INVALID_ARGUMENT,
    errors.NameTooLongError: StatusCode.INVALID_ARGUMENT,
    errors.FileTooLargeError: StatusCode.RESOURCE_EXHAUSTED,
    errors.TooLargeError: StatusCode.INVALID_ARGUMENT,
    errors.NoAttributeError: StatusCode.NOT_FOUND,
    errors.InvalidArgumentError: StatusCode.INVALID_ARGUMENT,
    # Not UNIMPLEMENTED, which a CO takes for "this plugin has no such RPC" and never asks again.
    errors.UnsupportedError: StatusCode.FAILED_PRECONDITION,
    errors.ShortReadError: StatusCode.INTERNAL,
    errors.MountError: StatusCode.INTERNAL,
    errors.BackendError: StatusCode.INTERNAL,
}


def status_of(error: BaseException) -> StatusCode:
    """The gRPC code of `error`; INTERNAL for whatever the table does not name.

    Args:
        error: what an RPC raised; subclasses count as the nearest class in the table.
    """
    for cls in type(error).__mro__:
        if cls in _STATUS:
            return _STATUS[cls]
    return StatusCode.INTERNAL


def is_expected(error: BaseException) -> bool:
    """Whether `error` is one of ours, whose message says all; anything else is a defect and needs its traceback."""
    return isinstance(error, errors.HdfsFuseError)
