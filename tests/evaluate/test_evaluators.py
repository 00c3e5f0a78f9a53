"""The menu of evaluators: what holds for all of them, and how a user's own one joins."""

import inspect
import sys

import numpy as np
import pytest
from pydantic import ValidationError

import evaluate
from evaluate import EVALUATORS
from evaluate.protocol import Scored, evaluator, scored_of, wants_logits

OWN = """
def run_eval(config, predict):
    return {"images": float(len(predict("val").labels)), "answer": config["evaluation_params"]["answer"]}
"""


@pytest.fixture(params=sorted(EVALUATORS))
def run_eval(request):
    return EVALUATORS.load(request.param)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write a module of the user's own where imports find it; forget it after the test."""
    def write(name, text=OWN):
        (tmp_path / f"{name}.py").write_text(text)

    monkeypatch.setattr(evaluate, "__path__", [*evaluate.__path__, str(tmp_path)])
    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for name in ("evaluate.x_evaluate", "my_scores.x", "my_scores"):
        sys.modules.pop(name, None)
    vars(evaluate).pop("x_evaluate", None)


def test_defaults_give_floats_and_a_first_metric_between_0_and_1(run_eval, splits):
    metrics = run_eval({}, splits.__getitem__)
    assert all(type(value) is float and np.isfinite(value) for value in metrics.values())
    assert 0 < next(iter(metrics.values())) <= 1


def test_every_metric_but_the_counts_is_a_fraction(run_eval, splits):
    metrics = run_eval({}, splits.__getitem__)
    counts = ("queries", "folds", "genuine", "impostors")
    assert all(0 <= value <= 1 for name, value in metrics.items() if not name.startswith(counts))


def test_the_same_predictions_give_the_same_metrics(run_eval, splits):
    assert run_eval({}, splits.__getitem__) == run_eval({}, splits.__getitem__)


