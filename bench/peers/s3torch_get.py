"""Peer of store_copy get: Amazon's connector for PyTorch reads every object of a prefix into memory, two DataLoader workers.

    s3torch_get.py ENDPOINT s3://BUCKET/PREFIX

Prints a line of JSON: seconds from the first request on, CPU seconds of this process and its workers, bytes."""
import json
import resource
import sys
import time

from s3torchconnector import S3ClientConfig, S3IterableDataset
from torch.utils.data import DataLoader


def size(item):
    return len(item.read())


def cpu_s():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main():
    endpoint, url = sys.argv[1:3]
    data = S3IterableDataset.from_prefix(url, region="us-east-1", endpoint=endpoint, transform=size,
                                         s3client_config=S3ClientConfig(force_path_style=True), enable_sharding=True)
    begun, begun_cpu = time.monotonic(), cpu_s()
    total = sum(DataLoader(data, batch_size=None, num_workers=2))
    print(json.dumps({"seconds": time.monotonic() - begun, "cpu_s": cpu_s() - begun_cpu, "bytes": total}))


if __name__ == "__main__":
    main()
