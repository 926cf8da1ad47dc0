"""libhdfs.so for tests of pyarrow's HadoopFileSystem; Hadoop distributions ship it, Maven's jars do not.

It is built once with gcc from Hadoop 3.3's C sources, which the Rust crate hdfs-sys carries, and kept in the cache.
"""

import functools
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.cache import SetupError, cached, find_program
from tests.support.hadoop import hadoop_jars, java
from tests.support.local_hdfs import LocalHdfs

_CRATE_VERSION = "0.3.1"
# SHA-256 of the packed crate, so that no other content is ever compiled.
_CRATE_SHA256 = "18138c3dacdf0e95f834369f996b21d2b6fa99e71787ef45e2ece09b37bd1dd1"

_JDK_PACKAGE = "openjdk-17-jdk-headless"

# -Xrs leaves SIGINT and SIGTERM to Python; the others keep a JVM small and quiet that serves a test.
_JVM_OPTIONS = "-Xrs -Xmx256m -XX:-UsePerfData -Djava.net.preferIPv4Stack=true"

_LOG4J = """\
log4j.rootLogger=WARN,console
log4j.logger.org.apache.hadoop.util.NativeCodeLoader=ERROR
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d %p %c: %m%n
"""


def libhdfs_environment(hdfs: LocalHdfs) -> dict[str, str]:
    """Environment variables with which `pyarrow.fs.HadoopFileSystem` reaches `hdfs`.

    They must be set before the first HadoopFileSystem of a process; a process has one JVM, and so one class path,
    for its whole life.

    Raises:
        SetupError: gcc, cargo, or a JDK is missing; says what to install.
    """
    # A JVM that is started through JNI does not expand wildcards of the class path.
    jars = sorted(str(jar) for jar in hadoop_jars().glob("*.jar"))
    return {
        "ARROW_LIBHDFS_DIR": str(libhdfs_directory()),
        "CLASSPATH": ":".join([str(hdfs.conf_dir), str(libhdfs_directory()), *jars]),
        "JAVA_HOME": str(_java_home()),
        "LIBHDFS_OPTS": _JVM_OPTIONS,
        **hdfs.environment,
    }


def libhdfs_directory() -> Path:
    """The directory of libhdfs.so and of a log4j.properties that logs warnings only, made the first time.

    Raises:
        SetupError: gcc, cargo, or a JDK is missing; says what to install.
    """
    # Another Java or another way to build gives another library.
    digest = hashlib.sha256(Path(__file__).read_bytes() + bytes(_java_home())).hexdigest()[:12]
    return cached(f"libhdfs-{_CRATE_VERSION}-{digest}", _build)


@functools.cache
def _java_home() -> Path:
    return java().resolve().parent.parent


def _build(target: Path) -> None:
    compiler = find_program("gcc", "gcc")
    headers = _java_home() / "include"
    if not (headers / "jni.h").is_file():
        raise SetupError(f"{headers}/jni.h is missing; get it with: apt-get install {_JDK_PACKAGE}")
    jvm = _java_home() / "lib" / "server"
    sources = _fetch_sources(target / "crate") / "libhdfs" / "hdfs_3_3"
    files = [
        *(sources / name for name in ("exception.c", "hdfs.c", "jclasses.c", "jni_helper.c")),
        *sorted((sources / "os" / "posix").glob("*.c")),
    ]
    includes = [sources.parent, sources, sources / "include", sources / "os", sources / "os" / "posix"]
    _run(
        [
            str(compiler), "-shared", "-fPIC", "-O2", "-w", "-fcommon", "-fvisibility=hidden",
            "-DLIBHDFS_DLL_EXPORT",  # without it nothing is exported
            *(f"-I{directory}" for directory in [*includes, headers, headers / "linux"]),
            *map(str, files), "-o", str(target / "libhdfs.so"),
            f"-L{jvm}", f"-Wl,-rpath,{jvm}", "-ljvm", "-lpthread",
        ],
        "compile libhdfs",
    )  # fmt: skip
    shutil.rmtree(target / "crate")
    (target / "log4j.properties").write_text(_LOG4J, encoding="ascii")


def _fetch_sources(directory: Path) -> Path:
    """Let cargo fetch the crate, below `directory`; returns the crate's root."""
    cargo = find_program("cargo", "cargo-web (Debian 12's cargo is too old for today's crate index)")
    print(f"fetching libhdfs sources by cargo (crate hdfs-sys {_CRATE_VERSION}, once)", file=sys.stderr, flush=True)
    (directory / "src").mkdir(parents=True)
    (directory / "src" / "lib.rs").touch()
    (directory / "Cargo.toml").write_text(
        '[package]\nname = "libhdfs-sources"\nversion = "0.0.0"\nedition = "2021"\n\n'
        f'[dependencies]\nhdfs-sys = "={_CRATE_VERSION}"\n\n'
        "[workspace]\n",  # so that a Cargo.toml in a parent directory is not looked for
        encoding="ascii",
    )
    _run(
        [str(cargo), "vendor", "--quiet", f"--manifest-path={directory}/Cargo.toml", str(directory / "vendor")], "fetch"
    )
    crate = directory / "vendor" / "hdfs-sys"
    found = json.loads((crate / ".cargo-checksum.json").read_bytes())["package"]
    if found != _CRATE_SHA256:
        raise SetupError(f"crate hdfs-sys {_CRATE_VERSION} has SHA-256 {found}, expected {_CRATE_SHA256}")
    return crate


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"could not {what}: {' '.join(command[:3])} ... ended with {done.returncode}:\n{done.stderr}")


if __name__ == "__main__":
    try:
        print(libhdfs_directory())
    except SetupError as e:
        sys.exit(str(e))
