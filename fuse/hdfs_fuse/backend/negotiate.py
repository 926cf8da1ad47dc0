"""How a web server of HDFS is told who asks, under Kerberos: SPNEGO in HTTP (RFC 4559).

Imports the Kerberos library's binding when it is first needed: it costs an idle daemon 7 MiB.
"""

import base64
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from hdfs_fuse import errors
from hdfs_fuse.backend.deadline import DeadlineCaller
from hdfs_fuse.backend.identity import KDC_AWAY, Login

# A KDC answers in milliseconds. The library gives a silent one 54 s, and begins anew for every caller.
_LOGIN_S = 5.0
_SPNEGO = "1.3.6.1.5.5.2"  # RFC 4178
# What the Kerberos library says (krb5_err.et). By its words, since the numbers of one mechanism are mapped to arbitrary
# ones by the layer above; no locale is set that would translate them.
_SERVER_UNKNOWN = re.compile(r"Server \S+ not found in Kerberos database")
_EXPIRED = "Ticket expired"

_numbers = itertools.count()


class LoginUnavailableError(errors.UnavailableError):
    """No KDC answers."""


class Negotiate:
    """The login of one identity with web servers. Safe in any number of threads."""

    def __init__(self, login: Login | None) -> None:
        """Act as `login`; None for the ticket cache of the process, or its client keytab (KRB5_CLIENT_KTNAME)."""
        self._login = login
        # One asks the KDC for a new ticket, others wait for it; a thread of its own releases it.
        self._lock = threading.Lock()
        self._caller = DeadlineCaller()
        self.forget()

    def forget(self) -> None:
        """Ask for new tickets from now on: a server has refused the ones that there are."""
        # Of its own: the native client renews its tickets too, and empties the cache for a moment to do so.
        self._tickets = f"MEMORY:web-{next(_numbers)}"

    def authorization(self, host: str) -> str:
        """The value of an Authorization header; good for one request to the server `HTTP/host`. May ask the KDC.

        Args:
            host: the server's name, as its principal has it, or that name's alias in the DNS (krb5.conf decides).

        Raises:
            AuthenticationError: no ticket can be had; the message is the Kerberos library's.
            LoginUnavailableError: no KDC answers.
            UnsupportedError: the KDC knows no such server, or the library is not installed.
        """
        return self._ask(lambda gssapi: self._header(gssapi, host))

    def principal(self) -> str:
        """Who acts, `name@REALM`. Raises as `authorization`."""
        return self._ask(lambda gssapi: str(self._credentials(gssapi).name))

    def _ask(self, question: Callable[[ModuleType], str]) -> str:
        if not self._lock.acquire(timeout=_LOGIN_S):
            raise LoginUnavailableError(f"Kerberos login as {self._who}: an earlier one still waits for a KDC")

        def ask() -> str:
            try:
                with self._library() as gssapi:
                    return question(gssapi)
            finally:
                self._lock.release()

        try:
            return self._caller.call(ask, deadline_s=_LOGIN_S)
        except errors.DeadlineError as e:
            raise LoginUnavailableError(f"Kerberos login as {self._who}: no KDC answers within {_LOGIN_S:g} s") from e

    def _header(self, gssapi: ModuleType, host: str) -> str:
        context = gssapi.SecurityContext(
            name=gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service),
            mech=gssapi.OID.from_int_seq(_SPNEGO),
            creds=self._credentials(gssapi),
            usage="initiate",
        )
        return f"Negotiate {base64.b64encode(context.step() or b'').decode('ascii')}"

    def _credentials(self, gssapi: ModuleType) -> Any:
        """Anew for each request: that is when the library looks whether a ticket has to be renewed."""
        if self._login is not None:
            store = {"client_keytab": self._login.keytab_path, "ccache": self._tickets}
            name = gssapi.Name(self._login.principal, gssapi.NameType.kerberos_principal)
            return gssapi.Credentials(usage="initiate", name=name, store=store)
        if "KRB5_CLIENT_KTNAME" in os.environ:
            return gssapi.Credentials(usage="initiate", store={"ccache": self._tickets})
        return gssapi.Credentials(usage="initiate")

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
            raise self._kind_of(str(e))(f"Kerberos login as {self._who}: {e}") from e

    def _kind_of(self, text: str) -> type[errors.HdfsFuseError]:
        # Who has a keytab gets another ticket in time, unless no KDC answers: then it is the old one that is of no use.
        if KDC_AWAY in text or (self._login is not None and _EXPIRED in text):
            return LoginUnavailableError
        return errors.UnsupportedError if _SERVER_UNKNOWN.search(text) else errors.AuthenticationError

    @property
    def _who(self) -> str:
        return self._login.principal if self._login else "the ticket cache of the process"
