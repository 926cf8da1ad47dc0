"""The command `hdfs-csi`: reads options, builds the services and runs them until a signal."""

import contextlib
import difflib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, NoReturn, TypeVar

import click
from hdfs_fuse.config import GIB, CacheConfig, StagingConfig, split_uri
from hdfs_fuse.errors import HdfsFuseError
from prometheus_client import CollectorRegistry

from hdfs_csi import logs
from hdfs_csi.controller import Controller
from hdfs_csi.copies import Copies
from hdfs_csi.ephemeral import Ephemeral
from hdfs_csi.filesystems import Filesystems
from hdfs_csi.health import Health
from hdfs_csi.identity import DEFAULT_NAME, Identity
from hdfs_csi.locks import VolumeLocks
from hdfs_csi.metrics import Mounts, Operations
from hdfs_csi.node import Node, NodeSettings, problem
from hdfs_csi.provisioner import Provisioner
from hdfs_csi.server import DEFAULT_THREADS, FREE_THREADS, Server, remove_stale_socket, socket_path
from hdfs_csi.snapshots import Snapshots
from hdfs_csi.staging import Staging
from hdfs_csi.telemetry import Telemetry

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

# Kubernetes kills a pod 30 s after SIGTERM (terminationGracePeriodSeconds); leaves time to say good-bye.
DRAIN_S = 25.0

# The external-provisioner waits 15 s by default (--timeout) before it asks again. Longer, so that what we say about a
# NameNode that does not answer reaches the events of the PVC from the second try on; shorter than the kubelet's 120 s.
HDFS_DEADLINE_S = 20.0


def _option(name: str, variable: str | list[str], **details: Any) -> Callable[[F], F]:
    """An option that an environment variable may give as well, both named in the help."""
    return click.option(name, envvar=variable, show_envvar=True, **details)


def _add(options: Sequence[Callable[[F], F]], command: F) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def _csi_options(command: F) -> F:
    """Add the options that both CSI services take."""
    options = [
        _option(
            "--endpoint",
            "HDFS_CSI_ENDPOINT",
            default="unix:///csi/csi.sock",
            help="Unix socket to serve CSI on.",
        ),
        _option(
            "--driver-name",
            "HDFS_CSI_DRIVER_NAME",
            default=DEFAULT_NAME,
            help="Name of the driver, as in the CSIDriver object and in StorageClasses.",
        ),
        _option(
            "--hadoop-conf-dir",
            ["HDFS_CSI_HADOOP_CONF_DIR", "HADOOP_CONF_DIR"],
            type=click.Path(exists=True, file_okay=False, resolve_path=True),
            show_default="none: the host must stand in the URI",
            help="Folder of core-site.xml and hdfs-site.xml.",
        ),
        _option(
            "--threads",
            "HDFS_CSI_THREADS",
            type=click.IntRange(2 * FREE_THREADS, 512),
            default=DEFAULT_THREADS,
            help="Calls that are served at once.",
        ),
    ]
    return _add(options, command)


def _shared_options(command: F) -> F:
    """Add the options that all processes take."""
    options = [
        _option(
            "--http-address",
            "HDFS_CSI_HTTP_ADDRESS",
            metavar="HOST:PORT",
            show_default="none",
            help="Where to offer /metrics (Prometheus) and /healthz; :PORT for all addresses.",
        ),
        _option(
            "--log-format",
            "HDFS_CSI_LOG_FORMAT",
            type=click.Choice(["text", "json"]),
            default="text",
            help="How log lines look.",
        ),
        _option(
            "--log-level",
            "HDFS_CSI_LOG_LEVEL",
            type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
            default="info",
            help="Least severe log lines to print.",
        ),
    ]
    return _add(options, command)


_RUNTIME_DIR = _option(
    "--runtime-dir",
    "HDFS_CSI_RUNTIME_DIR",
    type=click.Path(file_okay=False, resolve_path=True),
    default="/run/hdfs-fuse",
    help="Where mounts offer their statistics; with the default `hdfs-fuse stats MOUNTPOINT` finds them.",
)


