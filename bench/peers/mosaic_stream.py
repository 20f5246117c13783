"""Peer of stream: MosaicML streaming reads MDS shards from the bucket, shuffled, in batches, two DataLoader workers.

    mosaic_stream.py write FOLDER SAMPLES SAMPLE-BYTES           random samples as MDS shards
    mosaic_stream.py read s3://BUCKET/PREFIX LOCAL BATCH         one epoch (S3_ENDPOINT_URL, AWS_*)

read prints a line of JSON: first_ns (CLOCK_MONOTONIC when the first batch was there), seconds, samples and bytes after
it."""
import json
import sys
import time


def write(folder, samples, sample_bytes):
    import numpy
    from streaming import MDSWriter

    rng = numpy.random.default_rng(1)
    with MDSWriter(out=folder, columns={"x": "bytes"}, size_limit=64 << 20) as out:
        for _ in range(samples):
            out.write({"x": rng.bytes(sample_bytes)})


def collate(rows):
    return [row["x"] for row in rows]


def read(url, local, batch):
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    data = StreamingDataset(remote=url, local=local, shuffle=True, batch_size=batch)
    first, samples, total = None, 0, 0
    for rows in DataLoader(data, batch_size=batch, num_workers=2, collate_fn=collate):
        if first is None:
            first = time.monotonic_ns()
            continue
        samples += len(rows)
        total += sum(len(row) for row in rows)
    print(json.dumps({"first_ns": first, "seconds": (time.monotonic_ns() - first) / 1e9, "samples": samples,
                      "bytes": total}))


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        read(sys.argv[2], sys.argv[3], int(sys.argv[4]))
