"""A run's snapshot, evaluated outside training."""

from data.records import RunEval
from params.reader import Loaded
from params.schema import Params
from trainer import build
from trainer.model import Embedder
from trainer.predict import run_network
from trainer.run import RunDirectory, RunError
from trainer.sentinel import finite_metrics
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


def evaluate_snapshot(
    run: RunDirectory, which: str, loaded: Loaded, run_eval: RunEval | None, wants_logits: bool,
) -> dict[str, float]:
    """The evaluator's metrics for a snapshot of the run."""
    if run_eval is None:
        raise RunError(f"{run.params}: names no evaluator; add one with --set evaluation_params.type=market_evaluate")
    params = loaded.params
    device = build.device(params)
    network = restored_network(params, snapshot_of(run, which)).to(device)
    deployed = run_network(network, logits=wants_logits, device=device)
    metrics = run_eval(loaded.resolved, predict_splits(Splits(params.batches_dir), params, deployed))
    return finite_metrics(metrics)
