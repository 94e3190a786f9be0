"""`mgpu merge`: joins the shards of an output into the whole."""

import pathlib

from keras_mgpu_strategy.cli.call import Call
from keras_mgpu_strategy.cli.printing import say
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.system.environment import expanded

NOTES = (
    (
        "What it does",
        "Checks that the shards of PATH are of the same run and hold all rows once, "
        "each, by the journals beside PATH and what the files hold. Then it joins .npy "
        "and .csv shards into PATH, in the form that a run without shards gives it; "
        ".parquet and .zarr outputs are in place already. At last it removes the "
        "journals and the joined shards. Nothing is touched before all is checked, and "
        "after it was stopped it can be run again.",
    ),
)
EXAMPLES = (
    "mgpu predict model.keras images.npy --output=scores.npy --shard=0/2",
    "mgpu predict model.keras images.npy --output=scores.npy --shard=1/2",
    "mgpu merge scores.npy",
)


def run(call: Call) -> None:
    """Merges and reports."""
    path = pathlib.Path(expanded(call.arguments[0]))
    merged = merge(path)
    say(f"shards    {merged.num_shards}")
    say(f"rows      {merged.num_rows:,}")
    say(f"output    {path}")
