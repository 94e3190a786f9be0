"""Anything that users pass as rows of unequal length, for `pad=`, as a `Source`.

Leaves of its spec that vary have None as their second axis, and are read as `Ragged`.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.inputs.opening import as_source
from keras_mgpu_strategy.inputs.row_kinds import is_arrow, rows_of
from keras_mgpu_strategy.types import X_ALONE, Feeding, Nest, Source


def ragged_source(
    x: Any,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    input_spec: Nest = None,
    feeding: Feeding = X_ALONE,
    keep: Sequence[str] = (),
    name: str = "x",
) -> Source:
    """Returns the rows, which may differ in length, of any input; see `as_source`."""
    _check_feeding(feeding)
    if isinstance(x, tf.RaggedTensor) or is_arrow(x):
        x = rows_of(x, name)
    return as_source(
        x,
        steps=steps,
        batch_size=batch_size,
        input_spec=input_spec,
        feeding=feeding,
        keep=keep,
        name=name,
        ragged=True,
    )


def _check_feeding(feeding: Feeding) -> None:
    if feeding.raw:
        raise ValueError(
            "Received pad= for a model with a preprocessor, which makes rows of one "
            "length itself. Leave out pad=, or set preprocessor=None and pass rows "
            "that are preprocessed."
        )
    if feeding.whole is not None:
        raise ValueError(
            "Received pad= for a model with a predict_step of its own, which is given "
            "rows as they are. Put what it does into the model's call."
        )
