#!/usr/bin/env python3
"""The S3 servers of the tests: they keep what was put over a kill, they serve over TLS, and they die with their user."""
import os
import signal
import subprocess
import sys
import time

SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(SOURCE, "tests", "support"), os.path.join(SOURCE, "tests", "jobs")]
import servers
from jobs import Tap

KEYS = ["plain", "a/b/c", "with space", "a+b", "per%cent", "gr\u00fc\u00df"]
tap = Tap()


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def keeps(server):
    for key in KEYS:
        server.put("data", key, key.encode())
    server.kill()
    server.start()
    return all(server.get("data", key) == key.encode() for key in KEYS) and server.list("data") == sorted(KEYS)


def dies_with_its_user(name):
    code = ("import sys; sys.path.insert(0, %r); import servers, time\nwith servers.%s() as s:\n"
            " print(s.process.pid, flush=True); time.sleep(60)" % (servers.__file__.rsplit("/", 1)[0], name))
    user = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    pid = int(user.stdout.readline())
    was = alive(pid)
    user.send_signal(signal.SIGKILL)
    user.wait()
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return was and not alive(pid)


for name, make in servers.SERVERS.items():
    if servers.missing(name):
        tap.skip(name, servers.missing(name))
        continue
    with make() as server:
        server.make_bucket("data")
        tap.check(keeps(server), "%s: what was put is there after a kill and a start" % name, server.list("data"))
        server.delete("data", KEYS[0])
        tap.check(not server.exists("data", KEYS[0]) and server.exists("data", KEYS[1]), "%s: a delete deletes" % name)
        pid, folder = server.process.pid, server.folder
    tap.check(not alive(pid) and not os.path.exists(folder), "%s: nothing is left at the end" % name)
    with make(tls=True) as server:
        server.make_bucket("data")
        server.put("data", "a", b"x")
        tap.check(server.get("data", "a") == b"x" and server.endpoint.startswith("https"), "%s: over TLS" % name)
    tap.check(dies_with_its_user(name), "%s: a killed test leaves no server" % name)
tap.end()
