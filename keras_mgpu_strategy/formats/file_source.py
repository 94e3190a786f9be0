"""Files as inputs: their interface, and sources over files that are open.

Files stay open as long as the source, or an iterator that it returned, is in use. An
error while reading names the file: an `OSError`, or a `ValueError` for other damage.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol, runtime_checkable

from keras_mgpu_strategy.formats import choosing
from keras_mgpu_strategy.formats.paths import FileList, Identity
from keras_mgpu_strategy.sources.arrays import ArraySource
from keras_mgpu_strategy.sources.row_errors import BadRow
from keras_mgpu_strategy.types import InputBatch, Nest, Origin, Source


@runtime_checkable
class FileInput(Protocol):
    """Names files and how to read them; holds no open file and no row.

    Guarantees that every implementation gives: it is a frozen dataclass that can be
    pickled, compared and printed, and opened any number of times.
    """

    def open_rows(self, input_spec: Nest) -> Source:
        """Opens the files.

        Args:
            input_spec: Nest of named `tf.TensorSpec` that the model declares, by which
                columns and image sizes are chosen; None if it declares none.

        Returns:
            A source that can be read from any row, any number of times. Its attribute
            `identity` differs if names, sizes or what is read of the files differ; its
            method `origin` also looks into the files.

        Raises:
            OSError: There is no such file, or it cannot be read.
            ValueError: The files are damaged or do not fit the model.
            ImportError: A package is missing; names the extra to install.
        """
        ...


class FileSource:
    """A `Source` over files.

    Args:
        source: Reads the rows.
        identity: Differs for different files.
        naming_errors: Names the files in errors while reading.
        close: Closes the files; None if there is nothing to close.
    """

    def __init__(
        self,
        source: Source,
        identity: Identity,
        naming_errors: Callable[[], contextlib.AbstractContextManager[None]],
        close: Callable[[], object] | None = None,
    ) -> None:
        self._source, self._naming_errors = source, naming_errors
        self.identity = identity
        self.num_rows = source.num_rows
        if close is not None:
            weakref.finalize(self, close)

    @property
    def spec(self) -> Nest:
        """Nest of `tf.TensorSpec`, the batch axis None."""
        with self._naming_errors():
            return self._source.spec

    def origin(self) -> Origin:
        """What distinguishes the files from others."""
        return self.identity.origin()

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows, see `types.Source`."""
        return self._read(self._source.batches(batch_size, start))

    def _read(self, batches: Iterator[InputBatch]) -> Iterator[InputBatch]:
        # A generator, so that an iterator holds this source, and with it the files.
        with self._naming_errors():
            yield from batches


def open_arrays(
    files: FileList,
    nest: Nest,
    input_spec: Nest,
    *chosen: object,
    close: Callable[[], object] | None = None,
) -> FileSource:
    """Returns a source over array-likes in files; `chosen` adds to their identity."""
    try:
        source = ArraySource(nest, input_spec)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{files.where}: {error}") from error
    identity = files.identity(source.num_rows, *chosen)
    naming_errors = functools.partial(naming, files.where, "be read")
    return FileSource(source, identity, naming_errors, close)


def open_named(
    files: FileList,
    kind: str,
    available: Collection[str],
    given: choosing.Names,
    input_spec: Nest,
    find: Callable[[str], Any],
    close: Callable[[], object] | None = None,
) -> FileSource:
    """Opens some of several named arrays, see `choosing.choose` and `open_arrays`."""
    input_spec = choosing.present_inputs(input_spec, available, given)
    what = f"{files.where}, names of {kind}"
    names = choosing.choose(available, given, input_spec, what)
    nest = choosing.in_structure(input_spec, [find(name) for name in names])
    return open_arrays(files, nest, input_spec, names, close=close)


@contextlib.contextmanager
def naming(where: object, what: str) -> Iterator[None]:
    """Names a file in errors, and what failed, such as "be opened as a zarr array"."""
    try:
        yield
    except OSError as error:
        if str(where) in str(error):
            raise
        raise OSError(f"{where} cannot {what}: {error}") from error
    except ImportError:
        raise
    except MemoryError as error:
        raise MemoryError(
            f"{where} cannot {what}: it asks for more memory than there is. Check "
            "where the file comes from, or write it in smaller pieces."
        ) from error
    except Exception as error:
        if str(where) in str(error):
            raise
        if isinstance(error, BadRow):
            raise BadRow(f"{where}: {error}", error.index) from error
        shown = f"{type(error).__name__}: {error}" if str(error) else repr(error)
        raise ValueError(f"{where} cannot {what}: {shown}") from error
