"""What the tests of jobs on buckets share: shards of the main example's kind, a server with them in it, jobs that use it."""
import io
import os
import random
import re
import struct
import sys
import tarfile
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "support"))
import servers
from faultproxy import FaultProxy
from jobs import *

DATA, RUNS = "train-data", "train-runs"


def png(pixels, side=28):
    """A grey image."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + pixels[row * side:(row + 1) * side] for row in range(side))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def write_shard(path, samples):
    """samples: a list of {suffix: bytes}."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i, sample in enumerate(samples):
            for suffix, data in sample.items():
                member = tarfile.TarInfo("%06d.%s" % (i, suffix))
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def make_images(folder, shards=4, each=160, seed=1):
    """folder/train-000.tar … and valid-000.tar: noisy patterns of ten classes, as make_data's."""
    source = random.Random(seed)
    patterns = [[source.randrange(200) for _ in range(784)] for _ in range(10)]

    def sample():
        label = source.randrange(10)
        noise = source.getrandbits(784 * 6).to_bytes(588, "little") * 2
        return {"png": png(bytes(p + (n & 55) for p, n in zip(patterns[label], noise))), "cls": b"%d" % label}

    names = ["train-%03d.tar" % i for i in range(shards)] + ["valid-000.tar"]
    for name in names:
        write_shard(os.path.join(folder, name), [sample() for _ in range(each)])
    return names


def make_bytes(folder, shards=4, each=64, sample_bytes=100000, seed=1):
    """folder/bytes-000.tar …: samples of so many random bytes."""
    source = random.Random(seed)
    names = ["bytes-%03d.tar" % i for i in range(shards)]
    for name in names:
        write_shard(os.path.join(folder, name), [{"bin": source.randbytes(sample_bytes), "cls": b"%d" % source.randrange(10)}
                                                 for _ in range(each)])
    return names


def fill(server, folder, names):
    for bucket in (DATA, RUNS):
        server.make_bucket(bucket)
    for name in names:
        server.put_file(DATA, name, os.path.join(folder, name))


class Place(Folder):
    """A folder for jobs whose data are shards in it, and the same shards in a bucket."""

    def __init__(self):
        super().__init__(samples=10)

    def image_job(self, name, root, runs="", text="", shards=4, train="steps = 30\nmicro-batch = 6", **tables):
        """The main example on the shards below root, with checkpoints below the URL runs ("": in the run's folder)."""
        tables = {"train": train, "checkpoint": 'every = "10 steps"\nkeep = { last = 10 }' + ('\nurl = "%s"' % runs if runs else ""),
                  "metrics": 'log-every = "1 step"', "params": 'width = 4\nvariant = "norm"', **tables}
        data = ('train = "%s/train-{000..%03d}.tar"\nvalid = "%s/valid-000.tar"\nformat = "webdataset"\n'
                'fields = { image = "png", label = "cls" }\nbatch-size = 48' % (root, shards - 1, root))
        return self.write(name, "fashion_mnist", EXAMPLES, text, dict({"data": data}, **tables))

    def bytes_job(self, name, root, text="", shards=4, batch=16, train="steps = 60\nmicro-batch = 4", compute_ms=3.0, **tables):
        tables = {"train": train, "params": "compute-ms = %s" % compute_ms, **tables}
        data = ('train = "%s/bytes-{000..%03d}.tar"\nformat = "webdataset"\nfields = { x = "bin", y = "cls" }\n'
                'batch-size = %d\nprefetch = "8MiB"' % (root, shards - 1, batch))
        return self.write(name, "streamed", os.path.join(TESTS, "jobs"), text, dict({"data": data}, **tables))

    def write(self, name, program, folder, text, tables):
        lines = ['name = "%s"' % name, 'program = "%s/%s"' % (folder, program), "seed = 5", text]
        for table, body in tables.items():
            lines += ["[%s]" % table, body]
        path = os.path.join(self.path, name + ".toml")
        with open(path, "w") as file:
            file.write("\n".join(lines) + "\n")
        return path


def bits(summary):
    return {key: summary.get(key) for key in ("status", "params_crc32c", "order_crc32c", "steps", "samples")}
