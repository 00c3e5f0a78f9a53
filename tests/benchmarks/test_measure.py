"""The benchmarks' clock and table, and that they run."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.__main__ import SCRIPTS
from benchmarks.measure import Comparison, Limit, agreed, at_least, at_most, extra_mib, in_turns, table

PEERS = {"retrieval": "pytorch_metric_learning", "gallery_search": "faiss"}
LONG = {"features", "loop_cost", "losses", "pixels", "precision", "service"}  # over five seconds even on little data


def test_contenders_take_turns():
    seen = []
    seconds = in_turns(3, lambda: seen.append("ours"), lambda: seen.append("peer"))
    assert seen == ["ours", "peer"] * 3
    assert [len(column) for column in seconds] == [3, 3]
    assert all(second >= 0 for column in seconds for second in column)


def test_the_ratio_is_the_median_of_the_rounds_and_its_sense_follows_the_bar():
    cost = Comparison("scoring", [3.0, 2.0, 2.0], "product", [1.0, 1.0, 4.0], at_most(2.0))
    assert cost.ratios == [3.0, 2.0, 0.5]
    assert "2.00 of the peer's time | 0.50 .. 3.00 | <= 2 met" in str(cost)
    gain = Comparison("decoding", [1.0, 1.0], "usual", [4.0, 6.0], at_least(5.5), count=100)
    assert gain.ratios == [4.0, 6.0]
    assert "100.0/s | usual: 20.0/s | 5.00 times faster | 4.00 .. 6.00 | >= 5.5 **missed**" in str(gain)


def test_a_limit_says_whether_it_is_kept():
    assert str(Limit("memory", 150.0, "MiB", at_most(200))).endswith("<= 200 met |")
    assert str(Limit("memory", 250.0, "MiB", at_most(200))).endswith("<= 200 **missed** |")
    assert table([Limit("memory", 1.0, "MiB", at_most(2))]).count("\n") == 2


def test_different_results_end_the_benchmark():
    agreed("both", 0.5, 1.0)
    for difference in (1.5, float("nan")):
        with pytest.raises(SystemExit, match="both: .* apart"):
            agreed("both", difference, 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_is_used_and_freed_again_is_seen():
    assert 60 < extra_mib(lambda: np.ones(8 * 2**20).sum()) < 120


@pytest.mark.parametrize("name", sorted({*SCRIPTS} - LONG))
def test_a_benchmark_runs_on_little_data_and_prints_a_table(name):
    if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
        pytest.skip(f"the peer, {PEERS[name]}, is not installed; make bench installs it")
    command = [sys.executable, "-m", f"benchmarks.{name}", "--small", "--rounds", "1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "| what | ours | peer | ratio | spread | bar |" in ended.stdout
