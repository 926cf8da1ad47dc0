"""The CSI Identity service: who this plugin is, what it offers and whether it is ready."""

import re
from collections.abc import Callable
from importlib import metadata

from google.protobuf.wrappers_pb2 import BoolValue
from hdfs_fuse.errors import InvalidArgumentError

from hdfs_csi.errors import NotReadyError
from hdfs_csi.pb import csi_pb2 as csi

DEFAULT_NAME = "hdfs.csi.dev"

# GetPluginInfoResponse.name in csi.proto: domain name notation, 63 characters or less.
_NAME = re.compile(r"(?=.{1,63}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")


class Identity:
    """One of it stands beside the controller and one beside the node service; both give the same answers."""

    def __init__(self, name: str, problem: Callable[[], str] = str) -> None:
        """Answer as the plugin `name`.

        Args:
            name: the driver name, as in the CSIDriver object.
            problem: says why the process can't serve; the empty string when it can.

        Raises:
            InvalidArgumentError: no name that CSI allows.
        """
        if not _NAME.fullmatch(name):
            raise InvalidArgumentError(
                f"driver name: given {name!r}, accepted are up to 63 letters, digits, '-' and '.', "
                "with a letter or digit at both ends of each part"
            )
        self._name = name
        self._problem = problem

    def get_plugin_info(self, _request: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        """CSI GetPluginInfo."""
        return csi.GetPluginInfoResponse(name=self._name, vendor_version=metadata.version("hdfs-csi"))

    def get_plugin_capabilities(self, _request: csi.GetPluginCapabilitiesRequest) -> csi.GetPluginCapabilitiesResponse:
        """CSI GetPluginCapabilities: those of the plugin as a whole, so the node service names the controller too."""
        kinds = csi.PluginCapability
        service = kinds.Service(type=kinds.Service.CONTROLLER_SERVICE)
        expansion = kinds.VolumeExpansion(type=kinds.VolumeExpansion.ONLINE)
        capabilities = [kinds(service=service), kinds(volume_expansion=expansion)]
        return csi.GetPluginCapabilitiesResponse(capabilities=capabilities)

    def probe(self, _request: csi.ProbeRequest) -> csi.ProbeResponse:
        """CSI Probe. Asks nothing of HDFS: a restart of this process would not mend a NameNode.

        Raises:
            NotReadyError: the process can't serve, and why.
        """
        problem = self._problem()
        if problem:
            raise NotReadyError(problem)
        return csi.ProbeResponse(ready=BoolValue(value=True))
