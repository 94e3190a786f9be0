"""The command line: what it prints, writes, refuses, and its exit codes."""

import os
import pty
import subprocess
from typing import Any

import keras
import numpy as np
import pytest
from command_line import (
    DIGITS,
    IMAGES,
    LABELS,
    MGPU,
    assert_bad_input,
    mgpu,
    predict_here,
)


@pytest.fixture(scope="module")
def expected():
    model: Any = keras.models.load_model(DIGITS)
    return model.predict(np.load(IMAGES), verbose=0)


@pytest.fixture(scope="module")
def two_outputs(tmp_path_factory):
    inputs = keras.Input((3,))
    first = keras.layers.Dense(2, activation="softmax")(inputs)
    second = keras.layers.Dense(1, activation="sigmoid")(inputs)
    path = tmp_path_factory.mktemp("model") / "two.keras"
    keras.Model(inputs, {"first": first, "second": second}).save(path)
    rows = path.with_name("rows.npy")
    np.save(rows, np.eye(3, dtype=np.float32))
    return path, rows


def test_digits_from_a_shell(tmp_path, expected):
    output = tmp_path / "probabilities.npy"
    result = mgpu(
        *("predict", DIGITS, IMAGES, f"--output={output}", f"--labels={LABELS}"),
        *("--devices=cpu", "--replicas_per_device=2"),
    )
    assert result.returncode == 0
    # Not a terminal: no bar, but a line that says how it went.
    assert result.stderr.startswith("1,797 of 1,797 rows (100%)")
    assert result.stderr.count("\n") == 1
    report = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert report.pop("rows/s") != "0"
    # The last of several lines with that name: what the run waited for.
    assert "-bound: " in report.pop("report")
    assert report == {
        "devices": "CPU:0, CPU:1",
        "replicas": "2",
        "rows": "1,797",
        "accuracy": "0.9917",
        "output": str(output),
    }
    np.testing.assert_allclose(np.load(output), expected, rtol=1e-5, atol=1e-6)
    left = sorted(os.listdir(tmp_path))
    assert left == [".probabilities.npy.finished", "probabilities.npy"]


def test_devices_are_listed():
    result = mgpu("devices")
    assert (result.returncode, result.stderr) == (0, "")
    assert "physical devices\n  CPU:0\n" in result.stdout
    assert "logical devices\n  CPU:0\n" in result.stdout


def test_a_user_who_asks_for_tensorflows_messages_gets_them():
    result = mgpu("devices", TF_CPP_MIN_LOG_LEVEL="0")
    assert result.returncode == 0
    assert "WARNING: All log messages before absl::InitializeLog()" in result.stderr


def test_a_terminal_sees_a_progress_bar(tmp_path):
    terminal, process_end = pty.openpty()
    arguments = ["predict", DIGITS, IMAGES, f"--output={tmp_path / 'o.npy'}"]
    process = subprocess.Popen([*MGPU, *map(str, arguments)], stderr=process_end)
    os.close(process_end)
    seen = b""
    # On Linux, reading a terminal whose other end is closed is an error.
    try:
        while piece := os.read(terminal, 4096):
            seen += piece
    except OSError:
        pass
    os.close(terminal)
    assert process.wait() == 0
    assert "━" in seen.decode()


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"], []])
def test_help_names_the_commands(arguments):
    result = mgpu(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert "predict    Runs a model" in result.stdout
    assert "devices    Lists the devices" in result.stdout


def test_help_of_a_command_shows_its_own_flags_and_examples():
    result = mgpu("predict", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: mgpu predict MODEL INPUT... --output=PATH [FLAGS]" in result.stdout
    assert (
        "--method=predict_proba|predict|predict_classes|predict_top_k" in result.stdout
    )
    assert "Examples:\n  mgpu predict model.keras images.npy" in result.stdout
    assert "Exit codes:\n  0, the output is complete; 2, bad input" in result.stdout
    assert "verbosity" not in result.stdout


def test_version_is_printed():
    assert mgpu("--version").stdout == "keras_mgpu_strategy 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "unknown command 'train'. Expected one of: predict, "),
        (["predict", DIGITS, IMAGES, "--gpus=2"], "There is no flag --gpus."),
        (["predict", DIGITS, IMAGES], "predict needs --output=PATH."),
        (
            ["predict", DIGITS],
            "expected 'mgpu predict MODEL INPUT... --output=PATH [FLAGS]'",
        ),
        (
            ["devices", "gpu:0"],
            "devices received 'gpu:0', expected 'mgpu devices'. See",
        ),
        (["merge"], "merge received '', expected 'mgpu merge PATH'"),
        (["predict", DIGITS, IMAGES, "--batch_size=0"], "--batch_size=0"),
        (
            ["predict", DIGITS, IMAGES, "--method=fit"],
            "--method=fit. Expected one of predict",
        ),
    ],
)
def test_unreadable_command_lines_are_refused(arguments, message):
    assert_bad_input(mgpu(*arguments), message)


