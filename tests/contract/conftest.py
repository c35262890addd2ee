"""The suites are plain modules: their assertions deserve pytest's explanations too."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "contract.store_suite", "contract.blob_suite", "contract.runtime_suite"
)
