"""What the help of `mgpu predict` says besides its flags."""

NOTES = (
    (
        "Input",
        "A .npy, .npz, .parquet (also several or a folder of them, and folders named "
        "key=value), .csv, .h5 or .zarr, or images or a folder of them. Files with "
        "several arrays or columns feed models of several inputs, by name.",
    ),
    (
        "Output",
        "By the suffix of PATH: .npy (a folder with a .npy for each output where the "
        "model has several), .parquet (a folder of parts), .zarr or .csv. Until it is "
        "complete, rows are in PATH.partial, and PATH.journal tells which are safe.",
    ),
    (
        "Exit codes",
        "0, the output is complete; 2, bad input, nothing was run; 1, a run that had "
        "begun failed; 130 and 143, stopped by Ctrl-C or SIGTERM. Other signals end "
        "the process themselves; shells then say 129 for SIGHUP, 138 for USR1. After "
        "all but 0 and 2 the rows that were done are safe, and the last line is the "
        "command to resume.",
    ),
)
EXAMPLES = (
    "mgpu predict model.keras images.npy --output=probabilities.npy",
    "mgpu predict model.keras images.npy --output=classes.npy \\",
    "    --method=predict_classes --devices=gpu:0,gpu:1 --batch_size=512",
    "mgpu predict model.keras images.npy --output=trial.npy \\",
    "    --devices=cpu --replicas_per_device=2 --labels=labels.npy",
    "",
    "# A folder of images, with the files' names and nulls for damaged ones:",
    "mgpu predict model.keras photos --output=scores.parquet \\",
    "    --preprocess=unit --on_bad_file=skip",
    "",
    "# Columns of a table; Ctrl-C at any time, then go on:",
    "mgpu predict model.keras rows.parquet --columns=a,b,c --output=scores.parquet",
    "mgpu predict model.keras rows.parquet --columns=a,b,c --output=scores.parquet \\",
    "    --resume",
    "",
    "# Two machines with one folder between them; then, once, anywhere:",
    "mgpu predict model.keras images.npy --output=scores.npy --shard=0/2",
    "mgpu predict model.keras images.npy --output=scores.npy --shard=1/2",
    "mgpu merge scores.npy",
)
