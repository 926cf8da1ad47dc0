"""The StorageClass parameters, volume attributes and secrets: their names, what they take and what they mean.

With volume.py and secret.py the only place that knows the key names. docs/parameters.md shows these tables to users,
and a test keeps them alike.
"""

import base64
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.errors import InvalidArgumentError

# What Kubernetes adds to the keys of a user: the external-provisioner with --extra-create-metadata and the kubelet with
# podInfoOnMount the first, the external-provisioner in each PersistentVolume the second.
KUBELET_PREFIX = "csi.storage.k8s.io/"
KUBERNETES_PREFIXES = (KUBELET_PREFIX, "storage.kubernetes.io/")

_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


class Where(Enum):
    """Where a key may stand. What goes for attributes goes for inline volumes."""

    CLASS = "StorageClass"
    BOTH = "StorageClass, attributes"
    INLINE = "inline volume"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One key.

    Attributes:
        key: its name in the StorageClass and in the volume attributes.
        where: which of them take it.
        default: what holds without it, as the documents show it.
        accepted: what its value may be, in words.
        meaning: what it does.
        parse: from text to value; raises ValueError for what it does not take.
        field: the MountConfig field that gets the value, with `cache.` in front for one of its CacheConfig; empty for
            what the controller uses itself; with `hadoop.` in front for a property of Hadoop.
        is_mutable: whether a VolumeAttributesClass may change it.
    """

    key: str
    where: Where
    default: str
    accepted: str
    meaning: str
    parse: Callable[[str], object]
    field: str = ""
    is_mutable: bool = False

    def read(self, text: str) -> object:
        """The value that `text` stands for.

        Raises:
            InvalidArgumentError: `text` is not accepted.
        """
        try:
            return self.parse(text)
        except ValueError as e:
            raise InvalidArgumentError(f"{self.key}: given {text!r}, accepted is {self.accepted}") from e


def _octal(highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-7]{1,5}", text) or int(text, 8) > highest:
            raise ValueError(text)
        return int(text, 8)

    return parse


def _from(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not lowest <= _whole(text) <= highest:
            raise ValueError(text)
        return _whole(text)

    return parse


def _whole(text: str) -> int:
    # int() also takes signs, underscores and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(text)
    return int(text)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})(Ki|Mi|Gi|Ti)?", text)
    if not match:
        return _whole(text)
    return int(match[1]) * _UNITS[match[2] or ""]


def _hdfs_block(text: str) -> int:
    # dfs.namenode.fs-limits.min-block-size is 1 MiB, and a block is made of whole checksummed chunks.
    value = _bytes(text)
    if value % (1 << 20) or not 1 << 20 <= value <= 1 << 36:
        raise ValueError(text)
    return value


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError(text)
    return float(text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _name(text: str) -> str:
    # Kerberos principals and LDAP groups may hold spaces, slashes and at-signs; nothing holds a control character.
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError(text)
    return text


def _pattern(text: str) -> str:
    # What the variables stand for is looked at when they are known (volume.py).
    if not text or text.startswith("/") or re.search(r"\$(?!\{(pvc\.name|pvc\.namespace|pv\.name)\})", text):
        raise ValueError(text)
    return text


def _pod_user(text: str) -> str:
    if "${" not in text or re.search(r"\$(?!\{(pod\.namespace|serviceAccount\.name)\})", text):
        raise ValueError(text)
    return _name(text)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return parse


def _keytab(text: str) -> bytes:
    # The first byte of every version of the format; base64(1) breaks its lines.
    content = base64.b64decode("".join(text.split()), validate=True)
    if not content.startswith(b"\x05"):
        raise ValueError
    return content


def _krb5_conf(text: str) -> str:
    # These would have a process of the driver read files of the node, and run code from them: an inline volume's
    # secret is anybody's who may make pods.
    foreign = re.search(r"^\s*(include|includedir|module)\s|plugin|pkinit|pkcs11", text, re.MULTILINE | re.IGNORECASE)
    if foreign or not re.search(r"^\s*\[", text, re.MULTILINE):
        raise ValueError
    return text


def _hadoop(text: str) -> dict[str, str]:
    if "<!DOCTYPE" in text:  # entities, which may name files or grow without end
        raise ValueError
    return hadoop_conf.parse(text)


_BYTES = "bytes, also with Ki, Mi, Gi or Ti"
_ID = "a number from 0 to 4294967294"

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "uri",
        Where.BOTH,
        "required",
        "`hdfs://host:port/path`, `hdfs://nameservice/path`, or `hdfs:///path` for fs.defaultFS",
        "in a StorageClass the base path below which each volume gets a directory; "
        "in volume attributes the existing directory that the volume shows",
        str,
        "uri",
    ),
    Parameter(
        "mode",
        Where.CLASS,
        "0755",
        "an octal number from 0 to 1777",
        "permissions of the volume's directory, whatever the umask in HDFS",
        _octal(0o1777),
    ),
    Parameter(
        "owner",
        Where.CLASS,
        "the controller's identity",
        "a user name of HDFS",
        "owner of the volume's directory; HDFS lets only its superuser give directories away",
        _name,
    ),
    Parameter(
        "group",
        Where.CLASS,
        "that of the base path",
        "a group name of HDFS",
        "group of the volume's directory; needs the superuser, or a group that the controller's identity is in",
        _name,
    ),
    Parameter(
        "pathPattern",
        Where.CLASS,
        "${pv.name}",
        "a relative path with `${pvc.name}`, `${pvc.namespace}` and `${pv.name}`; no component may be empty, hidden "
        "or longer than 255 bytes",
        "the volume's directory, below the base path; what it says of the claim needs `--extra-create-metadata` of the "
        "external-provisioner",
        _pattern,
    ),
    Parameter(
        "onDelete",
        Where.CLASS,
        "delete",
        "`delete`, `trash` or `retain`",
        "what deleting the volume does to its directory: `delete` removes it with all that is in it, `trash` moves it "
        "to the trash of the controller's identity in HDFS, `retain` leaves it where it is and forgets it",
        _one_of("delete", "trash", "retain"),
    ),
    Parameter(
        "quota",
        Where.CLASS,
        "enforced",
        "`enforced` or `none`",
        "whether the size of a claim is a space quota in HDFS; only the superuser of HDFS sets quotas",
        _one_of("enforced", "none"),
    ),
    Parameter(
        "maxFiles",
        Where.CLASS,
        "no bound",
        "a number from 1 to 10^12",
        "how many files and directories a volume may have, as a name quota in HDFS; needs the superuser",
        _from(1, 10**12),
    ),
    Parameter(
        "replication",
        Where.BOTH,
        "`dfs.replication` of the node, or of the NameNode",
        "a number from 1 to 512",
        "replicas of the files that the volume's nodes write; changing it changes the files that are there too",
        _from(1, 512),
        "hadoop.dfs.replication",
        is_mutable=True,
    ),
    Parameter(
        "hdfsBlockSizeBytes",
        Where.BOTH,
        "`dfs.blocksize` of the node, or of the NameNode",
        "a multiple of 1Mi from 1Mi to 64Gi",
        "block size in HDFS of files that the nodes write; small claims want a small one, since HDFS counts "
        "a whole block of each file that is being written",
        _hdfs_block,
        "hadoop.dfs.blocksize",
    ),
    Parameter(
        "erasureCodingPolicy",
        Where.CLASS,
        "that of the base path",
        "an enabled policy, such as `RS-6-3-1024k`",
        "how files of the volume are erasure-coded",
        _name,
    ),
    Parameter(
        "storagePolicy",
        Where.CLASS,
        "that of the base path",
        "a storage policy of HDFS, such as `COLD` or `ALL_SSD`",
        "on what kind of storage files of the volume are",
        _name,
        is_mutable=True,
    ),
    Parameter(
        "backend",
        Where.BOTH,
        "hdfs-native",
        "`hdfs-native` or `pyarrow`",
        "the client that the node uses; `pyarrow` only reads, so its volumes need an access mode for readers",
        _one_of("hdfs-native", "pyarrow"),
        "backend",
    ),
    Parameter(
        "user",
        Where.BOTH,
        "the node service's identity",
        "a user name of HDFS",
        "identity under which the node reads and writes the volume (simple authentication)",
        _name,
        "user",
    ),
    Parameter(
        "podUser",
        Where.BOTH,
        "none: all pods are `user`",
        "a name with `${pod.namespace}` or `${serviceAccount.name}` in it, or both",
        "identity of each pod by itself, in place of `user`: the volume is mounted for each pod anew; needs "
        "`podInfoOnMount` of the CSIDriver object",
        _pod_user,
    ),
    Parameter(
        "uid",
        Where.BOTH,
        "0",
        _ID,
        "owner that files show in pods; who may read and write is decided by HDFS",
        _whole,
        "uid",
    ),
    Parameter("gid", Where.BOTH, "0", _ID, "group that files show in pods", _whole, "gid"),
    Parameter(
        "umask",
        Where.BOTH,
        "0",
        "an octal number from 0 to 777",
        "permission bits taken away from what files show in pods",
        _octal(0o777),
        "umask",
    ),
    Parameter(
        "allowOther",
        Where.BOTH,
        "true",
        "`true` or `false`",
        "whether users other than root may enter the volume; pods that do not run as root need it",
        _boolean,
        "allow_other",
    ),
    Parameter(
        "metadataTtlSeconds",
        Where.BOTH,
        "60",
        "seconds from 0 to a year",
        "how long a node may believe attributes, names and absences before it asks the NameNode again",
        _seconds,
        "metadata_ttl_s",
    ),
    Parameter(
        "readAheadBytes",
        Where.BOTH,
        "64Mi",
        _BYTES,
        "how far a sequential reader is read ahead",
        _bytes,
        "read_ahead_bytes",
    ),
    Parameter(
        "blockSizeBytes",
        Where.BOTH,
        "4Mi",
        "a power of two from 64Ki to 64Mi",
        "unit of the node's block cache",
        _bytes,
        "cache.block_size_bytes",
    ),
    Parameter(
        "streams",
        Where.BOTH,
        "2",
        "a number from 1 to 8",
        "DataNode streams at once for one sequential reader",
        _whole,
        "streams",
    ),
    Parameter(
        "workers",
        Where.BOTH,
        "32",
        "a number from 1 to 512",
        "threads for calls to HDFS, and as many for loads",
        _whole,
        "workers",
    ),
    Parameter(
        "maxInodes",
        Where.BOTH,
        "80000",
        "1000 or more",
        "names that the kernel may hold on to before the mount asks for some back",
        _whole,
        "max_inodes",
    ),
    Parameter(
        "callDeadlineSeconds",
        Where.BOTH,
        "60",
        "seconds, above 0",
        "how long one call to HDFS may take before the application gets ETIMEDOUT",
        _seconds,
        "call_deadline_s",
    ),
    Parameter(
        "readOnly",
        Where.INLINE,
        "true",
        "`true` or `false`",
        "whether writes are refused; `readOnly: true` of the pod's volume itself refuses them in any case",
        _boolean,
    ),
)

BY_KEY = {parameter.key: parameter for parameter in PARAMETERS}


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One key of a secret.

    Attributes:
        key: its name.
        accepted: what its value may be, in words.
        meaning: what it does.
        parse: from text to value; raises ValueError for what it does not take.
    """

    key: str
    accepted: str
    meaning: str
    parse: Callable[[str], object]

    def read(self, text: str) -> object:
        """The value that `text` stands for.

        Raises:
            InvalidArgumentError: `text` is not accepted.
        """
        try:
            return self.parse(text)
        except ValueError:
            # Without the value, and without a cause that may show it.
            raise InvalidArgumentError(f"{self.key}: not accepted in a secret; accepted is {self.accepted}") from None


