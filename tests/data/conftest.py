from __future__ import annotations

from photo_trees import break_at, tree, whole  # noqa: F401 - fixtures
