#!/usr/bin/env python3
"""A proxy that speaks HTTP and does to a store what bad days do: by rules, with a seed, the same each time.

    with FaultProxy(server, rules=[{"match": {"method": "GET", "probability": 0.3}, "fault": {"status": 503}}]) as proxy:
        ... a child with server.environment(proxy.endpoint) ...
        proxy.stats()["requests"]; proxy.rules([]); proxy.down(); proxy.up()

It runs as a process of its own and dies with the test. As a program, `faultproxy.py SCRIPT.json` takes the same in a file
({"target": "http://...", "seed": 1, "rules": [...]}) and prints {"port": ..., "control": ...}; the control port answers
GET /stats and /log and takes POST /rules, /clear, /down and /up.

A rule is {"match": {...}, "fault": {...}}. Every rule that matches a request adds its faults; where two say the same, the
first one counts. All of match is optional:
  method "GET" or a list      path, query   regular expressions, searched     header  {"range": "regex"}
  nth 3 or [1, 4]: only those of the rule's matches, from 1      after 10: none of the first ten      times 2: only twice
  probability 0.3: by (seed, rule, match number)                 seconds 5: only so long after the first
Faults, in place of the server:
  status 503 (code "SlowDown", retry_after seconds, both optional)   redirect URL: 307   expired true: 400 ExpiredToken
  changed "etag": the object is another one now: a GET with If-Match gets 412, other answers the new ETag
  skew 1200: the store's clock is so many seconds ahead and takes only requests that are signed by it
  reset "before": RST         hang 60: no answer, then RST
while it is passed on, at offsets of the answer's body:
  first_byte 0.5: delay of the head      etag "x": a wrong ETag      reset "headers" or an offset      reset_upload offset
  truncate offset (length "right": cut off; "short": a Content-Length that fits)      flip offset or "random"
  stall seconds, at offset       bytes_per_s 50e6: shared by all connections, both ways
and after the server did its work:
  status 200 with after true and code: that answer in the place of its own; 200 brings an <Error> body
  lost true: no answer, RST      close seconds: the kept connection is closed that long after the answer, unannounced
"""
import asyncio
import collections
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import types
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import servers
from faultrules import Cuts, Plan, Request, Rule, own_answer, sign_again, status_answer
from faultwire import Gone, Wire, body_of, find, framing, without

HOP = ("connection", "keep-alive", "proxy-connection", "te", "upgrade", "expect")


class Proxy:
    def __init__(self, script):
        url = urllib.parse.urlsplit(script["target"])
        self.host, self.port = url.hostname, url.port or 80
        self.seed, self.script = script.get("seed", 1), script
        self.keys = types.SimpleNamespace(**script.get("credentials", {"access_key": "", "secret_key": "", "region": ""}))
        self.listener, self.own_port, self.tasks, self.accepting = None, 0, set(), None
        self.set_rules(script.get("rules", []))
        self.clear()

    def set_rules(self, rules):
        made = [Rule(number, self.seed, rule.get("match", {}), rule["fault"]) for number, rule in enumerate(rules)]
        self.rules = made

    def clear(self):
        self.counts = collections.Counter()
        self.by = {"methods": collections.Counter(), "statuses": collections.Counter(), "faults": collections.Counter()}
        self.log = collections.deque(maxlen=20000)

    def stats(self):
        return {**{name: self.counts[name] for name in ("requests", "connections", "bytes_in", "bytes_out")},
                "open": len(self.tasks), **{name: dict(values) for name, values in self.by.items()}}

    # ---- Listening

    def up(self):
        if self.listener is not None:
            return
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.own_port))
        self.listener.listen(512)
        self.listener.setblocking(False)
        self.own_port = self.listener.getsockname()[1]
        self.accepting = asyncio.ensure_future(self.accept())

    def down(self):
        """Refuses connections and resets those that are open."""
        if self.listener is None:
            return
        self.accepting.cancel()
        self.listener.close()
        self.listener = None
        for task in self.tasks:
            task.cancel()

    async def accept(self):
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self.listener)
            self.counts["connections"] += 1
            task = asyncio.ensure_future(Connection(self, Wire(sock)).serve())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)


