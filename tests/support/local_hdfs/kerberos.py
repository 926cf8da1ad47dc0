"""KerberosHdfs: an HDFS that believes tickets only, and the KDC that gives them out; HaKerberosHdfs: that with HA."""

import base64
import http.client
import os
import re
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

from hdfs_fuse.backend.identity import Login
from hdfs_fuse.backend.negotiate import Negotiate

from tests.support.cache import find_program
from tests.support.hadoop import JAVA_PACKAGE, keytool, write_hosts, write_properties
from tests.support.local_hdfs.cluster import LocalHdfs, LocalHdfsError
from tests.support.local_hdfs.ha import HaHdfs
from tests.support.local_hdfs.layout import GROUPS, reserve_ports
from tests.support.processes import Daemon

_REALM = "TEST.LOCAL"
_SERVICES = ("nn", "dn", "HTTP")
SUPERUSER = "hdfs"
_TIMEOUT_S = 60.0
_KEYSTORE_PASSWORD = "changeit"

_KRB5_CONF = """\
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
[realms]
 {realm} = {{
  kdc = {address}:{port}
 }}
[domain_realm]
 {host} = {realm}
"""
_KDC_CONF = """\
[kdcdefaults]
 kdc_listen = {address}:{port}
 kdc_tcp_listen = {address}:{port}
[realms]
 {realm} = {{
  database_name = {directory}/principals
  key_stash_file = {directory}/stash
  acl_file = {directory}/kadm5.acl
  supported_enctypes = aes256-cts-hmac-sha1-96:normal
 }}
[logging]
 kdc = FILE:{directory}/kdc.log
"""


