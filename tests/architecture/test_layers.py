"""The layout of the package holds: who imports whom, and which library lives where.

The rules read the source and run none of it. What they know stands as data at the top, so that
a new folder, a new top module or a new library fails here until someone has decided where it
belongs.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it for this Python
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "qmt_jupyter"

# Which layer (a folder, or a module at the top) may import which others. Its own is always free.
FLOOR = {"configuration", "errors", "harmless", "settings"}
MIDDLE = {"identity", "wire", *FLOOR}
SIDES = {"mesh", "providers", *MIDDLE}
BEHIND_FACADE = {"answers", "endpoints", "metering", "nodes", "runtime", "host", "guest", *SIDES}
FACADE = {"api", "aio", "endpoints", "facade", "home", "identity", *FLOOR}
SURFACE = {"flags", "offer", "tables", "terminal", "words", *FACADE}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "harmless": set(),
    "configuration": {"errors"},
    "settings": {"errors", "harmless"},
    "identity": FLOOR,
    "wire": FLOOR,
    "bell": set(),
    "bounded_server": set(),
    "mesh": {"bell", *MIDDLE},
    "providers": {"bell", *MIDDLE},
    "host": SIDES,
    "guest": {"bounded_server", *SIDES},
    "runtime": {"bell", *FLOOR},
    "answers": {"runtime", "guest", *MIDDLE},
    "endpoints": {"runtime", "host", "guest", *MIDDLE},
    "metering": {"runtime", "host"},
    "nodes": {"runtime", "host", "guest", *SIDES},
    "facade": BEHIND_FACADE,
    "seats": {"facade", *BEHIND_FACADE},
    "aio": {"facade", "seats", *BEHIND_FACADE},
    "api": {"facade", "seats", *BEHIND_FACADE},
    "home": {"facade", *BEHIND_FACADE},
    "flags": FLOOR,
    "offer": FLOOR,
    "terminal": FLOOR,
    "tables": {"identity", *FLOOR},
    "words": {"tables", *FACADE},
    "demo": {"tables", "terminal", *FACADE},
    "bootstrap_command": {"runtime", "mesh", "terminal", *FLOOR},
    "chat_command": SURFACE,
    "serve_command": {"chat_command", *SURFACE},
    "cli": {"bootstrap_command", "chat_command", "demo", "serve_command", *SURFACE},
    "notebook": SURFACE,
    "hub": {"bounded_server", *SURFACE},
    "__init__": {"api", "aio", "facade", "notebook", *FLOOR},
    "__main__": {"cli"},
}

# Outside libraries: the distribution that brings it (None: used only where it is there already)
# and the modules or folders that may import it.
OUTSIDE: dict[str, tuple[str | None, set[str]]] = {
    "IPython": ("ipython", {"notebook"}),
    "anyio": ("anyio", {"aio", "api", "guest", "host", "mesh", "providers", "runtime"}),
    "anywidget": ("anywidget", {"notebook"}),
    "filelock": ("filelock", {"identity.keys", "providers.model_files"}),
    "huggingface_hub": ("huggingface-hub", {"providers.hub_fetch"}),
    "ifaddr": ("ifaddr", {"mesh.addresses"}),
    "ipykernel": (None, {"notebook"}),
    "ipywidgets": ("anywidget", {"notebook"}),
    "iroh": ("iroh", {"mesh.binding"}),
    "jsonschema": (None, {"notebook.structured"}),
    "jupyterhub": ("jupyterhub", {"hub.page"}),
    "keyring": ("keyring", {"providers.secret"}),
    "kademlia": ("kademlia", {"mesh.dht"}),
    "llama_cpp": ("llama-cpp-python", {"providers.llamacpp_python"}),
    "markdown_it": ("markdown-it-py", {"notebook"}),
    "msgspec": ("msgspec", {"wire"}),
    "nacl": ("pynacl", {"identity"}),
    "openai": ("openai", {"providers.upstream"}),
    "platformdirs": ("platformdirs", {"settings"}),
    "prometheus_client": ("prometheus-client", {"hub"}),
    "pygments": ("ipython", {"notebook.highlight"}),
    "qrcode": ("qrcode", {"identity.qr"}),
    "tomli": ("tomli", {"hub"}),
    "tornado": ("tornado", {"bounded_server", "guest", "hub"}),
    "traitlets": ("ipython", {"notebook"}),
    "xllamacpp": ("xllamacpp", {"providers.llamacpp"}),
    "zeroconf": ("zeroconf", {"mesh.lan"}),
}
RUN_AS_PROGRAM = {"pip"}  # a dependency that nothing imports
READ_AS_DATA = {"tzdata"}  # another: zoneinfo finds it by itself

# Parts that decide and do no I/O. Time and randomness reach the purest as arguments.
IO = {
    "anyio",
    "asyncio",
    "http",
    "multiprocessing",
    "select",
    "selectors",
    "socket",
    "ssl",
    "subprocess",
}
FILES = {"io", "os", "pathlib", "shutil", "tempfile"}
CLOCK_AND_CHANCE = {"datetime", "random", "secrets", "sched", "threading", "time"}
MAY_NOT_IMPORT: dict[str, set[str]] = {
    "wire": IO | FILES | CLOCK_AND_CHANCE,
    "identity": IO,
    "identity.invite": IO | FILES | CLOCK_AND_CHANCE,
    "identity.statement": IO | FILES | CLOCK_AND_CHANCE,
    "guest.openai.errors": IO | FILES | CLOCK_AND_CHANCE,
    "guest.openai.requests": IO | FILES | CLOCK_AND_CHANCE,
    "identity.whereabouts": IO | FILES | CLOCK_AND_CHANCE,
    "mesh.contact": IO | FILES | CLOCK_AND_CHANCE,
    "mesh.pace": IO | FILES | CLOCK_AND_CHANCE,
    "host.allowlist": IO | FILES | CLOCK_AND_CHANCE,
    "guest.load": IO | FILES | CLOCK_AND_CHANCE,
    "guest.routing": IO | FILES | CLOCK_AND_CHANCE,
    "host.allowance": IO | FILES | CLOCK_AND_CHANCE,
    # The calendar's own arithmetic, never its clock: what is now is an argument.
    "host.calendar": IO | FILES | CLOCK_AND_CHANCE - {"datetime"},
    "host.seat_account": IO | FILES | CLOCK_AND_CHANCE,
    "host.seat_records": IO | FILES | CLOCK_AND_CHANCE,
    "host.seats": IO | FILES | CLOCK_AND_CHANCE,
    "host.account": IO | FILES | CLOCK_AND_CHANCE,
    "host.activity": IO | FILES | CLOCK_AND_CHANCE,
    "host.meters": IO | FILES | CLOCK_AND_CHANCE,
    "host.limits": IO | FILES | CLOCK_AND_CHANCE,
    "host.membership": IO | FILES | CLOCK_AND_CHANCE,
    "host.offers": IO | FILES | CLOCK_AND_CHANCE,
    "host.records": IO | FILES | CLOCK_AND_CHANCE,
    "host.report": IO | FILES | CLOCK_AND_CHANCE,
    "host.rows": IO | FILES | CLOCK_AND_CHANCE,
    "host.standing": IO | FILES | CLOCK_AND_CHANCE,
    "host.queue": CLOCK_AND_CHANCE,
}

# What `import qmt_jupyter` must leave alone, so that a kernel starts and tab-completes at once.
HEAVY = sorted({*OUTSIDE, "sqlite3"} - {"platformdirs"})


@dataclass(frozen=True)
class Module:
    """One source file. ``name`` is dotted without the package's: ``mesh.lan``, ``__init__``."""

    name: str
    source: str
    is_folder: bool = False

    @property
    def layer(self) -> str:
        return self.name.split(".")[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def within(self, places: set[str]) -> bool:
        parts = self.name.split(".")
        return any(".".join(parts[: n + 1]) in places for n in range(len(parts)))


@dataclass(frozen=True)
class Import:
    """One imported name, absolute: ``qmt_jupyter.identity.keys`` or ``iroh.iroh_ffi``."""

    target: str
    at_load: bool  # neither inside a function nor for the type checker alone

    @property
    def top(self) -> str:
        return self.target.split(".")[0]


@cache
def package() -> tuple[Module, ...]:
    modules = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        is_folder = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_folder and len(parts) > 1 else parts)
        modules.append(Module(name, path.read_text(encoding="utf-8"), is_folder))
    return tuple(modules)


