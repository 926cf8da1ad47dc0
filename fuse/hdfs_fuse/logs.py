"""Where the processes of a mount log to, and how a line looks."""

import json
import logging
import os
import re

# Fields of log messages that one searches for.
_FIELD = re.compile(r"\b(volume_id|snapshot_id|pod|path)=(\S+)")


class JsonFormatter(logging.Formatter):
    """One JSON object a line. What stands in a message as `volume_id=...` and the like are fields of their own too."""

    def __init__(self, **fields: str) -> None:
        """Give every line these `fields`."""
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        message = record.getMessage()
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{record.msecs:03.0f}",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            **self._fields,
            "message": message,
            **dict(_FIELD.findall(message)),
        }
        if "request_id" in record.__dict__:
            line["request"] = record.__dict__["request_id"]
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(volume_id: str = "") -> None:
    """Log to standard error, from the level HDFS_FUSE_LOG_LEVEL on; replaces an earlier call.

    With HDFS_FUSE_LOG_FORMAT=json each line is a JSON object.

    Args:
        volume_id: stands in each line, since the daemons of a node may share one log.
    """
    handler = logging.StreamHandler()
    if os.environ.get("HDFS_FUSE_LOG_FORMAT") == "json":
        handler.setFormatter(JsonFormatter(**({"volume_id": volume_id} if volume_id else {})))
    else:
        volume = f" {volume_id}".replace("%", "%%") if volume_id else ""
        text = f"%(asctime)s %(levelname)s hdfs-fuse[%(process)d]{volume} %(name)s: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    logging.basicConfig(level=os.environ.get("HDFS_FUSE_LOG_LEVEL", "INFO").upper(), handlers=[handler], force=True)
