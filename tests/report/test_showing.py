"""How a report is shown in notebooks, as a picture and as JSON."""

import dataclasses
import html.parser
import json
import math
import sys

import matplotlib
import pytest
from IPython.lib.pretty import pretty

from keras_mgpu_strategy.report import STAGES, BackOff, Report, StageClock

REPORT = Report(
    rows=1000,
    seconds=10.0,
    bytes_in=2**20,
    bytes_out=2**19,
    replica_rows=(600, 400),
    batch_size=8,
    chunk_rows=64,
    compile_seconds=2.0,
    tried_batches=(4, 8),
    back_offs=(BackOff(40, 16, 8),),
    shares=dict(zip(STAGES, (0.1, 0.05, 0.8, 0.05, 0.0), strict=True)),
    metrics={"<script>top</script>": 0.98765, "per_class": [0.5, 1.0]},
    step="frozen",
    tried_steps={"plain": 950.4, "frozen": 1200.6, "xla": "not tried: <b>slow</b>"},
)
STEP = "frozen (tried: plain 950 rows/s; frozen 1,201 rows/s; xla not tried: "
EMPTY = StageClock(1).report()


class Page(html.parser.HTMLParser):
    """Text, tags and styles of some HTML, all of whose tags must be closed."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.styles, self.texts = [], [], [], []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert dict(attrs).keys() <= {"style"}
        self.open.append(tag)
        self.tags.append(tag)
        self.styles += [style for _, style in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())

    def widths(self):
        """Shares of the bar, in percent."""
        widths = [s.rpartition("width:")[2] for s in self.styles if "width:" in s]
        return [float(width[:-1]) for width in widths if width.endswith("%")]


def test_a_notebook_shows_a_table_a_bar_and_the_advice():
    page = Page(REPORT._repr_html_())
    assert {*page.tags} == {"div", "table", "tbody", "tr", "th", "td", "span"}
    assert page.texts[:4] == ["run", "1,000 rows in 10.00 s: 100 rows/s"] + [
        "replicas",
        "2: 600, 400 rows",
    ]
    for text in ["row 40: batch 16 -> 8", "<script>top</script>", "0.9877"] + [
        f"{STEP}<b>slow</b>)"
    ]:
        assert text in page.texts
    # Seconds of the whole run, of which 2 went into compiling.
    assert page.widths() == [20, 8, 4, 64, 4]
    labels = {"compile 2.00 s", "input 800 ms", "compute 6.40 s", "write 0 ms"}
    assert labels <= {*page.texts}
    assert page.texts[-1] == REPORT.bottleneck


def test_it_is_readable_in_light_and_dark_themes():
    # Text and background are the theme's; the bar's colors have medium lightness.
    styles = ";".join(Page(REPORT._repr_html_()).styles).split(";")
    given = [style.partition(":") for style in styles]
    colors = {value for name, _, value in given if name == "background-color"}
    assert not [style for name, _, style in given if name in ("color", "background")]
    assert len(colors) == 6
    for color in colors:
        red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        assert 90 < 0.299 * red + 0.587 * green + 0.114 * blue < 165, color


def test_a_terminal_shows_its_text():
    assert pretty(REPORT) == str(REPORT)
    assert "<script>" in str(REPORT)
    assert f"\nstep: {STEP}<b>slow</b>)\n" in str(REPORT)
    assert "step" not in str(EMPTY)


def test_padding_is_shown():
    padded = dataclasses.replace(REPORT, padding=0.284, lengths={50: 4100, 11: 7012})
    text = "28% of the tokens; rows by length: 7,012 of 11, 4,100 of 50"
    assert f"\npadding: {text}\n" in str(padded)
    assert text in Page(padded._repr_html_()).texts
    assert "padding" not in str(REPORT)


def test_a_run_that_has_not_begun_is_shown():
    assert Page(EMPTY._repr_html_()).widths() == []
    assert pretty(EMPTY) == str(EMPTY)
    assert json.loads(json.dumps(EMPTY.to_dict())) == EMPTY.to_dict()


def test_a_report_as_json():
    values = REPORT.to_dict()
    assert json.loads(json.dumps(values)) == values
    fields = {field.name for field in dataclasses.fields(Report)}
    derived = {"rows_per_second", "num_replicas", "bound", "bottleneck"}
    assert values.keys() == fields | derived
    assert (values["rows_per_second"], values["bound"]) == (100.0, "compute")
    assert values["back_offs"] == [{"row": 40, "failed": 16, "batch_size": 8}]
    assert values["replica_rows"] == [600, 400]
    assert values["metrics"] == REPORT.metrics
    assert values["tried_steps"] == REPORT.tried_steps


def test_metrics_that_are_not_numbers_are_null_in_json():
    metrics = {"loss": math.nan, "per_class": [0.5, math.inf, -math.inf]}
    report = dataclasses.replace(REPORT, metrics=metrics)
    values = report.to_dict()
    assert values["metrics"] == {"loss": None, "per_class": [0.5, None, None]}
    assert json.dumps(values, allow_nan=False)
    assert "nan" in str(report) and "inf" in report._repr_html_()


@pytest.fixture
def pyplot():
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def test_a_picture(pyplot, tmp_path):
    ax = REPORT.plot()
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(
        [2, 0.8, 0.4, 6.4, 0.4, 0]
    )
    assert ax.get_title() == "1,000 rows in 10.00 s: 100 rows/s"
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels[:2] == ["compile 2.00 s", "input 800 ms"]
    ax.figure.savefig(tmp_path / "report.png")
    _, mine = pyplot.subplots()
    assert EMPTY.plot(ax=mine) is mine


def test_a_picture_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(
        ImportError, match=r'Report\.plot\(\) needs .*keras_mgpu_strategy\[plot\]"'
    ):
        REPORT.plot()
