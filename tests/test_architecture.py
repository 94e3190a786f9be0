"""Checks the code against docs/design.md: floors, imports, sizes, public names."""

import ast
import graphlib
import pathlib
import re

import pytest

import keras_mgpu_strategy

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "keras_mgpu_strategy"
FILES = {
    path.relative_to(ROOT / PACKAGE).as_posix(): path
    for path in (ROOT / PACKAGE).rglob("*.py")
}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
FLOORS = {
    room: int(floor)
    for floor, room in re.findall(
        r"^\| (\d+) \| `([\w/.]+)` \|", (ROOT / "docs/design.md").read_text(), re.M
    )
}
DEVICES_ARE_KNOWN = r"devices/scope\.py|compute/step\.py|engines/.*|models/.*"
FORBIDDEN = [
    (r"(inputs|sources|outputs|formats)/.*", r"(devices|compute|engines|models)/.*"),
    (r"models/.*", r"(engines|outputs|sources|inputs)/.*"),
    (r"engines/.*", r"(outputs|formats|inputs)/.*"),
    (r"(?!drop_in\.py|ray_data\.py|__init__\.py).*", r"predictor\.py"),
]
MOST_AT_THE_ROOT = 12
LONGEST_FILE, LONGEST_FUNCTION = 250, 40


def room_of(name):
    """The file, or the innermost folder around it, that design.md lists."""
    folders = [f"{folder}/" for folder in pathlib.PurePosixPath(name).parents]
    return next((room for room in (name, *folders) if room in FLOORS), name)


def file_of(dotted):
    """Package path of a module's dotted name, or None if it is not a module."""
    inner = dotted.removeprefix(PACKAGE).lstrip(".").replace(".", "/")
    names = (f"{inner}.py", f"{inner}/__init__.py".lstrip("/"))
    return next((name for name in names if name in FILES), None)


def imported_by(node):
    """The files of our package that one import statement names."""
    if isinstance(node, ast.Import):
        dotted = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        dotted = [name if file_of(name) else node.module for name in whole]
    else:
        return set()
    return {file_of(name) for name in dotted if name.split(".")[0] == PACKAGE}


def imports(name):
    nodes = ast.walk(TREES[name])
    return {target for node in nodes for target in imported_by(node)} - {name}


def functions(name):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(TREES[name]) if isinstance(node, kinds)]


def named(name, *attributes):
    nodes = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute)]
    return any(ast.unparse(node) in attributes for node in nodes)


def num_code_lines(function):
    """Lines of a function, signature included, without its docstring."""
    first = function.body[0]
    is_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = first.end_lineno - first.lineno + 1 if is_docstring else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_rooms_are_those_of_the_design_and_imports_lead_downwards():
    assert {room_of(name) for name in FILES} == set(FLOORS)
    assert len([name for name in FILES if "/" not in name]) <= MOST_AT_THE_ROOT
    edges = {name: imports(name) for name in FILES}
    assert len(list(graphlib.TopologicalSorter(edges).static_order())) == len(FILES)
    wrong = []
    for name, target in [(own, to) for own in FILES for to in edges[own]]:
        own, other = room_of(name), room_of(target)
        is_forbidden = any(
            re.fullmatch(importer, name) and re.fullmatch(imported, target)
            for importer, imported in FORBIDDEN
        )
        if is_forbidden or (own != other and FLOORS[own] <= FLOORS[other]):
            wrong.append(f"{name} -> {target}")
    assert not wrong


def test_files_and_functions_are_short():
    sizes = {name: len(FILES[name].read_text().splitlines()) for name in FILES}
    assert not {name: n for name, n in sizes.items() if n > LONGEST_FILE}
    for name in FILES:
        long = {f.name: num_code_lines(f) for f in functions(name)}
        assert not {f"{name} {f}": n for f, n in long.items() if n > LONGEST_FUNCTION}


def test_what_only_some_modules_may_do():
    wrong = []
    for name in FILES:
        inside = [node for function in functions(name) for node in ast.walk(function)]
        if [target for node in inside for target in imported_by(node)]:
            wrong.append(f"{name} imports a module of ours inside a function")
        if named(name, "tf.distribute") and not re.fullmatch(DEVICES_ARE_KNOWN, name):
            wrong.append(f"{name} names tf.distribute")
        variables = named(name, "os.environ", "os.getenv", "os.putenv")
        if variables and name != "system/environment.py":
            wrong.append(f"{name} reads environment variables")
    assert not wrong


def test_text_has_an_encoding_whatever_the_locale():
    least = {"read_text": 1, "write_text": 2}
    wrong = []
    for name in FILES:
        for call in ast.walk(TREES[name]):
            method = isinstance(call, ast.Call) and getattr(call.func, "attr", None)
            if method not in least or any(k.arg == "encoding" for k in call.keywords):
                continue
            if len(call.args) < least[method]:
                wrong.append(f"{name}:{call.lineno}")
    assert not wrong


def test_public_names_are_these_and_exist():
    public = ["HostBatch", "Pad", "Predictor", "RayOptions", "Report", "View"]
    public += [
        "__version__",
        "files",
        "load",
        "make_parallel",
        "predict_proba",
        "scope",
    ]
    assert keras_mgpu_strategy.__all__ == public
    assert [getattr(keras_mgpu_strategy, name).__class__ for name in public]
    assert dir(keras_mgpu_strategy) == public
    with pytest.raises(AttributeError, match="has no attribute 'make_paralel'"):
        _ = keras_mgpu_strategy.make_paralel
