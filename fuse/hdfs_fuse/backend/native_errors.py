"""What hdfs-native raises, as our exceptions.

The client has RuntimeErrors that quote a Rust value, OSErrors without an errno and panics that derive from
BaseException; this module is the only one that knows.
"""

import ast
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Literal

from hdfs_fuse import errors
from hdfs_fuse.backend.identity import KDC_AWAY
from hdfs_fuse.backend.java_errors import from_java

# HdfsError's variants as `Debug` prints them (hdfs-native rust/src/error.rs), other than RPCError and FatalRPCError.
_VARIANTS: Mapping[str, type[errors.HdfsFuseError]] = {
    "BlocksNotFound": errors.UnavailableError,
    "ChecksumError": errors.UnavailableError,
    "DataTransferError": errors.UnavailableError,
    "ErasureCodingError": errors.UnavailableError,
    "GSSAPIError": errors.AuthenticationError,
    "InvalidArgument": errors.InvalidArgumentError,
    "InvalidPath": errors.InvalidArgumentError,
    "NoSASLMechanism": errors.AuthenticationError,
    "SASLError": errors.AuthenticationError,
    "UnsupportedErasureCodingPolicy": errors.UnsupportedError,
    "UnsupportedFeature": errors.UnsupportedError,
    "UrlParseError": errors.InvalidArgumentError,
    "XmlParseError": errors.InvalidArgumentError,
}
# What PythonHdfsError (python/src/error.rs) gives a class of its own.
_BY_TYPE: tuple[tuple[type[Exception], type[errors.HdfsFuseError]], ...] = (
    (IsADirectoryError, errors.IsDirectoryError),
    (NotImplementedError, errors.UnsupportedError),
    (UnicodeEncodeError, errors.InvalidArgumentError),  # a name with surrogates; HDFS names are UTF-8
)
_RPC_ERROR = re.compile(r'(?:Fatal)?RPCError\("([^"]*)", (".*")\)', re.DOTALL)
_DATANODE = re.compile(r'ip_addr: \\"([^"\\]*)\\".*?xfer_port: ([0-9]+)')


# block_writer.rs; an OperationFailed like many.
_NO_HSYNC = "hsync is not supported for erasure-coded files"


class Translated:
    """Turns what the client raises inside the block into our exceptions; costs 0.4 us, a NameNode call 200."""

    __slots__ = ("_filesystem", "_intent", "_path")

    def __init__(self, filesystem: str, path: str, intent: Literal["lookup", "change"] = "lookup") -> None:
        """Name what is done, for the messages.

        Args:
            filesystem: URI of its root.
            path: in it.
            intent: a "lookup" of a name that HDFS can't hold finds nothing, a "change" is an invalid argument.
        """
        self._filesystem = filesystem
        self._path = path
        self._intent = intent

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, errors.HdfsFuseError):
            return
        if not isinstance(error, Exception) and not _is_panic(error):
            return  # KeyboardInterrupt, SystemExit, GeneratorExit of a stream that is closed early
        translated = _translate(error, self._filesystem, self._path)
        if self._intent == "lookup" and isinstance(translated, errors.InvalidArgumentError):
            # A name that HDFS can't hold (':', bytes that are no UTF-8) is a name that is not there.
            translated = errors.NotFoundError(str(translated))
        try:
            raise translated from error
        finally:
            # Else the error and this frame keep each other, and a writer that failed, until the garbage is collected:
            # then the client would stop renewing the lease of the writer that has followed it.
            del translated, error


def _is_panic(error: BaseException) -> bool:
    # pyo3's PanicException derives from BaseException and can't be imported by name.
    return type(error).__name__ == "PanicException" and type(error).__module__ == "pyo3_runtime"


def _translate(error: BaseException, filesystem: str, path: str) -> errors.HdfsFuseError:
    text = str(error)
    if _NO_HSYNC in text:
        return errors.UnsupportedError(f"{path!r}: {text}")
    for kind, ours in _BY_TYPE:
        if isinstance(error, kind):
            return ours(f"{path!r}: {text}")
    match error:
        case FileNotFoundError():
            # get_file_info answers with the bare path, everything else with Java's message.
            result = from_java("java.io.FileNotFoundException", f"{path}: not found" if text == path else text)
        case FileExistsError():
            # The client folds AlreadyBeingCreatedException into this one.
            busy = "lease" in text or "being created" in text
            result = (errors.BusyError if busy else errors.AlreadyExistsError)(text.split("\n", 1)[0])
        case OSError():
            # Transport: refused, reset, unknown host, "RPC listener disconnected". They carry no errno.
            result = errors.UnavailableError(f"{filesystem}{path}: {text}")
        case RuntimeError():
            result = _translate_variant(text, path)
        case _:
            result = errors.BackendError(f"{path}: {type(error).__name__}: {text}")
    return result


def _translate_variant(text: str, path: str) -> errors.HdfsFuseError:
    if rpc := _RPC_ERROR.fullmatch(text):
        return from_java(rpc[1], _rust_string(rpc[2]))
    if text.startswith('DataTransferError("All DataNodes failed'):
        # The client prints some twenty fields of each.
        nodes = [f"{address}:{port}" for address, port in _DATANODE.findall(text)]
        text = f"All DataNodes failed: {', '.join(nodes) or 'the block has none'}"
        return errors.UnavailableError(f"{path}: {text}")
    variant = text.partition("(")[0].strip()
    if variant == "GSSAPIError" and KDC_AWAY in text:
        return errors.UnavailableError(f"{path}: {text}")
    return _VARIANTS.get(variant, errors.BackendError)(f"{path}: {text}")


def _rust_string(literal: str) -> str:
    """Undo Rust's Debug quoting; its escapes are Python's, but for the braces of unicode ones."""
    try:
        value = ast.literal_eval(re.sub(r"\\u\{([0-9a-f]+)\}", lambda m: f"\\U{int(m[1], 16):08x}", literal))
    except (SyntaxError, ValueError):
        return literal.strip('"')
    return str(value)
