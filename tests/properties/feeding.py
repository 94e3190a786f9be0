"""Rows -> what a user passes: arrays, files and streams, nested in many ways."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tests.properties.nests import nested
from tests.properties.spec import Deployment, Graph

Batches = list[list[np.ndarray]]
"""For each batch an array for each input."""


def _by_name(graph: Graph, leaves: list[Any]) -> dict[str, Any]:
    return {spec.name: leaf for spec, leaf in zip(graph.inputs, leaves, strict=True)}


def _with_others(graph: Graph, leaves: list[Any]) -> dict[str, Any]:
    """The first of all keys, and the last, belong to no input."""
    by_name = _by_name(graph, leaves)
    return {"_": leaves[0], **dict(reversed(by_name.items())), "zz": leaves[-1]}


FORMS: dict[str, Callable[[Graph, list[Any]], Any]] = {
    "declared": lambda graph, leaves: canonical(graph, leaves),
    "by name": _by_name,
    "with others": _with_others,
    "by position": lambda graph, leaves: (
        tuple(leaves) if graph.takes == "list" else list(leaves)
    ),
}


def canonical(graph: Graph, leaves: list[Any]) -> Any:
    """Leaves in the structure of the model's inputs."""
    return nested(graph.takes, [spec.name for spec in graph.inputs], leaves)


def in_form(deployment: Deployment, leaves: list[Any]) -> Any:
    """Leaves in the structure in which they are passed."""
    return FORMS[deployment.feeding](deployment.graph, leaves)


def hand_over(
    deployment: Deployment,
    source: str,
    element: str,
    batches: Batches,
    folder: pathlib.Path,
) -> Any:
    """What is passed to a predict method.

    Args:
        deployment: The model and the form that it is fed in.
        source: A name in `ARRAYS` or `STREAMS`.
        element: What a stream yields.
        batches: The rows; one batch for a name in `ARRAYS`.
        folder: For files.
    """
    if source in ARRAYS:
        return ARRAYS[source](deployment, batches[0], folder)
    return STREAMS[source](Elements(deployment, element, batches))


class Elements:
    """The elements of a stream.

    Args:
        deployment: The model and the form that it is fed in.
        element: "x", "(x,)" or "(x, y)".
        batches: The rows.
    """

    def __init__(self, deployment: Deployment, element: str, batches: Batches):
        self._deployment = deployment
        self._element = element
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Any:
        leaves = self._batches[number]
        return self.packed(leaves, np.zeros(len(leaves[0])))

    def packed(self, leaves: list[Any], targets: Any) -> Any:
        """One element; several inputs need a tuple around them, as in Keras."""
        x = in_form(self._deployment, leaves)
        if self._element == "x" and not isinstance(x, (list, tuple)):
            return x
        return (x, targets) if self._element == "(x, y)" else (x,)

    def signature(self) -> Any:
        """The `tf.TensorSpec` of each leaf."""
        leaves = [
            tf.TensorSpec(
                [None, *(a if isinstance(a, int) else None for a in spec.shape)],
                spec.given,
            )
            for spec in self._deployment.graph.inputs
        ]
        return self.packed(leaves, tf.TensorSpec([None], tf.float64))


class Batched(keras.utils.PyDataset):
    """The elements as a PyDataset."""

    def __init__(self, elements: Elements):
        super().__init__()
        self._elements = elements

    def __len__(self):
        return len(self._elements)

    def __getitem__(self, index):
        return self._elements[index]


def _generator(elements: Elements) -> Iterator[Any]:
    for number in range(len(elements)):
        yield elements[number]


def _dataset(elements: Elements) -> tf.data.Dataset:
    # tf.data treats a list as a tensor.
    return tf.data.Dataset.from_generator(
        lambda: map(_no_lists, _generator(elements)),
        output_signature=_no_lists(elements.signature()),
    )


def _no_lists(nest: Any) -> Any:
    if isinstance(nest, dict):
        return {key: _no_lists(value) for key, value in nest.items()}
    if isinstance(nest, (list, tuple)):
        return tuple(map(_no_lists, nest))
    return nest


def _in_memory(convert: Callable[[np.ndarray], Any]) -> Any:
    def make(deployment: Deployment, rows: list[np.ndarray], folder: Any) -> Any:
        return in_form(deployment, [convert(array) for array in rows])

    return make


def _saved(rows: list[np.ndarray], folder: pathlib.Path) -> list[pathlib.Path]:
    paths = [folder / f"{number}.npy" for number in range(len(rows))]
    for path, array in zip(paths, rows, strict=True):
        np.save(path, array)
    return paths


def _memmap(deployment: Deployment, rows: list[np.ndarray], folder: Any) -> Any:
    # An empty file cannot be mapped.
    mode = "r" if all(array.size for array in rows) else None
    mapped = [np.load(path, mmap_mode=mode) for path in _saved(rows, folder)]
    return in_form(deployment, mapped)


def _npy(deployment: Deployment, rows: list[np.ndarray], folder: Any) -> Any:
    paths = _saved(rows, folder)
    if deployment.graph.takes == "nested":
        return canonical(deployment.graph, paths)
    return paths[0] if len(paths) == 1 else _by_name(deployment.graph, paths)


def _npz(deployment: Deployment, rows: list[np.ndarray], folder: Any) -> Any:
    np.savez(folder / "rows.npz", **_by_name(deployment.graph, rows))
    return folder / "rows.npz"


def _parquet(deployment: Deployment, rows: list[np.ndarray], folder: Any) -> Any:
    table = pa.table(_by_name(deployment.graph, [_column(array) for array in rows]))
    pq.write_table(table, folder / "rows.parquet", row_group_size=5)
    return folder / "rows.parquet"


def _column(array: np.ndarray) -> Any:
    column = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


ARRAYS: dict[str, Callable[[Deployment, list[np.ndarray], pathlib.Path], Any]] = {
    "array": _in_memory(lambda array: array),
    "tensor": _in_memory(tf.constant),
    "memmap": _memmap,
    "npy": _npy,
    "npz": _npz,
    "parquet": _parquet,
}
STREAMS: dict[str, Callable[[Elements], Any]] = {
    "generator": _generator,
    "dataset": _dataset,
    "pydataset": Batched,
    "list": lambda elements: list(_generator(elements)),
}
FILES = ("npy", "npz", "parquet")
