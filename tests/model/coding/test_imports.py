import json
import subprocess
import sys

import pytest

PROGRAM = """
import importlib, json, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(name for name in loaded - set(sys.stdlib_module_names) if "cython" not in name)))
"""


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("bitstream", {"misc", "model"}), ("ans", {"misc", "model", "numpy", "constriction"})],
)
def test_a_fresh_process_loads_no_other_package(module, allowed):
    command = [sys.executable, "-c", PROGRAM, f"model.coding.{module}"]
    loaded = set(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert "model" in loaded and loaded <= allowed
