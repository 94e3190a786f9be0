"""Says which argument was meant where a function has none of a name."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any


def name_nearest(
    error: BaseException, function: Callable[..., Any], keywords: Iterable[str]
) -> None:
    """Adds what was meant to Python's error for an unknown keyword argument.

    Other errors stay as they are. Since 3.13, Python names the nearest itself.
    """
    if type(error) is not TypeError or "Did you mean" in str(error):
        return
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.name != "self"]
    unknown = next((name for name in keywords if name not in names), None)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if takes_any or f"unexpected keyword argument '{unknown}'" not in str(error):
        return
    near = difflib.get_close_matches(str(unknown), names, n=1)
    advice = f"Did you mean {near[0]!r}?" if near else f"Expected {', '.join(names)}."
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    text = f"{called}() got an unexpected keyword argument {unknown!r}. {advice}"
    error.args = (text,)
