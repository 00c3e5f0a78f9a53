"""What an export has proven, measured and cost, for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.gate import Cost, Gate, Proof


def proof_table(gate: Gate, proof: Proof) -> Iterator[str]:
    """How far file and network agree, and file and snapshot."""
    yield f"{'batch size':<12}{'cosine':>12}{'largest difference':>22}"
    for agreement in proof.agreements:
        yield f"{agreement.batch_size:<12}{agreement.cosine:>12.7f}{agreement.max_abs:>22.1e}"
    if gate.metric is None:
        yield "no metric: the run has no evaluator"
        return
    yield f"{'metric':<12}{'snapshot':>12}{'file':>22}"
    yield f"{gate.metric:<12}{gate.metrics[gate.metric]:>12.6f}{proof.metrics[gate.metric]:>22.6f}"


def cost_table(cost: Cost) -> Iterator[str]:
    """What the lower precision is worth beside float32, on this machine."""
    yield f"{'':<12}{'fp32':>12}{'file':>22}{'ratio':>10}"
    rows = {"megabytes": tuple(size / 1e6 for size in cost.sizes)}
    rows |= {f"ms, batch {size}": (1e3 * exact, 1e3 * lower) for size, (exact, lower) in cost.seconds.items()}
    for what, (exact, lower) in rows.items():
        yield f"{what:<12}{exact:>12.2f}{lower:>22.2f}{lower / exact:>10.2f}"
    yield f"layers left in float32: {len(cost.kept)} of {cost.layers}"
    for layer in cost.kept:
        yield f"  {layer.name} (likeness {layer.likeness:.6f} with this layer alone at the lower precision)"


def threshold_table(said: Mapping[str, Any]) -> Iterator[str]:
    """Thresholds, what they accept, and on how many pairs that rests."""
    yield f"{'level':<12}{'threshold':>12}{'FAR (95 % interval)':>36}{'TAR (95 % interval)':>36}"
    levels = {name: level for name, level in said.items() if isinstance(level, Mapping)}
    for name, level in levels.items():
        if "threshold" not in level:
            yield f"{name:<12}needs {level['needs']:,} impostor pairs, has {level['has']:,}"
            continue
        far, tar = (f"{level[rate]:.4g} ({', '.join(f'{end:.4g}' for end in level[f'{rate}_interval'])})"
                    for rate in ("far", "tar"))
        yield f"{name:<12}{level['threshold']:>12.6f}{far:>36}{tar:>36}"
    yield f"pairs: {said['genuine']} genuine, {said['impostors']} impostors, {said['split']}"
