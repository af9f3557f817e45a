"""Every module can be imported on its own, whatever was imported before it."""

import subprocess
import sys

import pytest

from misc.files import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for room in ("misc", "model", "saliency_maps", "scripts")
    for path in (ROOT / room).rglob("*.py")
)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_a_module_can_be_imported_first(module):
    if module in ("misc.deploy.ray_app", "scripts.checks.ray_replicas"):
        pytest.importorskip("ray", reason="misc/deploy/requirements-ray.txt is not installed")
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True, timeout=300)