def imports(module: Module) -> Iterator[Import]:
    """Every import of the module, the ones inside functions and by literal name included."""
    home = [] if module.name == "__init__" else module.name.split(".")
    if not module.is_folder:
        home = home[:-1]

    def walk(node: ast.AST, at_load: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = [PACKAGE, *home[: len(home) - node.level + 1], *base]
            yield from (Import(".".join([*base, alias.name]), at_load) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).split(".")[-1]
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield Import(str(first.value), at_load)
        checker_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        later = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_load and not (checker_only or later))

    yield from walk(module.tree, True)


# The rules: each takes a module and yields what is wrong with it -------------------------------


def layers_point_one_way(module: Module) -> Iterator[str]:
    if module.layer not in MAY_IMPORT:
        yield f"{module.name}: declare the layer {module.layer} in MAY_IMPORT"
        return
    for item in imports(module):
        if item.top != PACKAGE or item.target == f"{PACKAGE}.__version__":
            continue
        other = f"{item.target}.__init__".split(".")[1]
        if other != module.layer and other not in MAY_IMPORT[module.layer]:
            yield f"{module.name} imports {item.target}"


def libraries_stay_in_their_place(module: Module) -> Iterator[str]:
    for item in imports(module):
        if item.top == PACKAGE or item.top in sys.stdlib_module_names:
            continue
        if item.top not in OUTSIDE:
            yield f"{module.name}: declare the library {item.top} in OUTSIDE"
        elif not module.within(OUTSIDE[item.top][1]):
            yield f"{module.name} imports {item.target}"


