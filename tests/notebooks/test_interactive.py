"""Completion, `?` and `help` of real IPython, in a new process, show the public API."""

import inspect
import json
import os
import subprocess
import sys

import pytest

import keras_mgpu_strategy as mgpu
from tests.notebooks.interactive_shell import NAMES

PUBLIC = {name for name in mgpu.__all__ if not name.startswith("_")}


def options_of(name):
    return inspect.signature(getattr(mgpu, name)).parameters


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    command = [sys.executable, "-m", "tests.notebooks.interactive_shell"]
    env = {**os.environ, "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))}
    child = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(child.stdout)


def test_completion_knows_public_names_without_loading_tensorflow(seen):
    assert set(seen["names"]) == set(seen["names again"]) == PUBLIC
    assert not seen["imported"]


@pytest.mark.parametrize("jedi", [False, True])
def test_completion_knows_every_option(seen, jedi):
    for name in NAMES:
        keywords = {f"{option}=" for option in options_of(name)}
        assert keywords <= set(seen[f"options {jedi}"][name])
    assert {"predict_proba", "predict_to"} <= set(seen[f"methods {jedi}"])


@pytest.mark.parametrize("name", NAMES)
def test_a_question_mark_shows_options_with_types_and_defaults(seen, name):
    shown = seen["pinfo"][name]
    for parameter in options_of(name).values():
        assert f"    {parameter.name}: " in shown
        if parameter.default is not parameter.empty:
            line = next(x for x in shown.splitlines() if f"    {parameter.name}: " in x)
            assert line.endswith(f" = {parameter.default!r},")
    assert inspect.getdoc(getattr(mgpu, name)).splitlines()[0] in shown


def test_values_as_the_last_line_of_a_cell(seen):
    report = seen["report"]
    assert report["text/plain"].startswith("No row was run")
    assert report["text/html"].startswith("<div") and "<table" in report["text/html"]
    assert seen["batch"] == {"text/plain": "HostBatch(rows 3 to 5: (2, 4) float64)"}
    assert seen["options"]["text/plain"].startswith("RayOptions(num_actors=2, ")
    assert seen["file"]["text/plain"].startswith("Npy(")


def test_help_begins_with_usage_and_has_every_public_name(seen):
    lines = seen["help"].splitlines()
    first = next(i for i, line in enumerate(lines) if line == "DESCRIPTION") + 1
    usage = [line.strip() for line in lines[first : first + 3]]
    assert usage[0] == "import keras_mgpu_strategy as mgpu"
    assert usage[1].startswith("model = mgpu.load(") and "model.predict" in usage[2]
    for name in PUBLIC - {"files"}:
        value = getattr(mgpu, name)
        kind = "class " if inspect.isclass(value) else ""
        assert any(line.startswith(f"    {kind}{name}(") for line in lines), name
    for name in ("load", "scope", "predict_proba"):
        assert f"    {name}{inspect.signature(getattr(mgpu, name))}" in lines
