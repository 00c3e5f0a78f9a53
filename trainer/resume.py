"""What may change between two parts of one run."""

from typing import Any

from params.errors import Mistake, ParamsError

FREE = {
    "$schema", "about", "batches_dir", "working_dir", "epoch", "lr", "weight_decay", "gradient_clip", "optimizer",
    "precision", "channels_last", "compile", "parallels", "device", "num_preprocess_workers", "worker_start",
    "evaluation_params", "log_every", "snapshot_every",
}


def same_run(before: dict[str, Any], after: dict[str, Any]) -> None:
    """ParamsError for every key that a snapshot rests on and that resolved params would change."""
    changed = [key for key in after if key not in FREE and before.get(key) != after[key]]
    if before.get("optimizer", {}).get("type") != after["optimizer"]["type"]:
        changed.append("optimizer")
    message = "cannot change when a run is resumed; begin a new run, with pretrain_snapshot to start from this one"
    if changed:
        raise ParamsError("--set", [Mistake((key,), message) for key in changed])
