"""What whoever mounts (client.py) and a supervisor in another process (server.py) say to each other.

Over a SOCK_SEQPACKET unix socket, one connection a mount that is made or ended. Each message is JSON.

    client                                    server
    start: the MountConfig             ->
                                       <-     connected: a daemon has reached what is to be mounted
    mounted, with two descriptors      ->
                                       <-     serving
    or
    end: mountpoint and device         ->
                                       <-     found: the devices whose daemons are noted
    finish, with those that are gone   ->
                                       <-     ended: all is stored
    or
    ping                               ->
                                       <-     pong
    At any time                        <-     failed, with the reason

Whoever closes the connection before the last answer has given it up: a daemon that was started is killed then, and one
that was found goes on. Both sides are upgraded one after the other, so each first message says which version it is of.
"""

import msgspec

from hdfs_fuse.handover import Connected, Failed, Serving

VERSION = 1


class Start(msgspec.Struct, tag=True, frozen=True):
    """Start a daemon.

    Attributes:
        version: of this protocol.
        config: the MountConfig, to be read once the versions are known to be the same.
        mountpoint: where, as whoever mounts sees it; a name for the mount.
        deadline_s: how long it may take to connect, and then to serve.
    """

    version: int
    config: msgspec.Raw
    mountpoint: str
    deadline_s: float


class Mounted(msgspec.Struct, tag=True, frozen=True):
    """Serve this mount: with it come the FUSE connection and what holds the recorded FUSE_INIT.

    Attributes:
        device: "major:minor".
        deadline_s: how long it may take.
    """

    device: str
    deadline_s: float


class End(msgspec.Struct, tag=True, frozen=True):
    """Find the daemon of a mount that is about to be unmounted.

    Attributes:
        version: of this protocol.
        mountpoint: as in Start.
        device: "major:minor"; None where nothing is mounted any longer.
    """

    version: int
    mountpoint: str
    device: str | None


class Found(msgspec.Struct, tag=True, frozen=True):
    """The daemons of a mountpoint are noted.

    Attributes:
        devices: of what they serve, or served.
    """

    devices: frozenset[str]


class Finish(msgspec.Struct, tag=True, frozen=True):
    """It is unmounted: have daemons end, and wait for that.

    Attributes:
        devices: those whose mounts are gone.
        deadline_s: how long.
    """

    devices: frozenset[str]
    deadline_s: float


class Ended(msgspec.Struct, tag=True, frozen=True):
    """They have ended."""


class Ping(msgspec.Struct, tag=True, frozen=True):
    """Is anybody there, of that version?"""

    version: int


class Pong(msgspec.Struct, tag=True, frozen=True):
    """Yes."""


Request = Start | End | Ping
Reply = Connected | Serving | Found | Ended | Pong | Failed
