"""Writes a large checkpoint again and again until it is killed; started by test_checkpoint.

python killed_writer.py FOLDER: turns t = 1, 2, ... replace FOLDER by tensors that are all t.
"""

import itertools
import sys
from pathlib import Path

import torch

from genimg import checkpoint

if __name__ == "__main__":
    for turn in itertools.count(1):
        tensor = torch.full((500_000,), float(turn))
        checkpoint.write(
            Path(sys.argv[1]),
            recipe="{}",
            weights={"w": tensor},
            training={"w": tensor},
            progress={"turn": turn},
            metrics={},
            samples=b"",
            lineage={},
        )
        print(turn, flush=True)
