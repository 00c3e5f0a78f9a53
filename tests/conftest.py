"""Fixtures that several packages' tests share."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden():
    """Numbers of the original codes: {case: {params, inputs, outputs}}."""
    return json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())
