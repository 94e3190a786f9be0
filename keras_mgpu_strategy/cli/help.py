"""What `mgpu` prints for `--help`, as it is printed."""

OVERVIEW = """\
Usage: mgpu COMMAND [ARGUMENTS] [FLAGS]

Exact, ordered Keras predictions on every device of this machine.

Commands:
{commands}

mgpu COMMAND --help explains a command; mgpu --version prints the version."""

PREDICT = """\
Usage: mgpu predict MODEL INPUT... --output=PATH [FLAGS]

Runs a model over all rows of files, on every device.

Flags:
  --output=PATH
      What to write; required. See Output below.
  --method=predict_proba|predict|predict_classes|predict_top_k
      What to write: probabilities (the default), the model's raw outputs,
      class indices, or the best classes of each row with their scores.
  --k=N
      How many classes, with --method=predict_top_k. Default: 5.
  --from_logits
      The model's last layer has no softmax or sigmoid: apply it.
  --keep=A,B
      Columns of a Parquet or CSV input, such as id,date, to write beside the
      results, with their types. Needs a .parquet or .csv output.
  --resume
      Continue an earlier run of the same command where it stopped; start if
      there was none; do nothing if it has finished. With --batch_size, the
      finished output is byte for byte that of a run that was never stopped.
  --overwrite
      Replace the output, finished or not.
  --shard=I/N
      Run one of N ranges of the rows, I from 0 to N-1, such as 2/8, so that N
      machines share the work. mgpu merge completes the output.
  --on_nonfinite=raise|warn|ignore
      What to do if results are NaN or infinite. Default: warn.
  --stop_on=SIGNAL,...
      One or more of USR1, USR2, XCPU and QUIT, such as USR1 for Slurm's
      --signal=USR1@60: end the run after the current batch, with its rows
      safe, as Ctrl-C, SIGTERM and SIGHUP do.
  --labels=FILE|COLUMN
      A file of the true classes or values, one per row, or the column of the
      input that holds them: print metrics of the results.
  --metrics=NAME,...
      Which, by the names that Keras' compile takes, such as accuracy,auc.
      Default: accuracy. Rows that could not be read are left out.
  --columns=A,B
      Columns of a Parquet or CSV file to read: those of the model's one input,
      or one for each input, in order. Default: by the inputs' names.
  --read_options=JSON
      How a CSV file is written, as arguments of pandas.read_csv, such as
      '{"sep": ";", "decimal": ","}', or '{"header": null}' if no line names
      the columns, which are then called 0, 1 and so on.
  --missing_as_nan
      Read missing values in a Parquet or CSV file as NaN where the model takes
      floats. Default: they end the run.
  --pad_value=VALUE|NAME=VALUE,...
      Pad rows of unequal length, such as lists in a Parquet file, with this
      value, or with one for each input. Default: 0. Each of this flag and the
      next five turns padding on.
  --pad_lengths=N,...
      The lengths that rows are padded to. Default: at most six, chosen for you.
  --pad_side=right|left
      Where the padding is. Default: right.
  --max_tokens=N
      The most tokens, padding included, of one call of the model. Default:
      at most 65536, or the rows of --batch_size.
  --truncate
      Cut rows longer than all of --pad_lengths. Default: they end the run.
  --unmasked
      Pad rows for a model that does not ignore padding, too.
  --image_size=HxW
      Resize images to this height and width, such as 224x224. Default: what
      the model declares.
  --preprocess=none|unit|imagenet|MODULE:FUNCTION
      What to do with the pixels of images: leave them from 0 to 255 (the
      default), scale them to 0 to 1, scale them as DenseNet expects, or pass
      them in batches to a function of a module, on PYTHONPATH or in this
      folder.
  --on_bad_file=raise|skip
      Images that cannot be decoded end the run (the default), or are rows
      without a result.
  --devices=LIST
      Devices to run on, such as gpu:0,gpu:1 or cpu:0; gpu or cpu for all of
      that kind. Default: every GPU, or the CPU if there is none. mgpu devices
      lists them.
  --replicas_per_device=N
      Copies of the model on each device. Default: 1.
  --batch_size=N
      Rows of one batch, shared among the replicas. Default: chosen for you.
  --engine=threads|mirrored|ray
      Devices each at their own pace (threads, the default), all in step
      (mirrored), or each in a process of its own (ray).
  --num_actors=N
      Processes with --engine=ray. Default: one for each GPU, or for each
      machine if there is none.
  --cpus_per_actor=N
      CPU cores of a process with --engine=ray. Default: 1 with a GPU,
      otherwise an equal share of the machine.
  --ray_address=ADDRESS
      A running Ray cluster to join. Default: that of the environment variable
      RAY_ADDRESS, otherwise Ray on this machine.
  --precision=float32|bfloat16|float16
      Compute in this precision. Default: as the model was saved.
  --outputs=A,B
      Layers whose outputs to write, such as avg_pool, or encoder/pool in a
      nested model; each has columns of its name. Default: the model's outputs.
  --output_dtype=float16|float32|float64
      Write floats in this dtype; they are cast on the device. Default: as the
      model returns them.
  --combine=mean|gmean|vote|stack|mean_std
      How the results of several models or views are combined: their mean (the
      default), their geometric mean, the class that most of them predict, all of
      them along a new axis, or their mean and standard deviation.
  --views=NAME,...
      Predict several views of each image, and combine the results: identity,
      flip_left_right, flip_up_down, rot90, rot180, rot270.
  --custom_objects=MODULE,...
      Modules with classes and functions that the model uses, on PYTHONPATH or
      in this folder. They are imported, which runs their code.
  --nosafe_mode
      Also load a model that holds Python code (Lambda layers) or names code of
      others, which then runs on this machine. For files that you trust.
  --compile=auto|plain|frozen|xla
      How to compile the model: as it is (plain), with its weights as constants
      (frozen), or with XLA (xla). Default: auto, which compares them on the
      first rows of a long run.
  --jit_compile
      The same as --compile=xla; --nojit_compile is --compile=plain.
  --profile=DIR
      Folder for a trace that TensorBoard's profiler reads.
  --tuning=FILE
      Keep there what auto and the default batch size have found, for later runs.
  --verbose=0|1|2|auto
      Progress on the standard error stream: none, a bar, a line every 30 s, or
      a bar on a terminal and lines elsewhere (the default).

Model:
  A .keras, .h5 or .hdf5 file, or the folder of a SavedModel. Several models,
  written as a.keras,b.keras or as a pattern in quotes ("m*.keras", in order of
  their names), are given the same rows, and their results are combined.

Input:
  A .npy, .npz, .parquet (also several or a folder of them, and folders named
  key=value), .csv, .h5 or .zarr, or images or a folder of them. Files with
  several arrays or columns feed models with several inputs, by name.

Output:
  By the suffix of PATH: .npy (a folder with a .npy for each output if the
  model has several), .parquet (a folder of parts), .zarr or .csv. Until it is
  complete, rows are in PATH.partial, and PATH.journal says which are safe.

Exit codes:
  0, the output is complete; 2, bad input, nothing was run; 1, a run that had
  started failed; 130 and 143, stopped by Ctrl-C or SIGTERM. Other signals end
  the process themselves; shells then report 129 for SIGHUP, 138 for USR1.
  After all but 0 and 2, the rows that were done are safe, and the last line is
  the command that resumes the run.

Examples:
  mgpu predict model.keras images.npy --output=probabilities.npy
  mgpu predict model.keras images.npy --output=classes.npy \\
      --method=predict_classes --devices=gpu:0,gpu:1 --batch_size=512
  mgpu predict model.keras images.npy --output=trial.npy \\
      --devices=cpu --replicas_per_device=2 --labels=labels.npy

  # A folder of images, with the files' names and nulls for damaged ones:
  mgpu predict model.keras photos --output=scores.parquet \\
      --preprocess=unit --on_bad_file=skip

  # Columns of a table; press Ctrl-C at any time, then resume:
  mgpu predict model.keras rows.parquet --columns=a,b,c --output=scores.parquet
  mgpu predict model.keras rows.parquet --columns=a,b,c --output=scores.parquet \\
      --resume

  # The best five classes beside the ids, and metrics, in one pass:
  mgpu predict model.keras rows.parquet --output=best.parquet \\
      --method=predict_top_k --keep=id --labels=label --metrics=accuracy,top_k

  # Rows of unequal length, such as lists of tokens in a column:
  mgpu predict model.keras texts.parquet --output=scores.parquet --pad_value=0

  # Several models, one pass over the files, and the mean of their results:
  mgpu predict "m*.keras" photos --output=scores.parquet --combine=mean

  # One model, and the mean of each image and its mirror image:
  mgpu predict model.keras photos --output=scores.parquet \\
      --views=identity,flip_left_right

  # What a layer gives, such as embeddings, in half the bytes:
  mgpu predict model.keras images.npy --output=embeddings.npy \\
      --method=predict --outputs=avg_pool --output_dtype=float16

  # Two machines that share a folder; then, once, on either:
  mgpu predict model.keras images.npy --output=scores.npy --shard=0/2
  mgpu predict model.keras images.npy --output=scores.npy --shard=1/2
  mgpu merge scores.npy"""