class Connection:
    """One client's connection and the one to the server behind it."""

    def __init__(self, proxy, client):
        self.proxy, self.client, self.server = proxy, client, None

    async def serve(self):
        try:
            while await self.exchange():
                pass
            self.client.close()
        except (Gone, ValueError):
            self.client.reset()
        except asyncio.CancelledError:
            self.client.reset()
            raise
        finally:
            self.client.close()
            self.drop_server()

    def drop_server(self):
        if self.server is not None:
            self.server.close()
            self.server = None

    async def exchange(self):
        """One request; True when the connection goes on."""
        head = await self.client.read_head()
        if head is None:
            return False
        request = Request(*head)
        plan = Plan(self.proxy.rules, request)
        self.count(request, plan)
        if plan.get("reset") == "before" or "hang" in plan:
            await asyncio.sleep(plan.get("hang", 0))
            raise Gone("on order")
        answer = own_answer(plan, request)
        if answer is not None:
            return await self.answer(answer, request, plan)
        return await self.pass_on(request, plan)

    def count(self, request, plan):
        proxy = self.proxy
        proxy.counts["requests"] += 1
        proxy.by["methods"][request.method] += 1
        for name in plan:
            if name not in ("at", "after", "code", "retry_after", "length"):
                proxy.by["faults"][name] += 1
        self.entry = {"method": request.method, "path": urllib.parse.unquote(request.path), "query": request.query,
                      "range": find(request.headers, "range"), "faults": sorted(plan), "status": None,
                      "time_s": round(time.monotonic(), 6)}
        proxy.log.append(self.entry)

    def sent(self, status):
        self.entry["status"] = status
        self.proxy.by["statuses"][str(status)] += 1

    async def answer(self, answer, request, plan):
        # Who waits for a 100 may send the body or not after another answer, so the connection cannot go on.
        waits = "100-continue" in (find(request.headers, "expect") or "").lower()
        if not waits:
            async for _ in body_of(self.client, request.frame):
                pass
        self.sent(answer.status)
        await answer.send(self.client, request, keep=not waits)
        return not waits and await self.stay(plan)

    async def stay(self, plan):
        if "close" not in plan:
            return True
        await asyncio.sleep(plan["close"])
        return False

    async def pass_on(self, request, plan):
        if self.server is not None and self.server.ended():
            self.drop_server()
        if self.server is None:
            self.server = await Wire.connect(self.proxy.host, self.proxy.port)
        await self.send_request(request, plan)
        first, headers = await self.read_answer_head()
        status = int(first.split()[1])
        bodyless = request.method == "HEAD" or status in (204, 304)
        body = body_of(self.server, 0 if bodyless else framing(headers, to_the_end=True))
        if plan.get("lost") or plan.get("after"):
            async for _ in body:
                pass
            if plan.get("lost"):
                raise Gone("on order")
            self.sent(status_answer(plan).status)
            await status_answer(plan).send(self.client, request, keep=True)
            return await self.stay(plan)
        return await self.send_answer(first, headers, body, bodyless, plan)

    async def send_request(self, request, plan):
        headers = request.headers
        if "skew" in plan or "changed" in plan:
            headers = sign_again(request, self.proxy.keys, *(["if-match"] if "changed" in plan else []))
        if "100-continue" in (find(request.headers, "expect") or "").lower():
            await self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self.server.send_head("%s %s HTTP/1.1" % (request.method, request.target), without(headers, *HOP))
        count = 0
        async for piece in plan.pace(body_of(self.client, request.frame)):
            count += len(piece)
            self.proxy.counts["bytes_in"] += len(piece)
            if "reset_upload" in plan and count >= plan["reset_upload"]:
                raise Gone("on order")
            try:
                await self.server.send(b"%x\r\n%s\r\n" % (len(piece), piece) if request.frame == "chunked" else piece)
            except Gone:
                break  # it has answered already, or it is dead; reading its answer tells
        if request.frame == "chunked":
            await self.server.send(b"0\r\n\r\n")

    async def read_answer_head(self):
        while True:
            head = await self.server.read_head()
            if head is None:
                raise Gone("the server closed")
            if not head[0].split()[1].startswith("1"):
                return head

    async def send_answer(self, first, headers, body, bodyless, plan):
        headers = self.rewrite(headers, bodyless, plan)
        if "first_byte" in plan:
            await asyncio.sleep(plan["first_byte"])
        self.sent(int(first.split()[1]))
        await self.client.send_head(first, headers)
        if plan.get("reset") == "headers":
            raise Gone("on order")
        frame = 0 if bodyless else framing(headers, to_the_end=True)
        whole = await self.send_body(body, frame, plan)
        ended = (find(headers, "connection") or "").lower() == "close" or frame == "end"
        if not whole or ended:
            self.drop_server()
        return not ended and (whole or plan.get("length") == "short") and await self.stay(plan)

    def rewrite(self, headers, bodyless, plan):
        etag = plan.get("etag", plan.get("changed"))
        if etag is not None and find(headers, "etag") is not None:
            headers = without(headers, "etag") + [("ETag", '"%s"' % etag.strip('"'))]
        length = find(headers, "content-length")
        if plan.get("length") == "short" and "truncate" in plan and length is not None and not bodyless:
            headers = without(headers, "content-length") + [("Content-Length", str(min(int(length), plan["truncate"])))]
        return headers

    async def send_body(self, body, frame, plan):
        """False when it was cut short."""
        total = frame if isinstance(frame, int) else 1
        cuts = Cuts(plan, total, random.Random("%s/%d" % (self.proxy.seed, self.proxy.counts["requests"])))
        offset = 0
        async for piece in plan.pace(body):
            for part, what in cuts.split(offset, piece):
                offset += len(part)
                self.proxy.counts["bytes_out"] += len(part)
                if part:
                    await self.client.send(b"%x\r\n%s\r\n" % (len(part), part) if frame == "chunked" else part)
                if what == "reset":
                    raise Gone("on order")
                if what == "end":
                    return False
                if what == "stall":
                    await asyncio.sleep(plan["stall"])
        if frame == "chunked":
            await self.client.send(b"0\r\n\r\n")
        return True


