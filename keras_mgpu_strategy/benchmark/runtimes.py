"""A Keras model in ONNX Runtime and in OpenVINO, on a CPU.

Both are given what tf2onnx makes of the model, traced for one batch. tf2onnx 1.17 works
with TensorFlow 2.18 to 2.21, Keras 3 and tf_keras, NumPy 1 and 2, without the patches
that Keras' own export to ONNX applies. It converts LSTMs, where OpenVINO's converter of
functions of TensorFlow fails.
"""

import functools
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

Call = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
"""Runs one batch of inputs by name; one thread at a time may call it."""


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
        self._names, calls = _CALLS[runtime](onnx, num_replicas)
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        for call in calls:
            self._calls.put(call)

    def predict(self, x: Nest, **_: Any) -> Nest:
        """Runs all rows in batches of one size; the last one is padded."""
        leaves = {_name(i): leaf for i, leaf in enumerate(tf.nest.flatten(x))}
        num_rows = len(leaves[_name(0)])
        inputs = {name: leaves[name] for name in self._names}

        def run(start: int) -> list[np.ndarray]:
            rows = {name: self._batch_of(leaf, start) for name, leaf in inputs.items()}
            call = self._calls.get()
            try:
                return call(rows)
            finally:
                self._calls.put(call)

        with ThreadPoolExecutor(self._num_replicas) as pool:
            batches = pool.map(run, range(0, num_rows, self._batch))
            outputs = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        results = [leaf[:num_rows] for leaf in outputs]
        return tf.nest.pack_sequence_as(self._outputs, results)

    def _batch_of(self, leaf: np.ndarray, start: int) -> np.ndarray:
        rows = leaf[start : start + self._batch]
        short = self._batch - len(rows)
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


def _in_onnxruntime(onnx: bytes, num_replicas: int) -> tuple[list[str], list[Call]]:
    onnxruntime = _imported("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(onnx, options, providers=providers)
    # Without an input that the model does not use.
    names = [each.name for each in session.get_inputs()]
    # It runs in the thread that calls it.
    return names, [functools.partial(session.run, None)] * num_replicas


def _in_openvino(onnx: bytes, num_replicas: int) -> tuple[list[str], list[Call]]:
    core = _imported("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": num_replicas,
        "NUM_STREAMS": num_replicas,
        "INFERENCE_PRECISION_HINT": "f32",  # some CPUs take a narrower one
    }
    compiled = core.compile_model(core.read_model(onnx), "CPU", settings)
    names = [each.get_any_name() for each in compiled.inputs]

    def call_of(request: Any) -> Call:
        # All are made here: threads that make tensors while others run may deadlock.
        tensors = {name: request.get_tensor(name).data for name in names}
        for array in tensors.values():
            array.fill(0)
        request.infer()
        outputs = [tensor.data for tensor in request.output_tensors]

        def call(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            for name, rows in inputs.items():
                tensors[name][:] = rows
            request.infer()
            return [output.copy() for output in outputs]

        return call

    return names, [
        call_of(compiled.create_infer_request()) for _ in range(num_replicas)
    ]


_CALLS = {"onnxruntime": _in_onnxruntime, "openvino": _in_openvino}
