"""Strategies for models: layers drawn one by one from those that can follow."""

import dataclasses
import itertools

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.properties.grammar import OPS, Tensor, input_tensor, result_of, tensors_of
from tests.properties.nests import ways_to_nest
from tests.properties.spec import Deployment, Graph, Input, Node

# Not sorted: Keras and tf.nest sort the keys of dicts.
NAMES = ("x", "b", "m")
MOST_NODES = 6
_SHAPES = ((3,), (1,), (4, 2), ("a", 2), ("a",), (4, 3, 2), ("a", "b", 1), ("b", 3))
# What a model declares -> what may be passed to it.
_GIVEN = {
    "float32": ("float32", "float64", "float16", "uint8"),
    "float64": ("float64", "float32"),
    "int32": ("int32", "int64", "uint8"),
    "int64": ("int64", "int32"),
    "uint8": ("uint8", "int32"),
    "bool": ("bool", "uint8"),
}


@st.composite
def inputs(draw) -> tuple[Input, ...]:
    """One to three inputs, half of them of floats."""
    found = []
    for name in draw(st.sampled_from([NAMES[:1], NAMES[:2], NAMES])):
        dtype = draw(st.sampled_from(["float32"] * 4 + list(_GIVEN)))
        given_dtype = draw(st.sampled_from(_GIVEN[dtype]))
        shapes = [shape for shape in _SHAPES if dtype != "bool" or len(shape) == 1]
        found.append(Input(name, draw(st.sampled_from(shapes)), dtype, given_dtype))
    return tuple(found)


def calls(op: str, tensors: list[Tensor]) -> list[tuple[int, ...]]:
    """The tensors that an op can be called on, the newest last."""
    kind, numbers = OPS[op], range(len(tensors))
    return [
        sources
        for sources in itertools.product(numbers, repeat=kind.num_sources)
        if kind.takes(*(tensors[source] for source in sources))
    ]


def repeated_calls(tensors: list[Tensor], nodes: list[Node]) -> list[Node]:
    """Layers that could be called again, on another tensor of the same kind."""
    return [
        dataclasses.replace(node, sources=(source,), shares=number)
        for number, node in enumerate(nodes)
        if OPS[node.op].has_weights and node.shares is None
        for source in range(len(tensors))
        if source not in node.sources and tensors[source] == tensors[node.sources[0]]
    ]


@st.composite
def next_nodes(draw, tensors: list[Tensor], nodes: list[Node]) -> Node:
    """A layer that can follow the existing ones."""
    again = repeated_calls(tensors, nodes)
    if again and draw(st.booleans()):
        return draw(st.sampled_from(again))
    op = draw(st.sampled_from([op for op in OPS if calls(op, tensors)]))
    sources = draw(st.sampled_from(calls(op, tensors)))
    size = draw(st.sampled_from(OPS[op].sizes))
    dtype = draw(st.sampled_from(OPS[op].dtypes))
    return Node(op, sources, size, dtype)


@st.composite
def graphs(draw) -> Graph:
    """Models in which every tensor leads to an output."""
    chosen = draw(inputs())
    tensors = [input_tensor(x.shape, x.dtype) for x in chosen]
    nodes: list[Node] = []
    for _ in range(draw(st.integers(1, MOST_NODES))):
        nodes.append(draw(next_nodes(tensors, nodes)))
        tensors.append(result_of(nodes[-1], tensors))
    used = {source for node in nodes for source in node.sources}
    unused = set(range(len(tensors))) - used
    also = draw(st.sets(st.sampled_from(range(len(tensors))), max_size=1))
    outputs = draw(st.permutations(sorted(unused | also)))
    return Graph(
        chosen,
        tuple(nodes),
        tuple(outputs),
        takes=draw(st.sampled_from(ways_to_nest(len(chosen)))),
        gives=draw(st.sampled_from(ways_to_nest(len(outputs)))),
        seed=draw(st.integers(0, 9)),
    )


@st.composite
def deployments(draw) -> Deployment:
    """Models with replicas, an engine and an origin."""
    graph = draw(graphs())
    forms = ["declared"] * 3
    if graph.takes != "nested":
        forms += ["by name", "with others"]
    if graph.takes in ("one", "list", "tuple"):
        forms += ["by position"]
    origins = ["rebuilt", "rebuilt", "in scope"]
    if "tuple" not in (graph.takes, graph.gives):
        origins += ["loaded"]  # a file has lists in place of tuples
    return Deployment(
        graph,
        num_replicas=draw(st.integers(1, 4)),
        engine=draw(st.sampled_from(["threads", "mirrored"])),
        origin=draw(st.sampled_from(origins)),
        feeding=draw(st.sampled_from(forms)),
        batch_size=draw(st.sampled_from([1, 2, 3, 4, 7, 8, 12])),
    )


def pool(size: int) -> tuple[Deployment, ...]:
    """Some deployments, the same in every run: each is built once for many calls."""
    found: list[Deployment] = []

    @settings(
        max_examples=size,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(deployments())
    def collect(deployment: Deployment) -> None:
        found.append(deployment)

    collect()
    return tuple(dict.fromkeys(found))


def output_tensors(graph: Graph) -> list[Tensor]:
    """What is known about the outputs."""
    tensors = tensors_of(graph)
    return [tensors[number] for number in graph.outputs]
