"""What may change between two parts of one run."""

from typing import Any

from params.errors import Mistake, ParamsError
from params.sugar import whole_batch

FREE = {
    "$schema", "about", "batch_size", "batches_dir", "working_dir", "epoch", "lr", "weight_decay", "gradient_clip",
    "optimizer", "precision", "channels_last", "compile", "parallels", "device", "sync_batch_norm",
    "num_preprocess_workers", "worker_start", "evaluation_params", "log_every", "snapshot_every",
}


def same_run(before: dict[str, Any], after: dict[str, Any]) -> None:
    """ParamsError for every key that a snapshot rests on and that resolved params would change."""
    changed = [key for key in after if key not in FREE and before.get(key) != after[key]]
    if before.get("optimizer", {}).get("type") != after["optimizer"]["type"]:
        changed.append("optimizer")
    message = "cannot change when a run is resumed; begin a new run, with pretrain_snapshot to start from this one"
    mistakes = [Mistake((key,), message) for key in changed]
    whole, now = whole_batch(before), whole_batch(after)
    if whole != now:
        mistakes.append(Mistake(("batch_size",), f"a step of this run has {whole} images over all processes, and would "
                                                 f"now have {now}; change batch_size or parallels"))
    if mistakes:
        raise ParamsError("--set", mistakes)
