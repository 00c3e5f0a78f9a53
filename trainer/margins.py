"""Norm-aware margins: vectors (B, D) -> margins (B,), larger = the image must be told apart more widely."""

from params.plugin import Table

MARGINS = Table("margin", {})
