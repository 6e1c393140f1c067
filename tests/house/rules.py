"""The rules of the house, each a function from one parsed file to its complaints. `test_house.py` applies them.

A complaint says where, why the rule is there, and what cures it. Rules read the syntax tree, never run the code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FILE_LINES_MAX = 450  # past it a file has a second subject
LONGER_FILES = {
    "service/gradserve_service/core/machine.py": "all rules of a run, read side by side: the machine stays whole",
}

# Floor by module, longest prefix wins. A module that is on no floor is a complaint: someone must decide.
FLOORS = {
    "gradserve.wire": 0,
    "gradserve.specs": 0,
    "gradserve.problems": 0,
    "gradserve_service": 0,  # the package's own front door: no imports of its own
    "gradserve_service.core": 1,
    "gradserve_service.core.machine": 2,
    "gradserve_service.store": 3,
    "gradserve_service.limits": 4,
    "gradserve_service.replica": 4,
    "gradserve_service.settings": 5,
    "gradserve_service.http": 5,
    "gradserve_service.cli": 6,
    "gradserve_service.demo": 6,
    "gradserve_service.compare": 6,
    "gradserve_service.__main__": 6,
}
EDGE_FLOOR = 6
SHARED = ("gradserve.wire", "gradserve.specs", "gradserve.problems")

# What each floor must not know, with what it would be doing there.
STRANGERS: dict[int, dict[str, str]] = {
    3: {"gradserve_service.core": "the store keeps bytes in order and knows no rule"},
    4: dict.fromkeys(("fastapi", "starlette", "uvicorn", "httpx"), "the replica knows tasks and time, not HTTP"),
    5: {
        **dict.fromkeys(("redis", "sqlite3"), "the routes know no store's own client"),
        "gradserve_service.core.optimizers": "the routes know no optimizer arithmetic",
    },
}

# All that `core` may import: with nothing here that reads a clock, a coin, a file or a socket, replay is exact.
CORE_MAY_IMPORT = {
    *(
        "__future__",
        "abc",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
        "enum",
        "functools",
        "hashlib",
        "itertools",
    ),
    *("json", "math", "numbers", "operator", "struct", "types", "typing", "typing_extensions"),
    *("numpy", "pydantic", "xxhash", *SHARED, "gradserve_service.core"),
}
CORE_MAY_ALSO_IMPORT = {
    ("service/gradserve_service/core/image.py", "platform"): "the host's numerical fingerprint, which no rule reads",
}
CORE_MAY_NOT_CALL = {"open", "input", "print"}

ADAPTERS = {"gradserve.torch": "torch"}  # packages of the SDK that need an extra, and what it brings
SDK_MAY_IMPORT = {"httpx", "numpy", "pydantic", "pydantic_core", "safetensors", "xxhash", "gradserve"}

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}

ENVIRONMENT_PLACES = {
    "service/gradserve_service/settings.py": "the service's settings, in one place that --help and the docs list",
    "client/gradserve/client.py": "$GRADSERVE_URL and $GRADSERVE_TOKEN",
    "client/gradserve/launcher.py": "the identity that torchrun and Kubernetes give a worker",
    "service/gradserve_service/demo/programs.py": "hands its own environment on to the programs that it starts",
}

BROAD_EXCEPT_PLACES = {
    "service/gradserve_service/http/edge.py": "whatever goes wrong in a request is answered as a problem document",
    "service/gradserve_service/replica/sequencer.py": "a run's task: half-written state is dropped and built again",
    "service/gradserve_service/store/sqlite_thread.py": "what fails in the thread is raised where it is awaited",
}

FILE_NAMES_REFUSED = {"util", "utils", "helper", "helpers", "misc", "common", "manager", "managers"}
CLASS_WORDS_REFUSED = ("Manager", "Handler", "Helper", "Util")


@dataclass(frozen=True)
class Source:
    """One file: its path from the repository's root, its text, its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> Source:
        return cls(path, text, ast.parse(text, path))

    @property
    def module(self) -> str:
        """The dotted import name, or "" outside the two packages."""
        for root in ("client/", "service/"):
            if self.path.startswith(root):
                return self.path.removeprefix(root).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        return ""

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")


@dataclass(frozen=True)
class Complaint:
    """Where, why, and the cure."""

    path: str
    line: int
    reason: str
    cure: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}\n    Cure: {self.cure}"


