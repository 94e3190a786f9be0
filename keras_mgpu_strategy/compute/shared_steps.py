"""One step for all replicas whose devices share the host's memory.

TensorFlow optimizes a function for each device that it runs on. The parts of a CPU have
no threads of their own, so a step that only reads runs on one of them for all.
"""

import tensorflow as tf

from keras_mgpu_strategy.compute.compiled import CompiledStep
from keras_mgpu_strategy.compute.shared_traces import SharedTraces
from keras_mgpu_strategy.compute.signatures import Signature, example_inputs
from keras_mgpu_strategy.compute.transfers import InPlace
from keras_mgpu_strategy.models import only_reads


def serves_all(step: CompiledStep, signature: Signature, traces: SharedTraces) -> bool:
    """Whether other replicas may run one replica's step; readies it if so."""
    if not (step.device and traces.has(signature)):
        return False
    graph = step.function.graph
    # Those that are frozen do, and their definition holds all weights.
    if signature.step != "frozen" and not only_reads(graph.as_graph_def()):
        return False
    stacks = [op for op in graph.get_operations() if op.type == "TensorListStack"]
    shapes = [op.outputs[0].shape[1:] for op in stacks]
    is_known = all(shape.is_fully_defined() for shape in shapes)
    if is_known and signature.step != "xla":
        _ready(step, signature)
    return True


def _ready(step: CompiledStep, signature: Signature) -> None:
    """Runs it on no rows: replicas that begin at once would each optimize it."""
    rows = tf.nest.flatten(example_inputs(signature.spec, 0))
    with tf.device(step.device):
        step.at(0, 0)(*InPlace(step.device).load(rows))
