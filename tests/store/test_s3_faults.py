#!/usr/bin/env python3
"""Bad days of a store, at the level of the store: right bytes or a clear error, never wrong bytes.

Each test does a few requests through the fault proxy against a real server; what comes out is compared with what was put
in, and what the proxy counted with what the same requests cost undisturbed.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(SOURCE, "tests", "support"), os.path.join(SOURCE, "tests", "jobs")]
import servers
from faultproxy import FaultProxy
from jobs import LONG, TESTS, Tap

DRIVER = os.path.join(TESTS, "store", "s3_driver")
BUCKET = "data"
CHUNK = 64 * 1024
CHUNKS = 40
PART = 5 * 1024 * 1024
# The store's own limit, and the stall of 60 s that it is for, take too long for every day.
STALL_OPTIONS, STALL_LIMIT_S = ([], 10) if LONG else (["stall-ms=700"], 0.7)
tap = Tap()
folder = tempfile.mkdtemp(prefix="trainrun-faults-")
CONTENT = os.urandom(CHUNKS * CHUNK - 1234)
LARGE = os.urandom(2 * PART + 777)


def file_of(name, data=None):
    path = os.path.join(folder, name)
    if data is not None:
        with open(path, "wb") as file:
            file.write(data)
    return path


class Store:
    """A driver on one bucket behind an endpoint; do("get", …) answers as a dict."""

    def __init__(self, server, endpoint, *options, bucket=BUCKET, env=None):
        environment = {**os.environ, **server.environment(), **(env or {})}
        self.log = tempfile.TemporaryFile(dir=folder)
        self.process = subprocess.Popen([DRIVER, endpoint, bucket, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, env=environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code != 0:
            tap.check(False, "a store closes well", "exit %d\n%s" % (code, self.said()))
        self.process.stdout.close()
        self.log.close()

    def begin(self, *words):
        self.process.stdin.write(("\t".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()

    def end(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"status": "died", "message": self.said(), "seconds": 0}

    def do(self, *words):
        self.begin(*words)
        return self.end()

    def get(self, key="content", content=CONTENT, etag=""):
        """The answer, with `right`: the bytes came, and they are the object's."""
        out = file_of("out")
        if os.path.exists(out):
            os.unlink(out)
        answer = self.do("get", key, CHUNK, out, *([etag] if etag else []))
        answer["right"] = answer["status"] == "ok" and read(out) == content
        return answer

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def undisturbed(server):
    with FaultProxy(server) as proxy, Store(server, proxy.endpoint) as store:
        answer = store.get()
        tap.check(answer["right"] and store.do("put", "again", file_of("content", CONTENT))["status"] == "ok"
                  and server.get(BUCKET, "again") == CONTENT, "%s: get and put through the proxy" % server.name, answer)
        tap.check(store.do("upload", "large", file_of("large", LARGE), PART)["status"] == "ok"
                  and server.get(BUCKET, "large") == LARGE, "%s: an upload in parts" % server.name)
        return proxy.stats()["requests"]


# Faults after which the right bytes must have come. retry: answers that cost a wait are kept few.
RECOVERED = {
    "503 on 30 % of requests": [{"match": {"method": "GET", "probability": 0.3}, "fault": {"status": 503}}],
    "500 now and then": [{"match": {"method": "GET", "nth": [2, 9, 17]}, "fault": {"status": 500}}],
    "resets before the answer": [{"match": {"method": "GET", "nth": [1, 8]}, "fault": {"reset": "before"}}],
    "resets after the head": [{"match": {"method": "GET", "nth": [3, 8]}, "fault": {"reset": "headers"}}],
    "resets in the middle": [{"match": {"method": "GET", "nth": [2, 6, 11]}, "fault": {"reset": 20000}}],
    "truncated bodies": [{"match": {"method": "GET", "nth": [2, 6, 11]}, "fault": {"truncate": 20000, "length": "right"}}],
    "short bodies that say so": [{"match": {"method": "GET", "nth": [2, 6]}, "fault": {"truncate": 20000, "length": "short"}}],
    "kept connections that close unannounced": [{"match": {"method": "GET", "probability": 0.3}, "fault": {"close": 0}}],
}


def test_recovered(server):
    for name, rules in RECOVERED.items():
        with FaultProxy(server, rules, seed=3) as proxy, Store(server, proxy.endpoint, "attempts=10") as store:
            answer = store.get()
            faults = sum(proxy.stats()["faults"].values())
            tap.check(answer["right"] and faults > 0, "%s: %s" % (server.name, name), "%s\n%s" % (answer, store.said()))


