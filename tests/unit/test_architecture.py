"""Imports go down only: which module may know which other one, held by reading all imports."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"hdfs_fuse": ROOT / "fuse", "hdfs_csi": ROOT / "driver"}

# Modules of hdfs_fuse from the bottom up; a package stands for all its modules. A module may import those of lower
# levels, and of its own level where that makes no circle.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "config", "metrics", "handover", "logs", "turns", "workers", "hidden", "extents"}),
    frozenset({"backend"}),
    frozenset({"prefetch", "inodes", "calls", "cache", "upload", "owners"}),
    frozenset({"open_file"}),
    frozenset({"reader", "writing"}),
    frozenset({"small_reader", "block_reader"}),
    frozenset({"handles", "listings"}),
    frozenset({"changes", "xattrs"}),
    frozenset({"fs"}),
    frozenset({"ops"}),
    frozenset({"daemon", "loader", "mounter"}),
    frozenset({"cli", "doctor", "fork_server"}),
)

# Beside the daemon, but knowing nothing of what a filesystem does.
MOUNTER_MAY_IMPORT = {"config", "errors", "handover", "metrics", "mounter"}
# Whoever starts a daemon gives it its identity on HDFS, as environment variables of the new process.
IDENTITY = "hdfs_fuse.backend.identity"
DRIVER_MAY_IMPORT = {"config", "errors", "backend", "hidden", "logs", "metrics", "mounter"}

# Each costs tens of megabytes in every daemon, so only its adapter imports it, and that is itself imported when needed.
HEAVY = {"pyarrow": "hdfs_fuse.backend.arrow"}


@dataclass(frozen=True, slots=True)
class Import:
    """One module that another one imports.

    Attributes:
        importer, imported: full names; of ours the module's, not that of a name in it.
        place: file and line.
        at_load: whether it happens when the importer is loaded, not in a function or for types alone.
    """

    importer: str
    imported: str
    place: str
    at_load: bool


def module_files() -> dict[str, Path]:
    """Every module of ours by name, without generated code."""
    files = {}
    for package, source in SOURCES.items():
        for path in sorted((source / package).rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            if parts[:2] != ("hdfs_csi", "pb"):
                files[".".join(parts).removesuffix(".__init__")] = path
    return files


FILES = module_files()


def imports_of(module: str) -> Iterator[Import]:
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    place = str(path.relative_to(ROOT))

    def visit(node: ast.AST, *, at_load: bool) -> Iterator[Import]:
        for name in imported_names(node, package):
            yield Import(module, name, f"{place}:{getattr(node, 'lineno', 0)}", at_load)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or is_type_checking(node)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_load=at_load and not later)

    return visit(ast.parse(path.read_bytes()), at_load=True)


def imported_names(node: ast.AST, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, *filter(None, [base])])
    # `from package import module` names a module; any other name stands for the module that holds it.
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


IMPORTS = [found for module in FILES for found in imports_of(module)]


def part(module: str) -> str:
    """The name in LEVELS: `hdfs_fuse.backend.base` -> `backend`."""
    return module.split(".")[1] if "." in module else ""


def level(module: str) -> int:
    for number, parts in enumerate(LEVELS):
        if part(module) in parts:
            return number
    raise AssertionError(f"{module} has no place: add it to LEVELS in {Path(__file__).name}")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 5
    assert any(found.imported == "hdfs_fuse.errors" for found in IMPORTS)


@pytest.mark.parametrize("module", [m for m in FILES if within(m, "hdfs_fuse") and part(m)])
def test_every_module_has_a_level(module: str) -> None:
    assert level(module) >= 0


def test_imports_of_the_filesystem_go_down() -> None:
    wrong = [
        f"{i.place}: {i.importer} imports {i.imported}, which is above it"
        for i in IMPORTS
        if within(i.importer, "hdfs_fuse") and within(i.imported, "hdfs_fuse") and part(i.importer) and part(i.imported)
        if level(i.imported) > level(i.importer)
    ]
    assert not wrong


def test_imports_make_no_circle() -> None:
    below: dict[str, set[str]] = {module: set() for module in FILES}
    for i in IMPORTS:
        if i.imported in FILES and i.imported != i.importer:
            below[i.importer].add(i.imported)
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"imports make a circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for imported in below[module]:
                walk(imported, (*path, module))
            done.add(module)

    for module in FILES:
        walk(module, ())


def test_the_cache_knows_no_backend() -> None:
    assert not [i for i in IMPORTS if within(i.importer, "hdfs_fuse.cache") and within(i.imported, "hdfs_fuse.backend")]


def test_the_mounter_knows_no_filesystem() -> None:
    wrong = [
        i
        for i in IMPORTS
        if within(i.importer, "hdfs_fuse.mounter") and within(i.imported, "hdfs_fuse") and part(i.imported)
        if part(i.imported) not in MOUNTER_MAY_IMPORT and i.imported != IDENTITY
    ]
    assert not wrong


def test_the_driver_knows_only_some_of_the_filesystem() -> None:
    wrong = [
        i
        for i in IMPORTS
        if within(i.importer, "hdfs_csi") and within(i.imported, "hdfs_fuse") and part(i.imported)
        if part(i.imported) not in DRIVER_MAY_IMPORT
    ]
    assert not wrong


def test_the_filesystem_knows_no_driver() -> None:
    assert not [i for i in IMPORTS if within(i.importer, "hdfs_fuse") and within(i.imported, "hdfs_csi")]


@pytest.mark.parametrize(
    ("library", "importers"),
    [
        ("pyfuse3", {"hdfs_fuse.ops", "hdfs_fuse.daemon"}),
        ("grpc", {m for m in FILES if within(m, "hdfs_csi")}),
        ("trio", {m for m in FILES if within(m, "hdfs_fuse")}),
        # The package that fusepy owns; ours is hdfs_fuse.
        ("fuse", set()),
    ],
)
def test_libraries_stay_where_they_belong(library: str, importers: set[str]) -> None:
    assert not [i for i in IMPORTS if within(i.imported, library) and i.importer not in importers]


def test_no_package_of_ours_is_named_fuse() -> None:
    assert not (ROOT / "fuse" / "__init__.py").exists()


@pytest.mark.parametrize(("library", "adapter"), HEAVY.items())
def test_heavy_libraries_are_loaded_by_their_adapter_alone(library: str, adapter: str) -> None:
    assert not [i for i in IMPORTS if within(i.imported, library) and i.at_load and i.importer != adapter]
    # Else everything that loads such a module would load the library after all.
    wrong = [i for i in IMPORTS if i.imported == adapter and i.at_load and within(i.importer, "hdfs_fuse")]
    assert not [i for i in wrong if i.importer not in HEAVY.values()]


def test_mounts_are_made_in_one_module() -> None:
    for module, path in FILES.items():
        if module != "hdfs_fuse.mounter.mounts":
            nodes = list(ast.walk(ast.parse(path.read_bytes())))
            # libc's function; `mount` alone has too many other meanings. And programs that are run for it.
            used = {n.attr for n in nodes if isinstance(n, ast.Attribute)} & {"umount", "umount2"}
            starts = [n.elts[0] for n in nodes if isinstance(n, ast.List | ast.Tuple) and n.elts]
            used |= {str(n.value) for n in starts if isinstance(n, ast.Constant)} & {"fusermount3", "mount", "umount"}
            assert not used, f"{path.relative_to(ROOT)} uses {used}"
