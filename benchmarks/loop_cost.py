"""What Kiln's training loop costs: images/s of a run against a bare loop on tensors in memory.

python -m benchmarks.loop_cost [--steps 10] [--rounds 5] [--workers 1]

Both train resnet18 at 128 x 64, batch 64, in this process and take turns, so that a change of the machine's speed
meets both. The run has everything a run has: archive, worker, augmentation, schedule, log, metrics, checks. The
bare loop has forward, loss, backward and step on one batch in memory.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from data.archive import Meta, Record, open_archive, write_archive
from data.figures import encoded_figures
from evaluate import EVALUATORS
from params import Loaded, load
from trainer.build import tables
from trainer.fit import Fit
from trainer.ledger import Ledger
from trainer.record import Recorder
from trainer.run import RunDirectory
from trainer.training import Training

BATCH, CLASSES = 64, 16
