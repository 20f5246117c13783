"""The rules of the fault proxy: which request gets which faults, and what the proxy then says itself.

A rule's choice depends on the seed, the rule's place and the number of its match alone, so the same script does the
same to the nth request whatever the time. faultproxy.py says what can be written in a rule.
"""
import asyncio
import datetime
import email.utils
import random
import re
import time
import urllib.parse

import servers
from faultwire import find, framing, without

REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
           412: "Precondition Failed", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}
CODES = {200: "InternalError", 403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 429: "SlowDown",
         500: "InternalError", 503: "SlowDown"}
# A store refuses a request whose date is further off than this.
SKEW_ALLOWED_S = 300
PACED_PIECE = 16 * 1024


class Request:
    def __init__(self, first, headers):
        self.method, self.target, self.version = first.split(" ", 2)
        self.path, _, self.query = self.target.partition("?")
        self.headers, self.frame = headers, framing(headers)


class Rule:
    def __init__(self, number, seed, match, fault):
        unknown = set(match) - {"method", "path", "query", "header", "nth", "after", "times", "probability", "seconds"}
        if unknown or not fault:
            raise ValueError("a rule with unknown conditions %s or without a fault" % sorted(unknown))
        self.number, self.seed, self.match, self.fault = number, seed, match, fault
        self.matches, self.hits, self.first_s, self.next_free_s = 0, 0, None, 0.0

    def holds(self, request):
        """Whether this request gets the fault; counts."""
        match = self.match
        methods = match.get("method")
        if methods and request.method not in ([methods] if isinstance(methods, str) else methods):
            return False
        if not re.search(match.get("path", ""), urllib.parse.unquote(request.path)):
            return False
        if not re.search(match.get("query", ""), request.query):
            return False
        if not all(re.search(wanted, find(request.headers, name) or "") for name, wanted in match.get("header", {}).items()):
            return False
        self.matches += 1
        nth = match.get("nth")
        if nth is not None and self.matches not in ([nth] if isinstance(nth, int) else nth):
            return False
        if self.matches <= match.get("after", 0) or self.hits >= match.get("times", float("inf")):
            return False
        chance = random.Random("%s/%d/%d" % (self.seed, self.number, self.matches)).random()
        if chance >= match.get("probability", 1):
            return False
        now = time.monotonic()
        self.first_s = now if self.first_s is None else self.first_s
        if now - self.first_s > match.get("seconds", float("inf")):
            return False
        self.hits += 1
        return True

    async def take(self, count):
        """Waits until `count` bytes fit under bytes_per_s, which all connections share."""
        now = time.monotonic()
        # A sleep that took too long is made up for.
        begin = max(now - 0.02, self.next_free_s)
        self.next_free_s = begin + count / self.fault["bytes_per_s"]
        if self.next_free_s - now > 0.002:
            await asyncio.sleep(self.next_free_s - now)


class Plan(dict):
    """The faults of one request."""

    def __init__(self, rules, request):
        super().__init__()
        self.limits = []
        for rule in rules:
            if rule.holds(request):
                for name, value in rule.fault.items():
                    self.setdefault(name, value)
                if "bytes_per_s" in rule.fault:
                    self.limits.append(rule)

    async def pace(self, body):
        """The pieces of a body, no faster than the rules allow: small ones then, so that all connections move alike and
        a first byte is not late for want of bandwidth."""
        async for piece in body:
            step = PACED_PIECE if self.limits else len(piece)
            for at in range(0, len(piece), step):
                for rule in self.limits:
                    await rule.take(len(piece[at:at + step]))
                yield piece[at:at + step]


class Answer:
    """What the proxy says itself."""

    def __init__(self, status, code, message="injected", headers=(), extra=""):
        self.status = status
        self.body = ('<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message>%s'
                     "<RequestId>0</RequestId></Error>" % (code, message, extra)).encode()
        self.headers = list(headers)

    async def send(self, wire, request, keep):
        date = [] if find(self.headers, "date") else [("Date", email.utils.formatdate(usegmt=True))]
        headers = date + self.headers + [("Content-Type", "application/xml"), ("Content-Length", str(len(self.body)))]
        headers += [] if keep else [("Connection", "close")]
        await wire.send_head("HTTP/1.1 %d %s" % (self.status, REASONS.get(self.status, "Injected")), headers)
        if request.method != "HEAD":
            await wire.send(self.body)


def own_answer(plan, request):
    """The answer in the place of the server's, or None."""
    if "status" in plan and not plan.get("after"):
        return status_answer(plan)
    if "redirect" in plan:
        return Answer(307, "TemporaryRedirect", headers=[("Location", plan["redirect"])])
    if plan.get("expired"):
        return Answer(400, "ExpiredToken", "The provided token has expired.")
    if "changed" in plan and find(request.headers, "if-match") not in (None, plan["changed"], '"%s"' % plan["changed"]):
        return Answer(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    return skew_answer(plan["skew"], request) if "skew" in plan else None


def status_answer(plan):
    status = int(plan["status"])
    headers = [("Retry-After", str(plan["retry_after"]))] if "retry_after" in plan else []
    return Answer(status, plan.get("code", CODES.get(status, "InternalError")), headers=headers)


def skew_answer(skew_s, request):
    now = time.time() + skew_s
    stamp = find(request.headers, "x-amz-date") or "19700101T000000Z"
    signed = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
    if abs(signed - now) <= SKEW_ALLOWED_S:
        return None
    text = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Answer(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
                  [("Date", email.utils.formatdate(now, usegmt=True))], "<ServerTime>%s</ServerTime>" % text)


def sign_again(request, keys, *dropped):
    """The headers of the request with the date of the real clock and without some, signed anew."""
    given = find(request.headers, "authorization") or ""
    names = re.search(r"SignedHeaders=([^,\s]+)", given)
    if not names:
        return without(request.headers, *dropped)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    headers = without(request.headers, "authorization", "x-amz-date", *dropped) + [("x-amz-date", now)]
    signed = {name: find(headers, name) or "" for name in names.group(1).split(";") if name not in dropped}
    query = "&".join(sorted(part if "=" in part else part + "=" for part in request.query.split("&") if part))
    return headers + [("Authorization", servers.authorization(keys, request.method, request.path, query, signed))]


class Cuts:
    """Where a body is touched: offsets in order, and what happens when the body gets there."""

    def __init__(self, plan, total, chance):
        self.points = []
        if isinstance(plan.get("reset"), int):
            self.points.append((plan["reset"], "reset"))
        if "truncate" in plan:
            self.points.append((plan["truncate"], "end"))
        if "stall" in plan:
            self.points.append((plan.get("at", 0), "stall"))
        if "flip" in plan:
            flip = plan["flip"]
            self.points.append((chance.randrange(max(1, total)) if flip == "random" else flip, "flip"))
        self.points.sort()

    def split(self, offset, piece):
        """(part, what happens after it) in turn; a flip has happened already."""
        while self.points and self.points[0][0] < offset + len(piece):
            at, what = self.points.pop(0)
            head, piece = piece[:at - offset], piece[at - offset:]
            if what == "flip":
                piece = bytes([piece[0] ^ 0x40]) + piece[1:]
            yield head, what
            offset = at
        yield piece, None
