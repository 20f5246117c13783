#!/usr/bin/env python3
"""The fault proxy does what its rules say, each time the same, and keeps up with a fast store while it does nothing."""
import hashlib
import http.client
import http.server
import os
import socket
import sys
import threading
import time
import urllib.parse

SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(SOURCE, "tests", "support"), os.path.join(SOURCE, "tests", "jobs")]
import servers
from faultproxy import FaultProxy
from jobs import Tap

tap = Tap()
BODY = bytes(range(256)) * 64
BIG = 64 * 1024 * 1024


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers GET with BODY (or BIG zeros, or chunks), keeps what was PUT."""
    protocol_version = "HTTP/1.1"
    kept = {}

    def log_message(self, *_):
        pass

    def head(self, count):
        self.send_response(200)
        self.send_header("ETag", '"true"')
        self.send_header("Content-Length", str(count))
        self.end_headers()

    def do_HEAD(self):
        self.head(len(BODY))

    def do_GET(self):
        if self.path == "/big":
            self.head(BIG)
            for _ in range(BIG // (1 << 20)):
                self.wfile.write(bytes(1 << 20))
        elif self.path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(BODY), 1000):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(BODY[at:at + 1000]), BODY[at:at + 1000]))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.head(len(BODY))
            self.wfile.write(BODY)

    def do_PUT(self):
        count, hasher = int(self.headers["Content-Length"]), hashlib.sha256()
        while count > 0:
            piece = self.rfile.read(min(count, 1 << 20))
            count -= len(piece)
            hasher.update(piece)
        self.kept[self.path] = hasher.hexdigest()
        self.head(0)


origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
origin.daemon_threads = True
threading.Thread(target=origin.serve_forever, daemon=True).start()
TARGET = "http://127.0.0.1:%d" % origin.server_port


class Asked:
    def __init__(self, connection, method="GET", path="/a", body=None, headers=None):
        begun = time.monotonic()
        self.status, self.headers, self.body, self.error = None, {}, b"", None
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            self.status, self.headers = answer.status, answer.headers
            self.body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.error = error
            self.body = getattr(error, "partial", b"")
            connection.close()
        self.seconds = time.monotonic() - begun


def connect(proxy):
    return http.client.HTTPConnection(urllib.parse.urlsplit(proxy.endpoint).netloc, timeout=20)


def ask(proxy, fault, match=None, **request):
    proxy.rules([{"match": match or {}, "fault": fault}] if fault else [])
    return Asked(connect(proxy), **request)


def test_plain(proxy):
    connection = connect(proxy)
    good = [Asked(connection, path=path) for path in ("/a", "/chunks", "/a")]
    tap.check(all(one.status == 200 and one.body == BODY for one in good) and proxy.stats()["connections"] == 1,
              "passes bodies on over one kept connection", [one.error for one in good])
    data = os.urandom(3 << 20)
    Asked(connection, "PUT", "/put", data)
    tap.check(Origin.kept["/put"] == hashlib.sha256(data).hexdigest(), "passes an upload on")
    tap.check(Asked(connection, "HEAD").status == 200 and Asked(connection).body == BODY, "a HEAD has no body")
    log = proxy.log()
    tap.check([entry["method"] for entry in log] == ["GET", "GET", "GET", "PUT", "HEAD", "GET"]
              and proxy.stats()["requests"] == 6, "counts and lists the requests", log)


def test_speed(proxy):
    one = Asked(connect(proxy), path="/big")
    rate = len(one.body) / one.seconds / 1e6
    print("# %.0f MB/s" % rate)
    tap.check(len(one.body) == BIG and rate > 100, "passes on much faster than it is ever told to throttle", rate)
    proxy.rules([{"fault": {"bytes_per_s": 50e6}}])
    threads = [threading.Thread(target=lambda: Asked(connect(proxy), path="/big")) for _ in range(2)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = 2 * BIG / (time.monotonic() - begun) / 1e6
    tap.check(45 < rate < 55, "two connections share 50 MB/s", rate)


def test_answers(proxy):
    one = ask(proxy, {"status": 503, "retry_after": 7})
    tap.check(one.status == 503 and b"<Code>SlowDown<" in one.body and one.headers["Retry-After"] == "7", "503 SlowDown", one.body)
    one = ask(proxy, {"status": 503}, method="PUT", path="/never", body=bytes(1 << 20))
    tap.check(one.status == 503 and "/never" not in Origin.kept, "a refused upload does not reach the store")
    one = ask(proxy, {"redirect": "http://192.0.2.1/x"})
    tap.check(one.status == 307 and one.headers["Location"] == "http://192.0.2.1/x", "a redirect")
    one = ask(proxy, {"expired": True})
    tap.check(one.status == 400 and b"ExpiredToken" in one.body, "an expired token")
    one = ask(proxy, {"status": 200, "after": True}, method="PUT", path="/done", body=b"x")
    tap.check(one.status == 200 and b"<Error>" in one.body and "/done" in Origin.kept, "200 with an error after the work")
    one = ask(proxy, {"lost": True}, method="PUT", path="/lost", body=b"x")
    tap.check(one.error is not None and "/lost" in Origin.kept, "the work is done and the answer lost")
    one = ask(proxy, {"etag": "wrong"})
    tap.check(one.headers["ETag"] == '"wrong"' and one.body == BODY, "a wrong ETag")
    old = ask(proxy, {"changed": "new"}, headers={"If-Match": '"true"'})
    new = ask(proxy, {"changed": "new"}, headers={"If-Match": '"new"'})
    tap.check(old.status == 412 and new.status == 200 and new.headers["ETag"] == '"new"', "an object that changed", old.body)


def test_bodies(proxy):
    one = ask(proxy, {"reset": "before"})
    tap.check(isinstance(one.error, (ConnectionError, http.client.HTTPException)) and one.status is None, "a reset before the head")
    one = ask(proxy, {"reset": "headers"})
    tap.check(one.error is not None and one.body == b"", "a reset after the head")
    one = ask(proxy, {"reset": 1000})
    tap.check(isinstance(one.error, (ConnectionResetError, http.client.IncompleteRead)), "a reset in the middle", one.error)
    one = ask(proxy, {"truncate": 1000, "length": "right"})
    tap.check(isinstance(one.error, http.client.IncompleteRead) and one.body == BODY[:1000], "a body that ends early", one.error)
    one = ask(proxy, {"truncate": 1000, "length": "short"})
    tap.check(one.error is None and one.body == BODY[:1000], "a body that is short and says so")
    one = ask(proxy, {"flip": 700})
    tap.check([i for i in range(len(BODY)) if one.body[i] != BODY[i]] == [700], "one flipped byte, where it was asked for")
    places = []
    for _ in range(2):
        proxy.clear()
        one = ask(proxy, {"flip": "random"})
        places.append([i for i in range(len(BODY)) if one.body[i] != BODY[i]])
    tap.check(len(places[0]) == 1 and places[0] == places[1], "one flipped byte at random, the same each time", places)
    one = ask(proxy, {"reset_upload": 1 << 19}, method="PUT", path="/cut", body=bytes(1 << 21))
    tap.check(one.error is not None and "/cut" not in Origin.kept, "a reset in the middle of an upload")


def test_times(proxy):
    one = ask(proxy, {"first_byte": 0.3})
    tap.check(0.3 <= one.seconds < 1.5 and one.body == BODY, "a late first byte", one.seconds)
    one = ask(proxy, {"stall": 0.3, "at": 5000})
    tap.check(0.3 <= one.seconds < 1.5 and one.body == BODY, "a stall in the middle", one.seconds)
    one = ask(proxy, {"hang": 0.3})
    tap.check(one.error is not None and one.seconds >= 0.3, "no answer at all")
    proxy.rules([{"fault": {"close": 0}}])
    connection = connect(proxy)
    connection.auto_open = 0
    connection.connect()
    first = Asked(connection)
    time.sleep(0.1)
    second = Asked(connection)
    tap.check(first.body == BODY and second.error is not None, "a kept connection that closes unannounced")


def test_choice(proxy):
    def statuses(match, count):
        proxy.rules([{"match": match, "fault": {"status": 500}}])
        connection = connect(proxy)
        return [Asked(connection, path="/a?x=%d" % i).status for i in range(count)]

    tap.check(statuses({"nth": [2, 4]}, 5) == [200, 500, 200, 500, 200], "the second and the fourth")
    tap.check(statuses({"after": 2, "times": 1}, 5) == [200, 200, 500, 200, 200], "once, after two")
    tap.check(statuses({"query": "x=1$"}, 3) == [200, 500, 200], "by the query")
    tap.check(statuses({"path": "^/b", "method": "GET"}, 2) == [200, 200], "another path is left alone")
    some = [statuses({"probability": 0.3}, 100) for _ in range(2)]
    tap.check(some[0] == some[1] and 15 <= some[0].count(500) <= 45, "three in ten, the same ones each time", some[0].count(500))
    proxy.rules([{"match": {"probability": 0.5}, "fault": {"status": 503}}, {"fault": {"first_byte": 0.01}}])
    both = [Asked(connect(proxy)) for _ in range(10)]
    tap.check({one.status for one in both} == {200, 503}, "rules add up")


def test_down(proxy):
    proxy.rules([{"fault": {"stall": 30, "at": 100}}])
    connection = connect(proxy)
    threading.Timer(0.3, proxy.down).start()
    one = Asked(connection)
    tap.check(one.error is not None and one.seconds < 5, "down resets what is open", one.error)
    tap.check(isinstance(Asked(connect(proxy)).error, ConnectionRefusedError), "and refuses what comes")
    proxy.up()
    proxy.rules([])
    tap.check(Asked(connect(proxy)).body == BODY, "up again on the same port")


def test_skew():
    if servers.missing("minio"):
        tap.skip("a clock 20 minutes ahead", servers.missing("minio"))
        return
    with servers.minio() as server, FaultProxy(server, [{"fault": {"skew": 1200}}]) as proxy:
        client = servers.Client(proxy.endpoint, server.access_key, server.secret_key)
        try:
            client.make_bucket("data")
            said = b""
        except servers.S3Error as error:
            said = error.body
        tap.check(b"RequestTimeTooSkewed" in said, "a clock 20 minutes ahead refuses our date", said)

        class Ahead(servers.datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return super().now(tz) + servers.datetime.timedelta(seconds=1200)

        real, servers.datetime.datetime = servers.datetime.datetime, Ahead
        try:
            client.make_bucket("data")
            client.put("data", "a b+c", b"x")
            tap.check(client.get("data", "a b+c") == b"x" and client.list("data") == ["a b+c"], "and takes its own")
        finally:
            servers.datetime.datetime = real


for test in (test_plain, test_speed, test_answers, test_bodies, test_times, test_choice, test_down):
    with FaultProxy(TARGET, seed=7) as proxy:
        test(proxy)
test_skew()
tap.end()