@pytest.fixture
def files(tmp_path):
    """Files with every kind of error, in one folder."""
    np.save(tmp_path / "rows.npy", np.zeros((3, 8, 8, 1), np.float32))
    np.save(tmp_path / "single.npy", np.float32(1))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "archive.npy.npz", rows=np.zeros(3))
    (tmp_path / "archive.npy.npz").rename(tmp_path / "archive.npy")
    whole = (tmp_path / "rows.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-8])
    (tmp_path / "text.npy").write_text("1, 2, 3")
    (tmp_path / "empty.npy").touch()
    (tmp_path / "old.npy").write_text("precious")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "half.npy.journal").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.csv").touch()
    (tmp_path / "x.parquet").touch()
    np.save(tmp_path / "labels_of_two.npy", np.zeros(2, int))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("no.keras rows.npy --output=o.npy", "There is no model no.keras."),
        ("M no.npy --output=o.npy", "There is no file or folder no.npy."),
        ("M single.npy --output=o.npy", "single.npy holds a single value."),
        ("M objects.npy --output=o.npy", "objects.npy cannot be read as a .npy file"),
        ("M archive.npy --output=o.npy", "archive.npy cannot be read"),
        ("M short.npy --output=o.npy", "short.npy cannot be read"),
        ("M text.npy --output=o.npy", "text.npy cannot be read"),
        ("M empty.npy --output=o.npy", "empty.npy cannot be read"),
        ("M rows.npy --output=o.txt", "Expected a name that ends in one of .npy, .par"),
        ("M rows.npy --output=o.npz", "Expected o.npy, a folder with a .npy file for"),
        ("M rows.npy --output=no/o.npy", "There is no folder no to write o.npy to."),
        ("M rows.npy --output=folder.npy", "folder.npy exists, and is finished or was"),
        ("M rows.npy --output=old.npy", "Pass --overwrite to replace it"),
        ("M rows.npy --output=half.npy", "Pass --resume to continue it"),
        ("M rows.npy --output=o.npy --resume --overwrite", "Give one of them."),
        (
            "M photos --output=photos/o.csv",
            "--output=photos/o.csv is, or is inside, photos,",
        ),
        ("M rows.npy --output=o.npy --shard=2/2", "--shard=2/2. Expected I/N with"),
        ("M rows.npy --output=o.npy --shard=half", "--shard=half. Expected I/N with"),
        ("M photos --output=o.npy --image_size=8", "--image_size=8. Expected height"),
        ("M rows.npy --output=o.npy --columns=a", "Parquet or CSV file. Leave it out."),
        ("M rows.npy --output=o.npy --preprocess=unit", "expected a folder of images"),
        ("M a.csv --output=o.npy --on_bad_file=skip", "--on_bad_file received for"),
        ("M rows.npy --output=o.npy --missing_as_nan", "--missing_as_nan received for"),
        ("M x.parquet --output=o.npy --read_options={}", "expected a CSV file"),
        (
            "M a.csv --output=o.npy --read_options=;",
            "--read_options=;. Expected a JS",
        ),
        ("M a.csv --output=o.npy --read_options=[1]", "--read_options=[1]. Expected a"),
        ("M photos --output=o.npy --preprocess=unit --columns=a", "--columns received"),
        ("M rows.npy a.csv --output=o.npy", "2 inputs received (rows.npy, a.csv). Exp"),
        (
            "M a.csv a.csv --output=o.npy",
            "Expected one, or several Parquet files or",
        ),
        ("M x.parquet no.parquet --output=o.npy", "There is no file or folder no.parq"),
        ("M rows.npy --output=o.npy --metrics=auc", "--metrics=auc needs --labels=FI"),
        (
            "M rows.npy --output=rows.npy --overwrite",
            "is inside, rows.npy, which is read. Give another",
        ),
        ("M rows.npy --output=o.npy --labels=no.npy", "There is no file no.npy."),
        ("M rows.npy --output=o.npy --labels=labels_of_two.npy", "row: 3."),
        ("M rows.npy --output=o.npy --method=predict --from_logits", "goes with"),
        ("M rows.npy --output=o.npy --method=predict --labels=rows.npy", "goes with"),
    ],
)
def test_bad_files_are_refused_before_any_work(
    arguments, message, files, monkeypatch, capsys
):
    monkeypatch.chdir(files)
    before = sorted(os.listdir())
    with pytest.raises(SystemExit) as exit_info:
        predict_here(*arguments.replace("M ", f"{DIGITS} ").split())
    printed = capsys.readouterr()
    assert exit_info.value.code == 2
    assert message in printed.err and printed.err.count("\n") == 1
    assert printed.out == ""
    assert sorted(os.listdir()) == before
    assert (files / "old.npy").read_text() == "precious"