def test_garbled_get(server):
    with FaultProxy(server, [{"match": {"method": "GET", "nth": 4}, "fault": {"status": 200, "after": True}}]) as proxy:
        with Store(server, proxy.endpoint) as store:
            answer = store.get()
            tap.check(answer["right"] or answer["status"] != "ok" and "content" in answer["message"],
                      "%s: a get that is answered 200 with an error in it gives no wrong bytes" % server.name, answer)


def test_few_requests(server):
    """At 10 % 503 the requests are at most 1.5 times what they are undisturbed."""
    counts = []
    for rules in ([], [{"match": {"probability": 0.1}, "fault": {"status": 503}}]):
        with FaultProxy(server, rules, seed=5) as proxy, Store(server, proxy.endpoint, "attempts=10") as store:
            right = all([store.get()["right"] for _ in range(3)])
            counts.append(proxy.stats()["requests"])
    tap.check(right and counts[0] < counts[1] <= 1.5 * counts[0], "%s: 503 on 10 %%: requests %.2fx" %
              (server.name, counts[1] / counts[0]), counts)


def test_retry_after(server):
    rules = [{"match": {"method": "GET", "nth": 1}, "fault": {"status": 503, "retry_after": 2}}]
    with FaultProxy(server, rules) as proxy, Store(server, proxy.endpoint) as store:
        answer = store.get(key="small", content=b"small")
        tap.check(answer["right"] and 1.9 <= answer["seconds"] < 8 and answer["throttled"] >= 1, "Retry-After is kept", answer)


def test_gives_up(server):
    with FaultProxy(server, [{"match": {"method": "GET"}, "fault": {"status": 503}}]) as proxy:
        with Store(server, proxy.endpoint, "attempts=2") as store:
            answer = store.get(key="small", content=b"small")
            tap.check(answer["status"] == "throttled" and "small" in answer["message"],
                      "a one-shot get of a store that only throttles says so", answer)
        with Store(server, proxy.endpoint, "attempts=2", "persistent") as store:
            store.begin("get", "small", CHUNK, file_of("out"))
            time.sleep(2.5)
            waits = store.process.poll() is None
            proxy.rules([])
            answer = store.end()
            tap.check(waits and answer["status"] == "ok" and read(file_of("out")) == b"small" and "small" in store.said(),
                      "a job's get asks on, says so, and has the bytes when the store is back", "%s\n%s" % (answer, store.said()))


def test_changed(server):
    with FaultProxy(server) as proxy, Store(server, proxy.endpoint) as store:
        old = store.do("head", "content")["etag"]
        proxy.rules([{"match": {"method": "GET", "after": 5}, "fault": {"changed": "another"}}])
        answer = store.get(etag=old)
        tap.check(answer["status"] == "changed" and "content" in answer["message"], "an object that changes in mid-read is noticed",
                  answer)
    with FaultProxy(server, [{"match": {"method": "GET", "nth": 2}, "fault": {"etag": "wrong"}}]) as proxy:
        with Store(server, proxy.endpoint) as store:
            answer = store.get()
            tap.check(answer["right"] or answer["status"] in ("changed", "corrupt"), "a wrong ETag never gives wrong bytes", answer)
    with FaultProxy(server) as proxy, Store(server, proxy.endpoint, "stall-ms=500") as store:
        server.put(BUCKET, "moving", CONTENT)
        # The first answer stalls while another version is put in its place.
        proxy.rules([{"match": {"method": "GET", "nth": 1}, "fault": {"stall": 3, "at": 1000}}])
        store.begin("get", "moving", len(CONTENT), file_of("out"))
        time.sleep(0.3)
        server.put(BUCKET, "moving", CONTENT[::-1])
        answer = store.end()
        good = answer["status"] == "changed" or answer["status"] == "ok" and read(file_of("out")) == CONTENT
        tap.check(good, "a real new version in mid-read never mixes with the old one", answer)
        server.put(BUCKET, "moving", CONTENT)


