"""params.json: what is accepted, what it becomes, and what is said of mistakes."""

import json

import pytest

from params.errors import ParamsError
from params.reader import load
from params.errors import dotted


def said(read, content, *overrides):
    with pytest.raises(ParamsError) as caught:
        read(content, *overrides)
    return str(caught.value).splitlines()


def test_defaults_fill_what_the_file_leaves_out(read):
    loaded = read({})
    assert loaded.params.epoch == 30
    assert loaded.resolved["losses"] == [{"type": "softmax", "weight": 1.0, "of": "batch"}]
    assert loaded.resolved["model_params"]["last_stride"] == 1  # a key of the backbone itself
    assert loaded.origins["epoch"] == "default"


def test_a_resolved_file_resolves_to_itself(read, tables, tmp_path):
    first = read({"tri_loss_margin": 0.3, "tri_loss_lambda_cls": 1, "optimizer": "adam",
                  "batch_sampling_params": {"class_balanced": True, "P": 4, "K": 2}})
    again = tmp_path / "elsewhere" / "params.json"
    again.parent.mkdir()
    again.write_text(json.dumps(first.resolved))
    assert load(again, tables).resolved == first.resolved


def test_relative_paths_start_at_the_file(read, tmp_path):
    loaded = read({"working_dir": "../runs", "pretrain_snapshot": "old.pth", "imagenet_pretrain": "weights.pth"})
    assert loaded.params.batches_dir == str(tmp_path / "data")
    assert loaded.params.working_dir == str(tmp_path.parent / "runs")
    assert loaded.params.pretrain_snapshot.path == str(tmp_path / "old.pth")
    assert loaded.params.imagenet_pretrain == str(tmp_path / "weights.pth")


def test_several_folders_to_train_on_start_at_the_file_and_are_overridden_one_or_all(read, tmp_path):
    assert read({"batches_dir": ["a", "../b"]}).params.batches_dir == [str(tmp_path / "a"), str(tmp_path.parent / "b")]
    assert read({"batches_dir": ["a", "b"]}, "batches_dir[1]=c").params.batches_dir == [
        str(tmp_path / "a"), str(tmp_path / "c")]
    loaded = read({"batches_dir": ["a", "b"]}, "batches_dir=c")
    assert (loaded.params.batches_dir, loaded.origins["batches_dir"]) == (str(tmp_path / "c"), "override")


def test_every_value_knows_where_it_came_from(read):
    origins = read({"epochs": 3, "img_h": 64, "optimizer": "adam", "model_params": {"neck": "linear"}},
                   "lr.base_lr=0.02", "model_params.neck=bnneck", "tri_loss_margin=0.3").origins
    assert origins["optimizer.type"] == "file"
    assert origins["optimizer.momentum"] == "default"
    assert origins["model_params.neck.type"] == "override"
    assert origins["losses[0].margin"] == "override"
    assert origins["losses[0].weight"] == "default"
    assert origins["epoch"] == "sugar"
    assert origins["img_h"] == "file"
    assert origins["lr.base_lr"] == "override"
    assert origins["img_w"] == "default"


def test_all_mistakes_are_said_at_once_with_path_and_remedy(read):
    lines = said(read, {
        "optimizer": {"type": "adam", "beta": 0.9}, "losses": [{"type": "triplet", "marginn": 0.3}], "epoch": "ten",
        "img_h": -1, "optimiser": "sgd", "lr": {"base_lr": True}})
    assert lines == [
        "params.json: epoch: expected a whole number, found \"ten\"",
        "params.json: img_h: expected a number >= 8, found -1",
        'params.json: losses[0].marginn: no such key for "triplet"; did you mean "margin"?',
        "params.json: lr.base_lr: expected a number, found true",
        'params.json: optimiser: no such key; did you mean "optimizer"?',
        'params.json: optimizer.beta: no such key for "adam"; did you mean "betas"?',
    ]
    assert said(read, {"losses": [{"type": "triplet", "marginn": 0.3, "zzz": 1}]}) == [
        'params.json: losses[0].marginn: no such key for "triplet"; did you mean "margin"?',
        'params.json: losses[0].zzz: no such key for "triplet"; there are adaptive_weight, margin, of, type, weight',
    ]


