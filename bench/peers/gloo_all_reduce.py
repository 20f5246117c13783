"""The peer of all_reduce.c: gloo's all-reduce in place, under torchrun: gloo_all_reduce.py WINDOWS BYTES..."""
import json
import sys
import time

import torch
import torch.distributed as dist


def largest(value):
    box = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return box.item()


def window(buffer, count):
    largest(0)
    begun = time.perf_counter()
    for _ in range(count):
        dist.all_reduce(buffer)
    return largest((time.perf_counter() - begun) / count)


def main():
    windows = int(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for size in map(int, sys.argv[2:]):
        buffer = torch.zeros(size // 4)
        count = 1
        while (seconds := window(buffer, count)) * count < 0.01:
            count *= 2
        count = max(1, int(0.02 / seconds))
        row = {"name": "all_reduce", "key": size, "seconds": [window(buffer, count) for _ in range(windows)]}
        if dist.get_rank() == 0:
            print(json.dumps(row), flush=True)
    dist.destroy_process_group()


main()
