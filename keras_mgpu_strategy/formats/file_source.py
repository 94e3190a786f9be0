"""Sources over files that are open.

Guarantees:

* Files stay open as long as the source, or an iterator that it returned, is in use.
  They are closed with the last of these.
* An error while reading names the file. `OSError` stays what it is; damage of any
  other kind is a `ValueError`.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator

from keras_mgpu_strategy.formats.paths import Identity
from keras_mgpu_strategy.sources.arrays import ArraySource
from keras_mgpu_strategy.sources.row_errors import BadRow
from keras_mgpu_strategy.types import InputBatch, Nest, Origin, Source


class FileSource:
    """A source over files, which are closed with it.

    Args:
        source: Reads the rows.
        identity: Differs for different files.
        where: Names the files in errors while reading; None if `source` does.
        close: Closes the files; None if there is nothing to close.
    """

    def __init__(
        self,
        source: Source,
        identity: Identity,
        where: object | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        self._source = source
        self._where = where
        self.identity = identity
        if close is not None:
            weakref.finalize(self, close)

    @property
    def num_rows(self) -> int | None:
        """Number of rows; None if known only after reading to the end."""
        return self._source.num_rows

    @property
    def spec(self) -> Nest:
        """Nest of `tf.TensorSpec`, the batch axis None."""
        return self._source.spec

    def origin(self) -> Origin:
        """What distinguishes the files from others."""
        return self.identity.origin()

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows, see `types.Source`."""
        return self._read(self._source.batches(batch_size, start))

    def _read(self, batches: Iterator[InputBatch]) -> Iterator[InputBatch]:
        # A generator, so that an iterator holds this source, and with it the files.
        names = naming(self._where, "be read")
        with names if self._where is not None else contextlib.nullcontext():
            yield from batches


def open_arrays(
    nest: Nest,
    input_spec: Nest,
    identity: Callable[[int], Identity],
    where: object,
    close: Callable[[], object] | None = None,
) -> FileSource:
    """Returns a source over array-likes that are backed by files.

    Args:
        nest: The array-likes, one per model input.
        input_spec: What the model declares.
        identity: Returns the identity, given the number of rows.
        where: Names the files in messages.
        close: Closes the files, also if they do not fit.

    Raises:
        ValueError: They have no rows or unreadable dtypes, or are not what the model
            accepts.
    """
    try:
        source = ArraySource(nest, input_spec)
    except (TypeError, ValueError) as error:
        if close is not None:
            close()
        raise ValueError(f"{where}: {error}") from error
    return FileSource(source, identity(source.num_rows), where, close)


@contextlib.contextmanager
def naming(where: object, what: str) -> Iterator[None]:
    """Names the file in errors raised within the block.

    Args:
        where: The file.
        what: What failed, such as "be opened as a zarr array".
    """
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
