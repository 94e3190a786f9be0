"""`python child.py MODULE.FUNCTION ARGUMENTS`: the last line has the result as JSON."""

import importlib
import json
import sys

import tensorflow as tf

# Results are compared with those of the CPU, which does not round to 10 bits.
tf.config.experimental.enable_tensor_float_32_execution(False)
module, _, function = sys.argv[1].partition(".")
run = getattr(importlib.import_module(module), function)
print(json.dumps(run(*json.loads(sys.argv[2]))))
