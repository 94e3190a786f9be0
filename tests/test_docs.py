"""Runs the examples of README.md and docs/, and holds README and .ci/run together."""

import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page, language):
    """Name and code of each fenced block of one language on a page."""
    text = page.read_text()
    return [
        (f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}", match[2])
        for match in BLOCK.finditer(text)
        if match[1] == language
    ]


def commands(block):
    """The commands of a shell block, each as a list of words."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line]


PYTHON_PAGES = [page for page in PAGES if blocks(page, "python")]
SET_UP_AND_PREDICT, SET_UP_AND_TEST = [
    code for _, code in blocks(ROOT / "README.md", "sh")[:2]
]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working folder where docs/ lies as in a clone."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_examples_run_one_after_another(page, clone):
    names = {"__name__": "__main__"}
    for name, code in blocks(page, "python"):
        exec(compile(code, name, "exec"), names)


def test_there_are_python_examples():
    assert len(PYTHON_PAGES) >= 3


def test_readme_opens_with_a_command_that_does_the_main_job(clone):
    *set_up, predict = commands(SET_UP_AND_PREDICT)
    assert set_up == commands("python3 -m venv .venv\n. .venv/bin/activate\n") + [
        ["pip", "install", "."]
    ]
    assert predict[:2] == ["mgpu", "predict"]
    result = subprocess.run(
        [sys.executable, "-m", "keras_mgpu_strategy", *predict[1:]],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "accuracy  0.9917 (1,782 of 1,797)" in result.stdout
    assert np.load("probabilities.npy").shape == (1797, 10)


def test_readme_and_ci_test_in_the_same_way():
    *_, install, test = SET_UP_AND_TEST.strip().splitlines()
    ci_lines = (ROOT / ".ci/run").read_text().splitlines()
    assert test in ci_lines
    what_is_installed = install.removeprefix("pip install ")
    assert any(
        line.startswith("pip install ") and line.endswith(f" {what_is_installed}")
        for line in ci_lines
    )


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} -> {link}"
