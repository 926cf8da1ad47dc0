"""hdfs-fuse: mount, umount, stats, doctor. Makes a MountConfig of options and hands it on; no logic of its own."""

import functools
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from hdfs_fuse.backend.identity import client_environment
from hdfs_fuse.config import CacheConfig, MountConfig, StagingConfig
from hdfs_fuse.errors import HdfsFuseError
from hdfs_fuse.mounter import mounts
from hdfs_fuse.mounter.mounter import Mounter
from hdfs_fuse.mounter.supervisor import Supervisor, default_runtime_dir, stats_path

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class ByteSize(click.ParamType[int]):
    """A size like 512, 64M, 10GiB; units are powers of 1024."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of a size."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)\s*([kmgt]?)(?:i?b)?", value.strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is no size; accepted are 4096, 64M, 10GiB and the like", param, ctx)
        return int(match[1]) * _UNITS[match[2].lower()]


def default_cache_dir() -> str:
    """The node's cache: /var/cache/hdfs-fuse for root, below XDG_CACHE_HOME for others."""
    if os.geteuid() == 0:
        return "/var/cache/hdfs-fuse"
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "hdfs-fuse")


def default_staging_dir() -> str:
    """Where changed files wait for HDFS: /var/lib/hdfs-fuse/staging for root, below XDG_STATE_HOME for others."""
    if os.geteuid() == 0:
        return "/var/lib/hdfs-fuse/staging"
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "hdfs-fuse", "staging")


