"""Rows in the structure that a model takes.

Guarantee: nothing else about the source changes.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from keras_mgpu_strategy.element_forms import packed
from keras_mgpu_strategy.sources.matching import entries_by_name
from keras_mgpu_strategy.system.closing import closing
from keras_mgpu_strategy.types import Feeding, InputBatch, Nest, Source, Undeclared


def select_inputs(source: Source, input_spec: Nest) -> Source:
    """Returns the source without the dict entries that the model does not declare.

    A functional model that takes a dict reads its inputs by position if the dict has
    more keys than it declares, so extra keys must not reach it.

    Args:
        source: A source that passed `check_inputs`.
        input_spec: As for `check_inputs`.
    """
    spec = source.spec
    if input_spec is None or isinstance(input_spec, Undeclared):
        return source
    if not isinstance(spec, Mapping):
        return source
    names = set(entries_by_name(input_spec))
    if names >= set(spec) or not names <= set(spec):
        return source
    keys = [key for key in spec if key in names]
    return _Rearranged(source, lambda nest: {key: nest[key] for key in keys})


def in_array_form(source: Source, feeding: Feeding) -> Source:
    """Returns rows of files in the form in which a model is given arrays."""
    is_listed = isinstance(source.spec, list | tuple)
    is_packed = is_listed and (feeding.raw or feeding.whole is not None)
    return _Rearranged(source, packed) if is_packed else source


class _Rearranged:
    """Another source in another structure; forwards other attributes to it."""

    def __init__(self, source: Source, rearrange: Callable[[Nest], Nest]) -> None:
        self._source = source
        self._rearrange = rearrange

    @property
    def num_rows(self) -> int | None:
        return self._source.num_rows

    @property
    def spec(self) -> Nest:
        return self._rearrange(self._source.spec)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        return self._read(self._source.batches(batch_size, start))

    def _read(self, batches: Iterator[InputBatch]) -> Iterator[InputBatch]:
        with closing(batches):
            for batch in batches:
                inputs = self._rearrange(batch.inputs)
                yield InputBatch(batch.start, batch.num_rows, inputs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._source, name)
