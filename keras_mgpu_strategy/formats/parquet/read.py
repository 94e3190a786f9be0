"""Parquet files and folders of them, through pyarrow.

Guarantees:

* Row groups are decoded a few rows at a time and once per pass, however large they are.
  Those before the first row asked for are skipped.
* The number of rows and the columns are known, and the same columns are in every
  file, before any row is read.
* A null, a number that the model cannot hold, or a list of another length is an error
  with the file, column and row.
"""

import dataclasses

from keras_mgpu_strategy.formats.choosing import in_structure, present_inputs
from keras_mgpu_strategy.formats.columns import Columns, choose_columns
from keras_mgpu_strategy.formats.parquet import hive
from keras_mgpu_strategy.formats.parquet.arrow_rows import ArrowRows
from keras_mgpu_strategy.formats.parquet.files import open_parts
from keras_mgpu_strategy.formats.paths import Paths
from keras_mgpu_strategy.sources.rebatch import TableSource
from keras_mgpu_strategy.types import Nest


@dataclasses.dataclass(frozen=True)
class Parquet:
    """Rows of a Parquet file, of a folder of such files, or of a list of them.

    Args:
        paths: A file, a folder or a list of files. The files of a folder, and of
            folders in it that are named `key=value`, are read sorted by name; names
            that begin with `_` or `.` are left out.
        columns: Names of the columns: for a model with one input, a column or several
            to be stacked; for one with several inputs, one per input in the order of
            the model; or a dict of these by input. None takes columns by the names of
            the model's inputs. For a model with one input and no column of its name, it
            takes all numeric columns if there are as many as its features, or else the
            only column of lists; never one called `row`, nor an index that pandas
            stored, nor a folder key.
        missing_as_nan: Whether a null becomes NaN for float inputs. Otherwise it is an
            error, except in columns that pandas wrote from floats, where NaN is null.
    """

    paths: Paths
    columns: Columns = None
    missing_as_nan: bool = False

    def open_rows(self, input_spec: Nest) -> TableSource:
        """Opens the files, see `FileInput`.

        A column of numbers, bools or strings gives rows of shape `()`, several stacked
        ones of shape `(columns,)`, and a column of lists, nested or not, rows of the
        lists' shape. If the model declares another shape with as many values, rows are
        reshaped to it.

        Raises:
            OSError: There is no such file, or it cannot be read.
            ValueError: A file is damaged, the files differ in their columns, or these
                do not fit the model.
            ImportError: pyarrow is missing.
        """
        files = hive.list_tables(self.paths)
        parts, schema = open_parts(files.files)
        kinds = {name: kind.kind for name, kind in schema.types.items()}
        where, hidden = parts[0].path, schema.hidden
        input_spec = present_inputs(input_spec, kinds, self.columns)
        choices = choose_columns(kinds, self.columns, input_spec, where, hidden)
        rows = ArrowRows(parts, schema, choices, self.missing_as_nan)
        names = [choice.columns for choice in choices]
        identity = files.identity(rows.num_rows, names, self.missing_as_nan)
        spec = in_structure(input_spec, rows.specs)
        return TableSource(rows.read, rows.num_rows, spec, identity)