def test_a_missing_device_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        predict_here(DIGITS, IMAGES, f"--output={tmp_path}/o.npy", "--devices=gpu:7")
    assert "There is no device GPU:7 on this machine." in capsys.readouterr().err


def test_rows_that_do_not_fit_the_model_are_refused(files, capsys):
    np.save(files / "wide.npy", np.zeros((3, 9, 8, 1), np.float32))
    with pytest.raises(SystemExit, match="2"):
        predict_here(DIGITS, files / "wide.npy", f"--output={files}/o.npy")
    assert capsys.readouterr().err.count("\n") == 1
    assert not (files / "o.npy").exists()


def test_overwrite_replaces_the_output(files, capsys):
    output = files / "old.npy"
    predict_here(DIGITS, files / "rows.npy", f"--output={output}", "--overwrite")
    assert np.load(output).shape == (3, 10)


def test_no_rows_give_no_rows(tmp_path, capsys):
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8, 1), np.float32))
    predict_here(DIGITS, tmp_path / "none.npy", f"--output={tmp_path}/o.npy")
    assert np.load(tmp_path / "o.npy").shape == (0, 10)


def test_classes_and_raw_outputs(tmp_path, expected, capsys):
    arguments = (DIGITS, IMAGES, "--devices=cpu:0,cpu:1", "--batch_size=256")
    predict_here(
        *(*arguments, f"--output={tmp_path}/c.npy", f"--labels={LABELS}"),
        "--method=predict_classes",
    )
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), expected.argmax(1))
    assert "\naccuracy  0.9917\n" in capsys.readouterr().out
    predict_here(*arguments, f"--output={tmp_path}/r.npy", "--method=predict")
    raw = np.load(tmp_path / "r.npy")
    np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-6)


def test_best_classes_in_half_the_bytes(tmp_path, expected, capsys):
    arguments = (DIGITS, IMAGES, f"--output={tmp_path}/best.npy", "--devices=cpu:0")
    best = ("--method=predict_top_k", "--k=2", "--output_dtype=float16")
    predict_here(*arguments, *best, "--batch_size=256")
    order = np.argsort(-expected, axis=-1, kind="stable")[:, :2]
    classes = np.load(tmp_path / "best.npy/classes.npy")
    np.testing.assert_array_equal(classes, order)
    scores = np.load(tmp_path / "best.npy/scores.npy")
    assert scores.dtype == np.float16
    highest = np.take_along_axis(expected, order, -1)
    np.testing.assert_allclose(scores, highest, rtol=1e-3, atol=1e-6)
    for flags, message in (
        (["--k=3"], "--k=3 goes with --method=predict_top_k, not with predict_proba."),
        (["--method=predict_top_k", "--k=0"], "--k=0. Expected an integer of 1 or"),
        (["--output_dtype=half"], "--output_dtype=half. Expected one of float16, fl"),
        ([*best, "--k=11"], "--k=11 is more than the 10 classes of the model's output"),
    ):
        with pytest.raises(SystemExit, match="2"):
            predict_here(*arguments, "--overwrite", *flags)
        assert message in capsys.readouterr().err


def test_several_outputs_are_a_folder(two_outputs, tmp_path, capsys):
    predict_here(*two_outputs, f"--output={tmp_path}/o.npy")
    shapes = {path.name: np.load(path).shape for path in tmp_path.glob("o.npy/*.npy")}
    assert shapes == {"first.npy": (3, 2), "second.npy": (3, 1)}


def test_labels_need_one_output(two_outputs, tmp_path, capsys):
    np.save(tmp_path / "labels.npy", np.zeros(3, int))
    labels = f"--labels={tmp_path}/labels.npy"
    with pytest.raises(SystemExit, match="2"):
        predict_here(*two_outputs, f"--output={tmp_path}/o.npy", labels)
    assert "goes with a model of one output" in capsys.readouterr().err
    assert not (tmp_path / "o.npy").exists()


def test_ray_gives_each_device_a_process(tmp_path):
    output = tmp_path / "out.npy"
    flags = [f"--output={output}", "--engine=ray", f"--labels={LABELS}"]
    result = mgpu("predict", DIGITS, IMAGES, *flags)
    assert result.returncode == 0, result.stderr
    assert "accuracy  0.9917" in result.stdout
    result = mgpu("predict", DIGITS, IMAGES, *flags, "--overwrite", "--devices=cpu")
    assert result.returncode == 2
    assert "does not go with --engine=ray" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"]])
def test_help_that_is_not_read_to_its_end_is_no_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        result = subprocess.run(
            [*MGPU, *arguments], stdout=nobody, stderr=subprocess.PIPE, timeout=60
        )
    assert (result.returncode, result.stderr) == (141, b"")