Rule = Callable[[Source], Iterator[Complaint]]


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Every imported module as (line, absolute dotted name); `from a import b` gives `a.b`, which starts with `a`."""
    package = source.module.split(".") if source.is_package else source.module.split(".")[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def within(name: str, package: str) -> bool:
    """Is `name` that package or something in it?"""
    return name == package or name.startswith(package + ".")


def floor_of(name: str) -> int | None:
    """The floor of a module or of a name in it; None for one that is on no floor."""
    known = [module for module in FLOORS if within(name, module)]
    best = max(known, key=len, default=None)
    if best is None or (best == "gradserve_service" and name.count(".") and name.split(".")[1] != "__version__"):
        return None
    return FLOORS[best]


def floors(source: Source) -> Iterator[Complaint]:
    """Imports go down only, and no floor knows what is not its business."""
    if not within(source.module, "gradserve_service") and source.module not in SHARED:
        return
    own = floor_of(source.module)
    if own is None:
        yield Complaint(
            source.path,
            1,
            f"{source.module} stands on no floor",
            "decide what it may know, then add it to FLOORS in tests/house/rules.py",
        )
        return
    for line, name in imports(source):
        if within(name, "gradserve"):
            if not any(within(name, shared) for shared in SHARED) and own < EDGE_FLOOR:
                yield Complaint(
                    source.path,
                    line,
                    f"floor {own} imports {name}: the service shares {', '.join(SHARED)} with the SDK and nothing else",
                    "move what is shared to floor 0, or do it without the SDK",
                )
        elif within(name, "gradserve_service"):
            below = floor_of(name)
            if below is not None and below > own:
                yield Complaint(
                    source.path,
                    line,
                    f"floor {own} imports {name} of floor {below}: imports go down only",
                    "hand it in from above as an argument, or move it to the floor that needs it",
                )
        for stranger, why in STRANGERS.get(own, {}).items():
            if within(name, stranger):
                yield Complaint(source.path, line, f"floor {own} imports {name}: {why}", "ask the floor that knows it")


def sdk(source: Source) -> Iterator[Complaint]:
    """The SDK runs on its base dependencies, without the service."""
    if not within(source.module, "gradserve"):
        return
    for line, name in imports(source):
        top = name.split(".")[0]
        brought = {extra for adapter, extra in ADAPTERS.items() if within(source.module, adapter)}
        if any(within(name, adapter) and not within(source.module, adapter) for adapter in ADAPTERS):
            yield Complaint(
                source.path, line, f"the SDK imports {name}, which needs an extra", "let the user import it"
            )
        if top not in SDK_MAY_IMPORT | brought and top not in sys.stdlib_module_names:
            yield Complaint(
                source.path,
                line,
                f"the SDK imports {name}: a worker machine installs `gradserve` alone, without extras",
                "do it with the base dependencies, or move it to gradserve_service",
            )


def one_transport(source: Source) -> Iterator[Complaint]:
    """One module of the SDK touches httpx."""
    if not within(source.module, "gradserve") or source.module == "gradserve.transport":
        return
    for line, name in imports(source):
        if within(name, "httpx"):
            yield Complaint(
                source.path,
                line,
                "a second module of the SDK touches httpx: the flows are free of I/O so that there is one driver",
                "yield a request from a flow and let gradserve/transport.py send it",
            )


def pure_core(source: Source) -> Iterator[Complaint]:
    """`core` reads no clock, no coin, no file, no socket, no environment: replay must be exact."""
    if not within(source.module, "gradserve_service.core"):
        return
    cure = "let a higher floor read it and write it into the entry; core takes it as an argument"
    for line, name in imports(source):
        known = name if (source.path, name) in CORE_MAY_ALSO_IMPORT else ""
        if not any(within(name, allowed) for allowed in (*CORE_MAY_IMPORT, known)) or within(name, "numpy.random"):
            yield Complaint(source.path, line, f"core imports {name}, which replay could not repeat", cure)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr == "random":
            yield Complaint(source.path, node.lineno, "core throws a coin: replay would throw another", cure)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CORE_MAY_NOT_CALL:
            yield Complaint(source.path, node.lineno, f"core calls {node.func.id}(): it has no I/O", cure)


def no_unpickling(source: Source) -> Iterator[Complaint]:
    """No byte from outside becomes code."""
    for line, name in imports(source):
        if name.split(".")[0] in UNSAFE_MODULES:
            yield Complaint(
                source.path,
                line,
                f"imports {name}: reading such bytes runs whatever they say",
                "write tensors as safetensors and the rest as JSON",
            )
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        if called in UNSAFE_CALLS:
            yield Complaint(source.path, node.lineno, f"calls {called}(): text becomes code", "parse it, or look it up")
        if any(
            k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
            for k in node.keywords
        ):
            yield Complaint(source.path, node.lineno, "allows pickle inside an array file", "use safetensors")


def environment_in_one_place(source: Source) -> Iterator[Complaint]:
    """The environment is read where it is documented."""
    if not source.module or source.path in ENVIRONMENT_PLACES:
        return
    for node in ast.walk(source.tree):
        attribute = node.attr if isinstance(node, ast.Attribute) else ""
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            attribute = next((a.name for a in node.names if a.name in {"environ", "getenv"}), "")
        if attribute in {"environ", "environb", "getenv", "putenv"}:
            yield Complaint(
                source.path,
                getattr(node, "lineno", 1),
                "reads the environment: a setting that no page lists",
                f"take it as an argument from one of {', '.join(ENVIRONMENT_PLACES)}",
            )


def narrow_excepts(source: Source) -> Iterator[Complaint]:
    """Catch what you can cure; everything only at the edge. To clean up and raise again is not to catch."""
    if not source.module or source.path in BROAD_EXCEPT_PLACES:
        return
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {name.id for name in caught if isinstance(name, ast.Name)}
        last = node.body[-1]
        raised_again = isinstance(last, ast.Raise) and last.exc is None
        if (node.type is None or names & {"Exception", "BaseException"}) and not raised_again:
            yield Complaint(
                source.path,
                node.lineno,
                "catches everything, and with it the mistakes nobody thought of",
                "name the exceptions that can be cured here; at an edge, add the file and the reason to "
                "BROAD_EXCEPT_PLACES in tests/house/rules.py",
            )


def _is_protocol(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        (isinstance(base, ast.Name) and base.id == "Protocol")
        or (isinstance(base, ast.Subscript) and isinstance(base.value, ast.Name) and base.value.id == "Protocol")
        for base in node.bases
    )


def documented(source: Source) -> Iterator[Complaint]:
    """Docstrings on modules, public classes, public functions, and methods of more than three lines.

    A method that a base class or a protocol has documented (it carries @override) keeps that text.
    """
    if not source.module:
        return
    cure = "say what it takes (shapes, units), gives and raises, in a sentence or two"
    if ast.get_docstring(source.tree) is None and source.text.strip():
        yield Complaint(source.path, 1, "the module has no docstring", cure)
    for node in source.tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield Complaint(source.path, node.lineno, f"{node.name} is public and has no docstring", cure)
        if not isinstance(node, ast.ClassDef) or _is_protocol(node):
            continue
        for method in node.body:
            if (
                isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                and not method.name.startswith("_")
                and not any(isinstance(d, ast.Name) and d.id in {"override", "overload"} for d in method.decorator_list)
                and (method.end_lineno or 0) - method.body[0].lineno >= 3
                and ast.get_docstring(method) is None
            ):
                yield Complaint(source.path, method.lineno, f"{node.name}.{method.name} has no docstring", cure)


def one_subject(source: Source) -> Iterator[Complaint]:
    """A file is small enough to have one subject."""
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX and source.path not in LONGER_FILES:
        yield Complaint(
            source.path,
            FILE_LINES_MAX,
            f"{lines} lines, the limit is {FILE_LINES_MAX}: it has a second subject",
            "find the second subject and give it a file of its own",
        )


def telling_names(source: Source) -> Iterator[Complaint]:
    """Files and classes are named by what they are."""
    stem = source.path.rsplit("/", 1)[-1].removesuffix(".py")
    if stem in FILE_NAMES_REFUSED:
        yield Complaint(source.path, 1, f"a file named {stem} gathers whatever has no place", "name it by its subject")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and any(word in node.name for word in CLASS_WORDS_REFUSED):
            yield Complaint(source.path, node.lineno, f"{node.name} does not say what it is", "name the noun it owns")


def no_skips(source: Source) -> Iterator[Complaint]:
    """A test runs or fails; a skipped one is a promise that nobody keeps."""
    if not source.path.startswith("tests/"):
        return
    for node in ast.walk(source.tree):
        name = node.attr if isinstance(node, ast.Attribute) else ""
        if name in {"skip", "skipif", "skipUnless", "skipIf", "xfail", "importorskip"}:
            yield Complaint(
                source.path,
                getattr(node, "lineno", 1),
                f"uses {name}: nobody reads the list of tests that did not run",
                "make the test run here, or fail with the line that installs what is missing",
            )


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        floors,
        sdk,
        one_transport,
        pure_core,
        no_unpickling,
        environment_in_one_place,
        narrow_excepts,
        documented,
        one_subject,
        telling_names,
        no_skips,
    )
}
