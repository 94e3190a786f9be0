"""Rows of unequal length on the command line: flags, files in and out, errors."""

import pytest
from absl import flags
from command_line import DIGITS, IMAGES, predict_here

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.cli import run


@pytest.mark.parametrize(
    ("words", "pad"),
    [
        ("", None),
        ("--notruncate", None),
        ("--pad_value=0", mgpu.Pad()),
        ("--pad_value=-1.5 --pad_side=left", mgpu.Pad(-1.5, side="left")),
        ("--pad_value=", mgpu.Pad("")),
        ("--pad_value=ids=1,mask=0", mgpu.Pad({"ids": 1, "mask": 0})),
        ("--max_tokens=512 --unmasked", mgpu.Pad(max_tokens=512, unmasked=True)),
        (
            "--pad_lengths=64,8 --truncate",
            mgpu.Pad(lengths=[8, 64], truncate=True),
        ),
    ],
)
def test_each_flag_turns_padding_on(words, pad):
    flag_values = flags.FlagValues()
    run.define_flags(flag_values)
    rest = flag_values(
        ["predict", "m.keras", "x.npy", "--output=o.npy", *words.split()]
    )
    assert run.run_of(rest[1:], flag_values).running.get("pad") == pad


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--pad_value=ids=1,0", "--pad_value=ids=1,0. Expected one value, or NAME="),
        ("--pad_lengths=64,x", "--pad_lengths=64,x. Expected integers of at least 1"),
        ("--pad_lengths=0", "--pad_lengths=0. Expected integers of at least 1, such"),
        ("--pad_lengths=", "--pad_lengths=. Expected integers of at least 1, such"),
        ("--pad_side=top", "--pad_side=top. Expected one of right, left."),
        ("--max_tokens=0", "--max_tokens=0. Expected an integer of 1 or more."),
    ],
)
def test_flags_that_cannot_be_read(flag, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        predict_here(DIGITS, IMAGES, f"--output={tmp_path}/o.npy", flag)
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert not printed.out
