"""What a user sees of an error: their own code, and what went wrong."""

import contextlib
import dataclasses
import functools
import gc
import inspect
import json
import os
import pathlib
import pickle
import re
import runpy
import subprocess
import sys
import traceback
import types
import weakref

import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.system.tracebacks import short_traceback
from tests.notebooks.kernel import Kernel

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]
SCRIPT = str(FOLDER / "failing.py")

CASES = {
    "wrong_shape": "ValueError",
    "generator": "ZeroDivisionError: batches",
    "callback": "ZeroDivisionError: on_predict_batch_end",
    "callback_of_evaluate": "ZeroDivisionError: on_test_batch_end",
    "model_call": "ZeroDivisionError: call",
    "late_model_call": "ZeroDivisionError: call",
    "missing_file": "FileNotFoundError",
    "missing_rows": "FileNotFoundError",
    "invalid_option": "ValueError",
    "no_such_device": "ValueError",
    "bad_label": "InvalidArgumentError",
    "few_labels": "ValueError",
    "loop": "ZeroDivisionError: batches",
    "loop_of_batches": "ZeroDivisionError: batches",
    "drop_in": "ZeroDivisionError: batches",
    "to_file": "ZeroDivisionError: batches",
    "parallel": "ValueError",
    "parallel_call": "ZeroDivisionError: error_handler call",
    "images": "ValueError",
    "ray_options": "ValueError",
    "interrupt": "KeyboardInterrupt",
    "interrupt_to_file": "KeyboardInterrupt",
    "interrupted_evaluation": "KeyboardInterrupt",
}
"""The error of each case, and the frames after the case's own."""
UNDER_RAY = {
    **{name: CASES[name] for name in ("wrong_shape", "generator", "loop", "bad_label")},
    "callback": "AttributeError",  # the model is elsewhere
    "model_call": "ZeroDivisionError",  # its frame is in a note
}
IN_GENERATORS = {
    "interrupt": "KeyboardInterrupt: interrupted_batches",
    "interrupted_evaluation": "KeyboardInterrupt: with_labels",
}
"""The main thread reads them itself."""
EXPECTED = {
    "threads": CASES | IN_GENERATORS,
    "mirrored": CASES,
    "ray": UNDER_RAY,
}
VALUES = {"HostBatch", "Report", "FileInput", "files", "__version__"}
"""Public names that a user does not call."""
MOST_LINES = 30


@pytest.fixture(scope="module")
def errors_of(tmp_path_factory):
    """Engine -> case -> its error with all frames ("1") and by default ("0")."""

    @functools.cache
    def errors(engine):
        words = [sys.executable, SCRIPT, engine, *EXPECTED[engine]]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        where = {"cwd": tmp_path_factory.mktemp("run"), "env": env}
        process = subprocess.run(words, capture_output=True, timeout=300, **where)
        assert process.returncode == 0, process.stderr.decode()
        return json.loads(process.stdout.splitlines()[-1])

    return errors


@pytest.mark.parametrize("engine", EXPECTED)
def test_only_the_users_frames_are_left(engine, errors_of):
    errors = errors_of(engine)
    assert errors.keys() == EXPECTED[engine].keys()
    for name, expected in EXPECTED[engine].items():
        short, full = errors[name]["0"], errors[name]["1"]
        frames = " ".join(frame for _, frame in short["frames"][1:])
        assert f"{short['error']}: {frames}".rstrip(": ") == expected, name
        assert short["frames"][0] == [SCRIPT, name]
        files = {file for file, _ in [*short["frames"], *sum(short["chain"], [])]}
        assert not [file for file in files if "/keras_mgpu_strategy/" in file], name
        assert short["printed"].count("\n") <= MOST_LINES, short["printed"]
        # Only frames are missing.
        assert (full["error"], plain(full)) == (short["error"], plain(short))
        assert len(full["chain"]) == len(short["chain"])
        assert len(full["frames"]) > len(short["frames"])
        assert full["printed"].count("\n") > short["printed"].count("\n")


def plain(error):
    """The text of an error, without the numbers that Keras counts up."""
    return re.sub(r"_?\d", "", "".join(error["said"]))


def test_frames_of_another_process_are_in_a_note(errors_of):
    note = errors_of("ray")["model_call"]["0"]["said"][-1]
    place, trace = note.split(":\n", 1)
    assert place == "In the process of replica 0"
    assert "in call\n" in trace and "/keras_mgpu_strategy/" not in trace


FAKE = """
@decorate
def work(x, *, by=None):
    return inner(x)

def inner(x):
    kept = Kept()
    seen.append(weakref.ref(kept))
    with contextlib.ExitStack():
        return x()

@decorate
def steps(x):
    yield 1
    yield inner(x)
    return 3

@decorate
@dataclasses.dataclass(frozen=True)
class Checked:
    x: object
    def __post_init__(self):
        inner(self.x)

@decorate
def mistaken(x):
    return x.nothing

@decorate
def refusing(x):
    raise LookupError(x)

@decorate
def grouping(x):
    try:
        inner(x)
    except Exception as error:
        raise ExceptionGroup("several", [error]) from error
"""


class Kept:
    """A large value of an inner frame."""


@pytest.fixture
def fake():
    """A module of the package's own."""
    names = {
        "__name__": "keras_mgpu_strategy.fake",
        "decorate": short_traceback,
        "contextlib": contextlib,
        "dataclasses": dataclasses,
        "weakref": weakref,
        "Kept": Kept,
        "seen": [],
    }
    # Dataclasses look up their module.
    sys.modules[names["__name__"]] = module = types.ModuleType(names["__name__"])
    vars(module).update(names)
    exec(FAKE, vars(module))
    yield module
    del sys.modules[names["__name__"]]


