"""Builds the plugin: `python build_rig.py LIBRIG.SO`; half a minute at most."""

import os
import pathlib
import subprocess
import sys

import tensorflow as tf

HERE = pathlib.Path(__file__).parent
COMPILER = os.environ.get("CXX", "g++")


def build(target):
    """Compiles the sources, all of them at the same time, and links them."""
    target = pathlib.Path(target).resolve()
    compile_flags = tf.sysconfig.get_compile_flags()
    flags = [*compile_flags, "-O2", "-DNDEBUG", "-fPIC", "-w", "-c"]
    objects, running = [], []
    for source in sorted(HERE.glob("*.cc")):
        objects.append(f"{target}.{source.stem}.o")
        command = [COMPILER, *flags, str(source), "-o", objects[-1]]
        running.append(subprocess.Popen(command))
    if any([process.wait() for process in running]):
        raise RuntimeError("The plugin could not be compiled; see above.")
    link_flags = [*tf.sysconfig.get_link_flags(), "-lpthread"]
    command = [COMPILER, "-shared", *objects, *link_flags, "-o", str(target)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    build(sys.argv[1])
