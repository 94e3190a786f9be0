"""The interface of inputs that are named rather than held: files and folders."""

from typing import Protocol, runtime_checkable

from keras_mgpu_strategy.types import Nest, Source


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
