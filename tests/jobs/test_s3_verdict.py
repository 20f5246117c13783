#!/usr/bin/env python3
"""What a slow store does to a job is in the verdict: how much was needed, how much came, and what the time went to."""
from bucket import *

tap = Tap()
if servers.missing("minio"):
    tap.skip("verdicts about a store", servers.missing("minio"))
    tap.end()
place = Place()
names = make_bytes(place.path)


def judge(name, proxy, rules, **job):
    """The verdict of a run of 2 workers whose store does what the rules say once its data are indexed."""
    proxy.rules(rules)
    path = place.bytes_job(name, "s3://" + DATA, **job)
    result = place.run("--workers", 2, "--fresh", path, env=server.environment(proxy.endpoint))
    summary = place.summary(name)
    tap.check(result.code == 0 and summary.get("status") == "done", "%s finishes" % name, result.output)
    ledger = {key: value for key, value in summary.get("ledger", {}).items() if value > 0.02}
    print("# %s\n# %s" % (summary.get("verdict", ""), ledger))
    return summary.get("verdict", ""), summary.get("ledger", {})


def rates(verdict):
    """(needed, got) in MB/s."""
    found = re.search(r"needs ([\d.]+) (MB|GB)/s, got ([\d.]+) (MB|GB)/s", verdict)
    if found is None:
        return 0, 0
    return tuple(float(found.group(i)) * (1000 if found.group(i + 1) == "GB" else 1) for i in (1, 3))


with servers.minio() as server, FaultProxy(server) as proxy:
    fill(server, place.path, names)
    # Leaves its index beside the data, so that those that follow only read.
    verdict, _ = judge("healthy", proxy, [], compute_ms=30.0)
    tap.check(verdict == "nothing starves", "a store that keeps up starves nobody", verdict)

    verdict, ledger = judge("throttled-line", proxy, [{"fault": {"bytes_per_s": 50e6}}])
    needed, got = rates(verdict)
    share = int((re.search(r"(\d+) % of each step waits for bandwidth", verdict) or [0, 0])[1])
    tap.check(verdict.startswith("S3-bound (bandwidth): needs "), "50 MB/s are named as bandwidth", verdict)
    tap.check(30 <= got <= 55 and needed > 1.5 * got, "with what came and what was needed", verdict)
    tap.check(share >= 40 and abs(share - 100 * (1 - got / max(needed, 1))) < 25, "and how much of a step waits", verdict)

    verdict, ledger = judge("throttling", proxy, [{"match": {"method": "GET", "path": r"\.tar$", "probability": 0.3},
                                                   "fault": {"status": 503}}], train="steps = 12\nmicro-batch = 4")
    tap.check("(throttled)" in verdict and verdict.startswith("S3-bound"), "503s are named as throttling", verdict)

    verdict, ledger = judge("late", proxy, [{"match": {"path": r"\.tar$"}, "fault": {"first_byte": 0.4}}],
                            train="steps = 30\nmicro-batch = 4")
    tap.check("(first_byte)" in verdict and verdict.startswith("S3-bound"), "a late first byte is named", verdict)
tap.end()
