#!/usr/bin/env python3
"""`trainrun store` in a folder, on MinIO and on versitygw: copies of prefixes, pipes, awkward names, interruptions."""
import json
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import places
from jobs import Tap

MIB = 1 << 20
NAMES = ["plain", "a/b/c", "with space", "a+b", "per%cent", "per%20cent", "grüß/日本", "q'uo\"te", "empty", "tail.", "a/b.d/e"]
tap = Tap()


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def tree(folder):
    found = {}
    for at, _, files in os.walk(folder):
        for file in files:
            path = os.path.join(at, file)
            with open(path, "rb") as opened:
                found[os.path.relpath(path, folder)] = opened.read()
    return found


def make_source(place):
    noise = random.Random(1)
    made = {name: b"" if name == "empty" else noise.randbytes(1000 + len(name)) for name in NAMES}
    made["large"] = noise.randbytes(20 * MIB + 7)
    for name, data in made.items():
        write(place.path("source/" + name), data)
    return made


def check(place, name, good, note=None):
    tap.check(good, "%s: %s" % (place.name, name), note)


def test_prefixes(place):
    made = make_source(place)
    place.run("store", "put", "source", place.url("copy/"))
    check(place, "put copies a folder whole", place.keys("copy") == sorted(made), place.keys("copy"))
    check(place, "byte for byte, whatever the names", all(place.content("copy/" + key) == made[key] for key in made))
    again = place.run("store", "put", "--json", "source", place.url("copy"))
    check(place, "put again has nothing to do", json.loads(again.stdout)["skipped"] == len(made), again.stdout)
    write(place.path("source/plain"), made["plain"][::-1])
    done = json.loads(place.run("store", "put", "--json", "source", place.url("copy")).stdout)
    check(place, "an object of equal size and other content is copied", done["objects"] == 1 and
          place.content("copy/plain") == made["plain"][::-1], done)
    place.run("store", "put", "--force", place.path("source/large"), place.url("copy/plain"))
    check(place, "--force copies over what is there", place.content("copy/plain") == made["large"])
    write(place.path("source/plain"), made["plain"])
    place.run("store", "put", place.path("source/plain"), place.url("copy/"))
    check(place, "a file goes into a folder under its name", place.content("copy/plain") == made["plain"])

    place.run("store", "get", place.url("copy/"), "back")
    check(place, "get copies a folder whole", tree(place.path("back")) == made)
    done = json.loads(place.run("store", "get", "--json", place.url("copy"), "back").stdout)
    check(place, "get again has nothing to do", done["skipped"] == len(made) and done["objects"] == 0, done)
    write(place.path("back/plain"), b"mine")
    place.run("store", "get", place.url("copy"), "back")
    check(place, "get again repairs a file", tree(place.path("back")) == made)
    os.mkdir(place.path("into"))
    place.run("store", "get", place.url("copy/a+b"), "into")
    place.run("store", "get", place.url("copy/a+b"), "new/name")
    check(place, "one object goes into a folder, or to a name", tree(place.path("into")) == {"a+b": made["a+b"]} and
          tree(place.path("new")) == {"name": made["a+b"]})


def test_listing(place):
    listed = [json.loads(line) for line in place.run("store", "ls", "--json", "-r", place.url("copy")).stdout.splitlines()]
    wanted = [(key, len(place.content("copy/" + key))) for key in place.keys("copy")]
    check(place, "ls -r names every object with its size", sorted((one["name"], one["bytes"]) for one in listed) == wanted)
    lines = place.run("store", "ls", place.url("copy/")).stdout.decode().splitlines()
    names = [line.split(None, 3)[-1] if "PRE" not in line else line.strip() for line in lines]
    check(place, "ls shows folders as PRE", "PRE a/" in names and "PRE grüß/" in names and not any("a/b/c" in n for n in names), lines)
    url = listed[0]["url"]
    got = place.run("store", "get", url, "-").stdout
    check(place, "the URL of a line is that of the object", len(got) == listed[0]["bytes"], url)
    check(place, "ls of nothing fails", b"no such object" in place.run("store", "ls", place.url("nowhere"), code=1).stderr)


def test_pipes(place):
    data = random.Random(2).randbytes(70 * MIB + 1)
    for size in (0, 5, len(data)):
        place.run("store", "put", "-", place.url("piped/%d" % size), data=data[:size])
        got = place.run("store", "get", place.url("piped/%d" % size), "-").stdout
        check(place, "%d bytes through standard input and output" % size, got == data[:size] == place.content("piped/%d" % size))
    refused = place.run("store", "put", "-", place.url("piped/"), data=b"x", code=None)
    check(place, "standard input needs a name", refused.returncode != 0 and b"name it" in refused.stderr, refused.stderr)


def test_removing(place):
    refused = place.run("store", "rm", place.url("piped"), code=2)
    check(place, "rm of a folder asks for --recursive", b"--recursive" in refused.stderr and len(place.keys("piped")) == 3)
    shown = place.run("store", "rm", "-r", "--dry-run", place.url("piped")).stdout.splitlines()
    check(place, "--dry-run removes nothing", len(shown) == 3 and len(place.keys("piped")) == 3)
    place.run("store", "rm", place.url("piped/5"))
    check(place, "rm removes one", place.keys("piped") == ["0", "73400321"], place.keys("piped"))
    place.run("store", "rm", "-r", place.url("piped/"))
    check(place, "rm -r removes all, and nothing beside it", place.keys("piped") == [] and len(place.keys("copy")) > 5)
    place.run("store", "rm", place.url("piped/5"), code=1)