@pytest.mark.parametrize(("content", "line"), [
    ({"losses": [{"type": "triplet", "margin": "soft"}]},
     "losses[0].margin: expected a number or 'soft_margin', found \"soft\""),
    ({"losses": [{"type": "triplet", "margin": -1}]},
     "losses[0].margin: expected a number >= 0 or 'soft_margin', found -1"),
    ({"losses": [{"type": "tripplet"}]}, 'losses[0].type: no loss is called "tripplet"; did you mean "triplet"?'),
    ({"losses": []}, "losses: expected at least 1 entries, found []"),
    ({"losses": [{"weight": 1.0}]}, "losses[0].type: needed, and missing"),
    ({"precision": "fp8"}, "precision: expected 'fp32', 'bf16' or 'fp16', found \"fp8\""),
    ({"preprocess": {"resize": "256"}}, 'preprocess.resize: expected a whole number or a list, found "256"'),
    ({"preprocess": {"resize": True}}, "preprocess.resize: expected a whole number or a list, found true"),
    ({"epoch": 1.5}, "epoch: expected a whole number, found 1.5"),
    ({"parallels": [0, -1]}, "parallels[1]: expected a number >= 0, found -1"),
    ({"model_params": {"backbone": "resnet18", "last_strid": 1}},
     'model_params.last_strid: no such key for "resnet18"; did you mean "last_stride"?'),
    ({"model_params": {"neck": "bnnek"}}, 'model_params.neck.type: no neck is called "bnnek"; did you mean "bnneck"?'),
    ({"batch_sampling_params": {"type": "pk", "P": 4}}, "batch_sampling_params.K: needed, and missing"),
    ({"evaluation_params": {"type": "market_evaluate", "app": "standard"}},
     'evaluation_params.app: no such key for "market_evaluate"; did you mean "ap"?'),
    ({"data_augmentation": {"momentun": 0.1}}, 'data_augmentation.momentun: no such key; did you mean "momentum"?'),
    ({"epoch": 3, "epochs": 3}, 'epochs: another spelling of "epoch", which is given too; keep one'),
    ({"losses": [{"type": "softmax"}], "tri_loss_margin": 0.3},
     'tri_loss_margin: short for "losses", which is given too; keep one'),
    ({"working_dir": "a\0b"}, 'working_dir: expected a path of this system, found "a\\u0000b": embedded null byte'),
    ({"batches_dir": "~nosuchuser/x"},
     'batches_dir: expected a path of this system, found "~nosuchuser/x": Could not determine home directory.'),
    ({"batches_dir": []}, "batches_dir: expected a string or at least 1 entries, found []"),
    ({"batches_dir": ["a", ""]}, 'batches_dir[1]: expected a string that is not empty, found ""'),
    ({"batches_dir": ["a", "b", "c/../a"]}, "batches_dir[2]: the same folder as batches_dir[0]; name it once"),
    ({"pretrain_snapshot": "x" * 5000},
     f'pretrain_snapshot.path: expected a path of this system, found "{"x" * 56}...: File name too long'),
    ({"imagenet_pretrain": "x/" * 4000},
     f'imagenet_pretrain: expected a path of this system, found "{"x/" * 28}...: File name too long'),
    ({"tri_loss_margin": "hard"}, "tri_loss_margin: expected a number >= 0 or \"soft_margin\", found 'hard'"),
])
def test_a_mistake_is_told_in_one_line(read, content, line):
    assert said(read, content) == [f"params.json: {line}"]


@pytest.mark.parametrize(("text", "line"), [
    ('{"epoch": 1,\n "img_h": }', "line 2 column 11: not JSON: Expecting value"),
    ("", "line 1 column 1: not JSON: Expecting value"),
    ("[]", "expected an object, found list"),
    ('{"epoch": NaN}', "NaN is not a JSON number; give a finite one"),
    ('{"epoch": 1, "epoch": 2}', 'the key "epoch" is given twice in one object; keep one'),
    ('{"losses": [{"type": "triplet", "margin": 1e999}]}', "1e999 is too large for a number; give a finite one"),
    ('{"about": -1e999}', "-1e999 is too large for a number; give a finite one"),
    ('{"\\ud800": 1}', "'\\ud800' is half of a surrogate pair, no character"),
    ('{"about": ["\\udc00"]}', "'\\udc00' is half of a surrogate pair, no character"),
    ("[" * 100_000, "nested too deeply to be a params.json"),
    ('{"about": ' + "[" * 300 + "]" * 300 + "}", "nested too deeply to be a params.json"),
    ('{"seed": ' + "9" * 5000 + "}", None),
])
def test_a_file_that_is_no_params_json_is_told_in_one_line(read, text, line):
    told = said(read, text)
    assert len(told) == 1
    assert told[0].startswith("params.json: ")
    assert line is None or told == [f"params.json: {line}"]


def test_a_file_that_is_not_there_or_not_text_is_told_in_one_line(tables, tmp_path):
    with pytest.raises(ParamsError, match="nowhere.json: cannot be read: No such file or directory"):
        load(tmp_path / "nowhere.json", tables)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ParamsError, match="binary.json: not UTF-8 text at byte 0; save it as UTF-8"):
        load(tmp_path / "binary.json", tables)


