"""Volumes and snapshots: their ids, and what StorageClass parameters and volume attributes make of them.

A volume that CreateVolume made has the id `<uri of the base path>#<key>`: enough for DeleteVolume to find, without
any state of its own, the record that CreateVolume left below the base path (provisioner.py). The id does not name the
volume's directory: an id may have 128 bytes (CSI "Size Limits") while a path in HDFS may have 8000 characters, and a
directory may be moved or named by a pattern without changing the id. The key is the name that the CO chose, shortened
with a hash when it is long. Any other id belongs to a static volume, whose attributes say everything. The id of a
snapshot is likewise `<uri of the base path>@<key>`, with the base path of its volume.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import msgspec
from hdfs_fuse.config import Location, MountConfig, split_uri
from hdfs_fuse.errors import InvalidArgumentError

from hdfs_csi.errors import NotReadyError
from hdfs_csi.parameters import (
    BY_KEY,
    KUBELET_PREFIX,
    Where,
    own_keys,
    read_attributes,
    read_class,
    read_inline,
    read_mutable,
)
from hdfs_csi.records import Settings
from hdfs_csi.secret import NO_SECRET, Secret

# CSI "Size Limits": 128 bytes for a string, 4 KiB for a map of strings.
MAX_ID_BYTES = 128
MAX_NAME_BYTES = 128
MAX_MAP_BYTES = 4096

# Long enough for the external-provisioner's "pvc-" and a UUID, which so stay readable; leaves 87 bytes to the base URI.
MAX_KEY_CHARACTERS = 40

# HDFS allows 255 (dfs.namenode.fs-limits.max-component-length); a name has 128 bytes at most, so it fits as it is.
MAX_DIRECTORY_CHARACTERS = 128

# HDFS's limit for a name (dfs.namenode.fs-limits.max-component-length).
_MAX_COMPONENT_BYTES = 255

# What the driver keeps below a base path: records, directories that are being made. Hidden, since ordinary listings and
# input formats skip names with a dot.
HIDDEN = ".hdfs-csi"
VOLUMES, SNAPSHOTS, MAKING = f"{HIDDEN}/volumes", f"{HIDDEN}/snapshots", f"{HIDDEN}/making"

# Of a record's file.
_SUFFIX = ".json"

# The extended attribute by which a directory says which volume it is. Mounts neither show nor change what begins with
# user.hdfs. (hdfs_fuse.xattrs), so no pod can make another volume of its own.
MARK = "user.hdfs.volume"

# What the external-provisioner says of a claim with --extra-create-metadata.
_CLAIM_KEYS = {
    "pvc.name": "csi.storage.k8s.io/pvc/name",
    "pvc.namespace": "csi.storage.k8s.io/pvc/namespace",
    "pv.name": "csi.storage.k8s.io/pv/name",
}

# What HDFS, shells and URIs all take as it is. HDFS itself refuses ':' (DFSUtilClient.isValidName); names with a dot in
# front are its own (.snapshot, .reserved) and ours.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEY = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_KEY_CHARACTERS - 1}}}")

# CreateVolumeRequest.name in csi.proto.
_BANNED = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f]")


@dataclass(frozen=True, slots=True)
class _Id:
    """What is found again by its record.

    Attributes:
        base: the base path of its StorageClass.
        key: which of those below it.
    """

    base: Location
    key: str

    _mark: ClassVar[str]
    _records: ClassVar[str]

    def __str__(self) -> str:
        """The id as Kubernetes keeps it."""
        return f"{self.base.filesystem}{self.base.path}{self._mark}{self.key}"

    @property
    def record_path(self) -> str:
        """Path of the record in HDFS."""
        return f"{self.records_of(self.base)}/{self.key}{_SUFFIX}"

    @property
    def drafts_path(self) -> str:
        """The directory that files are in until they are complete."""
        return child(self.base.path, MAKING)

    @classmethod
    def records_of(cls, base: Location) -> str:
        """Path of the directory of all records below a base path."""
        return child(base.path, cls._records)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The id that `text` stands for; None when this driver can't have made it."""
        base, mark, key = text.rpartition(cls._mark)
        if not mark or not _KEY.fullmatch(key):
            return None
        try:
            parsed = cls(split_uri(base), key)
        except InvalidArgumentError:
            return None
        # Only the one spelling that __str__ gives, so that two ids never mean the same thing.
        return parsed if str(parsed) == text and parsed.base.scheme == "hdfs" else None

    @classmethod
    def of_records(cls, base: Location, names: Iterable[str]) -> Iterator[Self]:
        """Those whose records are among the names of a directory, in that order."""
        for name in names:
            found = cls.parse(str(cls(base, name.removesuffix(_SUFFIX))))
            if name.endswith(_SUFFIX) and found is not None:
                yield found