def test_stall(server):
    """A stalled transfer is cut and goes on at its offset."""
    rules = [{"match": {"method": "GET", "nth": 1}, "fault": {"stall": 60, "at": len(CONTENT) // 2}}]
    with FaultProxy(server, rules) as proxy, Store(server, proxy.endpoint, *STALL_OPTIONS) as store:
        store.begin("get", "content", len(CONTENT), file_of("out"))
        answer = store.end()
        log = [entry["range"] for entry in proxy.log() if entry["method"] == "GET"]
        sent = proxy.stats()["bytes_out"]
        tap.check(answer["status"] == "ok" and read(file_of("out")) == CONTENT and answer["seconds"] < STALL_LIMIT_S + 20,
                  "a stall is cut", answer)
        tap.check(sent < 1.3 * len(CONTENT), "and the rest is asked for from where it stood", "%s %d bytes" % (log, sent))


def test_refused(server):
    """What cannot succeed fails at once, with the reason."""
    for persistent in ((), ("persistent",)):
        how = "at once%s" % (", in a job too" if persistent else "")
        with Store(server, server.endpoint, *persistent, bucket="no-such-bucket") as store:
            answer = store.do("get", "x", CHUNK, file_of("out"))
            tap.check(answer["status"] != "ok" and answer["seconds"] < 1 and "no-such-bucket" in answer["message"],
                      "a bucket that is missing: %s" % how, answer)
        with Store(server, server.endpoint, *persistent, env={"AWS_SECRET_ACCESS_KEY": "wrong"}) as store:
            answer = store.do("put", "x", file_of("x", b"x"))
            tap.check(answer["status"] == "denied" and answer["seconds"] < 1 and "key" in answer["message"], "a wrong key: %s" % how,
                      answer)
        with FaultProxy(server, [{"fault": {"status": 403}}]) as proxy, Store(server, proxy.endpoint, *persistent) as store:
            answer = store.do("put", "x", file_of("x", b"x"))
            tap.check(answer["status"] == "denied" and answer["seconds"] < 1 and "AccessDenied" in answer["message"]
                      and BUCKET in answer["message"], "403: %s" % how, answer)
        with Store(server, server.endpoint, *persistent) as store:
            answer = store.do("get", "missing", CHUNK, file_of("out"))
            tap.check(answer["status"] == "not-found" and answer["seconds"] < 1 and "missing" in answer["message"],
                      "an object that is missing: %s" % how, answer)


def test_redirect(server):
    """A redirect is not followed, least of all with credentials."""
    with FaultProxy(server) as other:
        with FaultProxy(server, [{"fault": {"redirect": other.endpoint + "/data/small"}}]) as proxy:
            with Store(server, proxy.endpoint) as store:
                answer = store.do("put", "x", file_of("x", b"x"))
                tap.check(answer["status"] != "ok" and other.stats()["connections"] == 0 and "redirect" in answer["message"],
                          "a redirect is not followed", answer)


def test_expired(server):
    with FaultProxy(server, [{"match": {"header": {"x-amz-security-token": "."}}, "fault": {"expired": True}}]) as proxy:
        with Store(server, proxy.endpoint, env={"FIRST_TOKEN": "old"}) as store:
            answer = store.get()
            tap.check(answer["right"] and answer["renewals"] >= 1, "credentials that expired are asked for anew", answer)
    with FaultProxy(server, [{"fault": {"expired": True}}]) as proxy, Store(server, proxy.endpoint) as store:
        answer = store.do("put", "x", file_of("x", b"x"))
        tap.check(answer["status"] == "denied" and answer["seconds"] < 5 and "expired" in answer["message"].lower(),
                  "credentials that stay expired are a clear end", answer)


def test_clock(server):
    for skew in (1200, -1200):
        with FaultProxy(server, [{"fault": {"skew": skew}}]) as proxy, Store(server, proxy.endpoint) as store:
            answer = store.get()
            refused = proxy.stats()["statuses"].get("403", 0)
            tap.check(answer["right"] and 1 <= refused <= CHUNKS, "a clock %d minutes off: signed by the store's" % (skew / 60),
                      "%s, refused %d times" % (answer, refused))
            before = proxy.stats()["statuses"].get("403", 0)
            store.get()
            tap.check(proxy.stats()["statuses"].get("403", 0) == before, "and remembered (%d)" % (skew / 60))


def test_writes(server):
    path = file_of("large", LARGE)
    complete = {"method": "POST", "query": "uploadId="}
    rules = [{"match": dict(complete, times=1), "fault": {"status": 200, "after": False, "code": "InternalError"}}]
    with FaultProxy(server, rules) as proxy, Store(server, proxy.endpoint) as store:
        answer = store.do("upload", "by-error", path, PART)
        tap.check(answer["status"] == "ok" and server.get(BUCKET, "by-error") == LARGE and proxy.stats()["faults"]["status"] == 1,
                  "a 200 with an error in it completes nothing: it is done again", answer)
    with FaultProxy(server, [{"match": complete, "fault": {"status": 200, "code": "InternalError"}}]) as proxy:
        with Store(server, proxy.endpoint, "attempts=2") as store:
            answer = store.do("upload", "never", path, PART)
            tap.check(answer["status"] != "ok" and "InternalError" in answer["message"] and not server.exists(BUCKET, "never"),
                      "and one that stays is no success", answer)
    with FaultProxy(server, [{"match": {"method": "PUT", "nth": 1}, "fault": {"lost": True}}]) as proxy:
        with Store(server, proxy.endpoint) as store:
            answer = store.do("put-absent", "once", file_of("x", b"x"))
            tap.check(answer["status"] == "ok" and server.get(BUCKET, "once") == b"x",
                      "the lost answer of a conditional put: what is there is ours", answer)
            answer = store.do("put-absent", "once", file_of("y", b"other"))
            tap.check(answer["status"] == "exists" and server.get(BUCKET, "once") == b"x", "somebody else's is not", answer)
    with FaultProxy(server, [{"match": dict(complete, times=1), "fault": {"lost": True}}]) as proxy:
        with Store(server, proxy.endpoint) as store:
            answer = store.do("upload-absent", "large-once", path, PART)
            tap.check(answer["status"] == "ok" and server.get(BUCKET, "large-once") == LARGE, "the lost answer of a commit", answer)
    rules = [{"match": {"method": "PUT", "nth": [1, 3]}, "fault": {"reset_upload": 1 << 20}},
             {"match": {"method": "PUT", "nth": 5}, "fault": {"status": 503}}]
    with FaultProxy(server, rules) as proxy, Store(server, proxy.endpoint) as store:
        answer = store.do("upload", "by-reset", path, PART)
        tap.check(answer["status"] == "ok" and server.get(BUCKET, "by-reset") == LARGE, "resets in the middle of parts", answer)
    with FaultProxy(server, [{"match": {"method": "PUT", "nth": 1}, "fault": {"flip": 10}}]) as proxy:
        with Store(server, proxy.endpoint) as store:
            answer = store.do("put", "checked", file_of("large", LARGE))
            tap.check(answer["status"] == "ok" and server.get(BUCKET, "checked") == LARGE, "a put whose answer is garbled", answer)


def test_killed(make):
    """The server killed in the middle of a put: nothing is there; and again with a job's patience: it is when it is back."""
    with make() as server, FaultProxy(server) as proxy:
        server.make_bucket(BUCKET)
        path = file_of("large", LARGE)
        proxy.rules([{"match": {"method": "PUT"}, "fault": {"bytes_per_s": 4e6}}])
        with Store(server, proxy.endpoint, "attempts=2") as store:
            store.begin("put", "torn", path)
            time.sleep(0.5)
            server.kill()
            answer = store.end()
            tap.check(answer["status"] not in ("ok", "died"), "%s killed in the middle of a put: an error" % server.name, answer)
        server.start()
        tap.check(not server.exists(BUCKET, "torn"), "%s: and nothing is there" % server.name)
        with Store(server, proxy.endpoint, "attempts=2", "persistent") as store:
            store.begin("upload-absent", "whole", path, PART)
            time.sleep(0.5)
            server.kill()
            time.sleep(1.5)
            proxy.rules([])
            server.start()
            answer = store.end()
            tap.check(answer["status"] == "ok" and server.get(BUCKET, "whole") == LARGE,
                      "%s: a job's upload goes on when it is back" % server.name, "%s\n%s" % (answer, store.said()))


def test_nobody_answers(server):
    with FaultProxy(server) as proxy:
        proxy.down()
        with Store(server, proxy.endpoint, "attempts=2") as store:
            answer = store.do("get", "small", CHUNK, file_of("out"))
            tap.check(answer["status"] == "store" and proxy.endpoint.split("//")[1] in answer["message"],
                      "a store that is not there is named with its address", answer)
        with Store(server, proxy.endpoint, "attempts=2", "persistent") as store:
            threading.Timer(2, proxy.up).start()
            answer = store.do("get", "small", CHUNK, file_of("out"))
            tap.check(answer["status"] == "ok" and "small" in store.said(), "a job waits for it, and says for what", store.said())


def suite(server, all_of_it):
    server.make_bucket(BUCKET)
    server.put(BUCKET, "content", CONTENT)
    server.put(BUCKET, "small", b"small")
    undisturbed(server)
    test_recovered(server)
    test_garbled_get(server)
    test_few_requests(server)
    test_refused(server)
    test_writes(server)
    if all_of_it:
        for test in (test_retry_after, test_gives_up, test_changed, test_stall, test_redirect, test_expired, test_clock,
                     test_nobody_answers):
            test(server)


for name, make in servers.SERVERS.items():
    if servers.missing(name):
        tap.skip("bad days of %s" % name, servers.missing(name))
        continue
    with make() as one:
        suite(one, name == "minio" or LONG)
    test_killed(make)
tap.end()