def test_overrides_reach_any_depth(read):
    loaded = read({"losses": [{"type": "softmax"}, {"type": "triplet"}]}, "losses[1].margin=0.5", "optimizer=adam",
                  "evaluation_params.type=market_evaluate", 'batch_sampling_params={"type": "pk", "P": 2, "K": 2}')
    assert loaded.resolved["losses"][1]["margin"] == 0.5
    assert loaded.params.optimizer.type == "adam"
    assert loaded.params.evaluation_params.type == "market_evaluate"
    assert loaded.params.batch_size == 4


@pytest.mark.parametrize(("text", "line"), [
    ("epoch", "params.json: --set epoch: expected key=value, as in --set lr.base_lr=0.02"),
    ("losses[3].margin=1",
     "params.json: losses[3].margin: --set losses[3].margin=1: there is no such place in the file"),
    ("epock=1", 'params.json: epock: no such key; did you mean "epoch"?'),
    ("parallels[²]=1", 'params.json: parallels: expected a list, found {"\\u00b2": 1}'),
    ("parallels[" + "9" * 5000 + "]=1", f'params.json: parallels: expected a list, found {{"{"9" * 55}...'),
    ('losses=[{"type":"triplet","margin":Infinity}]',
     'params.json: losses: --set losses=[{"type":"triplet","margin":Infinity}]: Infinity is not a JSON number; '
     "give a finite one"),
    ("about=1e999", "params.json: about: --set about=1e999: 1e999 is too large for a number; give a finite one"),
    ('about={"a":1,"a":2}', 'params.json: about: --set about={"a":1,"a":2}: the key "a" is given twice in one object; '
     "keep one"),
    ("about=\udcff", "params.json: about: --set about=\udcff: '\\udcff' is half of a surrogate pair, no character"),
    ("about.\udcff=1",
     "params.json: about.\udcff: --set about.\udcff=1: '\\udcff' is half of a surrogate pair, no character"),
    ("about=" + "[" * 1000, f"params.json: about: --set about={'[' * 1000}: nested too deeply to be a params.json"),
])
def test_an_override_that_hits_nothing_is_a_mistake(read, text, line):
    assert said(read, {}, text) == [line]


SHORT = {
    "epochs": 7, "optimizer": "adam", "model_params": {"model": "resnet_50", "neck": "linear"}, "lr": {"decay_step": 3},
    "tri_loss_margin": 0.3, "tri_loss_lambda_cls": 2, "pretrain_snapshot": "",
    "batch_sampling_params": {"class_balanced": True, "P": 4, "K": 2},
}
GENERAL = {
    "epoch": 7, "optimizer": {"type": "adam"}, "model_params": {"backbone": "resnet50", "neck": {"type": "linear"}},
    "lr": {"decay_step": 3, "schedule": "step"}, "pretrain_snapshot": None, "batch_size": 8,
    "losses": [{"type": "softmax", "weight": 2}, {"type": "triplet", "margin": 0.3}],
    "batch_sampling_params": {"type": "pk", "P": 4, "K": 2},
}


@pytest.mark.parametrize("content", [SHORT, GENERAL], ids=["short", "general"])
@pytest.mark.parametrize(("text", "path", "value"), [
    ("epoch=3", ("epoch",), 3),
    ("epochs=3", ("epoch",), 3),
    ("optimizer=sgd", ("optimizer", "type"), "sgd"),
    ("optimizer.momentum=0.5", ("optimizer", "momentum"), 0.5),
    ("model_params.backbone=resnet18", ("model_params", "backbone"), "resnet18"),
    ("model_params.model=resnet_18", ("model_params", "backbone"), "resnet18"),
    ("model_params.neck.type=bnneck", ("model_params", "neck", "type"), "bnneck"),
    ("lr.decay_gamma=0.5", ("lr", "decay_gamma"), 0.5),
    ("pretrain_snapshot.path=/old.pth", ("pretrain_snapshot", "path"), "/old.pth"),
    ("losses[1].margin=0.5", ("losses", 1, "margin"), 0.5),
    ("tri_loss_margin=0.5", ("losses", -1, "margin"), 0.5),
    ('losses=[{"type":"softmax"}]', ("losses",), [{"type": "softmax", "weight": 1.0, "of": "batch"}]),
    ("batch_sampling_params.type=pk", ("batch_sampling_params", "type"), "pk"),
    ("batch_sampling_params.class_balanced=false", ("batch_sampling_params", "type"), "random"),
])
def test_an_override_reaches_a_key_by_either_spelling(read, content, text, path, value):
    loaded = read(content, text)
    found = loaded.resolved
    for part in path:
        found = found[part]
    assert found == value
    absolute = (*path[:1], len(loaded.resolved["losses"]) - 1, *path[2:]) if -1 in path else path
    assert {origin for name, origin in loaded.origins.items() if name.startswith(dotted(absolute))} >= {"override"}