class VolumeId(_Id):
    """The id of a volume that CreateVolume made."""

    __slots__ = ()
    _mark = "#"
    _records = VOLUMES

    @property
    def making_path(self) -> str:
        """Where its directory is until it is complete."""
        return f"{self.drafts_path}/{self.key}"


class SnapshotId(_Id):
    """The id of a snapshot."""

    __slots__ = ()
    _mark = "@"
    _records = SNAPSHOTS

    @property
    def users_path(self) -> str:
        """A directory with a file for each volume that shows the snapshot."""
        return f"{child(self.base.path, SNAPSHOTS)}/{self.key}.users"


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume as a node mounts it.

    Attributes:
        volume_id: its id.
        attributes: what its PersistentVolume says, without what Kubernetes added.
        config: the mount that this asks for, without what the node adds.
        read_only: whether nobody may write to it on this node; where somebody may, the node adds that to `config`.
        group: that its files show because a pod's fsGroup says so; None for what `attributes` say.
        secret: what `config` has from a secret.
        lacks_secret: whether it has to have one that is not known any more; then it can't be mounted.
    """

    volume_id: str
    attributes: Mapping[str, str]
    config: MountConfig
    read_only: bool
    group: int | None = None
    secret: Secret = NO_SECRET
    lacks_secret: bool = False

    @property
    def is_per_pod(self) -> bool:
        """Whether each pod has a mount of its own, under its own user."""
        return "podUser" in self.attributes


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A volume to be made.

    Attributes:
        volume_id: the id that it gets.
        name: the name that the CO chose.
        path: its directory, below the base path.
        settings: of the directory.
        backend: the client that its nodes use.
        parameters: what its StorageClass said, without what Kubernetes added.
    """

    volume_id: VolumeId
    name: str
    path: str
    settings: Settings
    backend: str
    parameters: Mapping[str, str]


def new_volume(name: str, parameters: Mapping[str, str], mutable: Mapping[str, str] | None = None) -> NewVolume:
    """The volume that CreateVolume asks for.

    Args:
        name: any name that CSI allows; one that is no plain file name gets a directory name derived from it.
        parameters: those of the StorageClass.
        mutable: those of a VolumeAttributesClass, which come before them.

    Raises:
        InvalidArgumentError: the name, a key or a value is not acceptable.
    """
    check_name(name)
    read_mutable(mutable or {})
    kept = {**own_keys(parameters), **own_keys(mutable or {})}
    values = read_class(kept)
    base = _location(values)
    volume_id = VolumeId(base, component(name, MAX_KEY_CHARACTERS))
    length = len(str(volume_id).encode())
    if length > MAX_ID_BYTES:
        limit = MAX_ID_BYTES - 1 - len(volume_id.key)
        raise InvalidArgumentError(
            f"uri: given {parameters['uri']!r} makes a volume id of {length} bytes, CSI allows {MAX_ID_BYTES}; "
            f"accepted are base URIs of up to {limit} bytes here: take a shorter path, or a nameservice for the host"
        )
    path = child(base.path, _directory(name, kept.get("pathPattern", "${pv.name}"), parameters))
    # The node would refuse bad mount options too, but then a pod hangs where now the PVC says what is wrong.
    spec = volume_spec(str(volume_id), attributes_of(volume_id, path, kept))
    return NewVolume(volume_id, name, path, settings_of(values), spec.config.backend, kept)


def settings_of(values: Mapping[str, Any]) -> Settings:
    """What a volume's directory is to be, by the values of parameters."""
    return Settings(
        mode=values.get("mode", 0o755),
        owner=values.get("owner"),
        group=values.get("group"),
        on_delete=values.get("onDelete", "delete"),
        enforces_size=values.get("quota", "enforced") == "enforced",
        max_files=values.get("maxFiles"),
        replication=values.get("replication"),
        erasure_coding_policy=values.get("erasureCodingPolicy"),
        storage_policy=values.get("storagePolicy"),
    )


