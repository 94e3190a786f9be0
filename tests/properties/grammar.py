"""Which layers may follow which: a table of what each takes and gives.

The table has its own rules for shapes, not Keras', so that graphs can be drawn without
building a layer. Values stay within a few units of 0, so that rounding errors of a sum
stay below the tolerance of the comparison.
"""

import dataclasses
import math
from collections.abc import Callable

from tests.properties.spec import Axis, Graph, Node

FLOATS = ("float32", "float64")
INTEGERS = ("int32", "int64", "uint8")
NUM_IDS = 8
"""Whole numbers of inputs are below it, so that an Embedding knows them."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What is known about a tensor.

    Args:
        shape: Of a row.
        dtype: Of its values.
        is_exact: Whether it has the same bits in a batch of any shape, so that it may
            be truncated to integers.
        is_masked: Whether it has a Keras mask, which few layers take.
        is_ids: Whether it holds integers below `NUM_IDS`.
    """

    shape: tuple[Axis, ...]
    dtype: str = "float32"
    is_exact: bool = False
    is_masked: bool = False
    is_ids: bool = False

    @property
    def is_float(self) -> bool:
        """Whether layers with weights take it: they need to know the last axis."""
        is_known = isinstance(self.shape[-1], int)
        return self.dtype in FLOATS and not self.is_masked and is_known


Gives = Callable[..., Tensor]


@dataclasses.dataclass(frozen=True)
class Op:
    """A kind of layer.

    Args:
        takes: Whether it can be called on some tensors.
        gives: Its node and those tensors -> its result.
        num_sources: Number of tensors.
        sizes: What `Node.size` may be.
        dtypes: What `Node.dtype` may be.
        has_weights: Whether sharing it means anything.
    """

    takes: Callable[..., bool]
    gives: Gives
    num_sources: int = 1
    sizes: tuple[int, ...] = (1,)
    dtypes: tuple[str, ...] = ("float32",)
    has_weights: bool = False


def result_of(node: Node, tensors: list[Tensor]) -> Tensor:
    """What a node adds to the tensors of a graph."""
    return OPS[node.op].gives(node, *(tensors[source] for source in node.sources))


def tensors_of(graph: Graph) -> list[Tensor]:
    """All tensors of a graph: inputs first, then the result of each node."""
    tensors = [input_tensor(x.shape, x.dtype) for x in graph.inputs]
    for node in graph.nodes:
        tensors.append(result_of(node, tensors))
    return tensors


def input_tensor(shape: tuple[Axis, ...], dtype: str) -> Tensor:
    """The tensor of an input."""
    return Tensor(shape, dtype, is_exact=True, is_ids=dtype in INTEGERS)


def _of_rank(*ranks: int) -> Callable[[Tensor], bool]:
    return lambda x: x.is_float and len(x.shape) in ranks


def _is_sequence(x: Tensor) -> bool:
    return x.dtype in FLOATS and len(x.shape) == 2


def _is_fixed(x: Tensor) -> bool:
    return all(isinstance(axis, int) for axis in x.shape)


def _is_plain(x: Tensor) -> bool:
    return not x.is_masked


def _are_alike(x: Tensor, y: Tensor) -> bool:
    return x.is_float and y.is_float and x.shape == y.shape


def _can_join(x: Tensor, y: Tensor) -> bool:
    floats = x.is_float and y.is_float
    return floats and len(x.shape) == len(y.shape) and x.shape[:-1] == y.shape[:-1]


def _features(node: Node, x: Tensor) -> Tensor:
    """Another last axis, as of a Dense or a padded convolution."""
    return Tensor((*x.shape[:-1], node.size), node.dtype)


def _same(node: Node, *tensors: Tensor) -> Tensor:
    exact = all(x.is_exact for x in tensors)
    return Tensor(tensors[0].shape, node.dtype, is_exact=exact)


def _inexact(node: Node, x: Tensor) -> Tensor:
    return Tensor(x.shape, node.dtype)