@click.group(context_settings={"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(metadata.version("hdfs-csi"), prog_name="hdfs-csi")
@click.option(
    "--config",
    envvar="HDFS_CSI_CONFIG",
    show_envvar=True,
    type=click.Path(exists=True, dir_okay=False),
    callback=lambda context, _, path: _read_config(context, path),
    expose_value=False,
    is_eager=True,
    help="TOML file with a table [controller], [node] or [mounter] of their options, without the dashes in front: "
    "log-level = 'debug'. What the command line or the environment say comes first.",
)
def main() -> None:
    """HDFS directories as Kubernetes volumes: the services of the CSI driver.

    Every option may be given by the environment variable that stands behind it, or in a file: see --config.
    """


@main.command(context_settings={"show_default": True})
@_csi_options
@_shared_options
@_option(
    "--hdfs-deadline-seconds",
    "HDFS_CSI_HDFS_DEADLINE_SECONDS",
    type=click.FloatRange(min=0.1),
    default=HDFS_DEADLINE_S,
    help="How long one call to the NameNode may take.",
)
@_option(
    "--base-uri",
    "HDFS_CSI_BASE_URIS",
    multiple=True,
    metavar="URI",
    help="Base path of a StorageClass whose volumes and snapshots are listed; may be given several times (in the "
    "variable separated by spaces). Without any, the driver does not offer lists.",
)
def controller(
    endpoint: str,
    driver_name: str,
    hadoop_conf_dir: str | None,
    threads: int,
    http_address: str | None,
    log_format: str,
    log_level: str,
    hdfs_deadline_seconds: float,
    base_uri: Sequence[str],
) -> None:
    """Make and remove volumes: one per cluster, beside the external-provisioner.

    Needs no privileges. Acts on HDFS as HADOOP_USER_NAME, or else as the user that it runs as.
    """
    with _ready_to_serve(log_level, log_format):
        filesystems = Filesystems(hadoop_conf_dir=hadoop_conf_dir, deadline_s=hdfs_deadline_seconds)
        service = Controller(
            Provisioner(filesystems, Copies()),
            Snapshots(filesystems),
            VolumeLocks(threads - FREE_THREADS),
            [split_uri(uri) for uri in base_uri],
        )
        serve(endpoint, [Identity(driver_name), service], threads, http_address)
    _leave()


@main.command(context_settings={"show_default": True})
@_csi_options
@_shared_options
@_option(
    "--node-id",
    "HDFS_CSI_NODE_ID",
    required=True,
    help="Name by which the cluster knows this node (spec.nodeName).",
)
@_option(
    "--mounter-endpoint",
    "HDFS_CSI_MOUNTER_ENDPOINT",
    show_default="none: this process keeps the daemons of its mounts itself",
    help="Unix socket of `hdfs-csi mounter` on this node. The paths of --cache-dir, --staging-dir, --hadoop-conf-dir "
    "and --runtime-dir must mean the same to it.",
)
@_RUNTIME_DIR
@_option(
    "--inline-dir",
    "HDFS_CSI_INLINE_DIR",
    type=click.Path(file_okay=False, resolve_path=True),
    show_default="inline in --runtime-dir",
    help="Where volumes of one pod alone are mounted before they are shown to it: inline volumes, and those with "
    "podUser. In a container it must be in a folder with Bidirectional mount propagation that `hdfs-csi mounter` does "
    "not see.",
)
@_option(
    "--volume-condition/--no-volume-condition",
    "HDFS_CSI_VOLUME_CONDITION",
    default=False,
    help="Tell the health of volumes in NodeGetVolumeStats too, for kubelets with the feature gate CSIVolumeHealth, "
    "which make an event of it. A volume whose mount is dead or hangs then has statistics of 0 instead of an error.",
)
@_option(
    "--cache-dir",
    "HDFS_CSI_CACHE_DIR",
    default="/var/cache/hdfs-fuse",
    help="Where blocks are cached that all volumes of the node share; empty for no cache on disk.",
)
@_option(
    "--cache-size-bytes",
    "HDFS_CSI_CACHE_SIZE_BYTES",
    type=click.IntRange(min=0),
    default=10 * GIB,
    help="The most that is cached.",
)
@_option(
    "--cache-min-free-bytes",
    "HDFS_CSI_CACHE_MIN_FREE_BYTES",
    type=click.IntRange(min=0),
    default=1 * GIB,
    help="Free space of the cache's filesystem below which nothing is added.",
)
@_option(
    "--staging-dir",
    "HDFS_CSI_STAGING_DIR",
    default="/var/lib/hdfs-fuse/staging",
    help="Where the files that pods change are until HDFS has them, for all volumes of the node.",
)
@_option(
    "--staging-size-bytes",
    "HDFS_CSI_STAGING_SIZE_BYTES",
    type=click.IntRange(min=0),
    default=10 * GIB,
    help='The most that is kept there; a pod that writes more gets "No space left on device".',
)
def node(
    endpoint: str,
    driver_name: str,
    hadoop_conf_dir: str | None,
    threads: int,
    http_address: str | None,
    log_format: str,
    log_level: str,
    node_id: str,
    mounter_endpoint: str | None,
    runtime_dir: str,
    inline_dir: str | None,
    volume_condition: bool,
    cache_dir: str,
    cache_size_bytes: int,
    cache_min_free_bytes: int,
    staging_dir: str,
    staging_size_bytes: int,
) -> None:
    """Mount volumes and show them to pods: one on every node, beside the node-driver-registrar.

    Needs root and /dev/fuse.
    """
    # Only the node service needs what mounts.
    from hdfs_fuse.mounter import mounts  # noqa: PLC0415
    from hdfs_fuse.mounter.client import RemoteSupervisor  # noqa: PLC0415
    from hdfs_fuse.mounter.mounter import Mounter  # noqa: PLC0415
    from hdfs_fuse.mounter.supervisor import Supervisor  # noqa: PLC0415

    if cache_dir and not os.path.isabs(cache_dir):
        raise click.BadParameter(f"given {cache_dir!r}, accepted is an absolute path", param_hint="--cache-dir")
    if not os.path.isabs(staging_dir):
        raise click.BadParameter(f"given {staging_dir!r}, accepted is an absolute path", param_hint="--staging-dir")
    with _ready_to_serve(log_level, log_format):
        settings = NodeSettings(
            hadoop_conf_dir=hadoop_conf_dir,
            cache=CacheConfig(directory=cache_dir, size_bytes=cache_size_bytes, min_free_bytes=cache_min_free_bytes),
            staging=StagingConfig(directory=staging_dir, size_bytes=staging_size_bytes),
        )
        registry = CollectorRegistry()
        with contextlib.ExitStack() as stack:
            daemons: Supervisor | RemoteSupervisor
            if mounter_endpoint:
                daemons = RemoteSupervisor(socket_path(mounter_endpoint))
                remote_problem = daemons.problem
            else:
                daemons = stack.enter_context(contextlib.closing(Supervisor(runtime_dir)))
                remote_problem = str
                registry.register(Mounts(runtime_dir))
            staging = Staging(Mounter(daemons), mounts, settings.complete)
            ephemeral = Ephemeral(staging, inline_dir or os.path.join(runtime_dir, "inline"))
            health = Health(mounts, staging.config_of)
            # A question takes milliseconds, and seconds where a mount hangs: enough that those pass by each other.
            questions = (threads - FREE_THREADS) // 4
            changes = threads - FREE_THREADS - questions
            service = Node(
                node_id,
                staging,
                ephemeral,
                health,
                mounts,
                VolumeLocks(changes),
                VolumeLocks(questions),
                tells_condition=volume_condition,
            )

            def node_problem() -> str:
                return problem() or remote_problem()

            identity = Identity(driver_name, node_problem)
            serve(endpoint, [identity, service], threads, http_address, registry, node_problem)
    _leave()


@main.command(context_settings={"show_default": True})
@_option(
    "--endpoint",
    "HDFS_CSI_MOUNTER_ENDPOINT",
    default="unix:///run/hdfs-fuse/mounter.sock",
    help="Unix socket for the node service; the --mounter-endpoint of that.",
)
@_shared_options
@_RUNTIME_DIR
def mounter(endpoint: str, http_address: str | None, log_format: str, log_level: str, runtime_dir: str) -> None:
    """Keep the processes that serve a node's mounts: one on every node, with the cache and the staging directory.

    Needs no privileges: the node service mounts, and hands each mount over. So that may be restarted, and upgraded,
    while pods read and write.
    """
    from hdfs_fuse.mounter.server import Server as MounterServer  # noqa: PLC0415
    from hdfs_fuse.mounter.supervisor import Supervisor  # noqa: PLC0415

    with _ready_to_serve(log_level, log_format), contextlib.ExitStack() as stack:
        registry = CollectorRegistry()
        registry.register(Mounts(runtime_dir))
        ending = _signals()
        supervisor = stack.enter_context(contextlib.closing(Supervisor(runtime_dir)))
        path = socket_path(endpoint)
        remove_stale_socket(path, socket.SOCK_SEQPACKET)
        server = MounterServer(path, supervisor)
        stack.callback(server.server_close)
        if http_address:
            stack.callback(Telemetry(http_address, registry, str).close)
        threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()
        log.info("keeping daemons endpoint=%s pid=%d", endpoint, os.getpid())
        ending.get()
        if os.getpid() == 1:
            # The first process of a container: the kernel would kill the daemons with it.
            log.info("ending daemons, which store what was written")
            supervisor.end_all()
    _leave()


def serve(
    endpoint: str,
    services: Sequence[object],
    threads: int,
    http_address: str | None = None,
    registry: CollectorRegistry | None = None,
    problem: Callable[[], str] = str,
) -> None:
    """Serve until SIGTERM or SIGINT, then let running calls end.

    Args:
        endpoint: where.
        services: what.
        threads: calls at once.
        http_address: where to tell Prometheus and probes; None for nowhere.
        registry: what else Prometheus is told.
        problem: why the process can't serve; the empty string when it can.

    Raises:
        HdfsFuseError: the endpoint can't be used.
    """
    ending = _signals()
    registry = registry or CollectorRegistry()
    server = Server(endpoint, services, threads=threads, observe=Operations(registry).observe)
    with contextlib.ExitStack() as stack:
        if http_address:
            stack.callback(Telemetry(http_address, registry, problem).close)
        server.start()
        ending.get()
        server.stop(DRAIN_S)


def _signals() -> "queue.SimpleQueue[int]":
    """SIGTERM and SIGINT, once they have come."""
    # Not an Event: a signal handler that sets one hangs where it meets the thread that is just about to wait for it.
    ending: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: ending.put(number))
    return ending


def _leave() -> NoReturn:
    """End the process, whatever its threads are at: a call that hangs, or a copy that the next process goes on with.

    The interpreter would wait for them.
    """
    logging.shutdown()
    os._exit(0)


def _read_config(context: click.Context, path: str | None) -> None:
    """Take what a file says as defaults; a table or a key that no command has is refused."""
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as e:
        raise click.BadParameter(f"{path}: {e}") from e
    defaults: dict[str, dict[str, object]] = {}
    for table, values in tables.items():
        command = main.commands.get(table)
        if command is None or not isinstance(values, dict):
            raise click.BadParameter(f"{path}: given {table!r}, accepted are the tables {', '.join(main.commands)}")
        names = {option.removeprefix("--"): p.name for p in command.params for option in p.opts}
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise click.BadParameter(
                    f"{path}: [{table}] has {key!r}; {hint}accepted are {', '.join(sorted(names))}"
                )
        defaults[table] = {str(names[key]): value for key, value in values.items()}
    context.default_map = defaults


@contextlib.contextmanager
def _ready_to_serve(log_level: str, log_format: str) -> Iterator[None]:
    """Set up logging; what is wrong with the options is one line, not a traceback."""
    logs.configure(log_level, log_format)
    try:
        yield
    except HdfsFuseError as e:
        log.error("can't serve: %s", e)  # noqa: TRY400 - the message says all
        sys.exit(1)
