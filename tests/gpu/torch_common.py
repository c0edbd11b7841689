"""
What the PyTorch programs of make check-gpu share: steps are run, timed and their numbers printed as one line of JSON.

    torch_NAME.py [--device cuda] [--steps N] [--blocks N] [--small]

Each program is a function that gets the device and the sizes and answers a function that makes one step and returns a tensor of one number.
The numbers of all steps are printed exactly: two runs are the same or they are not. --small and --device cpu are for trying a program out.
"""
import argparse
import json
import os
import statistics
import time

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch  # noqa: E402

WARM_UP = 5


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def main(make):
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=40, help="of a block, which is timed")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    step = make(options.device, options.small)
    numbers = [step() for _ in range(WARM_UP)]
    seconds = []
    for _ in range(options.blocks):
        synchronize(options.device)
        begin = time.perf_counter()
        numbers += [step() for _ in range(options.steps)]
        synchronize(options.device)
        seconds.append((time.perf_counter() - begin) / options.steps)
    # Outside what is timed: each is a copy that blocks.
    print(json.dumps({"seconds": statistics.median(seconds), "best": min(seconds), "numbers": [float(n).hex() for n in numbers],
                      "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu", "torch": torch.__version__}))
