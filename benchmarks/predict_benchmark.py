"""Measures prediction on one and on several devices; see docs/performance.md.

    python benchmarks/predict_benchmark.py --replicas=1,2,4 --output=results

is `mgpu benchmark` with more models, other ways to predict, more cases, and pictures.
"""

import sys
from collections.abc import Sequence

from absl import app, flags
from suite import command


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark; ends with exit code 2 and one line on bad flags."""
    if len(argv) > 1:
        sys.exit(f"predict_benchmark: takes flags only, got {' '.join(argv[1:])!r}")
    try:
        command.run(flags.FLAGS)
    except (ValueError, RuntimeError, OSError) as error:
        print("predict_benchmark:", error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    command.define_flags(flags.FLAGS)
    app.run(main)
