"""A bar below the cell of a notebook: one output of one line, changed in place.

It needs no widgets and writes to no stream; the notebook is saved with its last state.
"""

from typing import Any

from keras_mgpu_strategy.runs.callbacks import Verbose
from keras_mgpu_strategy.runs.figures import Figures
from keras_mgpu_strategy.system.kernel import in_kernel

_SECONDS_BEFORE_IT_APPEARS = 1.0
_CELLS = 20
_HTML = (
    '<div style="font-variant-numeric: tabular-nums">'
    '<progress max="1" value="{share:.4f}" style="vertical-align: middle; width: 20em">'
    "</progress> {text}</div>"
)


def kernel_bar(verbose: Verbose) -> "KernelBar | None":
    """The bar of a run in a kernel; None elsewhere, or if none is wanted."""
    if verbose in (0, 2) or not in_kernel():
        return None
    return KernelBar(_SECONDS_BEFORE_IT_APPEARS if verbose == "auto" else 0.0)


class KernelBar:
    """Appears once a run has taken some seconds; an error of the display ends it."""

    def __init__(self, appears_after: float) -> None:
        self._appears_after = appears_after
        self._is_gone = False
        self._handle: Any = None

    def show(self, figures: Figures, *, is_last: bool = False) -> None:
        """Draws the bar, if it is time for it."""
        if self._is_gone or figures.seconds < self._appears_after:
            return
        # A front end that is gone, or the user's own display, may raise anything.
        try:
            self._draw(_states(figures, is_last=is_last))
        except Exception:
            self._is_gone = True

    def _draw(self, states: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(states, raw=True, display_id=True)
        else:
            self._handle.update(states, raw=True)


def _states(figures: Figures, *, is_last: bool) -> dict[str, str]:
    """The line by MIME type; without a bar if the number of rows is unknown."""
    done, total = figures.done, figures.total
    ending = "in" if done == total else "stopped after"
    text = figures.line(ending if is_last else None)
    if total is None:
        return {"text/plain": text}
    share = done / total if total else 1.0
    full = int(share * _CELLS)
    bar = "█" * full + "░" * (_CELLS - full)
    return {
        "text/plain": f"{bar} {text}",
        "text/html": _HTML.format(share=share, text=text),
    }
