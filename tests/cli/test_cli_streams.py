"""`mgpu` with standard streams closed, full or gone, and without a home folder."""

import subprocess

import numpy as np
import pytest
import tensorflow as tf
from command_line import DIGITS, IMAGES, MGPU, environment, mgpu, mgpu_here

from keras_mgpu_strategy.cli.printing import one_line

STREAMS = {
    "no output": ">&-",
    "no error": "2>&-",
    "neither, and no input": ">&- 2>&- <&-",
    "a full disk": "> /dev/full 2> /dev/full",
    "nobody reads": "| true",
}


def start(words, streams="", **variables):
    """Starts a command in a shell, which exits with the code of `mgpu`."""
    line = " ".join([*MGPU, *map(str, words), streams])
    return subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    )


def ended(process):
    printed, complaints = process.communicate(timeout=500)
    return process.returncode, printed, complaints


@pytest.mark.slow
def test_no_stream_ends_a_run(tmp_path):
    """Nor does what libraries print get into an output with a stream's free number."""
    outputs = {name: tmp_path / f"{i}.npy" for i, name in enumerate(["-", *STREAMS])}
    processes = {
        name: start(
            ["predict", DIGITS, IMAGES, f"--output={output}", "--verbose=2"],
            STREAMS.get(name, ""),
        )
        for name, output in outputs.items()
    }
    ends = {name: ended(process)[0] for name, process in processes.items()}
    assert ends == dict.fromkeys(outputs, 0)
    whole = outputs.pop("-").read_bytes()
    assert all(output.read_bytes() == whole for output in outputs.values())


def test_exit_codes_stay_if_an_error_cannot_be_printed():
    words = ["predict", "none.keras", "none.npy", "--output=o.npy"]
    for streams in ("2>&-", "2> /dev/full"):
        assert ended(start(words, streams)) == (2, "", "")


def test_a_result_that_cannot_be_printed_is_an_error():
    code, _, complaint = ended(start(["--help"], "> /dev/full"))
    assert code == 1
    assert complaint.startswith(
        "mgpu: the standard output cannot be written: [Errno 28]"
    )
    assert complaint.count("\n") == 1


@pytest.mark.slow
def test_no_home_and_a_locale_without_the_characters_of_a_name(tmp_path):
    folder = tmp_path / "würfe"
    folder.mkdir()
    output = folder / "ergebnis.csv"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, printed, complaints = ended(
        start(
            ["predict", DIGITS, IMAGES, f"--output={output}", "--verbose=0"],
            HOME="/nonexistent",
            **locale,
        )
    )
    assert (code, complaints) == (0, "")
    assert "rows      1,797\n" in printed
    assert len(output.read_text("utf-8").splitlines()) == 1798


def test_errors_of_a_graph_are_one_short_line():
    @tf.function
    def look_up(ids):
        return tf.gather(tf.range(20), ids, name="look_up")

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        look_up(tf.constant([[3, 25]]))
    line = one_line(caught.value)
    assert line.startswith("InvalidArgumentError: indices[0,1] = 25 is not in [0, 20)")
    assert "(node " in line and "look_up" in line
    assert "\n" not in line and "File " not in line and "Detected at" not in line


def test_an_error_of_tensorflow_before_the_run_is_one_line(tmp_path):
    """Whatever the error, a user sees no traceback."""
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"no graph")
    np.save(tmp_path / "x.npy", np.zeros((3, 2), np.float32))
    result = mgpu("predict", broken, tmp_path / "x.npy", f"--output={tmp_path}/o.npy")
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("mgpu: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "outcome"),
    [
        ("--batch_size=x", "--batch_size=x. Expected an integer."),
        ("--batch_size=0", "--batch_size=0. Expected an integer of 1 or more."),
        ("--engine=x", "--engine=x. Expected one of threads, mirrored, ray."),
        ("--prcision=x", "There is no flag --prcision. Did you mean --precision?"),
        (
            "--outptu=x",
            "There is no flag --outptu. Did you mean --output, --output_dtype, "
            "--outputs?",
        ),
        ("--zzz=1", "There is no flag --zzz."),
        ("--output", "--output needs a value: --output=VALUE."),
        ("--resume=x", "--resume=x. Expected true or false."),
    ],
)
def test_errors_of_flags_name_value_expectation_and_remedy(flag, outcome, capsys):
    with pytest.raises(SystemExit, match="2"):
        mgpu_here("predict", "a", "b", flag)
    expected = f"mgpu: {outcome} See mgpu predict --help.\n"
    assert capsys.readouterr().err == expected
