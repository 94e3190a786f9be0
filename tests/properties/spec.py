"""What is drawn: plain values whose `repr` is Python that makes them again.

Nothing here depends on Keras or TensorFlow. The `repr` of a `Case` is enough to build
the model, the rows and the call again.
"""

import dataclasses
from typing import TypeAlias

Axis: TypeAlias = int | str
"""A length, or the name of one that differs from call to call; "a/2" is half of "a"."""

AXES: tuple[str, ...] = ("a", "b")
"""The names of lengths that are drawn; the others follow from them."""


@dataclasses.dataclass(frozen=True)
class Input:
    """One input of a model.

    Args:
        name: What `keras.Input` is called.
        shape: Of a row.
        dtype: What the model declares.
        given: Of the arrays that are passed.
    """

    name: str
    shape: tuple[Axis, ...]
    dtype: str = "float32"
    given: str = "float32"


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of a layer.

    Args:
        op: A name in `grammar.OPS`.
        sources: Numbers of the tensors that it is called on: inputs first, then the
            results of nodes.
        size: Units, filters, repetitions: what the op makes of it.
        dtype: Of the layer.
        shares: Number of the node, from 0, whose layer is called again.
    """

    op: str
    sources: tuple[int, ...]
    size: int = 1
    dtype: str = "float32"
    shares: int | None = None


@dataclasses.dataclass(frozen=True)
class Graph:
    """A functional model.

    Args:
        inputs: Its inputs.
        nodes: Its layers, in an order in which they can be called.
        outputs: Numbers of the tensors that it returns.
        takes, gives: How inputs and outputs are nested; see `nests.nested`.
        seed: Of the weights.
    """

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    takes: str = "one"
    gives: str = "one"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A model with replicas and an engine, for many calls.

    Args:
        graph: The model.
        num_replicas: How many replicas it has.
        engine: As in `mgpu.Predictor`.
        origin: Where the Predictor's model comes from: "rebuilt" from one that was
            built outside the scope, built "in scope", or "loaded" from a file.
        feeding: How inputs are nested when they are passed; see `feeding.FORMS`.
        batch_size: The global batch of most calls.
    """

    graph: Graph
    num_replicas: int = 1
    engine: str = "threads"
    origin: str = "rebuilt"
    feeding: str = "declared"
    batch_size: int = 1


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of a predict method.

    Args:
        deployment: What is called.
        source: What the rows are in; see `feeding.SOURCES`.
        batches: Number of rows of each batch of a stream, or of the array.
        results: Method, or suffix of the file, that takes the results.
        has_batch_size: Whether the batch size is given, or left to the Predictor.
        element: What a stream yields: "x", "(x,)" or "(x, y)".
        lengths: Of the axes `AXES`, for each batch in turn.
    """

    deployment: Deployment
    source: str = "array"
    batches: tuple[int, ...] = (1,)
    results: str = "predict"
    has_batch_size: bool = True
    element: str = "(x,)"
    lengths: tuple[tuple[int, int], ...] = ((3, 4),)

    @property
    def num_rows(self) -> int:
        """Rows of all batches."""
        return sum(self.batches)

    @property
    def batch_size(self) -> int | None:
        """The argument of predict methods."""
        return self.deployment.batch_size if self.has_batch_size else None
