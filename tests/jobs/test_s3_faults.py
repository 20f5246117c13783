#!/usr/bin/env python3
"""Jobs whose data and checkpoints live in a bucket, on bad days of the store: the right bits at the end, or a clear end.

The reference is the same job on the same shards in files. Each disturbance is made by the fault proxy or by killing the
server; afterwards params_crc32c, order_crc32c, steps and samples must be the reference's, and every checkpoint whole.
"""
from bucket import *

tap = Tap()
if servers.missing("minio"):
    tap.skip("jobs on a bucket", servers.missing("minio"))
    tap.end()
place = Place()
names = make_images(place.path)
RUNS_URL = "s3://" + RUNS


def job(name, **options):
    return place.image_job(name, "s3://" + DATA, RUNS_URL, **options)


def run(name, proxy, workers=2, timeout=150, env=None, **options):
    result = place.run("--workers", workers, "--fresh", job(name, **options), timeout=timeout,
                       env=dict(server.environment(proxy.endpoint), **(env or {})))
    return result, place.summary(name)


def checkpoints(name):
    """{folder: its files} of a job in the bucket; one without a manifest is debris."""
    found = {}
    for key in server.list(RUNS, name + "/"):
        parts = key.split("/")
        if len(parts) > 3 and parts[2].startswith("step-"):
            found.setdefault("/".join(parts[:3]), []).append("/".join(parts[3:]))
    return found


def whole(name, proxy):
    """Every checkpoint of the job has its manifest and verifies; and there is one."""
    found = checkpoints(name)
    if not found or any("manifest.json" not in files for files in found.values()):
        return False
    path = "%s/%s" % (RUNS_URL, "/".join(sorted(found)[-1].split("/")[:2]))
    return place.run("ckpt", "verify", path, env=server.environment(proxy.endpoint)).code == 0


def same(name, result, summary, what, proxy, reference):
    good = result.code == 0 and bits(summary) == bits(reference)
    tap.check(good, "%s: the same bits" % what, "%s\n%s\n%s" % (result.output, bits(summary), bits(reference)))
    tap.check(whole(name, proxy), "%s: every checkpoint is whole" % what, checkpoints(name))
    return good


RECOVERED = {
    "503 on 30 % of requests": [{"match": {"probability": 0.3}, "fault": {"status": 503}}],
    "500 and resets on 10 %": [{"match": {"probability": 0.1}, "fault": {"status": 500}},
                               {"match": {"probability": 0.1}, "fault": {"reset": "before"}}],
    "bodies cut short on 10 %": [{"match": {"method": "GET", "path": r"\.tar$", "probability": 0.1},
                                  "fault": {"truncate": 5000, "length": "right"}}],
    "a flipped byte in two bodies": [{"match": {"method": "GET", "path": r"train.*\.tar$", "nth": [1, 3]}, "fault": {"flip": 3000}}],
    "answers lost on 20 % of puts": [{"match": {"method": "PUT", "probability": 0.2}, "fault": {"lost": True}}],
    "kept connections that close unannounced": [{"match": {"probability": 0.3}, "fault": {"close": 0}}],
}


def test_recovered(proxy, reference):
    for number, (what, rules) in enumerate(RECOVERED.items()):
        name = "recovered-%d" % number
        proxy.rules(rules)
        result, summary = run(name, proxy)
        faults = sum(proxy.stats()["faults"].values())
        proxy.rules([])
        proxy.clear()
        same(name, result, summary, "%s (%d times)" % (what, faults), proxy, reference)


def test_few_requests(proxy):
    counts = []
    for rules in ([], [{"match": {"probability": 0.1}, "fault": {"status": 503}}]):
        proxy.rules(rules)
        proxy.clear()
        result, _ = run("counted", proxy)
        counts.append(proxy.stats()["requests"])
    proxy.rules([])
    tap.check(result.code == 0 and counts[1] <= 1.5 * counts[0], "503 on 10 %%: %.2f times the requests" % (counts[1] / counts[0]),
              counts)


def test_persistently_bad(proxy, reference):
    """A shard that is bad whenever it is asked for is named; on-corrupt = "skip" goes on without its samples."""
    proxy.rules([{"match": {"method": "GET", "path": r"train-002\.tar$"}, "fault": {"flip": 100}}])
    result, summary = run("bad", proxy)
    tap.check(result.code != 0 and summary.get("status") == "failed" and "train-002.tar" in result.output,
              "a shard that stays bad is named", result.output)
    data = ('train = "s3://%s/train-{000..003}.tar"\nformat = "webdataset"\nfields = { image = "png", label = "cls" }\n'
            'batch-size = 48\non-corrupt = "skip"' % DATA)
    result, summary = run("skipped", proxy, data=data)
    proxy.rules([])
    tap.check(result.code == 0 and summary.get("status") == "done" and summary["params_crc32c"] != reference["params_crc32c"],
              "and its bad samples are left out on demand", result.output)