MERGE = """\
Usage: mgpu merge PATH

Completes an output that mgpu predict --shard=I/N wrote.

What it does:
  Checks, by the journals next to PATH and by what the files hold, that the
  shards belong to the same run and hold each row once. Then joins .npy and
  .csv shards into PATH, in the form that a run without shards gives it;
  .parquet and .zarr outputs are in place already. Finally removes the journals
  and the joined shards. Nothing is changed before everything is checked; if it
  is stopped, run it again. Prints the metrics of all rows, if shards have any.

Examples:
  mgpu predict model.keras images.npy --output=scores.npy --shard=0/2
  mgpu predict model.keras images.npy --output=scores.npy --shard=1/2
  mgpu merge scores.npy"""

BENCHMARK = """\
Usage: mgpu benchmark [FLAGS]

Measures how fast a model predicts here, beside Keras.

Flags:
{flags}

Examples:
  mgpu benchmark --replicas=1,2,4 --output=results
  mgpu benchmark --model=own.keras --batch=64,256 --devices=cpu
  mgpu benchmark --model=a.keras,b.keras
  mgpu benchmark --model=own.keras --replicas_per_device=1,2,4"""

DEVICES = """\
Usage: mgpu devices

Lists the devices that TensorFlow sees.

Examples:
  mgpu devices"""
