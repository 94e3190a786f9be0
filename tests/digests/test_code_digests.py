"""Digests of code: equal if it computes the same, different if not."""

import functools
import re
import textwrap
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.preprocessing import StandardScaler

from keras_mgpu_strategy.digests.code import digest_of_code
from keras_mgpu_strategy.digests.packages import is_installed
from tests import children


def made(source, **known):
    """The function `f` of a user's module."""
    module = types.ModuleType("of_the_user")
    module.__dict__.update(known)
    exec(compile(textwrap.dedent(source), "of_the_user.py", "exec"), module.__dict__)
    return module.f


def helpers(factor):
    module = types.ModuleType("helpers")
    module.factor, module.unused = factor, factor
    return module


SAME = {
    "names": ("def f(x): return x * 2", "def f(other): return other * 2"),
    "comments": ("def f(x): return x", "def f(x):\n    # the same\n    return x"),
    "docstrings": (
        'def f(x):\n    "One."\n    return x',
        'def f(x):\n    "Two."\n    return x',
    ),
    "lines": ("def f(x): return (x, x)", "\n\n\ndef f(x):\n    return (x,\n x)"),
}
OTHER = {
    "constants": ("def f(x): return x * 1", "def f(x): return x * 2"),
    "code": ("def f(x): return x * 2", "def f(x): return x + 2"),
    "defaults": ("def f(x, y=1): return x * y", "def f(x, y=2): return x * y"),
    "keywords": ("def f(x, *, y=1): return x", "def f(x, *, y=2): return x"),
    "globals": ("y = 1\ndef f(x): return x * y", "y = 2\ndef f(x): return x * y"),
    "helpers": (
        "def g(x): return x\ndef f(x): return g(x)",
        "def g(x): return -x\ndef f(x): return g(x)",
    ),
    "inner": (
        "def f(x): return [y + 1 for y in x]",
        "def f(x): return [y + 2 for y in x]",
    ),
    "classes": (
        "class C:\n    y = 1\ndef f(x): return C.y",
        "class C:\n    y = 2\ndef f(x): return C.y",
    ),
    "attributes": ("def f(x): return x.real", "def f(x): return x.imag"),
}


@pytest.mark.parametrize("case", SAME)
def test_what_computes_the_same(case):
    first, second = (digest_of_code(made(source)) for source in SAME[case])
    assert first == second


@pytest.mark.parametrize("case", OTHER)
def test_what_computes_something_else(case):
    first, second = (digest_of_code(made(source)) for source in OTHER[case])
    assert first != second


def closure(value):
    return lambda x: (x, value)


class Own:
    def __init__(self, value):
        self.value = value

    def __call__(self, x):
        return x * self.value


VALUES = {
    "number": lambda n: float(n),
    "text": lambda n: f"{n}",
    "list": lambda n: [1, [n]],
    "dict": lambda n: {"a": {"b": n}},
    "set": lambda n: {"a", "b", f"{n}"},
    "array": lambda n: np.full(9, n),
    "strings": lambda n: np.array([f"{n}", "b"], object),
    "tensor": lambda n: tf.constant([n]),
    "object": Own,
    "method": lambda n: Own(n).__call__,
    "partial": lambda n: functools.partial(Own, n),
    "pattern": lambda n: re.compile(f"{n}"),
    "scaler": lambda n: StandardScaler().fit([[0.0], [float(n)]]),
    "layer": lambda n: keras.layers.Normalization(mean=[float(n)], variance=[1.0]),
    "function": lambda n: tf.function(closure(n)),
    "cached": lambda n: functools.cache(closure(n)),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_in_closures_count(kind):
    make = VALUES[kind]
    first, again, other = (digest_of_code(closure(make(n))) for n in (1, 1, 2))
    assert first == again != other


def test_used_parts_of_the_users_modules_count():
    source = "def f(x): return x * helpers.factor"
    first, again = (made(source, helpers=helpers(2)) for _ in range(2))
    again.__globals__["helpers"].unused = 9
    assert digest_of_code(first) == digest_of_code(again)
    assert digest_of_code(made(source, helpers=helpers(3))) != digest_of_code(first)


@pytest.mark.parametrize(
    ("one", "two"), [(np.log, np.exp), (tf.nn.relu, tf.nn.elu), (re.sub, re.match)]
)
def test_functions_of_packages_count_by_name(one, two):
    assert digest_of_code(closure(one)) == digest_of_code(closure(one))
    assert digest_of_code(closure(one)) != digest_of_code(closure(two))


def test_what_shows_no_values_counts_by_its_class():
    values = [(i for i in ()), np.random.default_rng(0), tf.Variable(1.0)]
    for value in values:
        assert digest_of_code(closure(value)) == digest_of_code(closure(value))


def test_values_that_hold_themselves():
    first, second = [1], [1]
    first.append(first)
    second.append(second)
    assert digest_of_code(first) == digest_of_code(second)


def write_digest(path):
    values = [make(1) for name, make in sorted(VALUES.items()) if name != "layer"]
    path.write_text(digest_of_code([closure(value) for value in values]))


def test_other_processes_find_the_same(tmp_path):
    write_digest(tmp_path / "here")
    for name in ("a", "b"):  # with other hash seeds
        children.run(write_digest, tmp_path / name)
    assert len({(tmp_path / name).read_text() for name in ("here", "a", "b")}) == 1


def test_packages_in_a_folder_of_their_own_count_by_name(tmp_path, monkeypatch):
    """As `pip install --target` puts them, next to the user's code."""
    (tmp_path / "targeted").mkdir()
    for file in ("targeted/__init__.py", "own_next_to_it.py"):
        (tmp_path / file).write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "targeted-1.0.dist-info").mkdir()
    (tmp_path / "targeted-1.0.dist-info" / "METADATA").write_text("Name: targeted\n")
    record = "targeted/__init__.py,,\ntargeted-1.0.dist-info/METADATA,,\n"
    (tmp_path / "targeted-1.0.dist-info" / "RECORD").write_text(record)
    monkeypatch.syspath_prepend(tmp_path)
    import own_next_to_it  # pyright: ignore[reportMissingImports]
    import targeted  # pyright: ignore[reportMissingImports]

    assert is_installed(targeted.double.__code__.co_filename)
    assert is_installed(targeted)
    assert not is_installed(own_next_to_it.double.__code__.co_filename)
    assert not is_installed(own_next_to_it)


def test_values_of_many_levels():
    nested = []
    for _ in range(10_000):
        nested = [nested]
    assert len(digest_of_code(nested)) == 64
