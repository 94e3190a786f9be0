"""A Keras model in ONNX Runtime and in OpenVINO, on a CPU.

Both are given what tf2onnx makes of the model, traced for one batch. tf2onnx 1.17 works
with TensorFlow 2.18 to 2.21, Keras 3 and tf_keras, NumPy 1 and 2, without the patches
that Keras' own export to ONNX applies. It converts LSTMs, where OpenVINO's converter of
functions of TensorFlow fails.
"""

import importlib.util
import logging
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.benchmark.options import FEW
from keras_mgpu_strategy.models.libraries import input_spec_of
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import Nest

Leaves = list[np.ndarray]
Call = Callable[[Leaves], Leaves]


def missing(runtime: str) -> bool:
    """Whether a runtime, or what converts models for it, is not installed."""
    return not all(map(importlib.util.find_spec, (runtime, "tf2onnx")))


def _imported(module: str) -> Any:
    return import_extra(module, "compare", "Comparing with other runtimes")


class InRuntime:
    """A Keras model that another runtime runs, with one thread for each replica."""

    def __init__(
        self, model: Any, runtime: str, batch_size: int | None, num_replicas: int
    ):
        self._batch = batch_size or FEW
        self._num_replicas = num_replicas
        onnx, self._outputs = _converted(model, self._batch)
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        for call in _CALLS[runtime](onnx, num_replicas):
            self._calls.put(call)

    def predict(self, x: Nest, **_: Any) -> Nest:
        """Runs all rows in batches of one size; the last one is padded."""
        leaves = tf.nest.flatten(x)
        num_rows = len(leaves[0])

        def run(start: int) -> Leaves:
            rows = [leaf[start : start + self._batch] for leaf in leaves]
            call = self._calls.get()
            try:
                return call([_padded(leaf, self._batch) for leaf in rows])
            finally:
                self._calls.put(call)

        with ThreadPoolExecutor(self._num_replicas) as pool:
            batches = pool.map(run, range(0, num_rows, self._batch))
            outputs = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        results = [leaf[:num_rows] for leaf in outputs]
        return tf.nest.pack_sequence_as(self._outputs, results)


def _padded(rows: np.ndarray, count: int) -> np.ndarray:
    short = count - len(rows)
    return np.concatenate([rows, rows[:1].repeat(short, 0)]) if short else rows


def _converted(model: Any, batch: int) -> tuple[bytes, Nest]:
    """The model as ONNX, inputs and outputs in flat order, and the outputs' nest."""
    tf2onnx = _imported("tf2onnx")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    spec = input_spec_of(model)
    signature = [
        tf.TensorSpec((batch, *leaf.shape[1:]), leaf.dtype, _name(position))
        for position, leaf in enumerate(tf.nest.flatten(spec))
    ]
    outputs: Nest = None

    @tf.function(input_signature=signature, autograph=False)
    def call(*leaves: tf.Tensor) -> list[tf.Tensor]:
        nonlocal outputs
        outputs = model(tf.nest.pack_sequence_as(spec, leaves), training=False)
        return tf.nest.flatten(outputs)

    proto, _ = tf2onnx.convert.from_function(call, signature)
    return proto.SerializeToString(), tf.nest.map_structure(lambda _: 0, outputs)


def _name(position: int) -> str:
    return f"leaf_{position}"


def _in_onnxruntime(onnx: bytes, num_replicas: int) -> list[Call]:
    onnxruntime = _imported("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        onnx, options, providers=["CPUExecutionProvider"]
    )
    # An input that the model does not use is none of the session's.
    known = {each.name for each in session.get_inputs()}

    def call(leaves: Leaves) -> Leaves:
        named = {_name(position): leaf for position, leaf in enumerate(leaves)}
        return session.run(None, {name: named[name] for name in known})

    return [call] * num_replicas  # it runs in the thread that calls it


def _in_openvino(onnx: bytes, num_replicas: int) -> list[Call]:
    core = _imported("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": num_replicas,
        "NUM_STREAMS": num_replicas,
        "INFERENCE_PRECISION_HINT": "f32",  # some CPUs take a narrower one
    }
    compiled = core.compile_model(core.read_model(onnx), "CPU", settings)
    names = [each.get_any_name() for each in compiled.inputs]

    def call_of(request: Any) -> Call:
        def call(leaves: Leaves) -> Leaves:
            named = {_name(position): leaf for position, leaf in enumerate(leaves)}
            inputs = {name: named[name] for name in names}
            return list(request.infer(inputs, share_inputs=True).to_tuple())

        return call

    return [call_of(compiled.create_infer_request()) for _ in range(num_replicas)]


_CALLS = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}
