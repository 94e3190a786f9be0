"""The helpers that run notebooks see what a reader of a notebook sees."""

import pytest

from tests.notebooks import kernel


def test_a_notebook(tmp_path):
    cells = [
        "import os, sys; x = 1; print('warned', file=sys.stderr)",
        "print(os.getcwd()); x + 1",
        "from IPython.display import display\n"
        "handle = display({'text/plain': 'a'}, raw=True, display_id=True)\n"
        "handle.update({'text/plain': 'b'}, raw=True)",
        "1 / 0",
    ]
    first, second, third, fourth = kernel.execute(cells, tmp_path, allow_errors=True)
    assert [(output["name"], output["text"]) for output in first] == [
        ("stderr", "warned\n")
    ]
    assert second[0]["text"] == f"{tmp_path}\n"
    assert second[1]["data"] == {"text/plain": "2"}
    assert [output["data"] for output in third] == [{"text/plain": "b"}]
    assert fourth[0]["ename"] == "ZeroDivisionError"


def test_a_live_kernel_is_interrupted(tmp_path):
    with kernel.Kernel(tmp_path) as live:
        cell = live.start("import sys\nprint('begun', flush=True)\nwhile True: pass")
        cell.until(lambda cell: "begun" in cell.out)
        live.interrupt()
        assert cell.end().error["ename"] == "KeyboardInterrupt"
        assert live.run("print(1, file=sys.stderr); 2").result == {"text/plain": "2"}
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            live.run("1 / 0")
