"""All replicas in step: `strategy.run` over a distributed tf.data pipeline.

Guarantees, beyond those of every engine: results of one step are read to the host
while the next step runs. A step ends when its slowest replica ends.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy import gather, heads
from keras_mgpu_strategy.batch_size import micro_batches_per_chunk
from keras_mgpu_strategy.feed import Feed, row_bytes
from keras_mgpu_strategy.pipeline import ReplicaPipelines
from keras_mgpu_strategy.signatures import SpecMemory
from keras_mgpu_strategy.step import Signature, StepCompiler
from keras_mgpu_strategy.types import HostBatch, Nest, Source


class MirroredEngine:
    """Runs one compiled `strategy.run` per step, for all replicas together.

    The flow:

        pipelines = one tf.data pipeline per replica
        while any replica has rows:
            next step runs in a thread:   step(next(pipelines))
            meanwhile, in the caller's:   yield the rows of the step before

    Args:
        compiler: Makes the function that one replica runs.
        specs: The input specs seen so far.
        head: What is done to the outputs on the device.
    """

    def __init__(self, compiler: StepCompiler, specs: SpecMemory, head: heads.Head):
        self._compiler = compiler
        self._specs = specs
        self._head = head

    def run(
        self, source: Source, batch_size: int, start: int = 0
    ) -> Iterator[HostBatch]:
        """Yields results in input order; see `Engine.run`."""
        strategy = self._compiler.strategy
        spec = source.spec
        micro_batches = micro_batches_per_chunk(
            batch_size,
            row_bytes(spec),
            source.num_rows,
            strategy.num_replicas_in_sync,
        )
        self._specs.cover(spec)
        feed = Feed(source, batch_size, micro_batches, start)
        return gather.in_order(self._run_steps(feed, spec, batch_size), start)

    def _run_steps(
        self, feed: Feed, spec: Nest, batch_size: int
    ) -> Iterator[HostBatch]:
        strategy = self._compiler.strategy
        dataset = ReplicaPipelines(feed, spec, batch_size, strategy).dataset
        elements = iter(dataset)

        def advance() -> list[HostBatch]:
            element = next(elements)
            chunks = self._local_chunks(element)
            if all(start < 0 for start, *_ in chunks):
                return []
            for _, _, *leaves in chunks:
                covered = self._specs.cover(tf.nest.pack_sequence_as(spec, leaves))
            signature = Signature(covered, batch_size, self._head)
            step = self._compiler.lockstep(signature, dataset.element_spec[2:])
            return self._read(step(*element[2:]), chunks)

        with ThreadPoolExecutor(1, "mgpu-step") as pool:
            try:
                running = pool.submit(advance)
                while batches := running.result():
                    running = pool.submit(advance)
                    yield from batches
            finally:
                with suppress(Exception):
                    feed.close()
        if feed.error is not None:
            raise feed.error

    def _local_chunks(self, element: Any) -> list[tuple[Any, ...]]:
        """What each replica was given: `(start, num_rows, *inputs)`."""
        local_results = self._compiler.strategy.experimental_local_results
        local = zip(*(local_results(leaf) for leaf in element), strict=True)
        return [(int(start), int(size), *leaves) for start, size, *leaves in local]

    def _read(self, outputs: Nest, chunks: list[tuple[Any, ...]]) -> list[HostBatch]:
        local_results = self._compiler.strategy.experimental_local_results
        results = [local_results(leaf) for leaf in tf.nest.flatten(outputs)]
        return [
            gather.to_host(
                tf.nest.pack_sequence_as(outputs, [leaf[replica] for leaf in results]),
                start,
                num_rows,
                padded_rows=leaves[0].shape[0],
            )
            for replica, (start, num_rows, *leaves) in enumerate(chunks)
            if start >= 0
        ]
