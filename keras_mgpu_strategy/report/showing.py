"""Figures of a run as HTML for a notebook, and as a picture."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mgpu_strategy.system.extras import import_extra

# Of a middling lightness, to be seen on white and on black.
_COLORS = {
    "compile": "#9467bd",
    "input": "#e08214",
    "copy_in": "#d6569b",
    "compute": "#3f8fd2",
    "copy_out": "#c44e52",
    "write": "#4c9f70",
}
# Notebooks have styles of their own for tables, for a light theme or a dark one.
_CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;white-space:normal"
_BLOCK = "display:inline-block;height:10px;background-color:"


def as_html(
    facts: Sequence[tuple[str, str]], seconds: Mapping[str, float], advice: str
) -> str:
    """A table of facts, a bar of the seconds of each stage, and advice."""
    rows = [
        f'<tr><th style="{_CELL}">{html.escape(name)}</th>'
        f'<td style="{_CELL}">{html.escape(text)}</td></tr>'
        for name, text in facts
    ]
    return (
        '<div style="max-width:44em">'
        f'<table style="border-collapse:collapse;margin:0"><tbody>{"".join(rows)}'
        f"</tbody></table>{_bar(seconds)}"
        f'<div style="margin-top:4px">{html.escape(advice)}</div></div>'
    )


def plotted(seconds: Mapping[str, float], title: str, ax: Any = None) -> Any:
    """Draws a bar for each stage on axes of matplotlib, new ones if None."""
    pyplot = import_extra("matplotlib.pyplot", "plot", "Report.plot()")
    if ax is None:
        _, ax = pyplot.subplots(figsize=(7, 2.5), layout="constrained")
    labels = [_label(name, spent) for name, spent in seconds.items()]
    colors = [_COLORS[name] for name in seconds]
    ax.barh(range(len(labels)), [*seconds.values()], color=colors, tick_label=labels)
    ax.invert_yaxis()
    ax.set(title=title, xlabel="seconds")
    return ax


def _bar(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values()) or 1.0
    parts = "".join(
        f'<span style="{_BLOCK}{_COLORS[name]};width:{spent / total:.2%}"></span>'
        for name, spent in seconds.items()
        if spent
    )
    legend = "".join(
        f'<span style="white-space:nowrap;margin-right:12px"><span style="{_BLOCK}'
        f'{_COLORS[name]};width:10px"></span> {_label(name, spent)}</span> '
        for name, spent in seconds.items()
    )
    return (
        '<div style="display:flex;margin:4px 0;border:1px solid gray">'
        f"{parts}</div><div>{legend}</div>"
    )


def _label(name: str, seconds: float) -> str:
    shown = f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
    return f"{name.replace('_', ' ')} {shown}"
