"""The documentation site builds without a warning, and its links work.

Starts TensorFlow once and builds once, which takes some 20 seconds.
"""

import html.parser
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

import keras_mgpu_strategy as mgpu

ROOT = pathlib.Path(__file__).parents[1]
FETCHED = {("link", "href"), ("script", "src"), ("img", "src")}


class Page(html.parser.HTMLParser):
    """A page's ids, its links, and what a browser fetches for it."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.fetched = set(), set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            elif (tag, name) == ("a", "href"):
                self.links.add(value)
            elif (tag, name) in FETCHED:
                self.fetched.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The path of each page of the site -> the page."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    result = subprocess.run(
        [*build, "-c", "docs", ".", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return {path: Page(path) for path in folder.rglob("*.html")}


def test_every_page_is_on_the_site(site):
    pages = [path.as_posix() for path in site]
    for source in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        name = source.relative_to(ROOT).with_suffix(".html").as_posix()
        assert any(page.endswith(f"/{name}") for page in pages), name


def test_links_of_the_site_lead_to_files_and_headings(site):
    broken = set()
    for path, page in site.items():
        for link in page.links | page.fetched:
            url = urllib.parse.urlsplit(link)
            if url.scheme:
                continue
            target = path.parent / urllib.parse.unquote(url.path) if url.path else path
            target = target.resolve()
            ids = site[target].ids if target in site else None
            if not target.exists() or (
                url.fragment and url.fragment not in (ids or ())
            ):
                broken.add(f"{path.name} -> {link}")
    assert not broken


def test_nothing_is_fetched_from_other_hosts(site):
    for path, page in site.items():
        hosts = {urllib.parse.urlsplit(url).netloc for url in page.fetched}
        assert hosts <= {""}, path.name
        for style in path.parent.rglob("*.css"):
            assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text())


def test_public_names_are_in_the_reference(site):
    ids = {id_ for page in site.values() for id_ in page.ids}
    names = {*mgpu.__all__} - {"__version__", "files"}
    names |= {f"files.{name}" for name in mgpu.files.__all__}
    names |= {f"Predictor.{name}" for name in vars(mgpu.Predictor) if name[0] != "_"}
    names |= {f"Report.{name}" for name in ("bottleneck", "bound", "rows_per_second")}
    names |= {"ray_data.BatchPredictor"}
    missing = {name for name in names if f"keras_mgpu_strategy.{name}" not in ids}
    assert not missing
