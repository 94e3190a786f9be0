"""Holds the code to docs/design.md: floors, forbidden edges, sizes, public names."""

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
MAY_NAME_DISTRIBUTE = (
    r"(strategy|pipeline|step|micro_batch_step)\.py|(models|engines|benchmark)/.*"
)
FORBIDDEN = [
    (r"inputs/.*", r"(devices|strategy|pipeline|step)\.py|engines/.*|models/.*"),
    (r"sinks/.*", r"(devices|strategy|pipeline|step)\.py|engines/.*|models/.*"),
    (r"models/.*", r"engines/.*|sinks/.*|inputs/.*"),
    (r"engines/(?!ray_data\.py).*", r"sinks/.*|inputs/.*|predictor\.py"),
    (r"(?!drop_in\.py|loading\.py|__init__\.py).*", r"predictor\.py"),
]
LONGEST_FILE, LONGEST_FUNCTION = 250, 40


def room_of(name):
    """The file, or else the innermost folder around it, that design.md lists."""
    folders = [f"{folder}/" for folder in pathlib.PurePosixPath(name).parents]
    return next((room for room in (name, *folders) if room in FLOORS), name)


def file_of(dotted):
    """Package path of a module's dotted name, or None if it is no module."""
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


def num_code_lines(function):
    """Lines of a function, signature included, without its docstring."""
    first = function.body[0]
    is_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = first.end_lineno - first.lineno + 1 if is_docstring else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_every_module_has_a_floor_and_every_room_exists():
    assert {room_of(name) for name in FILES} == set(FLOORS)


@pytest.mark.parametrize("name", FILES)
def test_modules_import_only_lower_floors(name):
    for target in imports(name):
        own, other = room_of(name), room_of(target)
        assert own == other or FLOORS[own] > FLOORS[other], f"{name} -> {target}"


def test_imports_have_no_cycle():
    order = graphlib.TopologicalSorter({name: imports(name) for name in FILES})
    assert len(list(order.static_order())) == len(FILES)


@pytest.mark.parametrize(("importer", "imported"), FORBIDDEN)
def test_forbidden_edges(importer, imported):
    edges = [(name, to) for name in FILES for to in imports(name)]
    assert not [
        (name, to)
        for name, to in edges
        if re.fullmatch(importer, name) and re.fullmatch(imported, to)
    ]


@pytest.mark.parametrize("name", FILES)
def test_no_own_module_is_imported_inside_a_function(name):
    inside = [node for function in functions(name) for node in ast.walk(function)]
    assert not [target for node in inside for target in imported_by(node)]


@pytest.mark.parametrize("name", FILES)
def test_distribute_is_named_only_where_devices_are_known(name):
    named = any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "tf.distribute"
        for node in ast.walk(TREES[name])
    )
    assert not named or re.fullmatch(MAY_NAME_DISTRIBUTE, name)


@pytest.mark.parametrize("name", FILES)
def test_environment_variables_are_read_in_one_place(name):
    named = [
        node
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("os.environ", "os.getenv", "os.putenv")
    ]
    assert not named or name == "environment.py"


@pytest.mark.parametrize("name", FILES)
def test_text_has_an_encoding_whatever_the_locale(name):
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    least = {"read_text": 1, "write_text": 2}
    for call in calls:
        method = getattr(call.func, "attr", None)
        if method in least and not any(k.arg == "encoding" for k in call.keywords):
            assert len(call.args) >= least[method], f"line {call.lineno}"


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_are_short(name):
    assert len(FILES[name].read_text().splitlines()) <= LONGEST_FILE
    long = {f.name: num_code_lines(f) for f in functions(name)}
    assert not {key: n for key, n in long.items() if n > LONGEST_FUNCTION}


def test_public_names_are_these_and_exist():
    public = ["HostBatch", "Predictor", "Report", "__version__"]
    public += ["files", "load", "make_parallel", "predict_proba", "scope"]
    assert keras_mgpu_strategy.__all__ == public
    assert [getattr(keras_mgpu_strategy, name).__class__ for name in public]
    assert dir(keras_mgpu_strategy) == public


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'make_paralel'"):
        _ = keras_mgpu_strategy.make_paralel