def test_refused(proxy):
    """403 and a missing bucket: a failure at once, with the reason."""
    healthy = place.run("--workers", 2, "--fresh", place.image_job("quick", place.path, train="steps = 1\nmicro-batch = 6"))
    for what, options, env, said in (
            ("a missing bucket", {"data": 'train = "s3://no-such-bucket/a-{000..003}.tar"\nbatch-size = 48'}, {}, "no-such-bucket"),
            ("a wrong key", {}, {"AWS_SECRET_ACCESS_KEY": "wrong"}, "secret"),
            ("no key at all", {}, {"AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY_ID": ""}, "credentials")):
        result, summary = run("refused", proxy, env=env, **options)
        tap.check(result.code != 0 and said in result.output, "%s is a clear end" % what, result.output)
        # A busy machine draws a run out, and a sanitizer looks for leaks at the end of each process: the best of three.
        times = [result.seconds]
        while times[-1] >= healthy.seconds + 1 and len(times) < 3:
            times.append(run("refused", proxy, env=env, **options)[0].seconds)
        tap.check(min(times) < healthy.seconds + (3 if sanitized() else 1), "within a second (%s)" % what, times)


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def start(name, proxy, **options):
    return place.start("--workers", 2, "--fresh", job(name, **options), env=server.environment(proxy.endpoint))


def finish(process, timeout=120):
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    return Result(process.returncode, output.decode(errors="replace"), 0)


def test_killed_in_a_checkpoint(proxy, reference):
    """The server killed while a checkpoint is written: none without a manifest, the previous one whole, and the job goes on."""
    name = "server-killed"
    proxy.rules([{"match": {"method": ["PUT", "POST"], "path": r"step-20"}, "fault": {"bytes_per_s": 100e3}}])
    proxy.clear()
    process = start(name, proxy)
    seen = wait_for(lambda: any("step-20" in entry["path"] and entry["method"] == "PUT" for entry in proxy.log()))
    time.sleep(0.2)
    server.kill()
    time.sleep(2)
    alive = process.poll() is None
    proxy.rules([])
    server.start()
    between = {folder: files for folder, files in checkpoints(name).items() if "manifest.json" in files}
    tap.check(seen and alive and any("step-10" in folder for folder in between), "the checkpoint before is there, the job waits",
              "%s %s" % (seen, checkpoints(name)))
    result = finish(process)
    same(name, result, place.summary(name), "a server killed in the middle of a checkpoint", proxy, reference)
    tap.check(place.summary(name).get("restarts") == 0, "no worker was restarted for it", place.summary(name))


def test_does_not_answer(proxy, reference):
    """A store that does not answer for longer than the hang timeout: it is named, and the ranks are left alone."""
    for what, rules in (("data", [{"match": {"method": "GET", "path": r"train.*\.tar$", "after": 2}, "fault": {"hang": 600}}]),
                        ("checkpoints", [{"match": {"method": ["PUT", "POST"], "path": "step-20"}, "fault": {"hang": 600}}])):
        name = "silent-" + what
        proxy.rules(rules)
        proxy.clear()
        process = start(name, proxy, failure='hang-timeout = "1s"')
        hung = wait_for(lambda: proxy.stats()["faults"].get("hang", 0) > 0)
        time.sleep(4)
        alive = process.poll() is None
        proxy.rules([])
        proxy.down()
        time.sleep(0.2)
        proxy.up()
        result = finish(process)
        tap.check(hung and alive, "%s of a store that does not answer: the job waits" % what, result.output)
        same(name, result, place.summary(name), "%s after it answers again" % what, proxy, reference)
        tap.check(place.summary(name).get("restarts") == 0, "no rank was killed for it (%s)" % what, result.output)
        tap.check(any(word in result.output for word in ("127.0.0.1", "s3://")) and "rank" in result.output,
                  "the store is named (%s)" % what, result.output)


def test_resume(proxy, reference):
    """Killed with its checkpoints in the bucket, resumed with other workers while the store throttles."""
    name = "resumed"
    proxy.clear()
    process = start(name, proxy, text="")
    wait_for(lambda: any("manifest.json" in files for files in checkpoints(name).values()))
    process.kill()
    finish(process)
    proxy.rules([{"match": {"probability": 0.1}, "fault": {"status": 503}}])
    result = place.run("--workers", 3, job(name), env=server.environment(proxy.endpoint))
    proxy.rules([])
    same(name, result, place.summary(name), "killed and resumed on three workers", proxy, reference)


result = place.run("--workers", 2, "--fresh", place.image_job("local", place.path))
reference = place.summary("local")
tap.check(result.code == 0 and reference.get("status") == "done", "the job on files finishes", result.output)
with servers.minio() as server, FaultProxy(server, seed=9) as proxy:
    fill(server, place.path, names)
    result, summary = run("undisturbed", proxy)
    if not same("undisturbed", result, summary, "from bucket to bucket", proxy, reference):
        tap.end()
    test_recovered(proxy, reference)
    test_few_requests(proxy)
    test_persistently_bad(proxy, reference)
    test_refused(proxy)
    test_killed_in_a_checkpoint(proxy, reference)
    test_does_not_answer(proxy, reference)
    test_resume(proxy, reference)
tap.end()
