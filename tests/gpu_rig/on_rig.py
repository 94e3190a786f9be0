"""Runs a command on simulated GPUs; their settings precede it.

    python tests/gpu_rig/on_rig.py RIG_GPUS=8 RIG_KERNEL_US=10000 mgpu devices

The plugin is built into `build/` first unless it is up to date there.
"""

import importlib.metadata
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def environment(plugin, settings):
    """Variables of a process in which TensorFlow finds the simulated GPUs."""
    paths = [*map(str, (ROOT, HERE, HERE / "start")), os.environ.get("PYTHONPATH")]
    return {
        **os.environ,
        # Has a stand-in for nvidia-smi that reports how much memory there is.
        "PATH": os.pathsep.join([str(HERE / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(plugin),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **settings,
    }


def built():
    """The path of the plugin for the TensorFlow that is installed."""
    version = importlib.metadata.version("tensorflow")
    path = ROOT / "build" / f"librig-{version}.so"
    newest = max(source.stat().st_mtime for source in HERE.glob("*.cc"))
    if not path.exists() or path.stat().st_mtime < newest:
        path.parent.mkdir(exist_ok=True)
        builder = [sys.executable, str(HERE / "build_rig.py"), str(path)]
        subprocess.run(builder, check=True)
    return path


def main(words):
    """Replaces this process with the command."""
    settings = {}
    while words and words[0].startswith("RIG_"):
        name, _, settings[name] = words.pop(0).partition("=")
    if not words:
        sys.exit(__doc__)
    os.execvpe(words[0], words, environment(built(), settings))


if __name__ == "__main__":
    main(sys.argv[1:])
