"""Peer of stream: the webdataset package reads tar shards over HTTP (curl, presigned URLs), shuffled, two DataLoader workers.

    wds_stream.py BATCH URL...        one epoch

Prints a line of JSON as mosaic_stream.py does."""
import json
import sys
import time

import webdataset
from torch.utils.data import DataLoader


def collate(rows):
    return [row["bin"] for row in rows]


def main():
    batch, urls = int(sys.argv[1]), sys.argv[2:]
    shards = ["pipe:curl -s --fail '%s'" % url for url in urls]
    data = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=1).shuffle(1000)
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
    main()
