"""Log lines: their format, the id of the request they belong to, and messages without their secrets."""

import contextvars
import logging
import os
import sys
from typing import Any, cast

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hdfs_fuse.logs import JsonFormatter

from hdfs_csi.pb import csi_pb2 as csi

STRIPPED = "***stripped***"

# The one place outside of the fields marked csi_secret where a CO puts a credential: with `tokenRequests` in the
# CSIDriver object, the kubelet adds the pod's service account tokens to NodePublishVolume's volume_context.
SECRET_MAP_KEYS = frozenset({"csi.storage.k8s.io/serviceAccount.tokens"})

# The generated stub types an extension as a plain FieldDescriptor, which its own index operator does not take.
_CSI_SECRET = cast("Any", csi.csi_secret)

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def configure(level: str, style: str = "text") -> None:
    """Send log lines of this process to standard error, each with the id of its request.

    The daemons that it starts log in the same way (hdfs_fuse.logs), unless their environment says otherwise.

    Args:
        level: a name that `logging` knows, in any case.
        style: `text`, or `json` for one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")
    handler.setFormatter(JsonFormatter() if style == "json" else text)
    handler.addFilter(_RequestIdFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    os.environ.setdefault("HDFS_FUSE_LOG_LEVEL", level)
    os.environ.setdefault("HDFS_FUSE_LOG_FORMAT", style)


def describe(message: Message) -> str:
    """One line that shows `message` without its secrets.

    Which fields are secret is read from the protocol's own option `csi_secret` (CSI "Secrets Requirements"), so that
    fields of a later CSI release are stripped as well.

    Args:
        message: any CSI message; it is not changed.
    """
    shown = type(message)()
    shown.CopyFrom(message)
    _strip(shown)
    return text_format.MessageToString(shown, as_one_line=True, as_utf8=True)


def _strip(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().Extensions[_CSI_SECRET]:
            _strip_field(message, field)
        elif _is_map_of_strings(field):
            for key in SECRET_MAP_KEYS.intersection(value):
                value[key] = STRIPPED
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if field.is_repeated else (value,):
                _strip(item)


def _strip_field(message: Message, field: FieldDescriptor) -> None:
    value = getattr(message, field.name)
    if _is_map_of_strings(field):
        for key in [*value]:  # a map that is changed while it is gone through leaves keys out
            value[key] = STRIPPED
    elif field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
        setattr(message, field.name, STRIPPED)
    else:
        message.ClearField(field.name)


def _is_map_of_strings(field: FieldDescriptor) -> bool:
    entry = field.message_type
    return (
        entry is not None
        and entry.GetOptions().map_entry
        and entry.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING
    )
