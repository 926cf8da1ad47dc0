"""The class HaHdfs: two NameNodes, one of which is active."""

import shutil
from collections.abc import Mapping

import msgspec

from tests.support.hadoop import HA_ADMIN, NAMENODE
from tests.support.local_hdfs.cluster import START_TIMEOUT_S, LocalHdfs, LocalHdfsError
from tests.support.local_hdfs.layout import HOST, Ports, reserve_ports
from tests.support.processes import Daemon, ProcessIdentity

_NAMESERVICE = "lab"
_IDS = ("nn1", "nn2")


class HaHdfs(LocalHdfs):
    """Two NameNodes that share their edits in a directory, and a DataNode. "The NameNode" is the active one.

    Without JournalNodes and ZooKeeper: `failover` is the order that a failover controller would give, and a NameNode
    that was killed is fenced by being dead.
    """

    def __init__(self, datanodes: int = 1, *, host: str = HOST) -> None:
        """Describe an instance; see LocalHdfs."""
        super().__init__(datanodes, host=host)
        self._second: Ports | None = None
        self._order: Daemon | None = None

    @property
    def uri(self) -> str:
        """The filesystem, by the name that only Hadoop's configuration explains."""
        return f"hdfs://{_NAMESERVICE}"

    def failover(self) -> None:
        """Make the other NameNode the active one; the active one may be dead.

        Raises:
            LocalHdfsError: it was refused; the message has the error output.
        """
        order, self._order = self._order or self._failover_order(), None
        order.start()
        if order.wait(START_TIMEOUT_S) != 0:
            raise LocalHdfsError(f"failing over from {_IDS[self._active]} was refused:\n{order.log_tail()}")
        self._active = 1 - self._active

    def prepare_starts(self) -> None:
        """See LocalHdfs; the next `failover` belongs to it."""
        super().prepare_starts()
        if self._order is None:
            self._order = self._failover_order()
            self._order.prepare()

    def _failover_order(self) -> Daemon:
        # Not by `tool`: see Daemon.prepare.
        return self._daemon("failover", HA_ADMIN, {}, {}, ("-failover", _IDS[self._active], _IDS[1 - self._active]))

    def stop(self) -> None:
        """See LocalHdfs."""
        if self._order is not None:
            self._order.stop()
            self._order = None
        super().stop()

    def mend(self) -> None:
        """See LocalHdfs; a NameNode that was dead is the standby then."""
        standby = 1 - self._active
        if not self._namenodes[standby].running:
            self._start_daemon(self._namenodes[standby])
        self._wait_standby(standby)
        super().mend()

    @property
    def _known_ports(self) -> Ports:
        first = super()._known_ports
        if self._active == 0:
            return first
        assert self._second is not None
        return msgspec.structs.replace(
            first, namenode_rpc=self._second.namenode_rpc, namenode_http=self._second.namenode_http
        )

    def _reserve_ports(self) -> None:
        super()._reserve_ports()
        self._second, reserved = reserve_ports(self._host, 0)
        self._reserved.enter_context(reserved)

    def _describe_daemons(self, known: Mapping[str, ProcessIdentity]) -> None:
        super()._describe_daemons(known)
        self._namenodes = [self._daemon(name, NAMENODE, self._properties_of(name), known) for name in _IDS]

    def _properties_of(self, name: str) -> dict[str, str]:
        # Both listen on one address, so Hadoop can't guess which of them it is.
        return {"dfs.ha.namenode.id": name, "dfs.namenode.name.dir": f"{self.directory}/{name}"}

    def _core_properties(self) -> dict[str, str]:
        return {**super()._core_properties(), "fs.defaultFS": self.uri}

    def _hdfs_properties(self) -> dict[str, str]:
        properties = super()._hdfs_properties()
        assert self._ports is not None
        assert self._second is not None
        for kind, attribute in (("rpc", "namenode_rpc"), ("http", "namenode_http"), ("https", "namenode_http")):
            del properties[f"dfs.namenode.{kind}-address"]
            for name, ports in zip(_IDS, (self._ports, self._second), strict=True):
                address = f"{self._host}:{getattr(ports, attribute)}"
                properties[f"dfs.namenode.{kind}-address.{_NAMESERVICE}.{name}"] = address
        return {
            **properties,
            "dfs.nameservices": _NAMESERVICE,
            f"dfs.ha.namenodes.{_NAMESERVICE}": ",".join(_IDS),
            f"dfs.client.failover.proxy.provider.{_NAMESERVICE}": (
                "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
            ),
            "dfs.namenode.shared.edits.dir": f"file://{self.directory}/edits",
            "dfs.ha.fencing.methods": "shell(/bin/true)",
            # How soon a standby knows what the active one has done: it waits for blocks that are gone otherwise.
            "dfs.ha.tail-edits.period": "1s",
            "dfs.ha.log-roll.period": "1s",
        }

    def _format(self) -> None:
        first, second = _IDS
        keys = [f"-D{name}={value}" for name, value in self._properties_of(first).items()]
        self.tool(NAMENODE, *keys, "-format", "-nonInteractive")
        shutil.copytree(self.directory / first, self.directory / second)  # as -bootstrapStandby does

    def _start_all(self) -> None:
        super()._start_all()
        for index in range(len(_IDS)):  # that is how they begin
            self._wait_standby(index)
        self.tool(HA_ADMIN, "-transitionToActive", _IDS[0])

    def _wait_standby(self, index: int) -> None:
        ports = (self._ports, self._second)[index]
        assert ports is not None

        def reason() -> str:
            state = self.jmx("NameNode", "NameNodeStatus", ports.namenode_http).get("State")
            if state != "standby":
                return f"{_IDS[index]} is {state}"
            # In safe mode, which DataNodes' reports end, it can't become active.
            mode = self.jmx("NameNode", "FSNamesystemState", ports.namenode_http).get("FSState")
            return "" if mode == "Operational" else f"{_IDS[index]}'s state is {mode}"

        self._wait("the NameNodes", reason, START_TIMEOUT_S)
