"""Volumes: their ids, and what StorageClass parameters and volume attributes make of them.

A volume that CreateVolume made has the id `<uri of the base path>#<key>`: enough for DeleteVolume to find, without
any state of its own, the record that CreateVolume left below the base path (provisioner.py). The id does not name the
volume's directory: an id may have 128 bytes (CSI "Size Limits") while a path in HDFS may have 8000 characters, and a
directory may be moved or named by a pattern without changing the id. The key is the name that the CO chose, shortened
with a hash when it is long. Any other id belongs to a static volume, whose attributes say everything.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import msgspec
from hdfs_fuse.config import Location, MountConfig, split_uri
from hdfs_fuse.errors import InvalidArgumentError

from hdfs_csi.parameters import BY_KEY, KUBELET_PREFIX, Where, own_keys, read_attributes, read_class, read_inline

# CSI "Size Limits": 128 bytes for a string, 4 KiB for a map of strings.
MAX_ID_BYTES = 128
MAX_NAME_BYTES = 128
MAX_MAP_BYTES = 4096

# Long enough for the external-provisioner's "pvc-" and a UUID, which so stay readable; leaves 87 bytes to the base URI.
MAX_KEY_CHARACTERS = 40

# HDFS allows 255 (dfs.namenode.fs-limits.max-component-length); a name has 128 bytes at most, so it fits as it is.
MAX_DIRECTORY_CHARACTERS = 128

# Where records stand, below a base path. Hidden, since ordinary listings and input formats skip names with a dot.
RECORDS = ".hdfs-csi/volumes"

# What HDFS, shells and URIs all take as it is. HDFS itself refuses ':' (DFSUtilClient.isValidName); names with a dot in
# front are its own (.snapshot, .reserved) and ours.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEY = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_KEY_CHARACTERS - 1}}}")

# CreateVolumeRequest.name in csi.proto.
_BANNED = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f]")


@dataclass(frozen=True, slots=True)
class VolumeId:
    """The id of a volume that CreateVolume made.

    Attributes:
        base: the base path of its StorageClass.
        key: which of the volumes below it.
    """

    base: Location
    key: str

    def __str__(self) -> str:
        """The id as Kubernetes keeps it."""
        return f"{self.base.filesystem}{self.base.path}#{self.key}"

    @property
    def record_path(self) -> str:
        """Path of the volume's record in HDFS."""
        return f"{child(self.base.path, RECORDS)}/{self.key}.json"

    @staticmethod
    def parse(text: str) -> "VolumeId | None":
        """The id that `text` stands for; None when CreateVolume can't have made it."""
        base, mark, key = text.rpartition("#")
        if not mark or not _KEY.fullmatch(key):
            return None
        try:
            parsed = VolumeId(split_uri(base), key)
        except InvalidArgumentError:
            return None
        # Only the one spelling that __str__ gives, so that two ids never mean the same volume.
        return parsed if str(parsed) == text and parsed.base.scheme == "hdfs" else None


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume as a node mounts it.

    Attributes:
        volume_id: its id.
        attributes: what its PersistentVolume says, without what Kubernetes added.
        config: the mount that this asks for, without what the node adds.
        read_only: whether nobody may write to it on this node; where somebody may, the node adds that to `config`.
        group: that its files show because a pod's fsGroup says so; None for what `attributes` say.
    """

    volume_id: str
    attributes: Mapping[str, str]
    config: MountConfig
    read_only: bool
    group: int | None = None


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A volume to be made.

    Attributes:
        volume_id: the id that it gets.
        name: the name that the CO chose.
        path: its directory, directly below the base path.
        mode: permission bits of the directory.
        owner, group: of the directory; None leaves what HDFS gives.
        on_delete: what DeleteVolume does with the directory.
        backend: the client that its nodes use.
        parameters: what its StorageClass said, without what Kubernetes added.
    """

    volume_id: VolumeId
    name: str
    path: str
    mode: int
    owner: str | None
    group: str | None
    on_delete: Literal["delete", "retain"]
    backend: str
    parameters: Mapping[str, str]


