"""The inputs that a model declares, of a source that has more.

Guarantee: nothing else of the source changes.
"""

from collections.abc import Iterator, Mapping

from keras_mgpu_strategy.closing import closing
from keras_mgpu_strategy.inputs.matching import entries_by_name
from keras_mgpu_strategy.types import InputBatch, Nest, Source, Undeclared


def select_inputs(source: Source, input_spec: Nest) -> Source:
    """Returns the source without the dict entries that the model does not declare.

    A functional model that takes a dict reads its inputs by position once a dict
    holds more keys than it declares, so they must not reach it.

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
    return _Selected(source, [key for key in spec if key in names])


class _Selected:
    """A source with some of the keys of another one."""

    def __init__(self, source: Source, keys: list[str]) -> None:
        self._source = source
        self._keys = keys

    @property
    def num_rows(self) -> int | None:
        return self._source.num_rows

    @property
    def spec(self) -> Nest:
        return self._pick(self._source.spec)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        return self._read(self._source.batches(batch_size, start))

    def _read(self, batches: Iterator[InputBatch]) -> Iterator[InputBatch]:
        with closing(batches):
            for batch in batches:
                inputs = self._pick(batch.inputs)
                yield InputBatch(batch.start, batch.num_rows, inputs)

    def _pick(self, nest: Nest) -> Nest:
        return {key: nest[key] for key in self._keys}
