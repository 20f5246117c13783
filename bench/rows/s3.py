"""What the rows about object storage share: MinIO on this machine, as tests have it, and data in it."""
import io
import os
import random
import sys
import tarfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "support"))
import servers  # noqa: E402

from harness import Failed  # noqa: E402


def minio():
    """A server in a `with`."""
    reason = servers.missing("minio")
    if reason:
        raise Failed(reason)
    return servers.minio()


def let_in(bench, server):
    """Both sides find endpoint and credentials in the environment, under the names that each reads."""
    bench.environment.update(server.environment(), S3_ENDPOINT_URL=server.endpoint,
                             BENCH_S3_ENDPOINT=server.endpoint, BENCH_S3_ACCESS_KEY=server.access_key,
                             BENCH_S3_SECRET_KEY=server.secret_key)


def put_shards(server, bucket, prefix, shards, samples, sample_bytes):
    """Tar shards of random samples with one member, NUMBER.bin; returns the URL with braces."""
    server.make_bucket(bucket)
    noise = random.Random(1)
    for shard in range(shards):
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(samples):
                member = tarfile.TarInfo("%07d.bin" % (shard * samples + i))
                member.size = sample_bytes
                tar.addfile(member, io.BytesIO(noise.randbytes(sample_bytes)))
        server.put(bucket, "%s-%05d.tar" % (prefix, shard), body.getvalue())
    return "s3://%s/%s-{00000..%05d}.tar" % (bucket, prefix, shards - 1)


def put_folder(server, bucket, prefix, folder):
    server.make_bucket(bucket)
    for name in sorted(os.listdir(folder)):
        server.put_file(bucket, prefix + "/" + name, os.path.join(folder, name))
    return "s3://%s/%s" % (bucket, prefix)
