"""Strategies for calls of a model."""

from hypothesis import strategies as st

from tests.properties.calling import SUFFIXES
from tests.properties.feeding import ARRAYS
from tests.properties.graphs import output_tensors
from tests.properties.spec import Case, Deployment, Graph

_LENGTHS = st.tuples(st.integers(2, 5), st.integers(2, 5))


@st.composite
def cases(
    draw, sources: tuple[str, ...], deployments: st.SearchStrategy[Deployment]
) -> Case:
    """Calls of a model with rows from one of some sources."""
    source = draw(st.sampled_from(sources))
    is_array = source in ARRAYS
    batches = draw(_batches(is_array))
    deployment = draw(deployments)
    results = draw(st.sampled_from(_results(deployment.graph, source)))
    most = 1 if is_array or results in SUFFIXES else 2
    return Case(
        deployment,
        source,
        batches,
        results,
        has_batch_size=results != "predict_batches" and draw(_mostly),
        element=draw(st.sampled_from(["(x,)", "x", "(x, y)"])),
        lengths=tuple(draw(st.lists(_LENGTHS, min_size=1, max_size=most))),
    )


_mostly = st.sampled_from([True, True, True, False])


def _batches(is_array: bool) -> st.SearchStrategy[tuple[int, ...]]:
    """Rows of each batch, 100 in all at most."""
    rows = st.integers(0, 5) | st.integers(0, 100)
    if is_array:
        return rows.map(lambda number: (number,))
    sizes = st.integers(0, 4) | st.integers(0, 14)
    return st.lists(sizes, max_size=7).map(tuple)


def _results(graph: Graph, source: str) -> list[str]:
    if source == "list":
        return ["predict_batches"]
    found = ["predict", "predict_iter", *SUFFIXES]
    if any(len(tensor.shape) > 1 for tensor in output_tensors(graph)):
        found.remove(".csv")
    return found + ["predict_batches"] * (source == "generator")
