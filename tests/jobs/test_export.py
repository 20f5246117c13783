#!/usr/bin/env python3
"""trainrun ckpt export: the weights of a run, as any reader of safetensors finds them."""
import os

import weights
from jobs import Folder, Tap, run

tap = Tap()
folder = Folder(samples=200)
job = folder.job("train", train="steps = 6\nmicro-batch = 6", variant="norm")
result = folder.run("--workers", 3, job)
tap.check(result.code == 0, "a job trains", result.output)
expected = folder.summary("train").get("params_crc32c")

result = folder.run("ckpt", "export", "train@latest", "out")
tap.check(result.code == 0 and os.listdir(os.path.join(folder.path, "out")) == ["model.safetensors"],
          "its weights are exported to one file", result.output)
found = weights.read_folder(os.path.join(folder.path, "out"))
tap.check(weights.params_crc32c(found) == expected, "which holds the bits of the summary", expected)
tap.check(all(name.split("/")[0] not in ("optimizer.m", "optimizer.v") for name in found) and len(found) > 4,
          "and nothing of the optimizer", sorted(found))
shown = folder.run("ckpt", "show", "train@latest").output
tap.check(all(name in shown for name in found), "names are those of the model", shown)

result = folder.run("ckpt", "export", "train", "out", "--format", "safetensors")
tap.check(result.code == 0, "an export may be repeated", result.output)
result = folder.run("ckpt", "export", "train", "hf", "--format", "hf")
tap.check(result.code == 69 and "planned, not in this version" in result.output and not os.path.exists(os.path.join(folder.path, "hf")),
          "--format hf is planned", result.output)
result = folder.run("ckpt", "export", "train", "other", "--format", "onnx")
tap.check(result.code == 2 and "safetensors" in result.output, "another format is a mistake that says which there are", result.output)
result = folder.run("ckpt", "export", "train@step-99", "other")
tap.check(result.code not in (0, 124) and "step-99" in result.output, "a checkpoint that is not there is named", result.output)

python = os.environ.get("TRAINRUN_PEERS_PYTHON")
reader = """
import sys
from safetensors.numpy import load_file
tensors = load_file(sys.argv[1])
print(len(tensors), sum(t.nbytes for t in tensors.values()), all(t.dtype == "float32" for t in tensors.values()))
"""
if not python:
    tap.skip("the safetensors package reads it", "TRAINRUN_PEERS_PYTHON is not set")
else:
    result = run([python, "-c", reader, os.path.join(folder.path, "out", "model.safetensors")])
    wanted = "%d %d True" % (len(found), sum(len(data) for _, _, data in found.values()))
    if "ModuleNotFoundError" in result.output:
        tap.skip("the safetensors package reads it", result.output.strip().splitlines()[-1])
    else:
        tap.check(result.output.strip() == wanted, "the safetensors package reads it", result.output + wanted)
tap.end()
