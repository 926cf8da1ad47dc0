"""Hadoop on this machine: a Java to run it, its jars, its configuration files, its command lines.

The jars come by Maven from the pom beside this file. Which daemons make a cluster is not known here: see
local_hdfs/.
"""

import functools
import hashlib
import os
import re
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.support.cache import SetupError, cached, find_program

NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
DFSADMIN = "org.apache.hadoop.hdfs.tools.DFSAdmin"
HA_ADMIN = "org.apache.hadoop.hdfs.tools.DFSHAAdmin"
CRYPTO_ADMIN = "org.apache.hadoop.hdfs.tools.CryptoAdmin"
KEY_SHELL = "org.apache.hadoop.crypto.key.KeyShell"
FS_SHELL = "org.apache.hadoop.fs.FsShell"

JAVA_PACKAGE = "openjdk-17-jre-headless"
# Hadoop 3.5 is compiled for Java 17.
JAVA_MINIMUM = 17

_POM = Path(__file__).with_name("hadoop_pom.xml")

# Fast starts and little memory matter more here than peak speed: the first compiler only, the collector without
# threads of its own, no files in /tmp/hsperfdata_*.
_JVM_OPTIONS = (
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.net.preferIPv4Stack=true",
)

_LOG4J = """\
log4j.rootLogger=INFO,console
log4j.logger.BlockStateChange=WARN
log4j.logger.org.apache.hadoop.hdfs.server.datanode.DataNode.clienttrace=WARN
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d %p %c: %m%n
"""


@functools.cache
def java() -> Path:
    """The Java to use: JAVA_HOME's, else the one on PATH.

    Raises:
        SetupError: none, or too old a one; says what to install.
    """
    install = f"get one with: apt-get install {JAVA_PACKAGE}"
    home = os.environ.get("JAVA_HOME")
    program = Path(home, "bin", "java") if home else find_program("java", JAVA_PACKAGE)
    try:
        # JAVA_TOOL_OPTIONS makes the JVM print a line of its own, so the version is searched for, not the first line.
        said = subprocess.run([program, "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError) as e:
        raise SetupError(f"{program} does not run: {e}; {install}") from e
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if found is None or int(found[1]) < JAVA_MINIMUM:
        raise SetupError(f"{program} is too old, Java {JAVA_MINIMUM} is needed; {install}. It says: {said.strip()}")
    return program


def keytool() -> Path:
    """The program for keystores that comes with that Java."""
    return java().resolve().with_name("keytool")


def hadoop_version() -> str:
    """Of the jars that the pom names."""
    version = ET.parse(_POM).findtext("m:properties/m:hadoop.version", namespaces={"m": _POM_NAMESPACE})
    assert version, _POM
    return version


_POM_NAMESPACE = "http://maven.apache.org/POM/4.0.0"


def hadoop_jars() -> Path:
    """The directory of Hadoop's jars, fetched by Maven the first time (about 70 MB).

    Raises:
        SetupError: no Maven, or it could not fetch them.
    """
    # Named after the pom's content, so that another version gets another directory.
    digest = hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
    return cached(f"hadoop-{hadoop_version()}-{digest}", _fetch_jars)


def _fetch_jars(target: Path) -> None:
    maven = find_program("mvn", "maven")
    java()
    command = [
        str(maven), "--batch-mode", "--strict-checksums",
        "--update-snapshots",  # else a failure of an earlier try, without a network, is remembered
        "-Dstyle.color=never", f"--file={_POM}",
        "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}",
    ]  # fmt: skip
    what = f"Hadoop {hadoop_version()} jars by Maven (about 70 MB, once)"
    print(f"fetching {what}", file=sys.stderr, flush=True)
    last: deque[str] = deque(maxlen=15)
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed} jars"), TimeElapsedColumn())
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        task = progress.add_task("Hadoop", total=None)
        assert process.stdout
        for line in process.stdout:
            last.append(line.rstrip())
            # With jars at hand in Maven's own repository there are only the "Copying" lines.
            progress.update(task, completed=sum(1 for _ in target.glob("*.jar")))
    if process.returncode:
        raise SetupError(
            f"could not fetch {what}; is there a network, or a mirror in Maven's settings.xml? Its last words:\n"
            + "\n".join(last)
        )
    for artifact in ("hadoop-hdfs", "hadoop-common", "hadoop-hdfs-client"):
        if not (target / f"{artifact}-{hadoop_version()}.jar").is_file():
            raise SetupError(f"Maven reported success but {artifact} is missing in {target}")


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write a Hadoop configuration file (org.apache.hadoop.conf.Configuration)."""
    root = ET.Element("configuration")
    for name, value in properties.items():
        entry = ET.SubElement(root, "property")
        ET.SubElement(entry, "name").text = name
        ET.SubElement(entry, "value").text = value
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def write_resources(directory: Path) -> None:
    """Write what the daemons look for on the class path beside their jars.

    Maven's jars hold no web applications, and the servers refuse to start without: empty ones will do.
    """
    for application in ("hdfs", "datanode", "journal", "secondary"):
        descriptor = directory / "webapps" / application / "WEB-INF" / "web.xml"
        descriptor.parent.mkdir(parents=True, exist_ok=True)
        descriptor.write_text("<web-app/>\n", encoding="ascii")
    (directory / "log4j.properties").write_text(_LOG4J, encoding="ascii")


def write_hosts(path: Path, addresses: Mapping[str, str] | None = None) -> None:
    """Write the one hosts file that Hadoop asks for names, instead of the machine's own and of DNS.

    A NameNode refuses to start where the machine's own name does not resolve, and slow DNS slows everything.

    Args:
        path: of the file.
        addresses: by name, where that of the loopback device will not do. A name with two has daemons fail.
    """
    known = {"localhost": "127.0.0.1", socket.gethostname(): "127.0.0.1", **(addresses or {})}
    path.write_text("".join(f"{address} {name}\n" for name, address in known.items()), encoding="ascii")


def class_path(*directories: Path) -> str:
    """A class path of `directories` (configuration, resources) and all Hadoop jars, wildcard not expanded."""
    return ":".join([*map(str, directories), f"{hadoop_jars()}/*"])


def command_line(
    main: str,
    arguments: Sequence[str] = (),
    *,
    directories: Sequence[Path],
    temporary: Path,
    hosts: Path,
    heap_mb: int = 64,
    properties: Mapping[str, str] | None = None,
    jvm_options: Sequence[str] = (),
) -> list[str]:
    """The argv of a Hadoop daemon or tool.

    Args:
        main: its class.
        arguments: for it.
        directories: class path entries before the jars.
        temporary: java.io.tmpdir; Jetty unpacks there.
        hosts: names and addresses, see `write_hosts`.
        heap_mb: -Xmx.
        properties: Hadoop keys for this process alone, as GenericOptionsParser takes them.
        jvm_options: more of them; later ones win.
    """
    keys = [f"-D{name}={value}" for name, value in (properties or {}).items()]
    return [
        str(java()), f"-Xmx{heap_mb}m", *_JVM_OPTIONS,
        f"-Djava.io.tmpdir={temporary}", f"-Djdk.net.hosts.file={hosts}", *jvm_options,
        "-cp", class_path(*directories), main, *keys, *arguments,
    ]  # fmt: skip


if __name__ == "__main__":
    try:
        print(hadoop_jars())
    except SetupError as e:
        sys.exit(str(e))