def _filesystem_options(command: F) -> F:
    """The options that say which filesystem, as whom, and cached where."""
    for option in reversed(
        [
            click.option("--backend", type=click.Choice(["hdfs-native", "pyarrow"]), default="hdfs-native",
                         show_default=True, help="HDFS client."),
            click.option("--hadoop-conf-dir", envvar="HADOOP_CONF_DIR", metavar="DIR",
                         help="Folder of core-site.xml and hdfs-site.xml.  [env: HADOOP_CONF_DIR]"),
            click.option("-D", "properties", multiple=True, metavar="KEY=VALUE",
                         help="Hadoop property, above the files; may be repeated."),
            click.option("--user", metavar="NAME", help="User on HDFS.  [env: HADOOP_USER_NAME]"),
            click.option("--cache-dir", metavar="DIR", default=default_cache_dir, help="Where blocks are kept, for all "
                         "mounts of the node.  [default: /var/cache/hdfs-fuse, or ~/.cache/hdfs-fuse without root]"),
            click.option("--no-cache", is_flag=True, help="Keep no blocks on disk."),
            click.option("--cache-size", type=ByteSize(), default="10GiB", show_default=True,
                         help="Most that all mounts of the node keep there."),
            click.option("--cache-min-free", type=ByteSize(), default="1GiB", show_default=True,
                         help="Space on that disk which is left free."),
            click.option("--block-size", type=ByteSize(), default="4MiB", show_default=True, help="Unit of caching."),
            click.option("--deadline", "call_deadline_s", type=float, default=60.0, show_default=True,
                         metavar="SECONDS", help="Longest that a call to HDFS may take."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


def _make_config(options: dict[str, Any]) -> MountConfig:
    """A MountConfig of the options above and of others named like its fields."""
    properties = {}
    for item in options.pop("properties"):
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"-D {item!r}: accepted is KEY=VALUE")
        properties[key] = value
    no_cache = options.pop("no_cache")
    cache = CacheConfig(
        directory="" if no_cache else os.path.abspath(options.pop("cache_dir")),
        size_bytes=options.pop("cache_size"),
        min_free_bytes=options.pop("cache_min_free"),
        block_size_bytes=options.pop("block_size"),
    )
    if no_cache:
        options.pop("cache_dir")
    return MountConfig(hadoop_properties=properties, cache=cache, **options)


def _reports_errors(command: F) -> F:
    """Show our errors as one line, not as a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except HdfsFuseError as e:
            raise click.ClickException(str(e)) from e

    return run  # type: ignore[return-value]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="hdfs-csi")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens.")
def main(verbose: bool) -> None:
    """HDFS as a local directory.

    hdfs-fuse mount hdfs://namenode:8020/data /mnt/data
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(message)s")


@main.command()
@click.argument("uri")
@click.argument("mountpoint")
@click.option("-f", "--foreground", is_flag=True, help="Stay, log to the terminal, unmount on Ctrl-C.")
@click.option("--writable", is_flag=True, help="Let files and directories be changed.")
@click.option(
    "--staging-dir",
    metavar="DIR",
    default=default_staging_dir,
    help="Where changed files are until HDFS "
    "has them.  [default: /var/lib/hdfs-fuse/staging, or ~/.local/state/hdfs-fuse/staging without root]",
)
@click.option("--staging-size", type=ByteSize(), default="10GiB", show_default=True,
              help="Most that all mounts of the node keep there.")  # fmt: skip
@click.option("--uid", type=int, help="Owner that all files show.  [default: each file's own]")
@click.option("--gid", type=int, help="Group that all files show.  [default: each file's own]")
@click.option("--umask", default="000", show_default=True, help="Permission bits that files do not show, octal.")
@click.option("--allow-other", is_flag=True, help="Let other users in.")
@click.option("--metadata-ttl", "metadata_ttl_s", type=float, default=60.0, show_default=True, metavar="SECONDS",
              help="How long attributes and names are believed.")  # fmt: skip
@click.option("--read-ahead", "read_ahead_bytes", type=ByteSize(), default="64MiB", show_default=True,
              help="How far sequential readers are read ahead.")  # fmt: skip
@click.option("--streams", type=int, default=2, show_default=True, help="DataNode streams for one sequential reader.")
@click.option("--wait", "deadline_s", type=float, default=30.0, show_default=True, metavar="SECONDS",
              help="How long mounting may take.")  # fmt: skip
@click.option(
    "--log-file", metavar="FILE", help="The daemon's log in the background.  [default: in the runtime folder]"
)
@_filesystem_options
@_reports_errors
def mount(
    mountpoint: str,
    foreground: bool,
    umask: str,
    deadline_s: float,
    log_file: str | None,
    writable: bool,
    staging_dir: str,
    staging_size: int,
    **options: Any,
) -> None:
    """Mount URI at MOUNTPOINT, read-only unless told otherwise.

    URI is hdfs://host:port/path, hdfs://nameservice/path, hdfs:///path for fs.defaultFS, or file:///path.
    """
    if not re.fullmatch(r"0?[0-7]{1,3}", umask):
        raise click.BadParameter(f"umask {umask!r}: accepted is an octal number from 000 to 777")
    staging = StagingConfig(directory=os.path.abspath(staging_dir), size_bytes=staging_size)
    config = _make_config({**options, "umask": int(umask, 8), "read_only": not writable, "staging": staging})
    runtime_dir = default_runtime_dir()
    os.makedirs(runtime_dir, mode=0o700, exist_ok=True)
    if not foreground and log_file is None:
        log_file = os.path.join(runtime_dir, mounts.canonical(mountpoint).strip("/").replace("/", "-") + ".log")
    supervisor = Supervisor(runtime_dir, None if foreground else log_file)
    signal.signal(signal.SIGTERM, _interrupt)  # from now on: what is half mounted is undone
    mounter = Mounter(supervisor)
    mounter.mount(config, mountpoint, deadline_s=deadline_s)
    if not foreground:
        supervisor.close()
        click.echo(f"{config.uri} is mounted at {mountpoint}; log: {log_file}; end: hdfs-fuse umount {mountpoint}")
        return
    try:
        click.echo(f"{config.uri} is mounted at {mountpoint}; Ctrl-C unmounts")
        supervisor.wait(mounts.canonical(mountpoint))
    except KeyboardInterrupt:
        click.echo("unmounting")
        mounter.unmount(mountpoint, force=True)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@main.command()
@click.argument("mountpoint")
@click.option("--force", is_flag=True, help="Even while files are open: their readers get errors.")
@click.option("--wait", "deadline_s", type=float, default=10.0, show_default=True, metavar="SECONDS",
              help="How long it may take.")  # fmt: skip
@_reports_errors
def umount(mountpoint: str, force: bool, deadline_s: float) -> None:
    """Unmount MOUNTPOINT, whatever state its daemon is in."""
    entry = mounts.find(mountpoint)
    if entry is None:
        raise click.ClickException(f"{mountpoint}: nothing is mounted there")
    if entry.fstype != mounts.FSTYPE:
        raise click.ClickException(f"{mountpoint}: holds {entry.source} ({entry.fstype}), which is not ours")
    Mounter(Supervisor()).unmount(mountpoint, force=force, deadline_s=deadline_s)


@main.command()
@click.argument("mountpoint")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers once, for machines.")
@click.option("--once", is_flag=True, help="Print the table once.")
@click.option("--interval", "interval_s", type=float, default=1.0, show_default=True, metavar="SECONDS")
@_reports_errors
def stats(mountpoint: str, as_json: bool, once: bool, interval_s: float) -> None:
    """What the mount at MOUNTPOINT does: hits, misses, bytes from HDFS and from the cache, latencies."""
    from hdfs_fuse.mounter import stats as daemon_stats  # noqa: PLC0415 - the other commands need neither
    from hdfs_fuse.mounter import stats_view as view  # noqa: PLC0415

    entry = mounts.find(mountpoint)
    if entry is None or entry.fstype != mounts.FSTYPE:
        raise click.ClickException(f"{mountpoint}: no hdfs-fuse mount there")
    path = stats_path(default_runtime_dir(), entry.device)
    if as_json:
        click.echo(json.dumps(daemon_stats.fetch(path), indent=2))
    elif once or not sys.stdout.isatty():
        view.show_once(path)
    else:
        view.show_live(path, interval_s)


@main.command()
@click.argument("uri", required=False)
@click.option(
    "--no-mount", is_flag=True, help="Leave out what only who mounts needs: in the pod of a mounter, which does not."
)
@_filesystem_options
@_reports_errors
def doctor(uri: str | None, no_mount: bool, **options: Any) -> None:
    """Check what a mount needs, and say how to mend what is wrong.

    With URI the filesystem is checked too: configuration, NameNode, permissions, DataNodes.
    """
    from hdfs_fuse import doctor as checks  # noqa: PLC0415 - imports clients

    config = _make_config({**options, "uri": uri or "file:///"})
    os.environ.update(client_environment(config))  # as a daemon is started: clients know their user from there
    has_failed = False
    for result in checks.run(config, with_filesystem=uri is not None, mounts_here=not no_mount):
        has_failed |= result.state == "failed"
        colour = {"ok": "green", "note": "yellow", "failed": "red"}[result.state]
        click.echo(f"{click.style(f'{result.state:>6}', fg=colour)}  {result.name}: {result.detail}")
        if result.remedy:
            click.echo(f"        -> {result.remedy}")
    # A client that still tries in a thread of its own would abort the process when the interpreter ends under it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if has_failed else 0)


if __name__ == "__main__":
    main()
