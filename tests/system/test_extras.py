"""Packages that are imported on use, and the extras that install them."""

import configparser
import json
import pathlib
import re
import sys

import pytest

from keras_mgpu_strategy.system.extras import import_extra

ROOT = pathlib.Path(__file__).parents[2]


def test_a_module_that_exists():
    assert import_extra("json", "some", "A thing") is json


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(
        ImportError,
        match=r"A thing needs the package json, "
        r"which cannot be imported \(.*json.*\)\. "
        r'Run `pip install "keras_mgpu_strategy\[some\]"`\.$',
    ):
        import_extra("json", "some", "A thing")


def test_the_error_of_a_broken_package_says_what_it_lacks(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="broken_package.*No module.*no_such_library"):
        import_extra("broken_package", "some", "A thing")


def test_extras_that_are_named_install_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    named = [
        match
        for path in (ROOT / "keras_mgpu_strategy").rglob("*.py")
        for match in re.findall(
            r'import_extra\("(\w+)[\w.]*", "(\w+)"', path.read_text()
        )
    ]
    assert len(named) >= 9
    for package, extra in named:
        distribution = {"PIL": "pillow"}.get(package, package)
        assert distribution in re.split(r"[\s><=!~\[]+", extras[extra])