_XML = "XML with `<configuration>`, without DOCTYPE"

SECRETS: tuple[SecretKey, ...] = (
    SecretKey("user", "a user name of HDFS", "identity under simple authentication, as the parameter `user`", _name),
    SecretKey("principal", "`name@REALM` or `name/host@REALM`", "identity under Kerberos; needs `keytab`", _name),
    SecretKey("keytab", "a keytab file in base64", "the keys of `principal`", _keytab),
    SecretKey(
        "krb5.conf",
        "a krb5.conf that names neither other files (`include`, `includedir`, `module`) nor plugins nor PKINIT",
        "where `principal` logs in; without it the krb5.conf of the driver's own pod holds",
        _krb5_conf,
    ),
    SecretKey("core-site.xml", _XML, "Hadoop's configuration, over that of the driver", _hadoop),
    SecretKey("hdfs-site.xml", _XML, "likewise, over core-site.xml", _hadoop),
)

_SECRETS_BY_KEY = {secret.key: secret for secret in SECRETS}

# What is made of it has to pass through a socket as one message (hdfs_fuse.handover, 256 KiB).
MAX_SECRET_BYTES = 128 << 10


def read_class(given: Mapping[str, str]) -> dict[str, object]:
    """Parse the parameters of a StorageClass.

    Returns:
        Values by key, only for the keys that were given; keys that Kubernetes added are left out.

    Raises:
        InvalidArgumentError: an unknown key, with the nearest known one, or a value that its key does not take.
    """
    known = tuple(p.key for p in PARAMETERS if p.where is not Where.INLINE)
    return _read(given, known, "StorageClass parameters")


