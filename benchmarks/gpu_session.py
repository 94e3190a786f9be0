"""Measures everything on a machine with a GPU, in one go.

    python benchmarks/gpu_session.py --output=FOLDER

Each step runs in a process with its own time limit, so that one that fails or hangs
does not end the others. After each step, FOLDER has the results: `steps.jsonl`, a line
for each, and `summary.md`, with the name of the card; next to them are the reports of
the benchmark. Needs no network, and no packages except TensorFlow, Keras, NumPy and
absl-py. Changes none of the card's settings.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import app, flags
from result_tables import table
from suite import provenance

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
RIG = ROOT / "tests" / "gpu_rig"

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
_SECONDS = flags.DEFINE_float("seconds", 570, "Of all steps together.")
_QUICK = flags.DEFINE_boolean("quick", False, "Small sizes, to try the script.")
_STEPS = flags.DEFINE_list("steps", [], "Beginnings of names. Default: all steps.")


@dataclasses.dataclass(frozen=True)
class Step:
    """Something to measure in a new process.

    Args:
        name: Its name.
        words: Python's arguments.
        seconds: Its time limit.
        is_right: Whether the result, the last line of the output, is right; None if
            the exit code says so.
    """

    name: str
    words: list[str]
    seconds: float = 90
    is_right: Callable[[Any], bool] | None = None


def _own(name: str, *arguments: Any) -> Step:
    words = [str(HERE / "gpu_steps.py"), name, json.dumps(arguments)]
    label = " ".join([name, *(word for word in arguments if isinstance(word, str))])
    return Step(label, words, 120, lambda result: not result.get("wrong"))


def _case(name: str, is_right: Callable[[Any], bool], *arguments: Any) -> Step:
    """A case of the tests on simulated GPUs."""
    words = [str(RIG / "child.py"), f"cases_{name}", json.dumps(arguments)]
    label = " ".join(["case", name, *map(str, arguments)])
    return Step(label, words, is_right=is_right)


def _benchmark(name: str, seconds: float, *words: str) -> Step:
    program = [str(HERE / "predict_benchmark.py"), "--devices=gpu"]
    size = ["--batch=64", "--rows=640", "--repetitions=1"] if _QUICK.value else []
    to = [f"--output={_OUTPUT.value}", f"--name={name}"]
    return Step(f"benchmark {name}", [*program, *words, *size, *to], seconds)


def _steps() -> list[Step]:
    quick, engines = _QUICK.value, ("threads", "mirrored")
    models = "mlp" if quick else "mlp,cnn,resnet50"
    ways = "keras_strategy,mgpu_threads,mgpu_mirrored"
    return [
        _own("card"),
        *(_own("exact", engine) for engine in engines),
        *(_own("reduced", engine) for engine in engines),
        _own("ties", "threads"),
        *(_own("bus", engine, quick) for engine in engines),
        *(_own("compiled", engine, quick) for engine in engines),
        *(_own("padded", engine, quick) for engine in engines),
        _case("kinds.others", lambda wrong: wrong == [], 1),
        *(_case("runs.freed", bool, engine) for engine in engines),
        *(
            _case("runs.growth", lambda grown: grown <= 1 << 16, engine, 100)
            for engine in engines
        ),
        *(_own("overlap", engine, quick) for engine in engines),
        _benchmark(
            "throughput",
            240,
            "--replicas=1",
            f"--model={models}",
            *("--seconds=1", "--repetitions=3"),
            f"--contenders=keras,{ways},limit",
        ),
        *(
            _own("memory", kind, engine, quick)
            for kind in ("rows", "results", "activations")
            for engine in engines
        ),
        _benchmark(
            "one_device",
            240,
            "--replicas_per_device=1,2,4",
            "--model=mlp",
            *("--batch=1024", "--rows=131072", "--repetitions=3"),
            f"--contenders={ways}",
        ),
        # Without XLA, which would compile each of its many models.
        dataclasses.replace(
            _case("matrix.matrix", lambda wrong: wrong == [], 1, 1, False), seconds=400
        ),
    ]


def _run(step: Step, seconds: float) -> dict[str, Any]:
    """The outcome of a step that may take this many seconds."""
    paths = [str(ROOT), str(RIG), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *step.words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=max(seconds, 1))
        found = _judged(step, process.returncode, out)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        found = {"outcome": f"not done in {seconds:.0f} s"}
    found["errors"] = "" if found["outcome"] == "right" else errors[-3000:]
    return {"step": step.name, "seconds": round(time.monotonic() - began, 1), **found}


def _judged(step: Step, code: int, out: str) -> dict[str, Any]:
    if code != 0:
        return {"outcome": f"exit code {code}"}
    if step.is_right is None:
        return {"outcome": "right"}
    result = json.loads(out.splitlines()[-1])
    return {"outcome": "right" if step.is_right(result) else "wrong", "result": result}


def _summary(found: list[dict[str, Any]]) -> str:
    card = found[0].get("result", {}).get("name", "unknown")
    lines = [
        [each["step"], each["outcome"], each["seconds"], _short(each.get("result", ""))]
        for each in found
    ]
    command = " ".join(["python", "benchmarks/gpu_session.py", *sys.argv[1:]])
    text = table(["step", "outcome", "seconds", "result"], lines)
    return f"# {card}\n\n{provenance.shown(provenance.describe(), command)}\n\n{text}"


def _short(result: Any) -> str:
    return json.dumps(result, default=str).replace("|", "/")[:600] if result else ""


def main(_: list[str]) -> None:
    """Runs the steps; the exit code is 1 if one failed."""
    folder = pathlib.Path(_OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "steps.jsonl").unlink(missing_ok=True)
    ends = time.monotonic() + _SECONDS.value
    chosen = tuple(_STEPS.value) or ("",)
    found = []
    for step in _steps():
        if step.name != "card" and not step.name.startswith(chosen):
            continue
        left = ends - time.monotonic()
        if left < 5:
            found.append({"step": step.name, "outcome": "no time left", "seconds": 0})
        else:
            found.append(_run(step, min(step.seconds, left)))
        print(f"{found[-1]['step']}: {found[-1]['outcome']}", flush=True)
        with open(folder / "steps.jsonl", "a", encoding="utf-8") as lines:
            lines.write(json.dumps(found[-1]) + "\n")
        (folder / "summary.md").write_text(_summary(found), "utf-8")
    sys.exit(any(each["outcome"] != "right" for each in found))


if __name__ == "__main__":
    app.run(main)