def test_what_follows_from_an_overridden_key_follows_anew(read):
    loaded = read(SHORT, "batch_sampling_params.P=8", "lr.decay_step=[3,4]", "tri_loss_margin=0.5")
    assert loaded.params.batch_size == 16
    assert loaded.params.lr.schedule == "multistep"
    assert [section.weight for section in loaded.params.losses] == [2.0, 1.0]
    resting = {"batch_sampling_params": {"class_balanced": False, "P": 4, "K": 2}}
    assert read(resting, "batch_sampling_params.class_balanced=true").params.batch_size == 8


def test_of_two_overrides_the_later_wins(read):
    assert read({}, "epochs=3", "epoch=4").params.epoch == 4
    assert read({}, "epoch=4", "epochs=3").params.epoch == 3
    assert read({}, "optimizer=adam", "optimizer.momentum=0.5").params.optimizer.choice == ("adam", {
        "momentum": 0.5, "betas": [0.9, 0.999]})
    assert [loss.type for loss in read({}, 'losses=[{"type":"softmax"}]', "tri_loss_margin=1").params.losses] == [
        "triplet"]


@pytest.mark.parametrize(("margin", "weight", "losses"), [
    (None, None, [("softmax", 1.0)]),
    (0, 1, [("softmax", 1.0)]),
    (0.16, None, [("triplet", 1.0)]),
    (0.16, 0, [("triplet", 1.0)]),
    ("soft_margin", 0.5, [("softmax", 0.5), ("triplet", 1.0)]),
])
def test_the_triplet_keys_are_short_for_a_list_of_losses(read, margin, weight, losses):
    given = {"tri_loss_margin": margin, "tri_loss_lambda_cls": weight}
    loaded = read({key: value for key, value in given.items() if value is not None})
    assert [(section.type, section.weight) for section in loaded.params.losses] == losses
    if margin:
        assert loaded.resolved["losses"][-1]["margin"] == margin


def test_a_weight_beside_no_triplet_is_told(read):
    for without in ({}, {"tri_loss_margin": 0}):
        assert read({"tri_loss_lambda_cls": 0.5, **without}).notices == (
            "tri_loss_lambda_cls: rests while tri_loss_margin is 0; softmax has weight 1",)
    assert read({"tri_loss_lambda_cls": 0, "tri_loss_margin": 0}).notices == ()
    assert read({"tri_loss_lambda_cls": 0.5, "tri_loss_margin": 0.3}).notices == ()


def test_class_balanced_chooses_the_sampler_and_the_batch_size(read):
    balanced = read({"batch_sampling_params": {"class_balanced": True, "P": 8, "K": 4}})
    assert balanced.params.batch_sampling_params.choice == ("pk", {"P": 8, "K": 4})
    assert balanced.params.batch_size == 32
    resting = read({"batch_sampling_params": {"class_balanced": False, "P": 8, "K": 4}})
    assert resting.params.batch_sampling_params.choice == ("random", {})
    assert resting.notices == ("batch_sampling_params: P and K rest while class_balanced is false",)


@pytest.mark.parametrize(("lr", "schedule"), [
    ({}, "constant"), ({"decay_step": 10}, "step"), ({"decay_step": [10, 20]}, "multistep"),
])
def test_decay_step_chooses_the_schedule(read, lr, schedule):
    assert read({"lr": lr}).params.lr.schedule == schedule


def test_every_key_of_the_trainer_s_documentation_is_accepted(read):
    loaded = read({
        "batch_size": 64, "data_augmentation": {}, "epoch": 2, "imagenet_pretrain": False, "img_h": 64, "img_w": 32,
        "lr": {"base_lr": 0.01, "fc_lr": 0.1, "decay_step": 10, "decay_gamma": 0.1}, "optimizer": "sgd",
        "model_params": {"model": "resnet_50", "feature_dim": 512, "pcb_n_parts": 0, "last_conv_stride": 1},
        "parallels": [], "pretrain_snapshot": "", "weight_decay": 5e-4, "fine_tune": False, "working_dir": "runs",
        "evaluation_params": {"type": None}, "tri_loss_margin": 0, "tri_loss_lambda_cls": 0,
        "batch_sampling_params": {"class_balanced": False, "P": 32, "K": 4}, "$schema": "x", "about": {"any": 1},
    })
    assert loaded.params.model_params.choice == ("resnet50", {"last_stride": 1})
    assert loaded.params.pretrain_snapshot is None


def test_without_tables_the_keys_of_plugins_are_let_through(write):
    assert load(write({"losses": [{"type": "of_your_own", "any": 1}]}), None).params.losses[0].type == "of_your_own"
    with pytest.raises(ParamsError, match="epock"):
        load(write({"epock": 1}), None)