def _directory(name: str, pattern: str, parameters: Mapping[str, str]) -> str:
    """The path of a volume's directory below its base path.

    Raises:
        InvalidArgumentError: what the pattern gives is no such path.
    """

    def value(match: re.Match[str]) -> str:
        variable = match[1]
        if variable == "pv.name":
            return component(parameters.get(_CLAIM_KEYS[variable], name), MAX_DIRECTORY_CHARACTERS)
        if not parameters.get(_CLAIM_KEYS[variable]):
            raise InvalidArgumentError(
                f"pathPattern: given {pattern!r}, but nothing is known of ${{{variable}}}: start the "
                "external-provisioner with --extra-create-metadata"
            )
        return parameters[_CLAIM_KEYS[variable]]

    path = re.sub(r"\$\{([a-z.]+)\}", value, pattern)
    for part in path.split("/"):
        plain = part.isprintable() and not part.startswith(".") and ":" not in part and part == part.strip()
        if not part or not plain or len(part.encode()) > _MAX_COMPONENT_BYTES:
            raise InvalidArgumentError(
                f"pathPattern: given {pattern!r}, which makes {path!r}; accepted is {BY_KEY['pathPattern'].accepted}"
            )
    return path


def attributes_of(volume_id: VolumeId, path: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """The attributes of a volume that CreateVolume made (`volume_context` of its reply).

    Args:
        volume_id: its id.
        path: its directory.
        parameters: those of its StorageClass that it was made with.
    """
    kept = {key: value for key, value in parameters.items() if BY_KEY[key].where is Where.BOTH}
    return kept | {"uri": f"{volume_id.base.filesystem}{path}"}


def volume_spec(
    volume_id: str,
    attributes: Mapping[str, str],
    *,
    read_only: bool = False,
    group: int | None = None,
    secret: Secret = NO_SECRET,
) -> VolumeSpec:
    """What a node mounts.

    Args:
        volume_id: any id.
        attributes: `volume_context` of a CSI request.
        read_only: whether nobody may write to it there.
        group: that its files are to show, with the permissions of their owner; None leaves it to the attributes.
        secret: of the request.

    Raises:
        InvalidArgumentError: an id that is too long, a key or a value that is not acceptable, another `gid`, or
            attributes that do not go with the secret.
    """
    check_id(volume_id)
    own = own_keys(attributes)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in own.items())
    if size > MAX_MAP_BYTES:
        raise InvalidArgumentError(f"volume attributes: {size} bytes, CSI allows {MAX_MAP_BYTES}")
    values = read_attributes(own)
    location = _location(values)
    options = {BY_KEY[key].field: value for key, value in values.items() if BY_KEY[key].field}
    options["uri"] = f"{location.filesystem}{location.path}"
    if "podUser" in values and ("user" in values or secret.user or secret.kerberos):
        raise InvalidArgumentError(
            "podUser: given, but the volume or its secret has another identity; drop one of them"
        )
    if group is not None:
        if values.get("gid", group) != group:
            raise InvalidArgumentError(
                f"gid: given {values['gid']}, but the pod's fsGroup is {group}; drop one of them"
            )
        options |= {"gid": group, "group_as_owner": True}
    config = secret.apply_to(_mount_config(options | {"volume_id": volume_id}))
    return VolumeSpec(volume_id, own, config, read_only, group, secret)


def pod_spec(spec: VolumeSpec, context: Mapping[str, str]) -> VolumeSpec:
    """What a node mounts of a volume for one pod; the volume itself where all pods share it.

    Args:
        spec: the volume.
        context: `volume_context` of NodePublishVolume, where the kubelet says which pod.

    Raises:
        NotReadyError: it does not say.
        InvalidArgumentError: what it says makes no user name.
    """
    if not spec.is_per_pod:
        return spec

    def value(match: re.Match[str]) -> str:
        found = context.get(f"{KUBELET_PREFIX}{match[1]}", "")
        if not found:
            raise NotReadyError(
                f"podUser: the kubelet does not say {match[1]} of the pod; "
                "the CSIDriver object needs podInfoOnMount: true"
            )
        return found

    user = re.sub(r"\$\{([A-Za-z.]+)\}", value, spec.attributes["podUser"])
    attributes = {key: text for key, text in spec.attributes.items() if key != "podUser"} | {"user": user}
    made = volume_spec(spec.volume_id, attributes, read_only=spec.read_only, group=spec.group, secret=spec.secret)
    return replace(made, lacks_secret=spec.lacks_secret)


