"""Contradictions between sections are told with their reason."""

import pytest

from evaluate import EVALUATORS
from params import ParamsError, load
from trainer.build import tables
from trainer.rules import RULES


@pytest.mark.parametrize(("keys", "line"), [
    ({"batch_size": 1, "batch_sampling_params": {"type": "random"}},
     "batch_size: expected at least 2 images for batch norm to compare, found 1; raise it, or P or K when "
     "class-balanced"),
    ({"batch_sampling_params": {"class_balanced": True, "P": 1, "K": 1}},
     "batch_size: expected at least 2 images for batch norm to compare, found 1; raise it, or P or K when "
     "class-balanced"),
    ({"batch_size": 9, "batch_sampling_params": {"class_balanced": True, "P": 2, "K": 4}},
     "batch_size: expected P x K = 2 x 4 = 8, found 9; leave it out, or change P or K"),
    ({"device": "cuda", "parallels": []},
     'device: expected a GPU id in "parallels" beside "cuda", found []; e.g. "parallels": [0]'),
])
def test_a_contradiction_is_told_in_one_line(params, keys, line):
    with pytest.raises(ParamsError) as caught:
        load(params(**keys), tables(EVALUATORS), rules=RULES)
    assert str(caught.value) == f"params.json: {line}"
