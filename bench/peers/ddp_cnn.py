"""The peer of the main example: PyTorch DistributedDataParallel over gloo, the same CNN, batch and optimizer.

Two processes with one thread each train on Fashion-MNIST held in memory as tensors. Each variant (plain, channels_last,
compiled) runs in processes of its own; one line of JSON a variant and one for the best are printed. A variant that
does not work here says so in its line and is left out of the best.

    python3 ddp_cnn.py [--ranks 2] [--threads 1] [--batch 64] [--steps 40] [--warmup 10] [--variants plain,channels_last]

With --first each rank ends after its first step and prints when that was finished (CLOCK_MONOTONIC).
"""
import argparse
import gzip
import json
import os
import socket
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

DATA = "/usr/share/datasets/fashion-mnist"
VARIANTS = ("plain", "channels_last", "compiled", "compiled_channels_last")


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


def read_idx(name, header):
    with gzip.open(os.path.join(DATA, name)) as f:
        return torch.frombuffer(bytearray(f.read()[header:]), dtype=torch.uint8)


def train(rank, args, variant, port, results):
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    dist.init_process_group("gloo", rank=rank, world_size=args.ranks)
    images = read_idx("train-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28).float() / 255
    labels = read_idx("train-labels-idx1-ubyte.gz", 8).long()
    images, labels = images[rank::args.ranks].clone(), labels[rank::args.ranks].clone()
    model = Cnn()
    channels_last = variant.endswith("channels_last")
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    model = DistributedDataParallel(model)
    step_model = torch.compile(model) if variant.startswith("compiled") else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True) if args.fused else \
        torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(i):
        start = i * args.batch % (len(images) - args.batch)
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(step_model(images[start:start + args.batch]), labels[start:start + args.batch])
        loss.backward()
        optimizer.step()
        return loss

    if args.first:
        step(0).item()
        print(json.dumps({"rank": rank, "first_step_ns": time.monotonic_ns()}), flush=True)
        dist.destroy_process_group()
        return
    for i in range(args.warmup):
        step(i)
    times = []
    loss = None
    for window in range(args.windows):
        dist.barrier()
        begin = time.perf_counter()
        for i in range(args.steps):
            loss = step(args.warmup + window * args.steps + i)
        dist.barrier()
        times.append(time.perf_counter() - begin)
    if rank == 0:
        results.put((times, loss.item()))
    dist.destroy_process_group()


def measure(args, variant):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(train, (args, variant, port, results), nprocs=args.ranks)
    if args.first:
        return {"variant": variant}
    times, loss = results.get()
    windows = [args.ranks * args.batch * args.steps / seconds for seconds in times]
    return {"variant": variant, "samples_per_s": max(windows), "windows": windows, "loss": loss}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64, help="a rank")
    parser.add_argument("--steps", type=int, default=40, help="in a window; the fastest window counts")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--first", action="store_true", help="end after the first step and print when that was")
    parser.add_argument("--fused", action="store_true", help="PyTorch's fused AdamW instead of its default")
    args = parser.parse_args()
    best = None
    for variant in args.variants.split(","):
        try:
            row = measure(args, variant)
        except Exception as error:  # a variant that cannot run here is a line, not a failure
            row = {"variant": variant, "error": str(error).strip().splitlines()[-1][:200]}
        print(json.dumps(row), flush=True)
        if "samples_per_s" in row and (best is None or row["samples_per_s"] > best["samples_per_s"]):
            best = row
    if args.first:
        return
    if best is None:
        sys.exit("no variant ran")
    print(json.dumps({"best": best["variant"], "samples_per_s": best["samples_per_s"], "torch": torch.__version__}))


if __name__ == "__main__":
    main()
