"""Real processes training together give what one process gives."""

import json
import socket
from multiprocessing.connection import wait

import pytest
import torch
from torch import nn

from data.records import Share
from tests.forked import forked
from trainer.batch_norm import synchronised

# Takes steps, and predicts where that is asked for, in each case; each rank writes what it has got.
SCRIPT = """
import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from data.archive import open_archive
from evaluate import EVALUATORS
from params.reader import load
from trainer import build, ranks
from trainer.build import tables
from trainer.fit import take_step
from trainer.predict import run_network
from trainer.splits import Splits, predict_splits
from trainer.training import Training


def taken(path, first, steps, predicted):
    loaded = load(path, tables(EVALUATORS))
    archive = open_archive(Path(loaded.params.batches_dir) / "train.lmdb")
    training = Training(loaded.params, loaded.resolved, archive, build.device(loaded.params))
    said = predict_splits(Splits(loaded.params.batches_dir), loaded.params, run_network(training.network, logits=True))
    query = said("query") if predicted else None
    training.batch = first
    training.begin_epoch()
    losses, rows = [], []
    for _, batches in zip(range(steps), training.groups()):
        training.set_rates()
        scalars, output = take_step(training, batches)
        training.step += 1
        losses.append(float(scalars["loss"]))
        rows.append(len(output.embedding))
    training.loader.close()
    return {"losses": losses, "rows": rows, "network": training.network.state_dict(),
            "criterion": training.criterion.state_dict(),
            "query": query and (torch.from_numpy(query.embeddings), torch.from_numpy(query.labels))}


cases, out = json.loads(sys.argv[1]), Path(sys.argv[2])
device = torch.device("cpu")
with ranks.together([device] * 2) if ranks.launched() else nullcontext():
    results = {name: taken(Path(path), *how) for name, (path, *how) in cases.items()}
    torch.save(results, out / f"{ranks.share().rank}.pth")
"""

PLAIN = {"model_params": {"backbone": "mobilenet_v3_small", "neck": "linear+bn", "feature_dim": 16}, "optimizer": "sgd",
         "lr": {"base_lr": 1e-3}, "device": "cpu"}
BOTH = [{"type": "softmax"}, {"type": "triplet", "normalize": True}]
PK = {"class_balanced": True, "P": 2, "K": 4}
RANDOM = {"type": "random"}

# name: (keys, batches that are passed over, steps); a batch_size is that of one of two processes
CASES = {
    "softmax and triplet over P x K": ({"losses": BOTH, "batch_sampling_params": PK}, 0, 3),
    "slices of four and five images": ({"losses": BOTH, "batch_sampling_params": {**PK, "P": 3, "K": 3}}, 0, 2),
    "a last batch of two images": ({"losses": BOTH[:1], "batch_sampling_params": RANDOM, "batch_size": 5}, 12, 2),
    "a step of two batches, clipped, the backbone at rest": ({
        "losses": BOTH, "batch_sampling_params": PK, "gradient_accumulation": 2, "gradient_clip": 0.1,
        "stages": [{"freeze": ["^backbone"]}]}, 0, 1),
    "margins, and centres that the loss keeps": ({
        "losses": [{"type": "uc-tri-n"}, {"type": "center", "weight": 1e-3}], "batch_sampling_params": PK,
        "model_params": {**PLAIN["model_params"], "margin": "nn"}}, 0, 2),
    "the embedding unused": ({
        "losses": BOTH[1:], "batch_sampling_params": PK,
        "model_params": {"backbone": "mobilenet_v3_small", "neck": "bnneck"}}, 0, 2),
}
# These draw, so that two processes need not give what one does.
DRAWN = {
    "dropout and half precision": ({
        "losses": BOTH, "batch_sampling_params": PK, "precision": "bf16",
        "model_params": {**PLAIN["model_params"], "neck": "linear+bn+dropout"}}, 0, 2),
    "dropped branches": ({
        "img_h": 128, "losses": BOTH[:1], "batch_sampling_params": PK, "model_params": {
            "backbone": "mobilenet_v3_small", "neck": "linear", "feature_dim": 32, "pcb_n_parts": 2,
            "random_drop_branches": 1}}, 0, 2),
    "batch norms of their own": ({
        "losses": BOTH, "batch_sampling_params": PK, "sync_batch_norm": False}, 0, 2),
}
PREDICTED = ["slices of four and five images", "a last batch of two images"]