def fail():
    raise KeyError("the user's")


def names_of(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)][1:]


def error_of(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError("there was no error")


def test_every_public_function_is_decorated():
    public = [getattr(mgpu, name) for name in {*mgpu.__all__} - VALUES]
    public += [getattr(mgpu.files, name) for name in {*mgpu.files.__all__} - VALUES]
    functions = [one.__init__ if isinstance(one, type) else one for one in public]
    methods = inspect.getmembers(mgpu.Predictor, inspect.isfunction)
    functions += [method for name, method in methods if not name.startswith("_")]
    bare = [one for one in functions if one.__code__.co_name != "call"]
    assert not bare and len(functions) > 20


def test_what_is_decorated_stays_what_it_is(fake):
    assert str(inspect.signature(fake.work)) == "(x, *, by=None)"
    assert fake.work(lambda: 5, by=2) == 5
    assert inspect.isgeneratorfunction(fake.steps)
    assert isinstance(fake.Checked, type)
    assert fake.Checked(int) == fake.Checked(int)
    functions = (mgpu.load, mgpu.Predictor.predict, mgpu.files.Csv, mgpu.scope)
    assert pickle.loads(pickle.dumps(functions)) == functions


def test_generators_are_passed_through(fake):
    def consume():
        return (yield from fake.steps(lambda: 2))

    results = consume()
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(StopIteration) as stop:
        next(results)
    assert stop.value.value == 3
    begun = fake.steps(fail)
    next(begun)
    begun.close()
    assert names_of(error_of(list, fake.steps(fail))) == ["fail"]


def test_errors_of_constructors_and_groups(fake):
    assert names_of(error_of(fake.work, fail)) == ["fail"]
    assert names_of(error_of(fake.Checked, fail)) == ["fail"]
    group = error_of(fake.grouping, fail)
    assert names_of(group) == []
    assert group.exceptions == (group.__cause__,)
    assert traceback.extract_tb(group.__cause__.__traceback__)[0].name == "fail"


def test_mistakes_of_the_package_keep_all_frames(fake):
    assert names_of(error_of(fake.mistaken, 3)) == ["call", "mistaken"]
    assert names_of(error_of(fake.refusing, 3)) == []
    assert names_of(error_of(fake.work, lambda: [][1])) == ["<lambda>"]


def test_an_error_that_is_kept_keeps_nothing_of_the_package_alive(fake):
    """As a notebook keeps the error of a cell while a user examines it."""
    gc.disable()
    try:
        refused = error_of(fake.work, functools.partial(int, "no number"))
        assert fake.seen[-1]() is None
        assert names_of(refused) == []
        error_of(fake.work, fail)
        assert fake.seen[-1]() is None
    finally:
        gc.enable()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Unspeakable(TypeError):
    def __str__(self):
        raise AssertionError("no text")


@pytest.mark.parametrize("error", [Frozen(3), Unspeakable()])
def test_errors_of_an_unusual_class_stay_what_they_are(error, fake):
    def refuse():
        raise error

    assert error_of(fake.work, refuse) is error
    assert names_of(error) == ["refuse"]


@pytest.mark.parametrize("name", ["datasets", "tree", "code"])
def test_a_users_module_may_be_called_as_a_library_is(name, fake, tmp_path):
    path = tmp_path / f"{name}.py"
    path.write_text("def read():\n    raise OSError\n")
    names = runpy.run_path(str(path), run_name=name)
    assert names_of(error_of(fake.work, names["read"])) == ["read"]
    loads = functools.partial(json.loads, "no JSON")
    assert names_of(error_of(fake.work, loads)) == []


def test_an_error_again_within_an_own_error(fake):
    def again():
        try:
            fake.work(fail)
        except KeyError as error:
            raise error  # a second time, and its own context

    assert names_of(error_of(fake.work, again)) == ["again", "again", "fail"]


def test_in_a_kernel(tmp_path):
    with Kernel(tmp_path) as kernel:
        kernel.run(f"import sys; sys.path.insert(0, {str(FOLDER)!r})")
        kernel.run("import failing as f; f.begin('threads')")
        text = shown(kernel, "f.wrong_shape()")
        assert "keras_mgpu_strategy" not in text and text.count("\n") < 16
        assert "PREDICTOR.predict(np.zeros((10, 3)" in text
        text = shown(kernel, "f.interrupt()")
        assert "An interrupted run returns no results." in text
        text = shown(kernel, "f.interrupt_to_file()")
        assert "Rows 0 to 200 are safe in out.npy.partial." in text
        text = shown(kernel, "with f.mgpu.scope(replicas_per_device=2): pass")
        assert "Restart the kernel, and put scope(replicas_per_device=2) into" in text
        assert text.count("\n") < 16
        wrong = "f.PREDICTOR.predict_proba(f.ROWS + 9, verbose=0)"
        outcome = kernel.run(f"pass\n{wrong};").err
        assert "UserWarning: Invalid probability" in outcome and wrong in outcome
        kernel.run("import pdb\npdb.Pdb.cmdloop = lambda pdb: print(pdb.curframe)")
        shown(kernel, "f.model_call()")
        assert "code call" in kernel.run("%debug").out  # of the user's layer


def shown(kernel, code):
    """The traceback that a cell shows, without colors."""
    error = kernel.start(code).end().error
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error["traceback"]))
