"""setup.cfg, noxfile.py and the pins agree on the supported versions."""

import ast
import configparser
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PINS = ROOT / "tests" / "versions" / "oldest.txt"
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg")


def pythons_of_nox():
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PYTHONS"
    ]
    return list(ast.literal_eval(value))


def pinned(package):
    """The versions of a package in the pins, that for older Pythons first."""
    return re.findall(rf"^{package}==([\d.]+)", PINS.read_text(), re.M)


def test_nox_tests_the_pythons_that_setup_cfg_names():
    classifiers = SETUP["metadata"]["classifiers"]
    named = re.findall(r"^Programming .* :: (3\.\d+)$", classifiers, re.M)
    assert pythons_of_nox() == named
    assert SETUP["options"]["python_requires"] == f">={named[0]}"


def test_the_pins_are_the_oldest_that_setup_cfg_allows():
    (bound,) = [
        line.partition(">=")[2]
        for line in SETUP["options"]["install_requires"].split()
        if line.startswith("tensorflow")
    ]
    assert pinned("tensorflow")[0] == f"{bound}.0"
    assert pinned("tf_keras")[0] == f"{bound}.0"
    assert SETUP["options.extras_require"]["legacy"].strip() == f"tf_keras>={bound}"
