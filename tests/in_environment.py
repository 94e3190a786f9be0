"""A user's script, which `test_environments.py` starts in unusual environments.

Arguments: the package's folder, a model, rows, an output, a folder for other outputs.
"""

import os
import sys

package, model, rows, written, others = sys.argv[1:]
sys.path.insert(0, package)  # an isolated Python reads no PYTHONPATH

import numpy as np  # noqa: E402

import keras_mgpu_strategy as mgpu  # noqa: E402

if not mgpu.__file__.startswith(os.path.join(package, "")):
    sys.exit(f"another package was imported: {mgpu.__file__}")
predictor = mgpu.load(model)
x = np.load(rows)
in_memory = predictor.predict(x, 256, verbose=1)
predictor.predict_to(written, rows, 256, verbose=1, resume=True)
predictor.predict_to(os.path.join(others, "o.csv"), x, 256, verbose=2)
np.save(os.path.join(others, "in_memory.npy"), in_memory)