def is_inline(context: Mapping[str, str]) -> bool:
    """Whether the kubelet says in `volume_context` that a pod's own specification is all that there is of a volume."""
    return context.get(f"{KUBELET_PREFIX}ephemeral") == "true"


def inline_spec(
    volume_id: str,
    attributes: Mapping[str, str],
    *,
    read_only: bool = False,
    group: int | None = None,
    secret: Secret = NO_SECRET,
) -> VolumeSpec:
    """What a node mounts for an inline volume: nobody may write to it, unless `readOnly` is "false".

    Args, Raises: as volume_spec. With `read_only`, nobody may whatever the attributes say.
    """
    writable, rest = read_inline(attributes)
    return volume_spec(volume_id, rest, read_only=read_only or not writable, group=group, secret=secret)


def pod_of(context: Mapping[str, str]) -> str:
    """The pod for which the kubelet publishes a volume, `namespace/name`; `-` where it does not say."""
    names = [context.get(f"{KUBELET_PREFIX}pod.{part}", "") for part in ("namespace", "name")]
    return "/".join(names) if all(names) else "-"


def check_name(name: str) -> None:
    """Refuse what CSI does not allow as a volume's name.

    Raises:
        InvalidArgumentError: empty, longer than 128 bytes, or with control characters.
    """
    if not name:
        raise InvalidArgumentError("name: missing")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidArgumentError(f"name: {len(name.encode())} bytes, CSI allows {MAX_NAME_BYTES}")
    if _BANNED.search(name):
        raise InvalidArgumentError(f"name: given {name!r}, CSI allows no control characters")


def check_id(volume_id: str) -> None:
    """Refuse what CSI does not allow as a volume's id.

    Raises:
        InvalidArgumentError: empty or longer than 128 bytes.
    """
    if not volume_id:
        raise InvalidArgumentError("volume_id: missing")
    if len(volume_id.encode()) > MAX_ID_BYTES:
        raise InvalidArgumentError(f"volume_id: {len(volume_id.encode())} bytes, CSI allows {MAX_ID_BYTES}")


def component(name: str, limit: int) -> str:
    """A plain file name for `name`: the name itself where it is one, else its plain part and a hash.

    CSI allows every character but control characters in a name, so `a/b` or `..` are legal names and must neither be
    refused nor leave the base path. Sixty-four bits of hash keep derived names apart; provisioner.py compares the
    whole name as well.

    Args:
        name: any name.
        limit: the most characters that the result may have; at least 24.
    """
    if _PLAIN.fullmatch(name) and len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[: limit - len(digest) - 1]
    return f"{plain or 'volume'}-{digest}"


def child(parent: str, name: str) -> str:
    """The path of `name` below `parent`, which may be the root."""
    return f"{parent.rstrip('/')}/{name}"


def _location(values: Mapping[str, object]) -> Location:
    if "uri" not in values:
        raise InvalidArgumentError(f"uri: missing; accepted is {BY_KEY['uri'].accepted}")
    location = split_uri(cast("str", values["uri"]))
    if location.scheme != "hdfs":
        # file:// would open the node's own filesystem to whoever may write a PersistentVolume or a pod.
        raise InvalidArgumentError(f"uri: given {values['uri']!r}, accepted is {BY_KEY['uri'].accepted}")
    return location


def _mount_config(options: Mapping[str, object]) -> MountConfig:
    cache = {field.removeprefix("cache."): value for field, value in options.items() if field.startswith("cache.")}
    hadoop = {
        field.removeprefix("hadoop."): str(value) for field, value in options.items() if field.startswith("hadoop.")
    }
    rest = {field: value for field, value in options.items() if not field.startswith(("cache.", "hadoop."))}
    # Pods rarely run as root, and FUSE keeps everybody else out by default. A node's user names are not theirs.
    fields = {"allow_other": True, "uid": 0, "gid": 0, **rest, "cache": cache, "hadoop_properties": hadoop}
    try:
        return msgspec.convert(fields, MountConfig)
    except InvalidArgumentError as e:
        message = str(e)
        for parameter in BY_KEY.values():
            if parameter.field and message.startswith(f"{parameter.field}:"):
                message = message.replace(parameter.field, parameter.key, 1)
        raise InvalidArgumentError(message) from e
