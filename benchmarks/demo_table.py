"""The last lines of `make demo`: what training gained, and where the files lie."""

import json
import sys
from pathlib import Path


def main() -> None:
    """Print mAP and rank-1 before training, after it and through ONNX for the run directory given."""
    run, features = Path(sys.argv[1]), Path(sys.argv[2])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    ledger = json.loads((run / "snapshots" / "ledger.json").read_text())
    best = next(entry for entry in ledger["entries"] if entry["epoch"] == ledger["best"]["epoch"])
    rows = {
        "before training": next(line["evaluation"] for line in lines if line["epoch"] == 0),
        f"after epoch {best['epoch']}": best["metrics"],
        "through ONNX": next(line["metrics"] for line in reversed(lines) if "export" in line),
    }
    print(f"\n{'':<18}{'mAP':>8}{'rank-1':>8}")
    for name, metrics in rows.items():
        print(f"{name:<18}{metrics['mAP']:>8.3f}{metrics['rank1']:>8.3f}")
    print(f"\nmodel     {run / 'model.onnx'}\nfeatures  {features}\nrun       {run}")


if __name__ == "__main__":
    main()
