"""Contradictions between sections are told with their reason."""

import pytest

from evaluate import EVALUATORS
from params.errors import ParamsError
from params.reader import load
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
    ({"batch_size": 1, "batch_sampling_params": {"type": "random"}, "device": "cpu", "parallels": [0, 1]},
     "batch_size: expected at least 2 images in each of 2 processes for batch norm to compare, found 2 in all; raise "
     "it, or P or K when class-balanced"),
    ({"device": "cuda", "parallels": []},
     'device: expected a GPU id in "parallels" beside "cuda", found []; e.g. "parallels": [0]'),
    ({"parameter_rules": [{"match": "(", "lr": 0.1}]},
     "parameter_rules[0].match: expected a regular expression, found '(': missing ), unterminated subpattern at "
     "position 0"),
    ({"parameter_rules": [{"match": "bnn", "lr": 0.1}]},
     'parameter_rules[0].match: "bnn" finds no weight; names are like backbone.conv1.weight, '
     "branches.0.neck.norm.bias, losses.softmax.weight"),
    ({"stages": [{"freeze": ["bckbone"], "epochs": 1}]},
     'stages[0].freeze: "bckbone" finds no weight; names are like backbone.conv1.weight, branches.0.neck.norm.bias, '
     "losses.softmax.weight"),
    ({"parameter_rules": [{"match": "bias$"}]},
     'parameter_rules[0]: expected lr, lr_factor or weight_decay beside match, found {"match": "bias$"}'),
    ({"parameter_rules": [{"match": "bias$", "lr": 0.1, "lr_factor": 2.0}]},
     'parameter_rules[0]: expected one of lr and lr_factor, which both say the rate, found '
     '{"match": "bias$", "lr": 0.1, "lr_factor": 2.0}'),
    ({"model_params": {"part_norm": True}},
     "model_params.part_norm: a single part has one length; give pcb_n_parts, or leave it out"),
    ({"model_params": {"random_drop_branches": 1}},
     "model_params.random_drop_branches: needs several branches with logits; give pcb_n_parts, or leave it out"),
    ({"model_params": {"neck": "none", "neck_feature": "before"}},
     'model_params.neck_feature: neck "none" has one vector before and after; take another neck, or leave it out'),
    ({"model_params": {"backbone": "convnext_tiny", "bn_freeze": "stats"}},
     "model_params.bn_freeze: convnext_tiny has no batch norm; take another backbone, or leave it out"),
    ({"stages": [{"freeze": ["."], "epochs": 1}]}, "stages[0].freeze: leaves no weight to train; let some of them go"),
    ({"stages": [{"freeze": ["backbone"], "epochs": 3}]},
     "stages[0].epochs: the stages up to this one are longer than the run, which has epoch 2; shorten one, or raise "
     "epoch"),
    ({"batch_sampling_params": {"type": "triplet_items", "anchors": 4}, "batch_size": 10},
     "batch_size: expected 3 x anchors = 3 x 4 = 12, found 10; leave it out, or change anchors"),
    ({"losses": [{"type": "softmax"}, {"type": "verification"}]},
     'losses[1]: "verification" reads a positive and a negative of each anchor; take batch_sampling_params.type '
     '"triplet_items"'),
    ({"losses": [{"type": "softmax", "of": "anchors"}]},
     'losses[0].of: only batches of triplets have anchors; take batch_sampling_params.type "triplet_items", or leave '
     "it out"),
    ({"losses": [{"type": "verification", "of": "anchors"}],
      "batch_sampling_params": {"type": "triplet_items", "anchors": 4}},
     'losses[0].of: "verification" reads positives and negatives too; leave it out'),
    ({"batch_norm_parts": 5},
     "batch_norm_parts: expected 2 images a part or more, found batch_size 8 in 5 parts; lower it or raise batch_size"),
    ({"batch_norm_parts": 2, "img_h": 128, "model_params": {
        "backbone": "mobilenet_v3_small", "neck": "linear", "feature_dim": 32, "pcb_n_parts": 2,
        "random_drop_branches": 1}},
     "batch_norm_parts: every part would drop other branches than the next; leave it out, or set "
     "model_params.random_drop_branches 0"),
    ({"fine_tune": True, "stages": []}, 'fine_tune: short for "stages", which is given too; keep one'),
])
def test_a_contradiction_is_told_in_one_line(params, keys, line):
    with pytest.raises(ParamsError) as caught:
        load(params(**keys), tables(EVALUATORS), rules=RULES)
    assert str(caught.value) == f"params.json: {line}"
