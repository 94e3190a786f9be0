"""What SECURITY.md promises has a test, and the tests it names are there."""

import ast
import pathlib
import re

from keras_mgpu_strategy import __version__

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
TREES = [
    ast.parse(path.read_text())
    for path in pathlib.Path(__file__).parent.iterdir()
    if path.suffix == ".py"
]
TESTS = {
    node.name
    for tree in TREES
    for node in tree.body
    if isinstance(node, ast.FunctionDef)
}


def promises():
    section = TEXT.partition("## What is promised")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \| (.*) \|$", section, re.M)
    return [
        (promise, re.findall(r"`(test_\w+)`", tests)) for promise, tests in rows[1:]
    ]


def test_every_promise_names_tests_that_exist():
    assert len(promises()) > 20
    for promise, tests in promises():
        assert tests, promise
        assert not set(tests) - TESTS, promise


def test_the_current_version_is_supported():
    assert f"| {__version__.rpartition('.')[0]} and newer" in TEXT
