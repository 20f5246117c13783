"""Objects from and to MinIO on this machine: against s5cmd, curl and Amazon's connector for PyTorch.

Into files: whole commands are timed, both write to the same folder. Into memory: from the first request on, with the
client's CPU time, checksums included."""
import os
import random
import shutil
import tempfile
import time

from harness import AtMost, Row, Times, in_turn, median, peer_side, say

from . import s3

OBJECTS, BYTES = 4, 256 << 20


def timed(bench, command):
    begun = time.monotonic()
    bench.run(command)
    return [time.monotonic() - begun]


def s5cmd(bench, server, *arguments):
    python = bench.python("-c", "")
    path = python and os.path.join(os.path.dirname(python[0]), "s5cmd")
    return [path, "--endpoint-url", server.endpoint, *arguments] if path and os.access(path, os.X_OK) else None


def curl(server, folder, keys):
    if shutil.which("curl") is None:
        return None
    urls = []
    for key in keys:
        urls += ["-o", os.path.join(folder, key), "%s/bench/get/%s" % (server.endpoint, key)]
    return ["curl", "-s", "--fail", "-Z", "--aws-sigv4", "aws:amz:us-east-1:s3", "-H",
            "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--user", "%s:%s" % (server.access_key, server.secret_key), *urls]


def files_rows(bench, server, keys):
    """Downloads and uploads of a prefix, to and from one folder."""
    with tempfile.TemporaryDirectory(dir=bench.folder.name) as folder:
        trainrun = os.path.join(bench.build, "trainrun")
        ours = [trainrun, "store", "get", "--quiet", "--force", "s3://bench/get/", folder + "/"]
        peer = s5cmd(bench, server, "cp", "s3://bench/get/*", folder + "/")
        timed(bench, ours)
        mine, with_s5, with_curl = in_turn(bench.rounds, lambda: timed(bench, ours),
                                           peer_side(lambda c: timed(bench, c), peer),
                                           peer_side(lambda c: timed(bench, c), curl(server, folder, keys)))
        name = "GET 4 x 256 MiB from MinIO into files"
        yield Row(name, "s", median(mine), median(with_s5), "s5cmd", False, Times(1.3))
        yield Row(name, "s", median(mine), median(with_curl), "curl, parallel", False, None)
        ours = [trainrun, "store", "put", "--quiet", "--force", folder + "/", "s3://bench/put/"]
        peer = s5cmd(bench, server, "cp", folder + "/*", "s3://bench/put-s5/")
        mine, with_s5 = in_turn(bench.rounds, lambda: timed(bench, ours), peer_side(lambda c: timed(bench, c), peer))
        yield Row("PUT 4 x 256 MiB from files to MinIO", "s", median(mine), median(with_s5), "s5cmd", False, None)


def memory_rows(bench, server, keys):
    cpu = []

    def read(command):
        line = bench.run(command)[1][-1]
        if "s3torch" not in " ".join(command):
            cpu.append(line["cpu_s"] / (line["bytes"] / 1e9))
        return [line["bytes"] / line["seconds"] / 1e9]

    ours = [bench.program("store_copy"), "get", *("s3://bench/get/" + key for key in keys)]
    torch = bench.python(bench.peer_script("s3torch_get.py"), server.endpoint, "s3://bench/get/")
    mine, with_torch = in_turn(bench.rounds, lambda: read(ours), peer_side(read, torch))
    yield Row("GET 4 x 256 MiB from MinIO into memory", "GB/s", median(mine), median(with_torch),
              "s3torchconnector, 2 workers", True, Times(3))
    yield Row("client CPU of that, checksums included", "s/GB", median(cpu), goal=AtMost(0.2, "s/GB"))


def rows(bench):
    say("objects from and to MinIO")
    keys = ["object-%d" % i for i in range(OBJECTS)]
    with s3.minio() as server:
        s3.let_in(bench, server)
        server.make_bucket("bench")
        body = random.Random(1).randbytes(64 << 20) * (BYTES >> 26)
        for key in keys:
            server.put("bench", "get/" + key, body)
        yield from memory_rows(bench, server, keys)
        yield from files_rows(bench, server, keys)