def pure_parts_do_no_io(module: Module) -> Iterator[str]:
    banned: set[str] = set()
    for place, names in MAY_NOT_IMPORT.items():
        banned |= names if module.within({place}) else set()
    yield from (f"{module.name} imports {i.target}" for i in imports(module) if i.top in banned)
    if "random" in banned:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and node.attr in ("uuid1", "uuid4", "generate"):
                yield f"{module.name} takes chance from {ast.unparse(node)}"


RULES: list[Callable[[Module], Iterator[str]]] = [
    layers_point_one_way,
    libraries_stay_in_their_place,
    pure_parts_do_no_io,
]


def cycle(modules: tuple[Module, ...]) -> list[str]:
    """The modules of one import cycle at load time, or nothing."""
    names = {module.name for module in modules}

    def module_of(target: str) -> str:
        parts = target.split(".")[1:]
        while parts and ".".join(parts) not in names:
            parts.pop()
        return ".".join(parts) or "__init__"

    graph = {
        module.name: {
            module_of(item.target)
            for item in imports(module)
            if item.at_load and item.top == PACKAGE and item.target != f"{PACKAGE}.__version__"
        }
        for module in modules
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# The package keeps them ----------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule):
    assert [complaint for module in package() for complaint in rule(module)] == []


def test_no_import_goes_round_in_a_circle():
    assert cycle(package()) == []


def test_the_rules_on_pure_parts_name_parts_that_exist():
    places = {place for module in package() for place in (module.name, module.layer)}
    assert set(MAY_NOT_IMPORT) <= places


def test_importing_the_package_loads_nothing_heavy():
    loaded = python("import sys, qmt_jupyter; print(*sorted(sys.modules))").split()
    assert PACKAGE in loaded
    assert sorted(set(HEAVY) & set(loaded)) == []


def test_what_is_imported_is_what_pyproject_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    declared = {re.split(r"[^a-z0-9-]", line)[0] for line in lines} - RUN_AS_PROGRAM - READ_AS_DATA
    tops = {item.top for module in package() for item in imports(module)}
    assert {dist for top, (dist, _) in OUTSIDE.items() if top in tops and dist} == declared


# The rules can fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (layers_point_one_way, "guest.link", "from ..host import service"),
        (layers_point_one_way, "host.service", "import qmt_jupyter.guest.mesh"),
        (layers_point_one_way, "wire.frames", "from ..identity.keys import load"),
        (layers_point_one_way, "mesh.lan", "def f():\n    from ..host.queue import SlotQueue"),
        (layers_point_one_way, "notebook.magics", "from ..guest.mesh import Mesh"),
        (layers_point_one_way, "notebook.magics", "if TYPE_CHECKING:\n    from ..host import x"),
        (layers_point_one_way, "cli", "from . import host"),
        (layers_point_one_way, "errors", "from . import settings"),
        (layers_point_one_way, "errors", "import qmt_jupyter"),
        (layers_point_one_way, "novelty.part", ""),
        (libraries_stay_in_their_place, "mesh.locate", "import iroh.iroh_ffi"),
        (libraries_stay_in_their_place, "host.service", "def f():\n    import msgspec"),
        (libraries_stay_in_their_place, "cli", "importlib.import_module('xllamacpp')"),
        (libraries_stay_in_their_place, "identity.link", "import qrcode"),
        (libraries_stay_in_their_place, "guest.link", "from requests import get"),
        (pure_parts_do_no_io, "wire.exchange", "import time"),
        (pure_parts_do_no_io, "wire.frames", "from asyncio import StreamReader"),
        (pure_parts_do_no_io, "identity.link", "import socket"),
        (pure_parts_do_no_io, "identity.invite", "import uuid\nx = uuid.uuid4()"),
    ],
)
def test_a_rule_catches_what_it_forbids(rule, name, source):
    assert list(rule(Module(name, source))) != []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("guest.link", "from .. import __version__, errors\nfrom ..wire import messages"),
        ("mesh.lan", "import asyncio, zeroconf.asyncio\nfrom . import addresses"),
        ("identity.keys", "import nacl.signing\nfrom pathlib import Path"),
        ("api", "from . import runtime\nfrom .host.service import HostService"),
    ],
)
def test_a_rule_lets_pass_what_is_allowed(name, source):
    assert [complaint for rule in RULES for complaint in rule(Module(name, source))] == []


def test_a_circle_is_found_and_a_lazy_import_is_none():
    there = Module("mesh.a", "from .b import thing")
    assert cycle((there, Module("mesh.b", "from . import a"))) != []
    assert cycle((there, Module("mesh.b", "def f():\n    from . import a"))) == []
