"""The command line: `python -m tests.support.local_hdfs up | status | down`."""

import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from tests.support.cache import SetupError, cache_dir
from tests.support.hadoop import hadoop_version
from tests.support.local_hdfs.cluster import MAX_DATANODES, LocalHdfs, LocalHdfsError
from tests.support.local_hdfs.layout import State


@click.group()
def main() -> None:
    """A real HDFS on this machine that stays until `down`."""


_directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the instance lives; by default local-hdfs in the cache directory.",
)


@main.command()
@click.option("--datanodes", type=click.IntRange(1, MAX_DATANODES), default=1, show_default=True)
@_directory_option
def up(datanodes: int, directory: Path | None) -> None:
    """Start one that stays when this command has ended."""
    directory = _directory(directory)
    # Without this a SIGTERM would end the command in the middle and leave behind what it has started.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    with _messages():
        state = State.read(directory)
        if state:
            existing = LocalHdfs.attach(directory)
            if not (why := existing.why_not_ready()):
                click.echo(f"runs already in {directory}", err=True)
                _show(existing)
                return
            if state.owner.alive():
                raise LocalHdfsError(f"process {state.owner.pid} uses {directory}: {why}")
            click.echo(f"removing what was left in {directory} ({why})", err=True)
            existing.stop()
        click.echo(f"starting Hadoop {hadoop_version()}: a NameNode and {datanodes} DataNode(s)", err=True)
        started = time.monotonic()
        hdfs = LocalHdfs(datanodes, directory=directory, outlive=True).start()
        click.echo(f"ready after {time.monotonic() - started:.1f} s", err=True)
        _show(hdfs)


@main.command()
@_directory_option
def down(directory: Path | None) -> None:
    """Stop it and remove all its data."""
    directory = _directory(directory)
    with _messages():
        if State.read(directory) is None:
            click.echo(f"nothing runs in {directory}", err=True)
            return
        LocalHdfs.attach(directory).stop()
        click.echo(f"stopped, {directory} removed", err=True)


@main.command()
@_directory_option
def status(directory: Path | None) -> None:
    """Show it; the exit status is 0 when files can be written, else 3."""
    directory = _directory(directory)
    if State.read(directory) is None:
        click.echo(f"nothing runs in {directory}", err=True)
        sys.exit(3)
    hdfs = LocalHdfs.attach(directory)
    _show(hdfs)
    for daemon in [hdfs.namenode, *hdfs.datanodes]:
        state = f"pid {daemon.identity.pid}" if daemon.identity and daemon.running else "does not run"
        click.echo(f"{daemon.name}: {state}, log {daemon.log}")
    if why := hdfs.why_not_ready():
        click.echo(f"not ready: {why}")
        sys.exit(3)
    namenode = hdfs.jmx("NameNode", "FSNamesystemState")
    click.echo(f"ready: {namenode['NumLiveDataNodes']} live DataNode(s), {namenode['CapacityRemaining']} bytes free")


def _show(hdfs: LocalHdfs) -> None:
    click.echo(hdfs.uri)
    click.echo(f"NameNode: {hdfs.namenode_http}")
    for name, value in hdfs.environment.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def _directory(given: Path | None) -> Path:
    # Not XDG_RUNTIME_DIR: that is memory, and blocks would fill it.
    return (given or cache_dir() / "local-hdfs").resolve()


@contextlib.contextmanager
def _messages() -> Iterator[None]:
    """Turn what can be expected to go wrong into a message and exit status 1."""
    try:
        yield
    except (LocalHdfsError, SetupError) as e:
        raise click.ClickException(str(e)) from e


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