# ---- Control, and the test's side of it ----


async def control(proxy, reader, writer):
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        length = find([tuple(part.strip() for part in line.partition(":")[::2]) for line in lines], "content-length")
        body = json.loads(await reader.readexactly(int(length or 0)) or b"null")
        path, status, said = first.split()[1], 200, None
        try:
            if path == "/rules":
                proxy.set_rules(body)
            elif path in ("/clear", "/down", "/up"):
                getattr(proxy, path[1:])()
            said = list(proxy.log) if path == "/log" else proxy.stats()
        except (ValueError, KeyError, TypeError, re.error) as error:
            status, said = 400, {"error": repr(error)}
        text = json.dumps(said).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(text), text))
        await writer.drain()
    finally:
        writer.close()


async def run(script):
    proxy = Proxy(script)
    proxy.up()
    door = await asyncio.start_server(lambda reader, writer: control(proxy, reader, writer), "127.0.0.1", 0)
    print(json.dumps({"port": proxy.own_port, "control": door.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


class FaultProxy:
    """The proxy in a process of its own, in front of a servers.Server or of any endpoint."""

    def __init__(self, target, rules=(), seed=1):
        keys = {"access_key": target.access_key, "secret_key": target.secret_key, "region": target.region} \
            if isinstance(target, servers.Client) else None
        self.script = {"target": getattr(target, "endpoint", target), "seed": seed, "rules": list(rules)}
        self.script.update({"credentials": keys} if keys else {})
        self.process = None

    def __enter__(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(self.script, file)
            file.flush()
            self.process = servers.spawn([sys.executable, os.path.abspath(__file__), file.name], stdout=subprocess.PIPE)
            line = self.process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError("the fault proxy did not start")
        ports = json.loads(line)
        self.endpoint = "http://127.0.0.1:%d" % ports["port"]
        self.control = "http://127.0.0.1:%d" % ports["control"]
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.control + path, data), timeout=30) as answer:
            return json.load(answer)

    def rules(self, rules):
        """In the place of those before; counts of matches begin anew."""
        self.ask("/rules", rules)

    def clear(self):
        self.ask("/clear", [])

    def down(self):
        self.ask("/down", [])

    def up(self):
        self.ask("/up", [])

    def stats(self):
        return self.ask("/stats")

    def log(self):
        return self.ask("/log")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: faultproxy.py SCRIPT.json")
    with open(sys.argv[1]) as given:
        opened = json.load(given)
    try:
        asyncio.run(run(opened))
    except KeyboardInterrupt:
        pass