def kill_in_the_middle(place, words, begun):
    """True when the command was killed after `begun` and before its end."""
    process = place.start(*words)
    end = time.monotonic() + 30
    while process.poll() is None and not begun() and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_interrupted_get(place):
    data = random.Random(3).randbytes(200 * MIB)
    write(place.path("huge"), data)
    place.run("store", "put", "huge", place.url("huge"))
    state = place.path("down/huge.part.state")
    killed = 0
    for round in range(1, 4):
        lines = lambda: open(state).read().count("\n") if os.path.exists(state) else 0
        begun = lines()
        killed += kill_in_the_middle(place, ["store", "get", place.url("huge"), "down/huge"], lambda: lines() > begun + 1)
        if os.path.exists(place.path("down/huge")):
            break
        check(place, "killed get %d: no file under its name" % round, not os.path.exists(place.path("down/huge")))
    kept = os.path.exists(state)
    if kept:
        # What lies in the part and is not what was read is read again.
        with open(place.path("down/huge.part"), "r+b") as part:
            part.seek(10)
            part.write(bytes(100))
    place.run("store", "get", place.url("huge"), "down/huge")
    check(place, "then goes on to the right bytes", tree(place.path("down")) == {"huge": data}, [killed, kept])


def test_interrupted_put(place):
    noise = random.Random(4)
    for i in range(40):
        write(place.path("many/%02d" % i), noise.randbytes(3 * MIB if i % 10 else 30 * MIB))
    wanted = tree(place.path("many"))
    kill_in_the_middle(place, ["store", "put", "-j", "4", "many", place.url("many")], lambda: len(place.keys("many")) > 2)
    whole = all(place.content("many/" + key) == wanted[key] for key in place.keys("many"))
    check(place, "killed put: what is there is whole", whole and len(place.keys("many")) < 40, len(place.keys("many")))
    done = json.loads(place.run("store", "put", "--json", "many", place.url("many")).stdout)
    check(place, "then goes on with the rest", done["skipped"] > 0 and done["objects"] + done["skipped"] == 40 and
          all(place.content("many/" + key) == wanted[key] for key in wanted), done)
    stopped = place.start("store", "put", "--force", "-j", "2", "many", place.url("stopped"))
    while stopped.poll() is None and not place.keys("stopped"):
        time.sleep(0.002)
    stopped.send_signal(signal.SIGINT)
    text = stopped.communicate()[1]
    check(place, "Ctrl-C ends it with 130 and aborts its uploads", stopped.returncode == 130 and b"SIGINT" in text and
          not [key for key in place.uploads() if key.startswith("stopped/")], text)


def test_damage(place):
    """A server whose disk is at hand: what it gives is not what was put."""
    if place.name != "versitygw":
        return
    for key, size in (("damaged/small", 1000), ("damaged/large", 40 * MIB)):
        write(place.path("fresh"), random.Random(5).randbytes(size))
        place.run("store", "put", "--force", "fresh", place.url(key))
        with open(os.path.join(place.server.data, "data", key), "r+b") as file:
            file.seek(size // 2)
            byte = file.read(1)
            file.seek(size // 2)
            file.write(bytes([byte[0] ^ 1]))
        done = place.run("store", "get", place.url(key), "spoiled", code=1)
        check(place, "%d damaged bytes are refused, and nothing is left" % size, b"checksum" in done.stderr and
              not [name for name in os.listdir(place.scratch) if name.startswith("spoiled")], done.stderr)
        done = place.run("store", "get", place.url(key), "-", code=1)
        check(place, "and said where they were written already", b"checksum" in done.stderr, done.stderr)


def test_probe(place):
    found = json.loads(place.run("store", "probe", "--json", place.url("probed")).stdout)
    check(place, "probe says what is allowed and how fast", all(found[verb]["answer"] == "yes" for verb in
          ("list", "get", "put", "delete")) and found["conditional_put"] == "honoured" and
          found["get_bytes_per_s"]["8"] > 0 and found["put_bytes_per_s"]["32"] > 0 and
          abs(found["clock_skew_s"]) < 5, found)
    check(place, "probe leaves nothing", place.keys("probed") == [], place.keys("probed"))
    if place.name != "file":
        text = json.dumps(found, ensure_ascii=False)
        check(place, "probe says how the key begins, never the secret", place.server.access_key[:4] + "…" in text and
              place.server.access_key not in text and place.server.secret_key not in text, text)
        place.environment = dict(place.environment, AWS_SECRET_ACCESS_KEY="wrong")
        done = place.run("store", "probe", place.url("x"), code=1)
        check(place, "a wrong secret is a failed probe that says so", b"denied" in done.stdout and b"secret key" in done.stdout, done.stdout)
        place.environment = place.server.environment()


def test_mistakes(place):
    for words, text in ((["store", "lst", "x"], b"did you mean 'store ls'?"), (["store", "get", "x"], b"usage: trainrun store get"),
                        (["store", "rm", "--force", "x"], b"'store rm' takes no --force"), (["store", "rm", "-r", "/"], b"root"),
                        (["store"], b"usage: trainrun store")):
        done = place.run(*words, code=2)
        check(place, "%s is refused" % " ".join(words), text in done.stderr, done.stderr)
    for verb in ("ls", "get", "put", "rm", "probe"):
        text = place.run("store", verb, "--help").stdout
        check(place, "store %s --help has an example" % verb, b"Example" in text and b"trainrun store %s " % verb.encode() in text)


for place in places.all_places(tap):
    with place:
        for part in (test_prefixes, test_listing, test_pipes, test_removing, test_interrupted_get, test_interrupted_put, test_damage,
                     test_probe):
            part(place)
        if place.name == "file":
            test_mistakes(place)
tap.end()
