"""The flags of `mgpu predict`. Imports no TensorFlow."""

import functools
from collections.abc import Callable
from typing import Any

from absl import flags

_LOW_PRECISIONS = ("bfloat16", "float16")

_text = flags.DEFINE_string
_yes_or_no = flags.DEFINE_boolean
_count = functools.partial(flags.DEFINE_integer, lower_bound=1)


def _one_of(*values: str) -> Callable[..., Any]:
    return functools.partial(flags.DEFINE_enum, enum_values=values)


# How to define it, name, default, and help that begins with the allowed values.
_FLAGS: tuple[tuple[Callable[..., Any], str, Any, str], ...] = (
    (
        _text,
        "output",
        None,
        "<PATH>: What to write, required; see Output below.",
    ),
    (
        _one_of("predict_proba", "predict", "predict_classes"),
        "method",
        "predict_proba",
        "What to write: probabilities (the default), the model's raw outputs, or "
        "class indices.",
    ),
    (
        _yes_or_no,
        "from_logits",
        False,
        "The model's last layer has no softmax or sigmoid: apply it.",
    ),
    (
        _yes_or_no,
        "resume",
        False,
        "Resume where an earlier run of the same command stopped; begin where there "
        "was none; do nothing where it is finished. With --batch_size, the finished "
        "output is byte for byte that of a run that was never stopped.",
    ),
    (_yes_or_no, "overwrite", False, "Replace the output, finished or not."),
    (
        _text,
        "shard",
        None,
        "<I/N>: Run one of N ranges of the rows, I from 0 to N-1, such as 2/8, so that "
        "N machines share a job. mgpu merge completes the output.",
    ),
    (
        _one_of("raise", "warn", "ignore"),
        "on_nonfinite",
        "warn",
        "What to do about results that are NaN or infinite. Default: warn.",
    ),
    (
        flags.DEFINE_list,
        "stop_on",
        None,
        "<SIGNAL>: One or several of USR1, USR2, XCPU and QUIT, such as USR1 for "
        "Slurm's --signal=USR1@60: end the run after the batch in hand, with its rows "
        "safe, as Ctrl-C, SIGTERM and SIGHUP do.",
    ),
    (
        _text,
        "labels",
        None,
        "<FILE>: A .npy file of the true classes, one per row: prints the accuracy. "
        "Goes with a .npy output.",
    ),
    (
        flags.DEFINE_list,
        "columns",
        None,
        "<A,B>: Columns of a Parquet or CSV file to read: those of the model's one "
        "input, or one for each input, in order. Default: by the inputs' names.",
    ),
    (
        _text,
        "read_options",
        None,
        "<JSON>: How a CSV file is written, by arguments of pandas.read_csv, such as "
        """'{"sep": ";", "decimal": ","}', or '{"header": null}' if no line names """
        "the columns, which are then called 0, 1 and so on.",
    ),
    (
        _yes_or_no,
        "missing_as_nan",
        None,
        "Missing values in a Parquet or CSV file are NaN where the model takes floats. "
        "Default: they end the run.",
    ),
    (
        _text,
        "image_size",
        None,
        "<HxW>: Resize images to this height and width, such as 224x224. Default: what "
        "the model declares.",
    ),
    (
        _text,
        "preprocess",
        None,
        "<none|unit|imagenet|MODULE:FUNCTION>: What is done to the pixels of images: "
        "left from 0 to 255 (the default), scaled to 0 to 1, scaled as DenseNet takes "
        "them, or given in batches to a function of a module, on PYTHONPATH or in this "
        "folder.",
    ),
    (
        _one_of("raise", "skip"),
        "on_bad_file",
        None,
        "Images that cannot be decoded end the run (the default), or are rows "
        "without a result.",
    ),
    (
        _text,
        "devices",
        None,
        "<LIST>: Devices to run on, such as gpu:0,gpu:1 or cpu:0, or gpu or cpu for "
        "all of a kind. Default: every GPU, or the CPU where there is none. "
        "mgpu devices lists them.",
    ),
    (
        _count,
        "replicas_per_device",
        1,
        "<N>: Copies of the model on each device. Default: 1.",
    ),
    (
        _count,
        "batch_size",
        None,
        "<N>: Rows of one batch, shared among the replicas. Default: chosen for you.",
    ),
    (
        _one_of("threads", "mirrored", "ray"),
        "engine",
        None,
        "Devices each at their own pace (threads, the default), all in step "
        "(mirrored), or each in a process of its own (ray).",
    ),
    (
        _count,
        "num_actors",
        None,
        "<N>: Processes under --engine=ray. Default: one for each GPU, or for each "
        "machine where there is none.",
    ),
    (
        _count,
        "cpus_per_actor",
        None,
        "<N>: CPU cores of a process under --engine=ray. Default: 1 with a GPU, else "
        "an equal share of the machine.",
    ),
    (
        _text,
        "ray_address",
        None,
        "<ADDRESS>: A running Ray cluster to join. Default: that of the environment "
        "variable RAY_ADDRESS, else Ray on this machine.",
    ),
    (
        _one_of("float32", *_LOW_PRECISIONS),
        "precision",
        None,
        "Compute in this precision. Default: as the model was saved.",
    ),
    (
        flags.DEFINE_list,
        "custom_objects",
        None,
        "<MODULE>: A module with classes and functions that the model is made of, on "
        "PYTHONPATH or in this folder. It is imported, which runs its code.",
    ),
    (
        _yes_or_no,
        "safe_mode",
        True,
        "Load a model that holds Python code (Lambda layers) or names code of others, "
        "too, which then runs on this machine. For files that you trust.",
    ),
    (
        _yes_or_no,
        "jit_compile",
        None,
        "Compile the model with XLA, or do not. Default: on GPUs where it can be.",
    ),
    (
        _text,
        "profile",
        None,
        "<DIR>: Folder for a trace that TensorBoard's profiler reads.",
    ),
    (
        _one_of("0", "1", "2", "auto"),
        "verbose",
        "auto",
        "Progress on the standard error stream: none, a bar, a line every 30 s, or a "
        "bar on a terminal and lines elsewhere (the default).",
    ),
)


def define_flags(flag_values: flags.FlagValues) -> None:
    """Adds the flags of `mgpu predict`."""
    for define, name, default, text in _FLAGS:
        define(name=name, default=default, help=text, flag_values=flag_values)
