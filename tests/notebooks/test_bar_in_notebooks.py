"""The bar of a run, as it is saved in notebooks."""

import re
import textwrap

import pytest

from tests.notebooks import kernel

LONG = "Paced(6000, 4000)"  # a second and a half on any machine
CELLS = {
    "set up": """
        # What TensorFlow writes beside Python might arrive in a later cell.
        import os; os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        import asyncio
        import numpy as np
        from tests.notebooks.paced import Paced, failing, predictor, results_of, rows_of
        p, few, logits = predictor(), rows_of(64), {"from_logits": True}
        """,
    "predict": f"result = p.predict({LONG}, 64)",
    "predict_proba": f"r = p.predict_proba({LONG}, 64, from_logits=True)",
    "evaluate": f"loss = p.evaluate({LONG}, np.zeros((6000, 2)))",
    "predict_to": f"report = p.predict_to('out.npy', {LONG}, method='predict')",
    "in a thread": f"threaded = await asyncio.to_thread(p.predict, {LONG}, 64)",
    "at once": """
        p.predict(few, verbose=1); p.predict_proba(few, verbose=1, **logits)
        p.predict_classes(few, verbose=1); p.predict_top_k(few, 2, verbose=1)
        loss = p.evaluate(few, few[:, :2], verbose=1)
        report = p.predict_to('at_once.npy', few, verbose=1, **logits)
        """,
    # After the first, which has compiled what each method needs.
    "short": """
        p.predict(few); p.predict_proba(few, **logits); p.predict_classes(few)
        p.predict_top_k(few, 2); loss = p.evaluate(few, few[:, :2])
        report = p.predict_to('short.npy', few, **logits)
        """,
    "silent": f"result = p.predict({LONG}, 64, verbose=0)",
    "lines": "r = p.predict(few, 8, verbose=2)",
    "failing": "p.predict(failing(1.5))",
    "exact": """
        for results in (result, threaded, np.load('out.npy')):
            np.testing.assert_array_equal(results, results_of(6000))
        """,
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    cells = [textwrap.dedent(code).strip() for code in CELLS.values()]
    folder = tmp_path_factory.mktemp("notebook")
    done = kernel.execute(cells, folder, allow_errors=True)
    return dict(zip(CELLS, done, strict=True))


def line_of(output):
    assert output["output_type"] == "display_data"
    assert set(output["data"]) == {"text/plain", "text/html"}
    text = output["data"]["text/plain"]
    assert "\n" not in text and text.split(" ", 1)[1] in output["data"]["text/html"]
    return text


@pytest.mark.parametrize(
    "name", ["predict", "predict_proba", "evaluate", "predict_to", "in a thread"]
)
def test_a_long_run_is_saved_as_one_line(name, outputs):
    (output,) = outputs[name]
    assert re.fullmatch(
        r"█{20} 6,000 of 6,000 rows \(100%\), [\d,]+ rows/s, in \d+ s, \w+-bound",
        line_of(output),
    )


@pytest.mark.parametrize("name", ["short", "silent", "exact"])
def test_nothing_else_is_shown(name, outputs):
    assert outputs[name] == []


def test_verbose_1_shows_it_at_once(outputs):
    assert len(outputs["at once"]) == 6
    for output in outputs["at once"]:
        assert line_of(output).startswith("█" * 20 + " 64 of 64 rows (100%), ")


def test_verbose_2_is_lines_on_standard_output(outputs):
    (output,) = outputs["lines"]
    assert output["name"] == "stdout" and output["text"].startswith("8/8 - ")


def test_a_run_that_fails_keeps_its_last_state(outputs):
    bar, error = outputs["failing"]
    # The number of rows is not known: no bar, but a line.
    assert re.fullmatch(
        r"[\d,]+ rows, [\d,.]+ rows/s, stopped after \d+ s, \w+-bound",
        bar["data"]["text/plain"],
    )
    assert error["ename"] == "OSError"
