"""The peers of a checkpoint: PyTorch's distributed checkpoint (DCP), asynchronous and not, and safetensors' save_file.

    python3 dcp_async.py FOLDER PARAMETERS STEP-MS STEPS

fp32 values and two moments of so many parameters, in tensors of some MB; a step is matrix products on all cores and an AdamW
update of all arrays. STEPS steps run undisturbed, then async_save is called and steps run until it is done. A line of JSON
says how long the call blocked, and the steps' times; two more how long dcp.save and save_file take with nothing beside
them, save_file as it is and with an fsync behind it. Each is done twice and told the second time.
"""
import json
import os
import shutil
import sys
import time

import torch
import torch.distributed.checkpoint as dcp

TENSOR = 7 << 20


def make_state(parameters):
    state = {}
    for prefix in ("", "optimizer.m/", "optimizer.v/"):
        for at in range(0, parameters, TENSOR):
            state[f"{prefix}w{at // TENSOR:03}"] = torch.full((min(TENSOR, parameters - at),), 0.5)
    return state


class Training:
    def __init__(self, state, step_s):
        names = [name for name in state if "/" not in name]
        self.values = [state[name] for name in names]
        self.m = [state[f"optimizer.m/{name}"] for name in names]
        self.v = [state[f"optimizer.v/{name}"] for name in names]
        self.gradients = [torch.full_like(value, 1e-3) for value in self.values]
        self.a = torch.rand(512, 512)
        self.products = 0
        update_s = min(self.step(), self.step())
        self.products = 50
        one_s = max((self.step() - update_s) / 50, 1e-5)
        self.products = max(1, int((step_s - update_s) / one_s))

    def step(self):
        begun = time.monotonic()
        for _ in range(self.products):
            torch.mm(self.a, self.a)
        torch._foreach_lerp_(self.m, self.gradients, 0.1)
        torch._foreach_mul_(self.v, 0.999)
        torch._foreach_addcmul_(self.v, self.gradients, self.gradients, 0.001)
        for value, m, v in zip(self.values, self.m, self.v):
            value.addcdiv_(m, v.sqrt().add_(1e-8), value=-1e-3)
        return time.monotonic() - begun


def beside_training(folder, state, training, steps):
    before = [training.step() for _ in range(steps)]
    begun = time.monotonic()
    future = dcp.async_save(state, checkpoint_id=os.path.join(folder, "async"))
    blocked = time.monotonic() - begun
    during = []
    while not future.done() and len(during) < 4096:
        during.append(training.step())
    future.result()
    uploaded = time.monotonic() - begun
    after = [training.step() for _ in range(steps)]
    shutil.rmtree(os.path.join(folder, "async"))
    return {"name": "dcp async", "blocked_s": blocked, "uploaded_s": uploaded, "before_s": before, "during_s": during,
            "after_s": after}


def timed(action):
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def main():
    folder, parameters, step_s, steps = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1e3, int(sys.argv[4])
    os.makedirs(folder, exist_ok=True)
    state = make_state(parameters)
    training = Training(state, step_s)
    for turn in range(2):
        result = beside_training(folder, state, training, steps)
    print(json.dumps(result), flush=True)
    for turn in range(2):
        seconds = timed(lambda: dcp.save(state, checkpoint_id=os.path.join(folder, f"dcp{turn}")))
        shutil.rmtree(os.path.join(folder, f"dcp{turn}"))
    print(json.dumps({"name": "dcp", "durable_s": seconds}), flush=True)
    try:
        from safetensors.torch import save_file
    except ImportError:
        return
    path = os.path.join(folder, "model.safetensors")

    def synced():
        save_file(state, path)
        with open(path, "rb+") as f:
            os.fsync(f.fileno())

    for turn in range(2):
        plain = timed(lambda: save_file(state, path))
        os.remove(path)
        durable = timed(synced)
        os.remove(path)
    print(json.dumps({"name": "save_file", "written_s": plain, "durable_s": durable}), flush=True)


main()
