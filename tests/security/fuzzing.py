"""Inputs for property tests of parsers."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

parsers = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Picked rather than generated: that takes a tenth of the time.
VALUES = st.sampled_from(
    [None, True, False, 0, 1, -1, 7, 8, 9, 2**31, 2**63 - 1, 2**63, 10**30, 0.0, 1.5]
    + [
        "",
        "a",
        "b",
        "first",
        "../../x",
        "/etc/x",
        "a/b",
        "\0",
        "\ud800",
        "CON",
        "float32",
    ]
    + [
        [],
        {},
        [[]],
        [1],
        ["a"],
        [None],
        {"a": 1},
        {"": []},
        [0, 3],
        ["file", [], "name"],
    ]
    + [[["a", [2], "f4"]], [["a", [2], "f4"]] * 2, [["a", [-1], "f4"]], {"rows": 8}]
)


def places_in(value, above=()):
    """The path to every value in nested JSON."""
    yield above
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from places_in(inner, (*above, key))


def changed(value, place, new):
    """A copy of nested JSON with another value in one place, or without it."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = changed(copy[place[0]], place[1:], new)
    return copy


@st.composite
def near(draw, value):
    """JSON like some other, with a few values, or keys, that are wrong."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(places_in(value))))
        value = changed(value, place, draw(VALUES))
        if isinstance(value, dict) and draw(st.booleans()):
            key = draw(st.sampled_from([*value, "more"]))
            value = {k: v for k, v in value.items() if k != key} | (
                {key: 1} if key == "more" else {}
            )
    return value