def read_mutable(given: Mapping[str, str]) -> dict[str, object]:
    """Parse the parameters of a VolumeAttributesClass: those that may be changed.

    Returns and raises as `read_class`.
    """
    return _read(given, tuple(p.key for p in PARAMETERS if p.is_mutable), "VolumeAttributesClass parameters")


def read_attributes(given: Mapping[str, str]) -> dict[str, object]:
    """Parse volume attributes: what a PersistentVolume says of itself (`volume_context` in CSI).

    Returns and raises as `read_class`.
    """
    known = tuple(p.key for p in PARAMETERS if p.where is Where.BOTH)
    return _read(given, known, "volume attributes")


def read_inline(given: Mapping[str, str]) -> tuple[bool, dict[str, str]]:
    """Check the attributes of an inline volume.

    Returns:
        Whether it is writable, and the other attributes, which `read_attributes` takes.

    Raises:
        As `read_class`.
    """
    known = tuple(p.key for p in PARAMETERS if p.where is not Where.CLASS)
    values = _read(given, known, "attributes of an inline volume")
    return values.get("readOnly") is False, {k: v for k, v in given.items() if k != "readOnly"}


def read_secret(given: Mapping[str, str]) -> dict[str, Any]:
    """Parse a secret. No message says anything of its values.

    Returns:
        Values by key, only for the keys that were given.

    Raises:
        InvalidArgumentError: an unknown key, with the nearest known one, a value that its key does not take, or more
            than MAX_SECRET_BYTES.
    """
    size = sum(len(text.encode()) for text in given.values())
    if size > MAX_SECRET_BYTES:
        raise InvalidArgumentError(f"secret: {size} bytes, accepted are {MAX_SECRET_BYTES}")
    _check_keys(given, tuple(_SECRETS_BY_KEY), "a secret")
    return {key: _SECRETS_BY_KEY[key].read(text) for key, text in given.items()}


def own_keys(given: Mapping[str, str]) -> dict[str, str]:
    """`given` without what Kubernetes added."""
    return {key: value for key, value in given.items() if not key.startswith(KUBERNETES_PREFIXES)}


def _read(given: Mapping[str, str], known: tuple[str, ...], what: str) -> dict[str, object]:
    own = own_keys(given)
    _check_keys(own, known, what)
    return {key: BY_KEY[key].read(text) for key, text in sorted(own.items())}


def _check_keys(given: Mapping[str, str], known: tuple[str, ...], what: str) -> None:
    for key in sorted(given):
        if key not in known:
            folded = {name.casefold(): name for name in known}
            near = difflib.get_close_matches(key.casefold(), folded, n=1)
            hint = f"did you mean {folded[near[0]]!r}? " if near else ""
            raise InvalidArgumentError(f"unknown key {key!r} in {what}; {hint}accepted are: {', '.join(known)}")
