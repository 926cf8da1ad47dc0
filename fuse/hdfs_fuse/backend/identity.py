"""Who a process is on HDFS.

Under simple authentication the Hadoop clients take the user from the environment of the process, once, so a process
has one identity. Whoever starts a daemon gives the child `client_environment`. With a keytab each client has its own
identity; of os.environ `log_in` changes what the Kerberos library reads there, and nothing else here changes anything.
"""

import functools
import itertools
import os
import pwd
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.config import Kerberos, MountConfig
from hdfs_fuse.errors import InvalidArgumentError

# What the Kerberos library says where no KDC answers (krb5_err.et, KRB5_KDC_UNREACH).
KDC_AWAY = "Cannot contact any KDC"
# One thread of the native client moves about 1 GB/s; a mount that needs more than 8 has other limits.
_MAX_CLIENT_THREADS = 8


def client_environment(config: MountConfig) -> dict[str, str]:
    """Variables that a process serving `config` must be started with, on top of its parent's.

    Args:
        config: the mount.

    Returns:
        HADOOP_USER_NAME when the mount names a user; HADOOP_CONF_DIR when it names a folder; for pyarrow also
        CLASSPATH with that folder in front, since the Java client looks for its configuration there. Besides, what
        the native client's runtime is to be told.
    """
    environment = {
        # A panic of the native client (an expired block token) is caught and reported by us; its backtrace is noise.
        "RUST_BACKTRACE": "0",
    }
    if "TOKIO_WORKER_THREADS" not in os.environ:
        # The native client's runtime takes a thread per core by itself. Its packets hop between them: on 2 cores one
        # thread needed a quarter less CPU time per byte and streamed faster than two.
        environment["TOKIO_WORKER_THREADS"] = str(max(1, min((os.cpu_count() or 1) // 2, _MAX_CLIENT_THREADS)))
    if config.user is not None:
        environment["HADOOP_USER_NAME"] = config.user
    if config.hadoop_conf_dir is not None:
        environment["HADOOP_CONF_DIR"] = config.hadoop_conf_dir
    folder = hadoop_conf.conf_dir(config)
    if config.backend == "pyarrow" and folder is not None:
        class_path = [part for part in os.environ.get("CLASSPATH", "").split(os.pathsep) if part]
        environment["CLASSPATH"] = os.pathsep.join([folder, *(part for part in class_path if part != folder)])
    return environment


def effective_user() -> str:
    """The user that Hadoop clients of this process act as under simple authentication."""
    if name := os.environ.get("HADOOP_USER_NAME"):
        return name
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # What the native client says too where the uid has no name (OpenShift gives pods such uids).
        return "unknown"


def acting_user(config: MountConfig) -> str:
    """The user that a mount acts as on HDFS, as HDFS names owners.

    The principal of a keytab is shown by its first component, as hadoop.security.auth_to_local does by default
    (KerberosName.Rule). Of a ticket cache the process's own user, which need not be the principal.
    """
    if config.kerberos is not None:
        return re.split("[/@]", config.kerberos.principal, maxsplit=1)[0]
    return effective_user()


def is_kerberos(properties: Mapping[str, str]) -> bool:
    """Whether Hadoop's configuration says that Kerberos tells who acts."""
    return properties.get("hadoop.security.authentication", "simple") != "simple"


def check_identity(config: MountConfig, properties: Mapping[str, str]) -> None:
    """Refuse to act as somebody else than the mount says.

    Raises:
        InvalidArgumentError: the mount names a user and this process is another one on HDFS, or Hadoop's configuration
            asks for Kerberos; or it has a keytab, and that does not.
    """
    if config.kerberos is not None and not is_kerberos(properties):
        raise InvalidArgumentError(
            "principal and keytab: given, but hadoop.security.authentication is not kerberos; say so in core-site.xml"
        )
    if config.user is None:
        return
    if is_kerberos(properties):
        raise InvalidArgumentError(
            "user: given, but hadoop.security.authentication is kerberos, so a ticket or keytab says who acts; drop it"
        )
    actual = effective_user()
    if actual != config.user:
        raise InvalidArgumentError(
            f"user: given {config.user!r}, but this process is {actual!r} on HDFS; start it with "
            f"HADOOP_USER_NAME={config.user} (hdfs_fuse.backend.client_environment)"
        )


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Login:
    """A login with Kerberos as the client takes it; to be kept as long as that.

    Attributes:
        principal: who acts.
        keytab_path: a file that only this process can name.
        tickets: where they are kept; in memory, since by default all processes of a user share a file in /tmp.
    """

    principal: str
    keytab_path: str
    tickets: str


def log_in(kerberos: Kerberos) -> Login:
    """Prepare a login; the client makes it with its first call, and again when a ticket has expired.

    A krb5.conf that comes along holds for the whole process from now on.
    """
    if kerberos.krb5_conf is not None:
        os.environ["KRB5_CONFIG"] = _path(_krb5_conf(kerberos.krb5_conf))
    fd = _in_memory("keytab", kerberos.keytab)
    login = Login(kerberos.principal, _path(fd), f"MEMORY:{next(_numbers)}")
    weakref.finalize(login, os.close, fd)
    return login


_numbers = itertools.count()


@functools.cache
def _krb5_conf(content: str) -> int:
    return _in_memory("krb5.conf", content.encode())


def _in_memory(name: str, content: bytes) -> int:
    """A file in memory (memfd_create(2)); the caller owns the descriptor."""
    fd = os.memfd_create(name)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    return fd


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"