def environments(processes):
    """What the launcher tells each of several processes; one process has none."""
    if processes == 1:
        return [{}]
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    return [{"RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
             "TORCHELASTIC_RUN_ID": "ranks", "TORCH_CPP_LOG_LEVEL": "ERROR"} for rank in range(processes)]


def await_all(processes):
    """Wait for all to end; when one ends badly, end the others, which would wait for it for hours."""
    left = {process.sentinel: process for process in processes}
    while left:
        for sentinel in wait(left):
            ended = left.pop(sentinel)
            ended.join()
            if ended.exitcode != 0:
                for process in left.values():
                    process.kill()


@pytest.fixture(scope="module")
def run(figures, tmp_path_factory):
    """The results of every case by rank, and those of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "steps.py"
    script.write_text(SCRIPT)
    common = {"img_h": 64, "img_w": 32, "epoch": 1, "num_preprocess_workers": 0, "batches_dir": str(figures), **PLAIN}
    results = []
    for processes in (1, 2):
        out = folder / str(processes)
        out.mkdir()
        cases = {}
        for i, (name, (keys, first, steps)) in enumerate({**CASES, **DRAWN}.items()):
            path = out / f"{i}.json"
            sizes = {"batch_size": keys["batch_size"] * 2 // processes} if "batch_size" in keys else {}
            parallels = [0] * processes if processes > 1 else []
            path.write_text(json.dumps({**common, **keys, **sizes, "parallels": parallels}))
            cases[name] = (str(path), first, steps, name in PREDICTED)
        command = [script, json.dumps(cases), out]
        said = [out / f"{rank}.txt" for rank in range(processes)]
        ranks = [forked(command, told, path) for told, path in zip(environments(processes), said, strict=True)]
        await_all([process for process, _ in ranks])
        for _, output in ranks:
            output.close()
        assert [process.exitcode for process, _ in ranks] == [0] * processes, [path.read_text() for path in said]
        results.append([torch.load(out / f"{rank}.pth") for rank in range(processes)])
    (one,), two = results
    return one, two


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_losses_and_weights_of_one(run, case):
    one, (two, _) = run[0][case], run[1]
    two = two[case]
    assert two["rows"] == one["rows"]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for part in ("network", "criterion"):
        assert two[part].keys() == one[part].keys()
        torch.testing.assert_close(two[part], one[part], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", [*CASES, *DRAWN])
def test_every_rank_has_the_same_losses_and_weights_to_the_bit(run, case):
    first, second = (results[case] for results in run[1])
    assert first["losses"] == second["losses"] and all(torch.tensor(first["losses"]).isfinite())
    for name, parameter in first["network"].items():
        if case != "batch norms of their own" or "running" not in name:
            assert torch.equal(parameter, second["network"][name]), name


@pytest.mark.parametrize("case", PREDICTED)
def test_every_rank_gets_the_predictions_of_one_process_in_order(run, case):
    embeddings, labels = run[0][case]["query"]
    for rank in run[1]:
        embeddings_of_rank, labels_of_rank = rank[case]["query"]
        assert torch.equal(labels_of_rank, labels)
        torch.testing.assert_close(embeddings_of_rank, embeddings, atol=1e-6, rtol=0)


def test_a_batch_norm_that_does_more_than_torch_s_is_refused_by_its_name():
    class WithActivation(nn.BatchNorm2d):
        """As those of timm, of which only the norm could be synchronised."""

    with pytest.raises(ValueError, match="sync_batch_norm: WithActivation has no counterpart over several processes"):
        synchronised(nn.Sequential(WithActivation(3)), torch.device("cpu"))


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 6, 7, 20])
def test_shares_are_all_things_once_in_order_and_differ_by_one_at_most(ranks, count):
    things = list(range(count))
    parts = [things[Share(rank, ranks).of(count)] for rank in range(ranks)]
    assert sum(parts, []) == things
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