def new_volume(name: str, parameters: Mapping[str, str]) -> NewVolume:
    """The volume that CreateVolume asks for.

    Args:
        name: any name that CSI allows; one that is no plain file name gets a directory name derived from it.
        parameters: those of the StorageClass.

    Raises:
        InvalidArgumentError: the name, a key or a value is not acceptable.
    """
    check_name(name)
    values = read_class(parameters)
    base = _location(values)
    volume_id = VolumeId(base, component(name, MAX_KEY_CHARACTERS))
    length = len(str(volume_id).encode())
    if length > MAX_ID_BYTES:
        limit = MAX_ID_BYTES - 1 - len(volume_id.key)
        raise InvalidArgumentError(
            f"uri: given {parameters['uri']!r} makes a volume id of {length} bytes, CSI allows {MAX_ID_BYTES}; "
            f"accepted are base URIs of up to {limit} bytes here: take a shorter path, or a nameservice for the host"
        )
    path, kept = child(base.path, component(name, MAX_DIRECTORY_CHARACTERS)), own_keys(parameters)
    # The node would refuse bad mount options too, but then a pod hangs where now the PVC says what is wrong.
    spec = volume_spec(str(volume_id), attributes_of(volume_id, path, kept))
    return NewVolume(
        volume_id=volume_id,
        name=name,
        path=path,
        mode=cast("int", values.get("mode", 0o755)),
        owner=cast("str | None", values.get("owner")),
        group=cast("str | None", values.get("group")),
        on_delete=cast('Literal["delete", "retain"]', values.get("onDelete", "delete")),
        backend=spec.config.backend,
        parameters=kept,
    )


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
    volume_id: str, attributes: Mapping[str, str], *, read_only: bool = False, group: int | None = None
) -> VolumeSpec:
    """What a node mounts.

    Args:
        volume_id: any id.
        attributes: `volume_context` of a CSI request.
        read_only: whether nobody may write to it there.
        group: that its files are to show, with the permissions of their owner; None leaves it to the attributes.

    Raises:
        InvalidArgumentError: an id that is too long, a key or a value that is not acceptable, another `gid`.
    """
    check_id(volume_id)
    own = own_keys(attributes)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in own.items())
    if size > MAX_MAP_BYTES:
        raise InvalidArgumentError(f"volume attributes: {size} bytes, CSI allows {MAX_MAP_BYTES}")
    values = read_attributes(own)
    location = _location(values)
    options = {BY_KEY[key].field: value for key, value in values.items()}
    options["uri"] = f"{location.filesystem}{location.path}"
    if group is not None:
        if values.get("gid", group) != group:
            raise InvalidArgumentError(
                f"gid: given {values['gid']}, but the pod's fsGroup is {group}; drop one of them"
            )
        options |= {"gid": group, "group_as_owner": True}
    config = _mount_config(options | {"volume_id": volume_id})
    return VolumeSpec(volume_id, own, config, read_only, group)


def is_inline(context: Mapping[str, str]) -> bool:
    """Whether the kubelet says in `volume_context` that a pod's own specification is all that there is of a volume."""
    return context.get(f"{KUBELET_PREFIX}ephemeral") == "true"


def inline_spec(
    volume_id: str, attributes: Mapping[str, str], *, read_only: bool = False, group: int | None = None
) -> VolumeSpec:
    """What a node mounts for an inline volume: nobody may write to it, unless `readOnly` is "false".

    Args, Raises: as volume_spec. With `read_only`, nobody may whatever the attributes say.
    """
    writable, rest = read_inline(attributes)
    return volume_spec(volume_id, rest, read_only=read_only or not writable, group=group)


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
    rest = {field: value for field, value in options.items() if not field.startswith("cache.")}
    # Pods rarely run as root, and FUSE keeps everybody else out by default. A node's user names are not theirs.
    fields = {"allow_other": True, "uid": 0, "gid": 0, **rest, "cache": cache}
    try:
        return msgspec.convert(fields, MountConfig)
    except InvalidArgumentError as e:
        message = str(e)
        for parameter in BY_KEY.values():
            if parameter.field and message.startswith(f"{parameter.field}:"):
                message = message.replace(parameter.field, parameter.key, 1)
        raise InvalidArgumentError(message) from e
