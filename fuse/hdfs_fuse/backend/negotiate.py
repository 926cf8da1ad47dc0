"""How a web server of HDFS is told who asks, under Kerberos: SPNEGO in HTTP (RFC 4559).

Imports the Kerberos library's binding when it is first needed: it costs an idle daemon 7 MiB.
"""

import base64
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from hdfs_fuse import errors
from hdfs_fuse.backend.identity import Login

_SPNEGO = "1.3.6.1.5.5.2"  # RFC 4178
# What the Kerberos library says (krb5_err.et) where the identity is not at fault. By its words, since the numbers of
# one mechanism are mapped to arbitrary ones by the layer above; no locale is set that would translate them.
KDC_AWAY = "Cannot contact any KDC"
_SERVER_UNKNOWN = re.compile(r"Server \S+ not found in Kerberos database")
_EXPIRED = "Ticket expired"


class Negotiate:
    """The login of one identity with web servers. Safe in any number of threads."""

    def __init__(self, login: Login | None) -> None:
        """Act as `login`; None for the ticket cache of the process, or its client keytab (KRB5_CLIENT_KTNAME)."""
        self._login = login
        self._lock = threading.Lock()  # one asks the KDC for a new ticket, others wait for it

    def authorization(self, host: str) -> str:
        """The value of an Authorization header; good for one request to the server `HTTP/host`. May ask the KDC.

        Args:
            host: the server's name, as its principal has it.

        Raises:
            AuthenticationError: no ticket can be had; the message is the Kerberos library's.
            UnavailableError: no KDC answers.
            UnsupportedError: the KDC knows no such server, or the library is not installed.
        """
        with self._library() as gssapi, self._lock:
            # Anew for each request: that is when the library looks whether a ticket has to be renewed.
            context = gssapi.SecurityContext(
                name=gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service),
                mech=gssapi.OID.from_int_seq(_SPNEGO),
                creds=self._credentials(gssapi),
                usage="initiate",
            )
            token = context.step() or b""
        return f"Negotiate {base64.b64encode(token).decode('ascii')}"

    def principal(self) -> str:
        """Who acts, `name@REALM`. Raises as `authorization`."""
        with self._library() as gssapi, self._lock:
            return str(self._credentials(gssapi).name)

    @contextmanager
    def _library(self) -> Iterator[ModuleType]:
        try:
            import gssapi  # noqa: PLC0415 - see above
            from gssapi.raw.misc import GSSError  # noqa: PLC0415
        except ImportError as e:
            raise errors.UnsupportedError(f"WebHDFS under Kerberos: {e}; get libgssapi-krb5-2") from e
        try:
            yield gssapi
        except GSSError as e:
            who = self._login.principal if self._login else "the ticket cache of the process"
            raise self._kind_of(str(e))(f"Kerberos login as {who}: {e}") from e

    def _kind_of(self, text: str) -> type[errors.HdfsFuseError]:
        # Who has a keytab gets another ticket in time, unless no KDC answers: then it is the old one that is of no use.
        if KDC_AWAY in text or (self._login is not None and _EXPIRED in text):
            return errors.UnavailableError
        return errors.UnsupportedError if _SERVER_UNKNOWN.search(text) else errors.AuthenticationError

    def _credentials(self, gssapi: ModuleType) -> Any:
        if self._login is None:
            return gssapi.Credentials(usage="initiate")
        # Tickets of its own: the native client renews its, and empties the cache for a moment to do so.
        store = {"client_keytab": self._login.keytab_path, "ccache": f"{self._login.tickets}-web"}
        name = gssapi.Name(self._login.principal, gssapi.NameType.kerberos_principal)
        return gssapi.Credentials(usage="initiate", name=name, store=store)
