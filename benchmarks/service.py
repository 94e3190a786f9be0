"""Latency of a small service under concurrent requests of one row each.

    python benchmarks/service.py [--output=FILE.md]

Starlette in this process, called by httpx without a network. Clients are asyncio tasks,
each of which sends its next request after the answer to the last. The model is dense,
784 -> 512 -> 512 -> 10. `batched` is the recipe of docs/guide/services.md.
"""

import argparse
import asyncio
import pathlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import keras
import numpy as np
import result_tables
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import keras_mgpu_strategy as mgpu

CLIENTS = (1, 4, 32)
COLUMNS = 784
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "guide" / "services.md"
HEADER = ("way", "clients", "requests a second", "p50 ms", "p95 ms")
Answer = Callable[[np.ndarray], Awaitable[np.ndarray]]


def batcher() -> Any:
    """The class `Batcher` from that page."""
    code = next(x for x in PAGE.read_text().split("```") if "class Batcher" in x)
    names: dict[str, Any] = {"asyncio": asyncio, "np": np}
    exec(code.removeprefix("python"), names)  # noqa: S102 - this checkout's own page
    return names["Batcher"]


def make_model() -> Any:
    """The model of the service."""
    hidden = [keras.layers.Dense(512, "relu") for _ in range(2)]
    last = keras.layers.Dense(10, "softmax")
    return keras.Sequential([keras.Input((COLUMNS,)), *hidden, last])


def ways(model: Any) -> dict[str, Answer]:
    """The ways to answer a request, by name."""
    predictor = mgpu.Predictor(model)
    for power in range(7):  # compiles
        predictor.predict_on_batch(np.zeros((1 << power, COLUMNS), np.float32))
    turn = asyncio.Lock()

    async def keras_loop(x: np.ndarray) -> np.ndarray:
        async with turn:
            return await asyncio.to_thread(model.predict, x, verbose=0)

    async def keras_batches(x: np.ndarray) -> np.ndarray:
        async with turn:
            return await asyncio.to_thread(model.predict_on_batch, x)

    async def a_call_each(x: np.ndarray) -> np.ndarray:
        return await asyncio.to_thread(predictor.predict_on_batch, x)

    return {
        "model.predict, one after another": keras_loop,
        "model.predict_on_batch, one after another": keras_batches,
        "Predictor, a thread for each": a_call_each,
        "Predictor, batched": batcher()(predictor.predict_on_batch, 64),
    }


def app_of(answer: Answer) -> Starlette:
    """A service with one route."""

    async def predict(request: Request) -> JSONResponse:
        rows = np.asarray(await request.json(), np.float32)
        return JSONResponse((await answer(rows)).tolist())

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])


async def measure(answer: Answer, clients: int, count: int) -> tuple[float, list]:
    """Requests per second, and milliseconds of each request."""
    rows = np.random.default_rng(0).random((1, COLUMNS)).round(3).tolist()
    transport = httpx.ASGITransport(app=app_of(answer))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        spent: list[float] = []

        async def send(number: int) -> None:
            for _ in range(number):
                began = time.perf_counter()
                (await client.post("/predict", json=rows)).raise_for_status()
                spent.append(1e3 * (time.perf_counter() - began))

        await asyncio.gather(*(send(5) for _ in range(clients)))  # compiles
        spent.clear()
        began = time.perf_counter()
        await asyncio.gather(*(send(count) for _ in range(clients)))
        return len(spent) / (time.perf_counter() - began), spent


async def measure_all(requests: int) -> list[tuple[str, ...]]:
    """The lines of the table."""
    lines = []
    for name, answer in ways(make_model()).items():
        for clients in CLIENTS:
            rate, spent = await measure(answer, clients, max(requests // clients, 1))
            p50, p95 = np.percentile(spent, [50, 95])
            shown = (name, f"{clients}", f"{rate:,.0f}", f"{p50:.1f}", f"{p95:.1f}")
            lines.append(shown)
    return lines


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=320, help="of all clients")
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args()
    lines = asyncio.run(measure_all(arguments.requests))
    result_tables.save(arguments.output, result_tables.table(HEADER, lines))


if __name__ == "__main__":
    main()
