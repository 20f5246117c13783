"""Samples of 112 KB streamed and shuffled from MinIO, in batches: against MosaicML streaming and webdataset.

All sides read the same number of random samples of one size, shuffled, in batches of 128, with two workers; ours in tar
shards with an index beside them, as `trainrun data index` leaves it. GB/s are of the samples after the first batch; the
first batch is timed from the command's start."""
import os
import tempfile

from harness import AtMost, Row, Times, in_turn, median, peer_side, say

from . import s3

SHARDS, SAMPLES, BYTES, BATCH = 32, 512, 112000, 128


def ours(bench, url, first):
    steps = SHARDS * SAMPLES // BATCH
    begun, lines = bench.run(bench.trainrun(
        "--set", "program=" + bench.program("stream"), "--set", "data.train=" + url, "--set",
        "data.batch-size=%d" % BATCH, "--set", "params.steps=%d" % steps, os.path.join(bench.source, "stream.toml")))
    lines = [line for line in lines if "first_ns" in line]
    first.append((max(line["first_ns"] for line in lines) - begun) / 1e9)
    seconds = max(line["seconds"] for line in lines)
    cpu = sum(line["cpu_s"] for line in lines)
    total = sum(line["bytes"] for line in lines)
    return total / seconds / 1e9, cpu / (total / 1e9)


def theirs(bench, command, first):
    begun, lines = bench.run(command, 300)
    line = lines[-1]
    first.append((line["first_ns"] - begun) / 1e9)
    return [line["bytes"] / line["seconds"] / 1e9]


def rows(bench):
    say("samples streamed from MinIO")
    first, cpu, peers = [], [], {"mosaic": [], "wds": []}
    with s3.minio() as server, tempfile.TemporaryDirectory(dir=bench.folder.name) as folder:
        s3.let_in(bench, server)
        url = s3.put_shards(server, "bench", "stream", SHARDS, SAMPLES, BYTES)
        bench.run([os.path.join(bench.build, "trainrun"), "data", "index", "--quiet", url])
        script = bench.peer_script("mosaic_stream.py")
        mosaic = bench.python(script, "write", os.path.join(folder, "mds"), str(SHARDS * SAMPLES), str(BYTES))
        if mosaic is not None:
            bench.run(mosaic, 300)
            remote = s3.put_folder(server, "bench", "mds", os.path.join(folder, "mds"))
        number = [0]

        def stream_ours():
            speed, used = ours(bench, url, first)
            cpu.append(used)
            return [speed]

        def stream_mosaic(_):
            number[0] += 1
            local = os.path.join(folder, "local-%d" % number[0])
            return theirs(bench, bench.python(script, "read", remote, local, str(BATCH)), peers["mosaic"])

        wds = bench.python(bench.peer_script("wds_stream.py"), str(BATCH),
                           *(server.presign("bench", "stream-%05d.tar" % i) for i in range(SHARDS)))
        mine, with_mosaic, with_wds = in_turn(
            bench.rounds, stream_ours, peer_side(stream_mosaic, mosaic),
            peer_side(lambda command: theirs(bench, command, peers["wds"]), wds))
        name = "samples of 112 KB streamed and shuffled from MinIO, 2 workers"
        yield Row(name, "GB/s", median(mine), median(with_mosaic), "MosaicML streaming", True, Times(3))
        yield Row(name, "GB/s", median(mine), median(with_wds), "webdataset, curl", True, None)
        name = "command to first batch of that"
        yield Row(name, "s", median(first), goal=AtMost(0.3, "s"))
        yield Row(name, "s", median(first), median(peers["mosaic"]), "MosaicML streaming", False, None)
        yield Row(name, "s", median(first), median(peers["wds"]), "webdataset, curl", False, None)
        yield Row("client CPU of that, both workers", "s/GB", median(cpu))
