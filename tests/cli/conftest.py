from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from photo_trees import break_at, tree, whole  # noqa: F401 - fixtures
