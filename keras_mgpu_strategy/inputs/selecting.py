"""Rows in the structure that a model takes. Nothing else about the source changes."""

from collections.abc import Mapping

from keras_mgpu_strategy.element_forms import packed
from keras_mgpu_strategy.sources.matching import entries_by_name
from keras_mgpu_strategy.sources.wrapping import Rearranged
from keras_mgpu_strategy.types import Feeding, Nest, Source, Undeclared


def select_inputs(source: Source, input_spec: Nest) -> Source:
    """Returns the source without the dict entries that the model does not declare.

    A functional model that takes a dict reads its inputs by position if the dict has
    more keys than it declares, so extra keys must not reach it.

    Args:
        source: A source that passed `check_inputs`.
        input_spec: As for `check_inputs`.
    """
    is_declared = input_spec is not None and not isinstance(input_spec, Undeclared)
    if not is_declared or not isinstance(source.spec, Mapping):
        return source
    names = set(entries_by_name(input_spec))
    if not names < set(source.spec):
        return source
    keys = [key for key in source.spec if key in names]
    return Rearranged(source, lambda nest: {key: nest[key] for key in keys})


def in_array_form(source: Source, feeding: Feeding) -> Source:
    """Returns rows of files in the form in which a model is given arrays."""
    is_listed = isinstance(source.spec, list | tuple)
    is_packed = is_listed and (feeding.raw or feeding.whole is not None)
    return Rearranged(source, packed) if is_packed else source
