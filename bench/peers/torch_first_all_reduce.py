"""The peer of first_all_reduce.c, under torchrun with gloo."""
import json
import time

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
value = torch.ones(1)
dist.all_reduce(value)
print(json.dumps({"rank": dist.get_rank(), "sum": value.item(), "finished_ns": time.monotonic_ns()}), flush=True)
dist.destroy_process_group()