def test_the_order_of_the_queries_does_not_matter(run_eval, splits):
    def shuffled(split):
        if split == "gallery":
            return splits[split]
        count = len(splits[split].labels)
        order = np.random.default_rng(4).permutation(count)
        if split == "test":  # of pairs, which stay together
            order = np.repeat(2 * order[order < count // 2], 2) + np.arange(count) % 2
        return type(splits[split])(*(column[order] for column in splits[split]))
    assert run_eval({}, shuffled) == pytest.approx(run_eval({}, splits.__getitem__), abs=1e-12)


def test_an_evaluator_does_not_write_into_what_it_is_given(run_eval, splits):
    for predictions in splits.values():
        for column in predictions:
            column.flags.writeable = False
    assert run_eval({}, splits.__getitem__)


def test_an_evaluator_that_does_not_want_logits_does_without(run_eval, splits):
    def predict(split):
        return splits[split] if wants_logits(run_eval) else splits[split]._replace(logits=None)
    assert run_eval({}, predict) == run_eval({}, splits.__getitem__)


def test_means_are_given_with_what_they_are_the_means_of(run_eval, splits):
    found = scored_of(run_eval)({}, splits.__getitem__)
    assert found.metrics == run_eval({}, splits.__getitem__)
    assert next(iter(found.metrics)) in found.values and found.ranked_by in found.values
    for name, values in found.values.items():
        assert values.ndim == 1 and len(values) == len(found.values[found.ranked_by])
        assert found.metrics[name] == np.nanmean(values)


def test_the_menu_lists_the_files_of_the_folder():
    assert {"market_evaluate", "classification_evaluate", "retrieval_evaluate", "lfw_evaluate"} <= set(EVALUATORS)
    assert len(EVALUATORS) == len(list(EVALUATORS))
    assert "ranking" not in EVALUATORS


def test_keyword_only_arguments_are_the_keys_of_params_json():
    options = EVALUATORS.options("market_evaluate")
    assert options.model_validate({"ap": "trapezoid"}).cross_camera is True
    for wrong in ({"ap": "rectangle"}, {"cross_camera": 1}, {"crosscamera": True}, {"block_mib": 0},
                  {"rerank": {"k3": 1}}, {"rerank": {"k1": 0}}, {"spectral": 0}, {"count": "most"}):
        with pytest.raises(ValidationError):
            options.model_validate(wrong)


def test_a_list_of_k_survives_the_way_through_json():
    options = EVALUATORS.options("retrieval_evaluate")
    assert options.model_validate({"k": [1, 10]}).model_dump(mode="json")["k"] == [1, 10]
    assert options().model_dump(mode="json")["k"] == [1, 2, 4, 8]
    for wrong in ([], [0], [1.5], "1"):
        with pytest.raises(ValidationError):
            options.model_validate({"k": wrong})


def test_the_keys_of_re_ranking_survive_the_way_through_json(splits):
    options = EVALUATORS.options("market_evaluate").model_validate({"rerank": {"k1": 4}}).model_dump(mode="json")
    assert options["rerank"] == {"k1": 4, "k2": 6, "lambda_value": 0.3, "budget_mib": None}
    run_eval = EVALUATORS.load("market_evaluate")
    given, resolved = ({"evaluation_params": {"rerank": value}} for value in ({"k1": 4}, options["rerank"]))
    assert run_eval(given, splits.__getitem__) == run_eval(resolved, splits.__getitem__)


def test_nmi_without_scikit_learn_is_refused_before_a_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    options = EVALUATORS.options("retrieval_evaluate")
    assert options().nmi is False
    with pytest.raises(ValidationError, match="nmi needs scikit-learn, which is not installed"):
        options.model_validate({"nmi": True})


def test_a_declared_evaluator_takes_its_options_and_leaves_the_runners_keys():
    @evaluator(logits=False)
    def run_eval(config, predict, *, depth: int = 3):
        return {"depth": float(depth)}

    section = {"type": "own", "every": 5, "monitor": "depth", "mode": "min", "initial": True}
    assert run_eval({}, None) == run_eval({"evaluation_params": None}, None) == {"depth": 3.0}
    assert run_eval({"evaluation_params": {**section, "depth": 7}}, None) == {"depth": 7.0}
    assert scored_of(run_eval)({}, None) == Scored("", {}, {"depth": 3.0}, asked=[])
    assert scored_of(lambda config, predict: {"one": 1.0})({}, None) == Scored("", {}, {"one": 1.0}, asked=[])
    with pytest.raises(TypeError, match="'dept'"):
        run_eval({"evaluation_params": {**section, "dept": 7}}, None)
    assert inspect.signature(run_eval).parameters["depth"].kind is inspect.Parameter.KEYWORD_ONLY


def test_an_evaluator_says_whether_it_wants_logits():
    assert wants_logits(EVALUATORS.load("classification_evaluate"))
    assert not wants_logits(EVALUATORS.load("market_evaluate"))
    assert wants_logits(lambda config, predict: {})


@pytest.mark.parametrize("name", ["x_evaluate", "my_scores.x"])
def test_a_users_own_file_works_by_its_name_alone(own_module, tmp_path, splits, name):
    (tmp_path / "my_scores").mkdir()
    own_module(name.replace(".", "/"))
    answer = {"answer": 42.0}
    assert EVALUATORS.options(name).model_validate(answer).model_dump() == answer
    metrics = EVALUATORS.load(name)({"evaluation_params": {"type": name, **answer}}, splits.__getitem__)
    assert metrics == {"images": 31.0, **answer}


def test_a_users_file_in_the_folder_is_on_the_menu(own_module):
    assert "x_evaluate" not in EVALUATORS
    own_module("x_evaluate")
    assert "x_evaluate" in list(EVALUATORS)


@pytest.mark.parametrize("name, message", [
    ("market", 'no evaluator "market"; there are .*market_evaluate.*, or the dotted path of a module'),
    ("no.such.module", "\"no.such.module\" cannot be imported: No module named 'no'"),
    ("evaluate.ranking", '"evaluate.ranking" has no run_eval'),
    ("evaluate..ranking", 'no evaluator "evaluate..ranking"'),
])
def test_a_name_that_is_no_evaluator_is_refused_in_one_line(name, message):
    with pytest.raises(ValueError, match=message) as error:
        EVALUATORS.options(name)
    assert "\n" not in str(error.value)