class KerberosHdfs(LocalHdfs):
    """A NameNode and a DataNode whose RPC, web servers and block transfers ask for Kerberos, and an MIT KDC.

    Users are principals with a keytab each: the superuser is `hdfs`, alice and bob are as in LocalHdfs. While it runs,
    KRB5_CONFIG of this process says where the KDC is.

    With privacy nothing goes in plain: the web servers speak HTTPS, with a certificate that nobody else knows.
    """

    def __init__(self, protection: str = "authentication", host: str = "localhost") -> None:
        """Describe an instance; see LocalHdfs.

        Args:
            protection: of RPC and block transfers: "authentication", "integrity" or "privacy".
            host: a name of this machine, by which servers are asked for, and redirect; no principal has an address.
        """
        super().__init__(1, host=host)
        self._protection = protection
        self._address = socket.gethostbyname(host)
        self._kdc: Daemon | None = None
        self._kdc_port = 0
        self._logins: dict[str, Negotiate] = {}  # by user, so that who polls does not log in each time

    # ---- what clients need

    @property
    def environment(self) -> dict[str, str]:
        """See LocalHdfs; says nothing of who the client is."""
        kerberos = {"KRB5_CONFIG": str(self.krb5_conf), "KRB5CCNAME": f"{self._realm_dir}/nobody"}
        return {
            **super().environment,
            **kerberos,
            **({"SSL_CERT_FILE": str(self.certificate)} if self._is_https else {}),
        }

    @property
    def certificate(self) -> Path:
        """Of the web servers that speak HTTPS: the one that clients have to trust."""
        return self._realm_dir / "web.pem"

    @property
    def krb5_conf(self) -> Path:
        """The Kerberos library's configuration."""
        return self._realm_dir / "krb5.conf"

    @property
    def kdc(self) -> Daemon:
        """The KDC's process."""
        assert self._kdc, "not started"
        return self._kdc

    def keytab(self, user: str) -> Path:
        """The keys of `user`."""
        return self._realm_dir / f"{user}.keytab"

    def principal(self, user: str) -> str:
        """The full name of `user`."""
        return f"{user}@{_REALM}"

    def secret(self, user: str) -> dict[str, str]:
        """What a Kubernetes Secret says of `user`, for the driver."""
        keytab = base64.b64encode(self.keytab(user).read_bytes()).decode("ascii")
        return {"principal": self.principal(user), "keytab": keytab}

    def add_user(self, user: str, *options: str) -> None:
        """Add a principal, with options of kadmin's add_principal, and write its keytab."""
        self._kadmin(f"add_principal {' '.join(options)} -randkey {user}", f"ktadd -k {self.keytab(user)} {user}")

    def log_in(self, user: str, tickets: Path) -> None:
        """kinit: get a ticket of `user` into the file `tickets`."""
        self._run("kinit", "krb5-user", "-c", str(tickets), "-k", "-t", str(self.keytab(user)), user)

    def tickets_given_to(self, user: str) -> int:
        """How often `user` has logged in with the KDC."""
        log = (self._realm_dir / "kdc.log").read_text(encoding="utf-8")
        return len(re.findall(rf"AS_REQ.* ISSUE: .*[ ,]{self.principal(user)} for krbtgt/", log))

    # ---- life

    def stop(self) -> None:
        """See LocalHdfs."""
        if self._kdc is not None:
            self._kdc.stop()
            self._kdc = None
        self._logins.clear()
        super().stop()

    def _reserve_ports(self) -> None:
        super()._reserve_ports()
        ports, reserved = reserve_ports(self._address, 0)
        self._kdc_port = ports.namenode_rpc
        self._reserved.enter_context(reserved)

    def _write_configuration(self) -> None:
        self._realm_dir.mkdir()
        names = {
            "realm": _REALM,
            "host": self._host,
            "address": self._address,
            "port": self._kdc_port,
            "directory": self._realm_dir,
        }
        self.krb5_conf.write_text(_KRB5_CONF.format_map(names), encoding="ascii")
        (self._realm_dir / "kdc.conf").write_text(_KDC_CONF.format_map(names), encoding="ascii")
        super()._write_configuration()
        write_hosts(self.directory / "hosts", {self._host: self._address})
        if self._is_https:
            self._make_certificate()

    def _make_certificate(self) -> None:
        store = self._realm_dir / "web.p12"
        access = ("-keystore", str(store), "-storepass", _KEYSTORE_PASSWORD, "-alias", "web")
        name = ("-dname", f"CN={self._host}", "-ext", f"san=dns:{self._host}")
        self._run(str(keytool()), JAVA_PACKAGE, "-genkeypair", "-keyalg", "EC", "-storetype", "PKCS12", *access, *name)
        self._run(str(keytool()), JAVA_PACKAGE, "-exportcert", "-rfc", "-file", str(self.certificate), *access)
        keystore = {
            "ssl.server.keystore.location": str(store),
            "ssl.server.keystore.type": "pkcs12",
            "ssl.server.keystore.password": _KEYSTORE_PASSWORD,
            "ssl.server.keystore.keypassword": _KEYSTORE_PASSWORD,
        }
        write_properties(self.directory / "resources" / "ssl-server.xml", keystore)

    def _format(self) -> None:
        self._reserved.callback(_put_back, os.environ.get("KRB5_CONFIG"))
        os.environ["KRB5_CONFIG"] = str(self.krb5_conf)
        self._run("/usr/sbin/kdb5_util", "krb5-kdc", "-r", _REALM, "create", "-s", "-P", "master")
        for name in [*(f"{service}/{self._host}" for service in _SERVICES), SUPERUSER, "alice", "bob"]:
            keytab = self.keytab(name.partition("/")[0])
            self._kadmin(f"add_principal -randkey {name}", f"ktadd -k {keytab} {name}")
        command = [find_program("/usr/sbin/krb5kdc", "krb5-kdc"), "-n"]
        log = self.directory / "logs" / "kdc.log"
        self._kdc = Daemon("kdc", list(map(str, command)), log, {**os.environ, **self._kdc_environment})
        self.start_kdc()
        for user in ("alice", "bob"):
            self.log_in(user, self._tickets(user))
        super()._format()

    def start_kdc(self) -> None:
        """Start the KDC, and wait until it gives out tickets."""

        def reason() -> str:
            try:
                self.log_in(SUPERUSER, self._tickets(SUPERUSER))
            except LocalHdfsError as e:
                return str(e)
            return ""

        self.kdc.start()
        self._wait("the KDC", reason, _TIMEOUT_S)

    # ---- configuration

    def _core_properties(self) -> dict[str, str]:
        groups = {**GROUPS, SUPERUSER: "root", "nn": "root", "dn": "hadoop", "HTTP": "hadoop"}
        return {
            **super()._core_properties(),
            "hadoop.security.authentication": "kerberos",
            "hadoop.security.authorization": "true",
            "hadoop.user.group.static.mapping.overrides": "".join(f"{u}={group};" for u, group in groups.items()),
            "hadoop.http.authentication.type": "kerberos",
            "hadoop.http.authentication.kerberos.principal": f"HTTP/_HOST@{_REALM}",
            "hadoop.http.authentication.kerberos.keytab": str(self.keytab("HTTP")),
        }

    def _hdfs_properties(self) -> dict[str, str]:
        properties = {
            **super()._hdfs_properties(),
            "dfs.block.access.token.enable": "true",
            # A DataNode without privileged ports wants HTTPS, or the other one.
            **({"dfs.http.policy": "HTTPS_ONLY"} if self._is_https else {"ignore.secure.ports.for.testing": "true"}),
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.web.authentication.kerberos.principal": f"HTTP/_HOST@{_REALM}",
            "dfs.web.authentication.kerberos.keytab": str(self.keytab("HTTP")),
        }
        for kind, service in (("namenode", "nn"), ("datanode", "dn")):
            properties[f"dfs.{kind}.kerberos.principal"] = f"{service}/_HOST@{_REALM}"
            properties[f"dfs.{kind}.keytab.file"] = str(self.keytab(service))
        return properties | {
            "dfs.data.transfer.protection": self._protection,
            "hadoop.rpc.protection": self._protection,
        }

    # ---- inside

    @property
    def _is_https(self) -> bool:
        return self._protection == "privacy"

    @property
    def _web_scheme(self) -> str:
        return "https" if self._is_https else super()._web_scheme

    def _web_connection(self, port: int) -> http.client.HTTPConnection:
        if not self._is_https:
            return super()._web_connection(port)
        trusted = ssl.create_default_context(cafile=self.certificate)
        return http.client.HTTPSConnection(self._known_ports.host, port, timeout=10, context=trusted)

    @property
    def _realm_dir(self) -> Path:
        return self.directory / "kerberos"

    @property
    def _kdc_environment(self) -> dict[str, str]:
        return {"KRB5_CONFIG": str(self.krb5_conf), "KRB5_KDC_PROFILE": str(self._realm_dir / "kdc.conf")}

    def _tickets(self, user: str | None) -> Path:
        return self._realm_dir / f"{user or SUPERUSER}.tickets"

    def _kadmin(self, *orders: str) -> None:
        for order in orders:
            self._run("/usr/sbin/kadmin.local", "krb5-admin-server", "-r", _REALM, "-q", order)

    def _run(self, program: str, package: str, *arguments: str) -> None:
        command = [str(find_program(program, package)), *arguments]
        environment = {**os.environ, **self._kdc_environment}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S, check=False)
        if done.returncode:
            raise LocalHdfsError(f"{' '.join(command)}: {done.stdout}{done.stderr}")

    def _command(self, main: str, arguments: Any, **options: Any) -> list[str]:
        jvm_options = (*options.pop("jvm_options", ()), f"-Djava.security.krb5.conf={self.krb5_conf}")
        return super()._command(main, arguments, jvm_options=jvm_options, **options)

    def _environment(self, user: str | None) -> dict[str, str]:
        return {**super()._environment(None), "KRB5CCNAME": str(self._tickets(user))}

    def _user_parameters(self, user: str | None) -> dict[str, str]:  # noqa: ARG002 - the header says it
        return {}

    def _headers(self, user: str | None) -> dict[str, str]:
        name = user or SUPERUSER
        if name not in self._logins:
            tickets = f"MEMORY:{self.directory}-{name}"
            self._logins[name] = Negotiate(Login(self.principal(name), str(self.keytab(name)), tickets))
        return {"Authorization": self._logins[name].authorization(self._host)}


class HaKerberosHdfs(KerberosHdfs, HaHdfs):
    """Both: two NameNodes of one principal, since they are on one host, and one KDC."""


def _put_back(krb5_config: str | None) -> None:
    if krb5_config is None:
        os.environ.pop("KRB5_CONFIG", None)
    else:
        os.environ["KRB5_CONFIG"] = krb5_config
