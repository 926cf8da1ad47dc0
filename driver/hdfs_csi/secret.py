"""What the secret of a request says, and what that makes of a mount. parameters.py has its keys."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from hdfs_fuse.config import Kerberos, MountConfig
from hdfs_fuse.errors import InvalidArgumentError

from hdfs_csi.parameters import read_secret


@dataclass(frozen=True, slots=True)
class Secret:
    """What the secret of a request says; false where it says nothing. Not to be shown, nor written anywhere.

    Attributes:
        user: who acts, under simple authentication.
        kerberos: who acts, under Kerberos.
        hadoop_properties: over Hadoop's configuration of the driver.
    """

    user: str | None = None
    kerberos: Kerberos | None = None
    hadoop_properties: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return self != Secret()

    def __repr__(self) -> str:
        """Nothing of it."""
        return "Secret(...)"

    @staticmethod
    def read(given: Mapping[str, str]) -> "Secret":
        """Read `secrets` of a CSI request.

        Raises:
            InvalidArgumentError: a key or a value is not acceptable, or they do not go together.
        """
        values = read_secret(given)
        for key, needed in (("principal", "keytab"), ("keytab", "principal"), ("krb5.conf", "principal")):
            if key in values and needed not in values:
                raise InvalidArgumentError(f"{needed}: missing in the secret; {key} does not go without it")
        if "user" in values and "principal" in values:
            raise InvalidArgumentError("user: given beside principal in the secret; drop one of them")
        kerberos = None
        if "principal" in values:
            kerberos = Kerberos(
                principal=values["principal"], keytab=values["keytab"], krb5_conf=values.get("krb5.conf")
            )
        properties = {**values.get("core-site.xml", {}), **values.get("hdfs-site.xml", {})}
        return Secret(values.get("user"), kerberos, properties)

    def apply_to(self, config: MountConfig) -> MountConfig:
        """A mount as the secret says.

        Raises:
            InvalidArgumentError: the volume's attributes say something else.
        """
        if config.user is not None and (self.kerberos or self.user not in (None, config.user)):
            raise InvalidArgumentError("user: the volume has it, and its secret another identity; drop one of them")
        if config.backend == "pyarrow" and (self.kerberos or self.hadoop_properties):
            # Its JVM takes no keytab from us, and would load the classes that properties name.
            raise InvalidArgumentError(
                "backend: given 'pyarrow'; with a keytab or Hadoop's configuration in the secret it is 'hdfs-native'"
            )
        given = sorted(self.hadoop_properties.items())
        scope = hashlib.sha256(msgspec.json.encode(given)).hexdigest() if given else ""
        return msgspec.structs.replace(
            config,
            user=self.user or config.user,
            kerberos=self.kerberos,
            # What the volume itself says comes first.
            hadoop_properties={**self.hadoop_properties, **config.hadoop_properties},
            cache=msgspec.structs.replace(config.cache, scope=scope),
        )


NO_SECRET = Secret()
