"""What holds for every test, here and in `tutorials/`: tiers, notebooks, and nothing left behind.

It lies at the root because it must reach both `tests/` and `tutorials/`.
"""

pytest_plugins = ["tests.support.tiers", "tests.support.notebooks", "tests.support.leftovers"]
