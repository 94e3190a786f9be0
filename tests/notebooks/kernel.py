"""Notebooks and live kernels of Jupyter, each in its own process.

`execute` runs a notebook as nbclient does, and returns the outputs that would be saved.
A test can talk to a `Kernel` while it runs, and interrupt it. Both run this interpreter
and this checkout, in an empty folder, without the user's settings.
"""

import contextlib
import os
import pathlib

import nbclient
import nbformat
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.manager import KernelManager

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 300  # no test waits as long unless it hangs
_NAME = "tested"


def execute(cells, folder, *, allow_errors=False):
    """Runs the code of cells in a new kernel; returns the list of outputs of each.

    Outputs are those of a saved notebook: dicts by `output_type`.
    """
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=made)
    with _kernel_spec(folder) as env:
        nbclient.NotebookClient(
            notebook, kernel_name=_NAME, timeout=SECONDS, allow_errors=allow_errors
        ).execute(env=env, cwd=str(folder))
    nbformat.validate(notebook)
    return [cell.outputs for cell in notebook.cells]


class Kernel:
    """A kernel that runs in a folder until its `with` block ends."""

    def __init__(self, folder):
        self._folder = folder

    def __enter__(self):
        with _kernel_spec(self._folder) as env:
            self._manager = KernelManager(kernel_name=_NAME)
            self._manager.start_kernel(env=env, cwd=str(self._folder))
        self._client = self._manager.client()
        self._client.start_channels()
        try:
            self._client.wait_for_ready(timeout=SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def start(self, code):
        """Starts a cell; returns it, to be watched."""
        return Cell(self._client, self._client.execute(code, allow_stdin=False))

    def run(self, code):
        """Runs a cell to its end; fails if the cell does."""
        cell = self.start(code).end()
        assert cell.error is None, "\n".join(cell.error["traceback"])
        return cell

    def interrupt(self):
        """Does what the stop button does."""
        self._manager.interrupt_kernel()


class Cell:
    """A cell that a live kernel runs, and what has arrived from it so far."""

    def __init__(self, client, number):
        self._client, self._number = client, number
        self._is_idle = False
        self._streams = {"stdout": "", "stderr": ""}
        self.displays = []  # each: the data of all its states, by MIME type
        self.result = None  # the data of the last line
        self.error = None  # `ename`, `evalue` and `traceback`
        self._by_id = {}

    @property
    def out(self):
        """What was written to standard output."""
        return self._streams["stdout"]

    @property
    def err(self):
        """What was written to standard error."""
        return self._streams["stderr"]

    def until(self, is_reached):
        """Waits for messages until `is_reached(cell)`, while the cell runs."""
        while not is_reached(self):
            assert not self._is_idle, f"the cell has ended: {self.out}{self.error}"
            self._take()
        return self

    def end(self):
        """Waits for the end of the cell."""
        return self.until(lambda cell: cell._is_idle)

    def _take(self):
        message = self._client.get_iopub_msg(timeout=SECONDS)
        if message["parent_header"].get("msg_id") != self._number:
            return
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            self._streams[content["name"]] += content["text"]
        elif kind == "display_data":
            self.displays.append([content["data"]])
            number = content.get("transient", {}).get("display_id")
            self._by_id[number] = self.displays[-1]
        elif kind == "update_display_data":
            self._by_id[content["transient"]["display_id"]].append(content["data"])
        elif kind == "execute_result":
            self.result = content["data"]
        elif kind == "error":
            self.error = content
        elif kind == "status":
            self._is_idle = content["execution_state"] == "idle"


@contextlib.contextmanager
def _kernel_spec(folder):
    """Makes a kernel that is found by name; yields the environment to start it in."""
    hidden = pathlib.Path(folder) / ".jupyter"
    write_kernel_spec(hidden / "kernels" / _NAME)
    ours = {
        "JUPYTER_PATH": str(hidden),
        "JUPYTER_CONFIG_DIR": str(hidden / "config"),
        "JUPYTER_RUNTIME_DIR": str(hidden / "runtime"),
        "IPYTHONDIR": str(hidden / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    # With it, a kernel would miss what code other than Python's writes.
    env = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    try:
        yield env
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
