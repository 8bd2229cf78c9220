"""Hypothesis on crowded machines: no deadline for an example, failures that can be replayed."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ticklake", deadline=None, print_blob=True)
settings.load_profile("ticklake")
