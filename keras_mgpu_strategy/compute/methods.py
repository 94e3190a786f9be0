"""What each predict method does to the outputs on the device."""

from keras_mgpu_strategy.compute import heads

# Name -> head for plain outputs, head for logits.
_HEADS: dict[str, tuple[heads.Head, heads.Head | None]] = {
    "predict": (heads.identity, None),
    "predict_proba": (heads.identity, heads.probabilities_from_logits),
    "predict_classes": (heads.class_ids, heads.class_ids_from_logits),
}
METHODS = tuple(_HEADS)


def head_of(method: str, *, from_logits: bool = False) -> heads.Head:
    """Returns what a method does to each output.

    Raises:
        ValueError: There is no such method, or it does not take logits.
    """
    if method not in _HEADS:
        raise ValueError(f"method={method!r}. Expected one of {list(METHODS)}.")
    plain, of_logits = _HEADS[method]
    if not from_logits:
        return plain
    if of_logits is None:
        raise ValueError(
            f"Received from_logits=True with method={method!r}, which returns what the "
            "model returns. Use predict_proba or predict_classes."
        )
    return of_logits
