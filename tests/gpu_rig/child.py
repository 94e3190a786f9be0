"""`python child.py MODULE.FUNCTION ARGUMENTS`: the last line has the result as JSON."""

import importlib
import json
import sys

module, _, function = sys.argv[1].partition(".")
run = getattr(importlib.import_module(module), function)
print(json.dumps(run(*json.loads(sys.argv[2]))))
