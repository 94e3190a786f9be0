"""What an engine needs for a run besides rows and a model: its books."""

import dataclasses

from keras_mgpu_strategy import heads
from keras_mgpu_strategy.pace import Pace
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.signatures import Signature, SpecMemory
from keras_mgpu_strategy.types import Nest


@dataclasses.dataclass(frozen=True)
class Work:
    """One run of a replicated model.

    Args:
        devices: Each replica's device.
        specs: The input specs seen so far.
        pace: How long rows take.
        clock: Where the time of this run goes.
        head: What is done to the outputs on the device.
        jit_compile: Whether XLA compiles the model.
        may_fall_back: Whether a model that XLA cannot compile runs without it.
        is_fixed: Whether the model takes no other batch size.
        in_flight: Chunks that one device has to compute at a time.
        ahead: Further chunks for each device, which are read, copied or taken.
        tunes: Whether the engine may look for a better batch size on the way.
        missing: Filled with the rows that other processes could not read.
    """

    devices: tuple[str, ...]
    specs: SpecMemory
    pace: Pace
    clock: StageClock
    head: heads.Head = heads.identity
    jit_compile: bool = False
    may_fall_back: bool = False
    is_fixed: bool = False
    in_flight: int = 1
    ahead: int = 1
    tunes: bool = False
    missing: set[int] = dataclasses.field(default_factory=set)

    def signature(self, inputs: Nest, batch_size: int) -> Signature:
        """What to compile for inputs of these shapes."""
        xla = (self.jit_compile, self.may_fall_back)
        return Signature(self.specs.cover(inputs), batch_size, self.head, *xla)
