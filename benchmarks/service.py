"""Latency of a small service under concurrent requests of one row each.

    python benchmarks/service.py [--output=FILE.md]

Starlette in this process, through httpx without a network. Clients are asyncio tasks,
each of which sends its next request after the answer. The model is dense, 784 -> 512 ->
512 -> 10. `batched` is the recipe of docs/guide/services.md.
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
HEADER = ("way", "clients", "requests a second", "p50 ms", "p95 ms")
Answer = Callable[[np.ndarray], Awaitable[np.ndarray]]


class Batcher:
    """Runs what has arrived while the model was busy, in one call."""

    def __init__(self, predict: Callable[[np.ndarray], np.ndarray], most_rows: int):
        self._predict = predict
        self._most_rows = most_rows
        self._waiting: list[tuple[np.ndarray, asyncio.Future]] = []
        self._task: asyncio.Task | None = None

    async def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The results of some rows."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            taken, num_rows = [], 0
            while self._waiting and num_rows < self._most_rows:
                taken.append(self._waiting.pop(0))
                num_rows += len(taken[-1][0])
            try:
                x = np.concatenate([rows for rows, _ in taken])
                results = await asyncio.to_thread(self._predict, x)
            except Exception as error:  # noqa: BLE001 - each request reports it
                for _, future in taken:
                    future.cancelled() or future.set_exception(error)
                continue
            for rows, future in taken:
                future.cancelled() or future.set_result(results[: len(rows)])
                results = results[len(rows) :]


def make_model() -> Any:
    """The model of the service."""
    hidden = [keras.layers.Dense(512, "relu") for _ in range(2)]
    last = keras.layers.Dense(10, "softmax")
    return keras.Sequential([keras.Input((COLUMNS,)), *hidden, last])


def ways(model: Any) -> dict[str, Answer]:
    """What answers a request, by name."""
    predictor = mgpu.Predictor(model)
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
        "Predictor, batched": Batcher(predictor.predict_on_batch, 256),
    }


def app_of(answer: Answer) -> Starlette:
    """A service with one route."""

    async def predict(request: Request) -> JSONResponse:
        rows = np.asarray(await request.json(), np.float32)
        return JSONResponse((await answer(rows)).tolist())

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])


async def measure(answer: Answer, clients: int, count: int) -> tuple[float, list]:
    """Requests a second, and milliseconds of each request."""
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
