"""What the house rules mean, as functions over source text; `test_house.py` holds the project to them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

#: What each room may import of ours besides itself; a dotted name stands for that module alone.
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "detector": frozenset(),
    "reid": frozenset(),
    "storage": frozenset(),
    "streamer": frozenset({"detector", "reid", "storage"}),
    "web": frozenset({"reid", "storage", "streamer.config", "streamer.recordings"}),
}
#: Where a library may be imported: a file, or a folder that ends in a slash.
LIBRARY_HOMES: Mapping[str, tuple[str, ...]] = {
    "kafka": ("streamer/bus/kafka/",),
    "sqlalchemy": ("storage/",),
    "alembic": ("storage/",),
    "ultralytics": (
        "detector/yolo.py",
        "detector/tracker.py",
        "detector/train.py",
        "detector/fine_tuning.py",
        "detector/export.py",
    ),
}
VAGUE_NAMES = frozenset({"util.py", "utils.py", "helper.py", "helpers.py", "common.py", "misc.py"})
_MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:work|root|home/\w+|Users/\w+)(?![\w-])")
_SHELL_BLOCK = re.compile(r"^```(?:bash|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: its dotted path, and whether only a type checker sees it."""

    name: str
    types_only: bool


def module_name(path: str) -> str:
    """`streamer/bus/__init__.py` -> `streamer.bus`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(source: str, path: str) -> list[Import]:
    """Every import of a file, inside functions too; `from a import b` gives `a.b`, relative ones are made absolute."""
    tree = ast.parse(source, path)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = path.split("/")[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [Import(name, id(node) in guarded) for name in names]
    return found


def _within(name: str, allowed: Iterable[str]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in allowed)


def wrong_directions(sources: Mapping[str, str]) -> list[str]:
    """Imports from one room to another that `MAY_IMPORT` does not list, type-only ones too."""
    faults = []
    for path, source in sources.items():
        room = path.split("/")[0]
        if room not in MAY_IMPORT:
            continue
        rooms = MAY_IMPORT.keys() - {room}
        names = {found.name for found in imports(source, path) if found.name.split(".")[0] in rooms}
        faults += [f"{path} imports {name}" for name in sorted(names) if not _within(name, MAY_IMPORT[room])]
    return faults


def import_cycle(sources: Mapping[str, str]) -> list[str]:
    """The modules of one cycle, first and last the same; empty where the modules form a line.

    An import that only a type checker sees makes no cycle at run time and does not count.
    """
    modules = {module_name(path): path for path in sources}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = [found.name for found in imports(sources[path], path) if not found.types_only]
        targets = {name if name in modules else name.rpartition(".")[0] for name in names}
        graph[module] = targets & modules.keys() - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(module) for module in error.args[1]]
    return []


def strayed_libraries(sources: Mapping[str, str]) -> list[str]:
    """Run-time imports of a library outside of its home; a type's name, which loads nothing, may travel."""
    faults = set()
    for path, source in sources.items():
        for found in imports(source, path):
            library = found.name.split(".")[0]
            homes = LIBRARY_HOMES.get(library)
            if homes is None or found.types_only:
                continue
            if not any(path.startswith(home) if home.endswith("/") else path == home for home in homes):
                faults.add(f"{path} imports {library}, which belongs to {', '.join(homes)}")
    return sorted(faults)


def machine_paths(text: str) -> list[str]:
    """Paths that exist on one person's machine only."""
    return _MACHINE_PATH.findall(text)


def shell_commands(markdown: str) -> list[str]:
    """The commands of a page's shell blocks, one each, continued lines joined, comments and blank lines left out."""
    lines = []
    for block in _SHELL_BLOCK.findall(markdown):
        lines += re.sub(r"\\\n\s*", "", block).splitlines()
    stripped = (re.sub(r"\s+#.*$", "", line).strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def make_targets(makefile: str) -> set[str]:
    """The names that `make NAME` knows."""
    return set(re.findall(r"^([a-z][\w-]*)\s*:(?!=)", makefile, re.MULTILINE))
