"""The one table from Java exception class to ours, for everything that a NameNode or a DataNode answers.

The native client, WebHDFS and libhdfs all hand over the class that HDFS threw. Message texts decide only where HDFS
throws one class for two things that an application must tell apart.
"""

import re

from hdfs_fuse import errors

_HDFS = "org.apache.hadoop.hdfs."
_PROTOCOL = _HDFS + "protocol."
_NAMENODE = _HDFS + "server.namenode."

_TABLE: dict[str, type[errors.HdfsFuseError]] = {
    "java.io.FileNotFoundException": errors.NotFoundError,
    "java.net.ConnectException": errors.UnavailableError,
    "java.net.NoRouteToHostException": errors.UnavailableError,
    "java.net.SocketTimeoutException": errors.UnavailableError,
    "java.net.UnknownHostException": errors.UnavailableError,
    "java.io.EOFException": errors.UnavailableError,
    "java.lang.IllegalArgumentException": errors.InvalidArgumentError,
    "java.lang.SecurityException": errors.AuthenticationError,
    "java.lang.UnsupportedOperationException": errors.UnsupportedError,
    "javax.security.sasl.SaslException": errors.AuthenticationError,
    "org.ietf.jgss.GSSException": errors.AuthenticationError,
    "org.apache.hadoop.HadoopIllegalArgumentException": errors.InvalidArgumentError,
    "org.apache.hadoop.fs.FileAlreadyExistsException": errors.AlreadyExistsError,
    "org.apache.hadoop.fs.InvalidPathException": errors.InvalidArgumentError,
    "org.apache.hadoop.fs.ParentNotDirectoryException": errors.NotDirectoryError,
    "org.apache.hadoop.fs.PathIsDirectoryException": errors.IsDirectoryError,
    "org.apache.hadoop.fs.PathIsNotDirectoryException": errors.NotDirectoryError,
    "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException": errors.DirectoryNotEmptyError,
    "org.apache.hadoop.fs.PathPermissionException": errors.PermissionDeniedError,
    _PROTOCOL + "AlreadyBeingCreatedException": errors.BusyError,
    _PROTOCOL + "RecoveryInProgressException": errors.BusyError,
    _NAMENODE + "LeaseExpiredException": errors.BusyError,
    # "cannot be deleted since it is snapshottable and already has snapshots", and the like
    _PROTOCOL + "SnapshotException": errors.BusyError,
    _PROTOCOL + "SnapshotAccessControlException": errors.ReadOnlyError,
    _NAMENODE + "SafeModeException": errors.ReadOnlyError,
    _PROTOCOL + "QuotaExceededException": errors.QuotaExceededError,
    _PROTOCOL + "DSQuotaExceededException": errors.QuotaExceededError,
    _PROTOCOL + "NSQuotaExceededException": errors.QuotaExceededError,
    _PROTOCOL + "QuotaByStorageTypeExceededException": errors.QuotaExceededError,
    _PROTOCOL + "FSLimitException$MaxDirectoryItemsExceededException": errors.QuotaExceededError,
    _PROTOCOL + "FSLimitException$PathComponentTooLongException": errors.NameTooLongError,
    _NAMENODE + "NotReplicatedYetException": errors.UnavailableError,
    "org.apache.hadoop.ipc.StandbyException": errors.UnavailableError,
    "org.apache.hadoop.ipc.RetriableException": errors.UnavailableError,
    "org.apache.hadoop.ipc.ObserverRetryOnActiveException": errors.UnavailableError,
    "org.apache.hadoop.ipc.RpcNoSuchMethodException": errors.UnsupportedError,
    "org.apache.hadoop.ipc.RpcNoSuchProtocolException": errors.UnsupportedError,
    "org.apache.hadoop.ipc.RPC$VersionMismatch": errors.UnsupportedError,
    _HDFS + "server.federation.router.NoNamenodesAvailableException": errors.UnavailableError,
    _HDFS + "server.federation.router.RouterSafeModeException": errors.UnavailableError,
    "org.apache.hadoop.security.AccessControlException": errors.PermissionDeniedError,
    # "User: x is not allowed to impersonate y", and service-level authorization
    "org.apache.hadoop.security.authorize.AuthorizationException": errors.PermissionDeniedError,
    "org.apache.hadoop.security.KerberosAuthException": errors.AuthenticationError,
    "org.apache.hadoop.security.token.SecretManager$InvalidToken": errors.AuthenticationError,
}