def _halved(axis: Axis) -> Axis:
    if isinstance(axis, int):
        return -(-axis // 2)
    name, _, divisor = axis.partition("/")
    return f"{name}/{2 * int(divisor or 1)}"


def _pooled(node: Node, x: Tensor) -> Tensor:
    inner = tuple(map(_halved, x.shape[:-1]))
    return Tensor((*inner, x.shape[-1]), node.dtype, is_exact=x.is_exact)


def _cut(node: Node, x: Tensor) -> Tensor:
    """A convolution of width 2 without padding."""
    inner = tuple(axis - 1 for axis in x.shape[:-1] if isinstance(axis, int))
    return Tensor((*inner, node.size), node.dtype)


def _has_room(x: Tensor) -> bool:
    sizes = [axis for axis in x.shape[:-1] if isinstance(axis, int) and axis > 1]
    return len(x.shape) in (2, 3) and len(sizes) == len(x.shape) - 1


def _last(node: Node, x: Tensor) -> Tensor:
    return Tensor(x.shape[-1:], node.dtype)


def _sized(node: Node, x: Tensor) -> Tensor:
    return Tensor((node.size,), node.dtype)


def _sequence(node: Node, x: Tensor) -> Tensor:
    return Tensor((x.shape[0], node.size), node.dtype, is_masked=x.is_masked)


def _embedded(node: Node, x: Tensor) -> Tensor:
    masked = node.op == "masked_embedding"
    return Tensor((*x.shape, node.size), node.dtype, is_masked=masked)


def _joined(node: Node, x: Tensor, y: Tensor) -> Tensor:
    exact = x.is_exact and y.is_exact
    width = sum(axis for axis in (x.shape[-1], y.shape[-1]) if isinstance(axis, int))
    return Tensor((*x.shape[:-1], width), node.dtype, is_exact=exact)


def _layer_dtype(node: Node, x: Tensor) -> str:
    """Keras casts the floats that a layer is called on, and nothing else."""
    return node.dtype if x.dtype in FLOATS else x.dtype


def _flat(node: Node, x: Tensor) -> Tensor:
    width = math.prod(axis for axis in x.shape if isinstance(axis, int))
    return Tensor((width,), _layer_dtype(node, x), is_exact=x.is_exact)


def _repeated(node: Node, x: Tensor) -> Tensor:
    return Tensor((node.size, *x.shape), _layer_dtype(node, x), is_exact=x.is_exact)


def _cast(node: Node, x: Tensor) -> Tensor:
    return Tensor(x.shape, node.dtype, is_exact=True)


_FEW = (1, 2, 5)
_FLOAT_LAYER = {"sizes": _FEW, "dtypes": FLOATS, "has_weights": True}

# The simplest first: examples that fail are shrunk towards the top.
OPS = {
    "dense": Op(_of_rank(1, 2, 3), _features, **_FLOAT_LAYER),
    "tanh": Op(lambda x: x.is_float, _inexact),
    "relu": Op(lambda x: x.is_float, _same),
    "flatten": Op(lambda x: _is_plain(x) and _is_fixed(x), _flat),
    "scale": Op(_is_plain, _inexact, dtypes=FLOATS),
    "cast_float": Op(lambda x: x.is_float, _same, dtypes=FLOATS),
    "cast": Op(
        lambda x: x.is_exact and _is_plain(x), _cast, dtypes=("int32", "int64", "bool")
    ),
    "cast_byte": Op(
        lambda x: x.is_exact and x.dtype not in FLOATS, _cast, dtypes=("uint8",)
    ),
    "repeat": Op(lambda x: x.is_float and len(x.shape) == 1, _repeated, sizes=(2, 3)),
    "add": Op(_are_alike, _same, 2),
    "multiply": Op(_are_alike, _same, 2),
    "maximum": Op(_are_alike, _same, 2),
    "concatenate": Op(_can_join, _joined, 2),
    "embedding": Op(lambda x: x.is_ids and len(x.shape) < 3, _embedded, **_FLOAT_LAYER),
    "masked_embedding": Op(
        lambda x: x.is_ids and len(x.shape) == 1, _embedded, **_FLOAT_LAYER
    ),
    "global_average": Op(lambda x: _is_sequence(x) or _of_rank(3)(x), _last),
    "global_max": Op(_of_rank(2, 3), _last),
    "max_pool": Op(_of_rank(2, 3), _pooled),
    "average_pool": Op(
        _of_rank(2, 3), lambda node, x: _inexact(node, _pooled(node, x))
    ),
    "convolution": Op(_of_rank(2, 3), _features, **_FLOAT_LAYER),
    "cut_convolution": Op(lambda x: x.is_float and _has_room(x), _cut, **_FLOAT_LAYER),
    "batch_norm": Op(lambda x: x.is_float, _inexact, has_weights=True),
    "layer_norm": Op(lambda x: x.is_float, _inexact, has_weights=True),
    "attention": Op(_of_rank(2), _inexact, sizes=(1, 2), has_weights=True),
    "simple_rnn": Op(_is_sequence, _sized, **_FLOAT_LAYER),
    "gru": Op(_is_sequence, _sized, sizes=(1, 3), has_weights=True),
    "lstm": Op(_is_sequence, _sized, **_FLOAT_LAYER),
    "lstm_sequence": Op(_is_sequence, _sequence, sizes=(1, 3), has_weights=True),
}
