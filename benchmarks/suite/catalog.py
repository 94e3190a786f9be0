"""What can be measured: the models, the contenders and the cases, by name.

Imports no TensorFlow, so that help and errors about flags appear at once.
"""

MODELS: dict[str, tuple[int, ...]] = {
    "tiny": (1024,),
    "mlp": (32, 1024),
    "cnn": (512,),
    "resnet50": (8,),
    "mobilenet": (32,),
    "lstm": (256,),
    "transformer": (64,),
    "big_outputs": (128,),
    "two_inputs": (512,),
}
"""Name -> per-replica batches to measure by default."""

CONTENDERS = (
    "keras",
    "keras_strategy",
    "make_parallel",
    "processes",
    "mgpu_threads",
    "mgpu_mirrored",
    "mgpu_make_parallel",
    "ray",
    "strategy_run",
    "limit",
)

OURS = ("mgpu_threads", "mgpu_mirrored")

CASES = {
    "throughput": "rows per second on many rows",
    "defaults": "the same with each side's default arguments",
    "small_calls": "seconds of one small call on a warm model",
    "memory": "peak anonymous memory from file to file",
    "one_device": "one replica or several on one device",
}

CASE_CONTENDERS: dict[str, tuple[str, ...]] = {
    "throughput": CONTENDERS,
    "defaults": ("keras", "keras_strategy", *OURS),
    "small_calls": ("keras", "keras_strategy", *OURS, "strategy_run"),
    "memory": OURS,
    "one_device": ("mgpu_threads", "mgpu_mirrored", "keras_strategy"),
}
"""Case -> the contenders that it can measure."""

BY_DEFAULT: dict[str, tuple[str, ...]] = {"one_device": ("mgpu_threads",)}
"""Case -> its default contenders, if not all of them."""

NEEDS = {"ray": "ray"}
"""Contender -> a package without which it is left out by default."""

CASE_MODELS = {
    "throughput": ("tiny", "mlp", "cnn", "resnet50"),
    "defaults": ("tiny", "mlp"),
    "small_calls": ("tiny",),
    "memory": ("tiny",),
    "one_device": ("mlp", "cnn"),
}
"""Case -> the models that it measures by default."""
