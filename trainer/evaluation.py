"""A run's snapshot, evaluated outside training."""

from functools import cache

from data.records import Predict
from params.schema import Params
from trainer import build
from trainer.model import Embedder
from trainer.predict import run_network
from trainer.run import RunDirectory, RunError
from trainer.snapshot import State, deployed_weights, load_snapshot
from trainer.splits import Splits, predict_splits


_OTHER = {"best": "; a run without evaluator has only --snapshot last", "last": " yet"}


def snapshot_of(run: RunDirectory, which: str) -> State:
    """The run's "best" or "last" snapshot; RunError when it has none yet."""
    path = run.best if which == "best" else run.last
    if not path.is_file():
        raise RunError(f"{path}: the run has no {which} snapshot{_OTHER[which]}")
    return load_snapshot(path)


def restored_network(params: Params, state: State) -> Embedder:
    """The network of a snapshot, with the weights that are evaluated and exported, in evaluation mode."""
    network = build.network(params, len(state["class_names"]))
    network.load_state_dict(deployed_weights(state))
    return network.eval()


def predict_snapshot(run: RunDirectory, which: str, params: Params, *, logits: bool) -> Predict:
    """split name -> Predictions of a snapshot of the run; each split is predicted once."""
    device = build.device(params)
    network = restored_network(params, snapshot_of(run, which)).to(device)
    return cache(predict_splits(Splits(params.batches_dir), params, run_network(network, logits=logits, device=device)))
