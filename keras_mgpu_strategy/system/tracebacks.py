"""Tracebacks that show the user's code: public functions look as if written in C.

Frames of this package are dropped, and those of the libraries that it calls, down to
the next frame of the user's. Errors keep their identity, notes, cause and context.
Python's error for an argument that a function does not have names the nearest one.
"""

import difflib
import dis
import functools
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from keras_mgpu_strategy.system.environment import wants_full_tracebacks

_PACKAGE = __name__.partition(".")[0]
_LIBRARIES = sys.stdlib_module_names | {
    *("tensorflow", "keras", "tf_keras", "ray", "absl", "optree", "tree", "wrapt"),
    *("numpy", "scipy", "pandas", "polars", "pyarrow", "datasets", "h5py", "zarr"),
    *("numcodecs", "PIL"),
}
"""What the package calls: such frames between its own and the user's help nobody."""
_MISTAKES = (AssertionError, AttributeError, LookupError, NameError, ArithmeticError)
"""Mistakes of the package, if raised in its own code and not by a `raise`."""

T = TypeVar("T", bound=Callable[..., Any])


def short_traceback(function: T) -> T:
    """Shortens the tracebacks of errors that leave a function, generator or class.

    Of a generator, that is each step; of a class, its constructor.
    """
    if isinstance(function, type):
        function.__init__ = short_traceback(function.__init__)
        return function  # type: ignore[return-value]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            name_nearest(error, function, kwargs)
            shorten(error)
            raise  # adds no frame, not even this one

    @functools.wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Any:
        try:
            return (yield from function(*args, **kwargs))
        except BaseException as error:
            shorten(error)
            raise

    return generate if inspect.isgeneratorfunction(function) else call  # type: ignore[return-value]


def name_nearest(
    error: BaseException, function: Callable[..., Any], keywords: Iterable[str]
) -> None:
    """Adds what was meant to Python's error for an unknown keyword, as 3.13 does."""
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


def shorten(error: BaseException) -> None:
    """Drops frames from an error, from its causes and from the parts of a group."""
    if wants_full_tracebacks():
        return
    left, seen = [error], set()
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        # An error of the user's own may not let its attributes be set.
        BaseException.with_traceback(part, _shorter(part))
        others = [part.__cause__, part.__context__]
        if isinstance(part, BaseExceptionGroup):
            others += part.exceptions
        left += [other for other in others if other is not None]


def _shorter(error: BaseException) -> types.TracebackType | None:
    entries = list(_entries(error.__traceback__))
    kept, is_hidden = [], True
    for entry in entries:
        is_hidden = _is_hidden(entry.tb_frame, is_hidden)
        if not is_hidden:
            kept.append(entry)
    if not kept and entries and _is_mistake(error, entries[-1]):
        return error.__traceback__
    shorter = None
    for entry in reversed(kept):
        place = (entry.tb_frame, entry.tb_lasti, entry.tb_lineno or 0)
        shorter = types.TracebackType(shorter, *place)
    return shorter


def _is_mistake(error: BaseException, inmost: types.TracebackType) -> bool:
    code = inmost.tb_frame.f_code.co_code
    is_raised = code[inmost.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    is_meant = is_raised and not isinstance(error, AssertionError)
    return isinstance(error, _MISTAKES) and not is_meant


def _entries(entry: types.TracebackType | None) -> Iterator[types.TracebackType]:
    while entry is not None:
        yield entry
        entry = entry.tb_next


def _is_hidden(frame: types.FrameType, is_caller_hidden: bool) -> bool:
    """Whether a frame is the package's, or of a library that it called."""
    # Not by file: code that dataclasses generate has none.
    name = str(frame.f_globals.get("__name__")).partition(".")[0]
    is_library = is_caller_hidden and name in _LIBRARIES
    return name == _PACKAGE or (is_library and _is_installed(frame))


def _is_installed(frame: types.FrameType) -> bool:
    """Not a module of the user's that is called as a library is, such as datasets."""
    file = str(frame.f_globals.get("__file__", os.__file__))
    return file.startswith(os.path.dirname(os.__file__)) or "-packages" in file
