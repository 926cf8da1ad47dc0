"""The class LocalHdfs: the life of a NameNode and its DataNodes, faults, and Hadoop's own tools against them."""

import contextlib
import http.client
import json
import os
import pwd
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from tests.support.hadoop import (
    DATANODE,
    DFSADMIN,
    FS_SHELL,
    NAMENODE,
    command_line,
    hadoop_jars,
    write_hosts,
    write_properties,
    write_resources,
)
from tests.support.local_hdfs.layout import (
    HOST,
    MIB,
    Ports,
    State,
    core_properties,
    datanode_properties,
    hdfs_properties,
    reserve_ports,
)
from tests.support.processes import Daemon, ProcessIdentity, stop_all

MAX_DATANODES = 4
# Starting takes 4 to 12 s on two idle cores; a busy machine may need many times that.
START_TIMEOUT_S = 120.0

# What asking /jmx raises while a daemon starts or ends: no listener, a cut answer, a bean that is not there yet.
_NO_ANSWER = (OSError, http.client.HTTPException, KeyError, json.JSONDecodeError)


class LocalHdfsError(RuntimeError):
    """The local HDFS could not be started or did not do what it was asked."""


class LocalHdfs:
    """A NameNode and its DataNodes; `start` and `stop`, or a `with` block.

    Whoever runs this is the HDFS superuser; users alice (group data) and bob (group other) exist for tests of
    permissions. A dead DataNode is noticed after 12 s.

    Attributes:
        uri: `hdfs://HOST:PORT`.
        conf_dir: core-site.xml and hdfs-site.xml, for clients too (HADOOP_CONF_DIR).
        namenode_http: `http://HOST:PORT`, or https: WebHDFS and /jmx.
        directory: everything that the instance writes; its logs are `logs/*.log`. Gone after `stop`.
    """

    def __init__(
        self,
        datanodes: int = 1,
        *,
        directory: Path | None = None,
        properties: Mapping[str, str] | None = None,
        namenode_properties: Mapping[str, str] | None = None,
        block_size_bytes: int = 128 * MIB,
        heap_mb: int = 256,
        jvm_options: tuple[str, ...] = (),
        host: str = HOST,
        outlive: bool = False,
    ) -> None:
        """Describe an instance; nothing happens before `start`.

        Args:
            datanodes: 1 to 4.
            directory: for its data; must be absent or empty. None makes a temporary one.
            properties: Hadoop keys for daemons and clients, over the defaults here.
            namenode_properties: Hadoop keys for the NameNode alone.
            block_size_bytes: of new files.
            heap_mb: of each JVM; a NameNode keeps about 500,000 names in the default.
            jvm_options: more options for the daemons.
            host: address of this machine that they listen on.
            outlive: whether the daemons go on when this process ends without `stop`.
        """
        if not 1 <= datanodes <= MAX_DATANODES:
            raise ValueError(f"datanodes: given {datanodes}, accepted is 1 to {MAX_DATANODES}")
        self._datanode_count = datanodes
        self._given_directory = directory
        self._properties = dict(properties or {})
        self._namenode_properties = dict(namenode_properties or {})
        self._block_size_bytes = block_size_bytes
        self._heap_mb = heap_mb
        self._jvm_options = jvm_options
        self._host = host
        self._outlive = outlive
        self._directory: Path | None = None
        self._ports: Ports | None = None
        self._reserved = contextlib.ExitStack()
        self._namenodes: list[Daemon] = []
        self._active = 0  # which of them
        self._datanodes: list[Daemon] = []

    # ---- what clients need

    @property
    def directory(self) -> Path:
        """Everything that the instance writes."""
        assert self._directory, "not started"
        return self._directory

    @property
    def conf_dir(self) -> Path:
        """HADOOP_CONF_DIR of clients."""
        return self.directory / "conf"

    @property
    def uri(self) -> str:
        """The filesystem."""
        return f"hdfs://{self._known_ports.host}:{self._known_ports.namenode_rpc}"

    @property
    def namenode_http(self) -> str:
        """WebHDFS and /jmx of the NameNode."""
        return f"{self._web_scheme}://{self._known_ports.host}:{self._known_ports.namenode_http}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point a client at this instance."""
        return {"HADOOP_CONF_DIR": str(self.conf_dir)}

    @property
    def datanode_ports(self) -> list[int]:
        """The data transfer port of each DataNode."""
        return [transfer for transfer, _, _ in self._known_ports.datanodes]

    @property
    def datanode_http_ports(self) -> list[int]:
        """The port of the web server of each DataNode."""
        return [http_port for _, http_port, _ in self._known_ports.datanodes]

    @property
    def namenode(self) -> Daemon:
        """The NameNode's process."""
        assert self._namenodes, "not started"
        return self._namenodes[self._active]

    @property
    def datanodes(self) -> list[Daemon]:
        """The DataNodes' processes, running or not."""
        return self._datanodes

    # ---- life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Format a new filesystem and start everything; on failure all of it is undone.

        Raises:
            SetupError: Java, Maven or the jars are missing.
            LocalHdfsError: a daemon did not start; the message ends with its log.
        """
        hadoop_jars()  # may take a while, so before anything runs
        self._directory = self._choose_directory()
        try:
            self._make_directory(self._directory)
            self._reserve_ports()
            self._describe_daemons({})
            self._write_state()
            self._write_configuration()
            self._format()
            self._start_all()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop all daemons and remove everything; idempotent."""
        if self._directory is None:
            return
        stop_all([*self._datanodes, *self._namenodes])
        self._reserved.close()
        if self._directory.exists():  # or its making was interrupted
            shutil.rmtree(self._directory)
        self._directory = self._ports = None
        self._namenodes, self._datanodes = [], []

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """The instance that another process started in `directory`; daemons that have died are shown as not running.

        Raises:
            LocalHdfsError: there is none.
        """
        state = State.read(directory)
        if state is None:
            raise LocalHdfsError(f"no local HDFS in {directory}")
        self = cls(len(state.ports.datanodes), directory=directory, outlive=True)
        self._directory = directory
        self._ports = state.ports
        self._describe_daemons(state.daemons)
        return self

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until files can be written: no safe mode, and every running DataNode has reported its blocks.

        Raises:
            LocalHdfsError: a daemon died, or it took longer than `timeout_s` seconds.
        """
        # An open port is not readiness: the NameNode listens seconds before the first DataNode has registered.
        self._wait("the local HDFS", self._why_not_ready, timeout_s)

    # ---- faults

    def stop_namenode(self) -> None:
        """End the NameNode in an orderly way."""
        self.namenode.stop()

    def kill_namenode(self) -> None:
        """End the NameNode as a crash does."""
        self.namenode.kill()

    def start_namenode(self) -> None:
        """Start the NameNode again and wait until files can be written."""
        self._start_daemon(self.namenode)
        self.wait_ready()

    def pause_namenode(self) -> None:
        """Freeze the NameNode: connections stay open, nothing answers."""
        self.namenode.pause()

    def resume_namenode(self) -> None:
        """End `pause_namenode`."""
        self.namenode.resume()

    def stop_datanode(self, index: int) -> None:
        """End a DataNode in an orderly way."""
        self._datanodes[index].stop()

    def kill_datanode(self, index: int) -> None:
        """End a DataNode as a crash does; the NameNode lists it for another 12 s."""
        self._datanodes[index].kill()

    def start_datanode(self, index: int) -> None:
        """Start a DataNode again, with its data, and wait until the NameNode counts on it."""
        self._start_daemon(self._datanodes[index])
        self.wait_ready()

    def pause_datanode(self, index: int) -> None:
        """Freeze a DataNode."""
        self._datanodes[index].pause()

    def resume_datanode(self, index: int) -> None:
        """End `pause_datanode`."""
        self._datanodes[index].resume()

    def prepare_starts(self) -> None:
        """For tests that start daemons again while they have a file of a mount open; see `Daemon.prepare`."""
        for daemon in [*self._namenodes, *self.datanodes]:
            daemon.prepare()

    def mend(self) -> None:
        """Start the daemons that do not run, and wait until the NameNode knows all DataNodes again."""
        if not self.namenode.running:
            self.start_namenode()
        for index, datanode in enumerate(self.datanodes):
            if not datanode.running:
                self.start_datanode(index)
        self.wait_ready()
        self.wait_live_datanodes(len(self.datanodes))

    def wait_live_datanodes(self, count: int, timeout_s: float = 60) -> None:
        """Wait until the NameNode counts exactly `count` live DataNodes."""

        def reason() -> str:
            live = self.jmx("NameNode", "FSNamesystemState")["NumLiveDataNodes"]
            return "" if live == count else f"{live} live DataNodes, not {count}"

        self._wait("the NameNode", reason, timeout_s)

    # ---- Hadoop's own tools

    def fs_shell(self, *arguments: str, user: str | None = None, stdin: bytes = b"") -> str:
        """Run `hdfs dfs ARGUMENTS` (a JVM, so about a second); returns its output.

        Args:
            arguments: such as "-ls", "/".
            user: on whose behalf; None is the superuser.
            stdin: for `-put - PATH`.

        Raises:
            LocalHdfsError: it failed; the message has its error output.
        """
        return self.tool(FS_SHELL, *arguments, user=user, stdin=stdin)

    def fetch(self, directory: str) -> dict[str, bytes]:
        """The files below a directory by their path in it, as Hadoop's own client reads them."""
        with tempfile.TemporaryDirectory() as local:
            root = Path(local, "fetched")
            self.fs_shell("-get", directory, str(root))
            return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def dfsadmin(self, *arguments: str) -> str:
        """Run `hdfs dfsadmin ARGUMENTS`; returns its output."""
        return self.tool(DFSADMIN, *arguments)

    def tool(self, main: str, *arguments: str, user: str | None = None, stdin: bytes = b"") -> str:
        """Run the Java class `main` of Hadoop; returns its output. Otherwise as `fs_shell`."""
        done = subprocess.run(
            self._command(main, arguments),
            input=stdin,
            capture_output=True,
            env=self._environment(user),
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise LocalHdfsError(
                f"{main.rpartition('.')[2]} {shlex.join(arguments)} ended with {done.returncode}:\n"
                + done.stderr.decode(errors="replace")
                + done.stdout.decode(errors="replace")
            )
        return done.stdout.decode(errors="surrogateescape")

    def webhdfs(self, method: str, path: str, operation: str, *, user: str | None = None, **parameters: str) -> Any:
        """One WebHDFS request to the NameNode (those that need no redirect); returns the JSON answer, or None.

        Args:
            method: GET, PUT, POST or DELETE.
            path: absolute.
            operation: such as MKDIRS or SETQUOTA.
            user: on whose behalf; None is the superuser.
            parameters: of the operation.

        Raises:
            LocalHdfsError: refused; the message has the server's answer.
        """
        query = urlencode({"op": operation, **self._user_parameters(user), **parameters})
        target = f"/webhdfs/v1{quote(path)}?{query}"
        status, body = self._http(method, self._known_ports.namenode_http, target, self._headers(user))
        if status != http.client.OK:
            raise LocalHdfsError(f"{operation} {path}: {status} {body.decode(errors='replace')}")
        return json.loads(body) if body else None

    def jmx(self, service: str, name: str, port: int | None = None) -> dict[str, Any]:
        """A bean of /jmx; of the NameNode unless `port` says which.

        Raises:
            OSError, http.client.HTTPException: the daemon does not answer.
        """
        query = f"/jmx?qry=Hadoop:service={service},name={name}"
        _, body = self._http("GET", port or self._known_ports.namenode_http, query, self._headers(None))
        beans = json.loads(body)["beans"]
        return dict(beans[0]) if beans else {}

    # ---- inside

    @property
    def _known_ports(self) -> Ports:
        assert self._ports, "not started"
        return self._ports

    def _choose_directory(self) -> Path:
        """Where to be, not made yet: from its first moment on it is known to who has to remove it."""
        if self._given_directory is None:
            return Path(tempfile.gettempdir(), f"hdfs-csi-hdfs-{secrets.token_hex(8)}")
        directory = self._given_directory.resolve()
        if directory.is_dir() and any(directory.iterdir()):
            raise LocalHdfsError(f"{directory} is not empty; give a directory that is absent or empty")
        return directory

    def _make_directory(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=self._given_directory is not None)
        directory.chmod(0o755)  # clients that run as other users read conf/
        for name in ("conf", "resources", "logs", "tmp"):
            (directory / name).mkdir()

    def _reserve_ports(self) -> None:
        self._ports, self._reserved = reserve_ports(self._host, self._datanode_count)

    def _describe_daemons(self, known: Mapping[str, ProcessIdentity]) -> None:
        ports = self._known_ports
        self._namenodes = [self._daemon("namenode", NAMENODE, self._namenode_properties, known)]
        self._datanodes = [
            self._daemon(f"datanode{i}", DATANODE, datanode_properties(ports, self.directory, i), known)
            for i in range(len(ports.datanodes))
        ]

    def _daemon(
        self,
        name: str,
        main: str,
        properties: Mapping[str, str],
        known: Mapping[str, ProcessIdentity],
        arguments: Sequence[str] = (),
    ) -> Daemon:
        command = self._command(
            main, arguments, heap_mb=self._heap_mb, properties=properties, jvm_options=self._jvm_options
        )
        log = self.directory / "logs" / f"{name}.log"
        environment = self._environment(None)
        return Daemon(name, command, log, environment, die_with_parent=not self._outlive, identity=known.get(name))

    def _command(self, main: str, arguments: Sequence[str], **options: Any) -> list[str]:
        """The argv of a daemon or tool of this instance; `options` as for `command_line`."""
        return command_line(
            main,
            arguments,
            directories=[self.conf_dir, self.directory / "resources"],
            temporary=self.directory / "tmp",
            hosts=self.directory / "hosts",
            **options,
        )

    def _write_configuration(self) -> None:
        write_properties(self.conf_dir / "core-site.xml", self._core_properties())
        write_properties(self.conf_dir / "hdfs-site.xml", self._hdfs_properties())
        write_resources(self.directory / "resources")
        write_hosts(self.directory / "hosts")

    def _core_properties(self) -> dict[str, str]:
        return core_properties(self._known_ports, self.directory)

    def _hdfs_properties(self) -> dict[str, str]:
        return hdfs_properties(self._known_ports, self.directory, self._block_size_bytes, self._properties)

    def _format(self) -> None:
        self.tool(NAMENODE, "-format", "-nonInteractive")

    def _start_all(self) -> None:
        for daemon in [*self._namenodes, *self._datanodes]:
            self._start_daemon(daemon)

    def _start_daemon(self, daemon: Daemon) -> None:
        daemon.start()
        self._write_state()

    def _write_state(self) -> None:
        daemons = {d.name: d.identity for d in [*self._namenodes, *self._datanodes] if d.identity}
        State(ProcessIdentity.of(os.getpid()), self._known_ports, daemons).write(self.directory)

    def why_not_ready(self) -> str:
        """What is missing before files can be written; empty when nothing is."""
        try:
            return self._why_not_ready()
        except _NO_ANSWER as e:
            return f"/jmx does not answer: {e!r}"

    def _dead(self) -> Daemon | None:
        """A daemon that has ended though nobody asked it to."""
        all_of_them = [*self._namenodes, *self._datanodes]
        return next((daemon for daemon in all_of_them if daemon.identity and not daemon.running), None)

    def _why_not_ready(self) -> str:
        if dead := self._dead():
            return f"{dead.name} died, see {dead.log}"
        if not self.namenode.running:
            return "the NameNode does not run"
        namenode = self.jmx("NameNode", "FSNamesystemState")
        if namenode.get("FSState") != "Operational":
            return f"the NameNode's state is {namenode.get('FSState')}"
        running = [i for i, daemon in enumerate(self._datanodes) if daemon.running]
        if namenode["NumLiveDataNodes"] < len(running):
            return f"{namenode['NumLiveDataNodes']} of {len(running)} DataNodes are live"
        # Registered is not enough: a DataNode's storage comes with its first reports.
        live = json.loads(self.jmx("NameNode", "NameNodeInfo")["LiveNodes"])
        if any(node["capacity"] <= 0 for node in live.values()):
            return "a DataNode has no capacity yet"
        for i in running:
            actors = self.jmx("DataNode", "DataNodeInfo", self._known_ports.datanodes[i][1]).get("BPServiceActorInfo")
            if not actors or any(actor["ActorState"] != "RUNNING" for actor in json.loads(actors)):
                return f"DataNode {i} has not joined yet"
        return ""

    def _wait(self, who: str, reason: Callable[[], str], timeout_s: float) -> None:
        """Ask again until `reason` returns the empty string."""
        deadline = time.monotonic() + timeout_s
        while True:
            if dead := self._dead():
                raise LocalHdfsError(f"{dead.name} died; the end of its log:\n{dead.log_tail()}")
            try:
                missing = reason()
            except _NO_ANSWER as e:
                missing = f"/jmx does not answer: {e!r}"
            if not missing:
                return
            if time.monotonic() > deadline:
                raise LocalHdfsError(
                    f"{who} was not ready within {timeout_s:.0f} s: {missing}; the end of the NameNode's log:\n"
                    + self.namenode.log_tail()
                )
            time.sleep(0.05)

    @property
    def _web_scheme(self) -> str:
        return "http"

    def _web_connection(self, port: int) -> http.client.HTTPConnection:
        """A connection to a daemon's web server."""
        return http.client.HTTPConnection(self._known_ports.host, port, timeout=10)

    def _user_parameters(self, user: str | None) -> dict[str, str]:
        """What of a WebHDFS request's query says who asks."""
        return {"user.name": user or _superuser()}

    def _headers(self, user: str | None) -> dict[str, str]:  # noqa: ARG002 - for who has to show more than a name
        """What of an HTTP request's headers says who asks."""
        return {}

    def _environment(self, user: str | None) -> dict[str, str]:
        """This process's environment without the settings of any other Hadoop, and with the identity of `user`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HADOOP_")}
        return environment | ({"HADOOP_USER_NAME": user} if user else {})

    def _http(self, method: str, port: int, target: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        # http.client, since urllib would send these through the environment's proxies.
        with contextlib.closing(self._web_connection(port)) as connection:
            connection.request(method, target, headers=dict(headers))
            response = connection.getresponse()
            return response.status, response.read()


def _superuser() -> str:
    """Whoever started the NameNode."""
    return pwd.getpwuid(os.getuid()).pw_name
