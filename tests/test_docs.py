"""Runs the examples of README.md and docs/, and checks what they say."""

import inspect
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from keras_mgpu_strategy import report
from keras_mgpu_strategy.cli import command
from keras_mgpu_strategy.report import figures

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)


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
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def shell_commands(page):
    code = [code for language in ("sh", "bash") for _, code in blocks(page, language)]
    return [words for block in code for words in commands(block)]


PYTHON_PAGES = [page for page in PAGES if blocks(page, "python")]
MGPU_LINES = [
    words[words.index("mgpu") :]
    for page in PAGES
    for words in shell_commands(page)
    if words[0] == "mgpu" or words[:2] == ["srun", "mgpu"]
]
SET_UP_AND_PREDICT, SET_UP_AND_TEST = [
    code for _, code in blocks(ROOT / "README.md", "sh")[:2]
]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working folder that contains docs/, as a clone does."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_examples_run_one_after_another(page, clone):
    names = {"__name__": "__main__"}
    for name, code in blocks(page, "python"):
        exec(compile(code, name, "exec"), names)


def test_there_are_python_examples():
    assert len(PYTHON_PAGES) >= 12


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
        timeout=500,
    )
    assert result.returncode == 0, result.stderr
    assert "\naccuracy  0.9917\n" in result.stdout
    assert np.load("probabilities.npy").shape == (1797, 10)


def test_the_five_minute_start_begins_as_the_readme_does():
    start = shell_commands(ROOT / "docs/start.md")
    assert [words for words in commands(SET_UP_AND_PREDICT) if words in start] == (
        commands(SET_UP_AND_PREDICT)
    )


def test_readme_and_ci_test_in_the_same_way():
    *_, install, test = SET_UP_AND_TEST.strip().splitlines()
    ci_lines = (ROOT / ".ci/run").read_text().splitlines()
    assert test in ci_lines
    what_is_installed = install.removeprefix("pip install ")
    assert any(
        line.startswith("pip install ") and line.endswith(f" {what_is_installed}")
        for line in ci_lines
    )


@pytest.mark.parametrize("words", MGPU_LINES, ids=lambda words: " ".join(words[1:4]))
def test_command_lines_on_the_pages_are_understood(words, capsys):
    try:
        command.parse(words)
    except SystemExit as end:
        assert end.code == 0, f"{words}: {capsys.readouterr().err}"


def test_the_reference_of_the_command_line_is_what_help_prints(capsys):
    page = ROOT / "docs/reference/command_line.md"
    shown = [text for _, text in blocks(page, "text")]
    lines = shell_commands(page)
    assert [line[1:-1] for line in lines] == [[], *([c] for c in command.COMMANDS)]
    for line, text in zip(lines, shown, strict=True):
        with pytest.raises(SystemExit):
            command.parse(line)
        assert text == capsys.readouterr().out, f"print {' '.join(line)} there anew"


def report_bound_by(stage):
    seconds = 100.0
    return report.Report(
        rows=1,
        seconds=seconds,
        bytes_in=0,
        bytes_out=0,
        replica_rows=(1, 0),
        batch_size=1,
        chunk_rows=1,
        compile_seconds=0.87 * seconds if stage == "compile" else 0.0,
        tried_batches=(),
        back_offs=(),
        shares={
            name: 0.87 * (name == stage or (name, stage) == ("copy_in", "transfer"))
            for name in report.STAGES
        },
    )


def test_each_sentence_of_the_report_is_explained():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    stages = set(re.findall(r"(\w+)-bound:", inspect.getsource(figures)))
    assert stages == {*report.BOUNDS}
    for stage in stages:
        sentence = report_bound_by(stage).bottleneck
        assert sentence.startswith(f"{stage}-bound: 87%")
        _, _, section = page.partition(f"\n### {stage.title()}-bound\n")
        section = re.split(r"\n##", section)[0]
        quoted = " ".join(re.sub(r"^> ", "", section, flags=re.M).split())
        assert quoted.startswith(sentence)
        assert len(quoted) > 2 * len(sentence), f"{stage}: what to do?"


def links(page):
    """The targets of a page's links, except those on other hosts."""
    text = FENCED.sub("", page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not target.startswith(("http", "mailto"))]


def anchors(page):
    """The anchors that Markdown viewers give to the headings of a page."""
    headings = re.findall(r"^#+ +(.*)$", FENCED.sub("", page.read_text()), re.M)
    plain = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in plain}


def test_links_lead_to_files_and_headings():
    broken = []
    for page in PAGES:
        for link in links(page):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name} -> {link}")
    assert not broken
    assert sum("#" in link for page in PAGES for link in links(page)) > 20