# (pattern of the first line, exception), looked at before the class. Anchored, since messages quote paths.
_BY_MESSAGE: tuple[tuple[re.Pattern[str], type[errors.HdfsFuseError]], ...] = (
    # FSPermissionChecker.checkIsDirectory throws AccessControlException where only reads are concerned.
    (re.compile(r".* \(is not a directory\)$"), errors.NotDirectoryError),
    # INodeFile.valueOf: FileNotFoundException for a directory that is opened.
    (re.compile(r"Path is not a file: "), errors.IsDirectoryError),
    # NameNodeRpcServer.checkPathLength: a bare IOException.
    (re.compile(r"\w+: Pathname too long\."), errors.NameTooLongError),
    # BlockManager.chooseTarget4NewBlock: a bare IOException; after a start of the NameNode the DataNodes come back.
    (re.compile(r"File .* could only be written to .* There are 0 datanode\(s\) running"), errors.UnavailableError),
    (re.compile(r"File .* could only be written to \d+ of the "), errors.NoSpaceError),
    # FSNamesystem.getBlockLocations before the DataNodes have reported: a SafeModeException on a read, or that within a
    # RetriableException where NameNodes are highly available.
    (re.compile(r"([\w.]+: )?Zero blocklocations for "), errors.UnavailableError),
    # FSNamesystem.checkNameNodeSafeMode: a RetriableException, where NameNodes are highly available.
    (re.compile(re.escape(_NAMENODE) + r"SafeModeException: "), errors.StartingError),
    # FSDirRenameOp.validateRenameOverwrite, validateRenameDestination: bare IOExceptions.
    (re.compile(r"rename destination directory is not empty: "), errors.DirectoryNotEmptyError),
    (re.compile(r"Rename destination .* is a directory or file under source "), errors.InvalidArgumentError),
    # FSDirWriteFileOp.validateAddBlock: a bare IOException.
    (re.compile(r"File has reached the limit on maximum number of blocks "), errors.FileTooLargeError),
    # FSDirXAttrOp, in this order removeXAttr, checkXAttrSize, setINodeXAttrs and checkXAttrsConfigFlag: of no class of
    # their own.
    (re.compile(r"No matching attributes found for remove operation"), errors.NoAttributeError),
    (re.compile(r"The XAttr is too big\."), errors.TooLargeError),
    (re.compile(r"Cannot add additional XAttr to inode, would exceed limit of "), errors.NoSpaceError),
    (re.compile(r"The XAttr operation has been rejected\."), errors.UnsupportedError),
    # JspHelper.getUGI where hadoop.http.authentication.type is simple and RPC asks for Kerberos: a SecurityException.
    (re.compile(r".*Security enabled but user not authenticated by filter"), errors.UnsupportedError),
    # FSDirRenameOp.checkMoveValidity in an encryption zone: a bare IOException.
    (re.compile(r".* can't be moved (from|into) an encryption zone"), errors.CrossDeviceError),
)


def from_java(java_class: str, message: str) -> errors.HdfsFuseError:
    """Our exception for what HDFS threw.

    Args:
        java_class: fully qualified, `$` before a nested class.
        message: as HDFS sent it; of several lines (a Java stack trace) only the first is kept.

    Returns:
        An exception to raise `from` the client's; BackendError, naming the class, for what the table lacks.
    """
    line = message.split("\n", 1)[0].strip()
    for pattern, found in _BY_MESSAGE:
        if pattern.match(line):
            return found(line)
    known = _TABLE.get(java_class)
    if known is None:
        return errors.BackendError(f"{java_class}: {line}")
    return known(line or java_class)
