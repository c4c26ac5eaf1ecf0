"""Where the CRAFT trees lie on this machine, for the tests that read them."""

import os
from pathlib import Path

import pytest

CRAFT = Path(
    os.environ.get("GFNEM_CRAFT") or Path(__file__).parents[3] / "shared" / "data" / "craft"
)

needs_craft = pytest.mark.skipif(
    not CRAFT.is_dir(), reason=f"no CRAFT trees in {CRAFT} (GFNEM_CRAFT)"
)
