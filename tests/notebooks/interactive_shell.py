"""Inspects the package as people do in IPython and with `help`; prints JSON.

Run as a script, since the package must not have been used before.
"""

import contextlib
import io
import json
import pydoc
import re
import sys

from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

NAMES = ("load", "scope", "Predictor")
IMPORTS = "import numpy; from keras_mgpu_strategy.report import StageClock"
SHOWN = {
    "report": "StageClock(2).report()",
    "batch": "mgpu.HostBatch(3, numpy.zeros((2, 4)))",
    "options": "mgpu.RayOptions(num_actors=2)",
    "file": "mgpu.files.Npy('rows.npy')",
}


def completions(shell, text, jedi):
    shell.Completer.use_jedi = jedi
    with provisionalcompleter():
        found = shell.Completer.completions(text, len(text))
        return [each.text.lstrip(".") for each in found]


def question_mark(shell, name):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        shell.run_line_magic("pinfo", f"mgpu.{name}")
    return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())


def main():
    shell = InteractiveShell.instance()
    shell.run_cell("import keras_mgpu_strategy as mgpu")
    seen = {"names": completions(shell, "mgpu.", jedi=False)}
    seen["imported"] = "tensorflow" in sys.modules
    seen["pinfo"] = {name: question_mark(shell, name) for name in NAMES}
    for jedi in (False, True):
        seen[f"options {jedi}"] = {
            name: completions(shell, f"mgpu.{name}(", jedi) for name in NAMES
        }
        seen[f"methods {jedi}"] = completions(shell, "mgpu.Predictor.predict_", jedi)
    seen["names again"] = completions(shell, "mgpu.", jedi=True)
    for name, source in SHOWN.items():
        shell.run_cell(f"{IMPORTS}; shown = {source}")
        seen[name] = shell.display_formatter.format(shell.user_ns["shown"])[0]
    package = sys.modules["keras_mgpu_strategy"]
    seen["help"] = pydoc.plain(pydoc.render_doc(package))
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
