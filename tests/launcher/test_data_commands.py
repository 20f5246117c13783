#!/usr/bin/env python3
"""`trainrun data` in a folder, on MinIO and on versitygw: packing, reading back, the order of training, bad samples."""
import glob
import gzip
import json
import os
import signal
import struct
import sys
import tarfile
import time
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import places
from jobs import EXAMPLES, Tap, make_data

SAMPLES = 700
tap = Tap()


def check(place, name, good, note=None):
    tap.check(good, "%s: %s" % (place.name, name), note)


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def read_idx(prefix):
    """[(pixels, label)]"""
    with gzip.open(prefix + "-images-idx3-ubyte.gz") as file:
        pixels = file.read()[16:]
    with gzip.open(prefix + "-labels-idx1-ubyte.gz") as file:
        labels = file.read()[8:]
    size = len(pixels) // len(labels)
    return [(pixels[i * size:(i + 1) * size], label) for i, label in enumerate(labels)]


def read_png(data):
    """The bytes of a grey PNG of 8 bits, its checksums right."""
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0]
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
        packed += body if kind == b"IDAT" else b""
        at += 12 + size
    rows, above, out = zlib.decompress(packed), bytes(width), b""
    for y in range(height):
        how, row = rows[y * (width + 1)], bytearray(rows[y * (width + 1) + 1:(y + 1) * (width + 1)])
        for x in range(width):
            left, up, corner = row[x - 1] if x else 0, above[x], above[x - 1] if x else 0
            guess = left + up - corner
            near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            row[x] = (row[x] + (0, left, up, (left + up) // 2, near)[how]) & 255
        above, out = bytes(row), out + bytes(row)
    return out


def test_pack_idx(place):
    make_data(place.scratch, SAMPLES)
    truth = read_idx(place.path("train"))
    done = json.loads(place.run("data", "pack", "--json", "--shard-samples", "200", "train", place.url("packed/train")).stdout)
    check(place, "pack says what it made", (done["samples"], done["shards"]) == (SAMPLES, 4), done)
    check(place, "shards and the record are there", place.keys("packed") == ["train-%06d.tar" % i for i in range(4)] +
          ["train.pack.json"], place.keys("packed"))
    shards = place.url("packed/train-{000000..000003}.tar")
    cat = lines(place.run("data", "cat", shards))
    check(place, "cat names every sample in order", [(one["index"], one["cls"]) for one in cat] ==
          [(i, label) for i, (_, label) in enumerate(truth)])
    raw = [place.run("data", "cat", "--raw", "png", "--index", str(i), shards).stdout for i in (0, 199, 200, SAMPLES - 1)]
    check(place, "the images are those of the IDX files", [read_png(png) for png in raw] ==
          [truth[i][0] for i in (0, 199, 200, SAMPLES - 1)])
    check(place, "their CRCs are those that cat says", [(len(png), "%08x" % crc32c(png)) for png in raw] ==
          [(cat[i]["png"]["bytes"], cat[i]["png"]["crc32c"]) for i in (0, 199, 200, SAMPLES - 1)])
    verified = place.run("data", "verify", "--json", shards)
    check(place, "verify finds them good", lines(verified)[-1]["good"] == SAMPLES, verified.stdout)
    listed = json.loads(place.run("data", "ls", "--json", place.url("packed/")).stdout)
    check(place, "a folder is the shards in it", [one["samples"] for one in listed["shards"]] == [200, 200, 200, 100] and
          [field["name"] for field in listed["fields"]] == ["png", "cls"], listed)
    check(place, "also without its slash", json.loads(place.run("data", "ls", "--json", place.url("packed")).stdout) == listed)
    report = json.loads(place.run("data", "index", "--json", shards).stdout)
    check(place, "the index was made with them", not report["built"] and report["samples"] == SAMPLES and ".trainrun/" in report["url"], report)


def test_pack_again(place):
    contents = [place.content("packed/train-%06d.tar" % i) for i in range(4)]
    place.run("data", "pack", "--shard-samples", "200", "train", place.url("again/"))
    check(place, "the same input gives the same bytes", [place.content("again/shard-%06d.tar" % i) for i in range(4)] == contents)
    done = json.loads(place.run("data", "pack", "--json", "--shard-samples", "200", "train", place.url("packed/train")).stdout)
    check(place, "packing again has nothing to do", done["new_samples"] == 0, done)
    refused = place.run("data", "pack", "--shard-samples", "150", "train", place.url("packed/train"), code=None)
    check(place, "other data is not written over", refused.returncode == 1 and b"--force" in refused.stderr and
          [place.content("packed/train-%06d.tar" % i) for i in range(4)] == contents, refused.stderr)
    for seed in ("1", "2"):
        place.run("data", "pack", "--force", "--no-index", "--shuffle", "--seed", seed, "train", place.url("mixed/" + seed))
    labels = [[one["cls"] for one in lines(place.run("data", "cat", place.url("mixed/%s-000000.tar" % seed)))] for seed in ("1", "2")]
    truth = [label for _, label in read_idx(place.path("train"))]
    check(place, "--shuffle mixes by the seed", labels[0] != labels[1] != truth and sorted(labels[0]) == sorted(labels[1]) == sorted(truth))
    before = place.content("mixed/1-000000.tar")
    place.run("data", "pack", "--force", "--shuffle", "--seed", "1", "train", place.url("mixed/1"))
    check(place, "and alike each time", place.content("mixed/1-000000.tar") == before)
    place.run("data", "pack", "--force", "--shard-samples", "400", "train", place.url("packed/train"))
    check(place, "--force takes the old shards away", place.keys("packed")[:-1] == ["train-000000.tar", "train-000001.tar"], place.keys("packed"))


def test_interrupted_pack(place):
    words = ["data", "pack", "-j", "1", "--shard-samples", "20", "train", place.url("killed/train")]
    place.run("data", "pack", "--shard-samples", "20", "train", place.url("whole/train"))
    process = place.start(*words)
    while process.poll() is None and len(place.keys("killed")) < 5:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = [key for key in place.keys("killed") if key.endswith(".tar")]
    check(place, "a killed pack leaves whole shards only", all(place.content("killed/" + key) == place.content("whole/" + key) for key in there), there)
    done = json.loads(place.run(*words, "--json").stdout)
    tars = [key for key in place.keys("whole") if key.endswith(".tar")]
    check(place, "and is gone on with to the same bytes", done["new_samples"] < SAMPLES and
          all(place.content("killed/" + key) == place.content("whole/" + key) for key in tars), [done, len(there)])


def test_tables(place):
    with open(place.path("t.csv"), "w", newline="") as file:
        file.write('f,"na,me",kind,x\r\n"a.png","say ""hi""",dog,1.50\r\nb.PNG,"two\nlines",cat,\r\na.png,ü,dog,-3e2\r\n')
    images = [place.run("data", "cat", "--raw", "png", "--index", str(i), place.url("whole/train-000000.tar")).stdout for i in (0, 1)]
    for name, image in zip(("a.png", "b.PNG"), images):
        with open(place.path(name), "wb") as file:
            file.write(image)
    place.run("data", "pack", "--image-column", "f", "--label-column", "kind", "t.csv", place.url("tables/t"))
    cat = lines(place.run("data", "cat", place.url("tables/t-000000.tar")))
    check(place, "a table: image, label and the rest of each row", [(one["png"]["crc32c"], one["cls"], one["json"]) for one in cat] ==
          [("%08x" % crc32c(images[0]), 1, {"na,me": 'say "hi"', "x": 1.50}),
           ("%08x" % crc32c(images[1]), 0, {"na,me": "two\nlines", "x": ""}),
           ("%08x" % crc32c(images[0]), 1, {"na,me": "ü", "x": -300})], cat)
    check(place, "and the names of its labels", json.loads(place.content("tables/t-classes.json")) == {"classes": ["cat", "dog"]})
    with open(place.path("t.jsonl"), "w") as file:
        file.write('{"y": 7, "z": [1, {"w": null}]}\n\n{"z": "t", "y": 3}\n')
    place.run("data", "pack", "--label-column", "y", "t.jsonl", place.url("tables/j"))
    cat = lines(place.run("data", "cat", place.url("tables/j-000000.tar")))
    check(place, "JSONL, whose whole numbers are labels", [(one["cls"], one["json"]) for one in cat] ==
          [(7, {"z": [1, {"w": None}]}), (3, {"z": "t"})], cat)
    for text, why in (('a,b\n1\n', b"t2.csv:2: 1 columns, the first row has 2"), ('a,b\n"1,2\n', b"quote"), ('a,a\n1,2\n', b"two columns")):
        with open(place.path("t2.csv"), "w") as file:
            file.write(text)
        done = place.run("data", "pack", "t2.csv", place.url("tables/bad"), code=1)
        check(place, "a broken table is named: %s" % why.decode(), why in done.stderr, done.stderr)
    check(place, "and nothing of it is written", not any("bad" in key for key in place.keys("tables")))


def test_folders(place):
    for i, name in enumerate(("dög/1.png", "a cat/x+y.jpeg", "a cat/2.JPG", "a cat/readme.txt", ".cache/9.png")):
        os.makedirs(os.path.dirname(place.path("photos/" + name)), exist_ok=True)
        with open(place.path("photos/" + name), "wb") as file:
            file.write(b"not decoded here %d" % i)
    place.run("store", "put", "photos", place.url("photos/"))
    for source in ("photos", place.url("photos/")):
        place.run("data", "pack", "--force", "--no-index", source, place.url("folders/f"))
        got = place.path("f.tar")
        with open(got, "wb") as file:
            file.write(place.content("folders/f-000000.tar"))
        with tarfile.open(got) as tar:
            members = {one.name: (tar.extractfile(one).read(), one.mtime, one.uid) for one in tar}
        check(place, "a folder of images: %s" % ("local" if source == "photos" else "there"), members == {
            "00000000.jpg": (b"not decoded here 2", 0, 0), "00000000.cls": (b"0", 0, 0),
            "00000001.jpeg": (b"not decoded here 1", 0, 0), "00000001.cls": (b"0", 0, 0),
            "00000002.png": (b"not decoded here 0", 0, 0), "00000002.cls": (b"1", 0, 0)}, members)
    check(place, "and the names of its labels", json.loads(place.content("folders/f-classes.json")) == {"classes": ["a cat", "dög"]})


def test_bad_samples(place):
    """Only in a folder: a bucket's own bytes are out of reach."""
    shard = place.url("whole/train-000003.tar")
    before = os.stat(shard)
    with tarfile.open(shard) as tar:
        png, label = tar.getmember("00000064.png"), tar.getmember("00000070.cls")
    with open(shard, "r+b") as file:
        for at in (png.offset_data + png.size // 2, label.offset_data):
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    url = place.url("whole/train-{000000..000034}.tar")
    done = place.run("data", "verify", url, code=1)
    found = done.stdout.decode().splitlines()
    check(place, "verify names flipped bytes: shard, key, offset, why", len(found) == 2 and "train-000003.tar" in found[0] and
          "00000064" in found[0] and "offset" in found[0] and "00000070" in found[1], found)
    bad = [one for one in lines(place.run("data", "verify", "--json", url, code=1)) if "index" in one]
    check(place, "and as JSON", [one["index"] for one in bad] == [64, 70] and all(one["status"] == "corrupt" for one in bad), bad)
    place.run("data", "lock", "-o", "lock.json", place.url("again/"))
    place.run("data", "verify", "--lock", "lock.json", place.url("again/"))
    with open(place.url("again/shard-000002.tar"), "ab") as file:
        file.write(bytes(512))
    done = place.run("data", "verify", "--lock", "lock.json", place.url("again/"), code=1)
    check(place, "verify --lock names a shard that changed", b"shard-000002.tar" in done.stderr, done.stderr)
    with open(place.url("again/shard-000001.tar"), "r+b") as file:
        file.seek(1024 * 5 + 100)
        file.truncate()
    done = place.run("data", "verify", place.url("again/shard-{000000..000003}.tar"), code=1)
    check(place, "one broken shard hides no other", b"bad shard" in done.stdout and b"shard-000001.tar" in done.stdout and
          b"500 good" in done.stderr, [done.stdout, done.stderr])


def test_order(place):
    """The ids of --order are those that training delivers: order_crc32c is over them."""
    shards = place.url("packed/train-{000000..000001}.tar")
    for shuffle in ("true", "full", "false"):
        job = place.path("order-%s.toml" % shuffle)
        with open(job, "w") as file:
            file.write('name = "order-%s"\nprogram = "%s/fashion_mnist"\nseed = 5\n[data]\ntrain = "%s"\n'
                       'fields = { image = "png", label = "cls" }\nbatch-size = 48\nshuffle = %s\n[train]\nepochs = 2\n'
                       '[params]\nwidth = 4\nvariant = "plain"\n'
                       % (shuffle, EXAMPLES, shards, shuffle if shuffle != "full" else '"full"'))
        place.run("--workers", "2", "--quiet", job)
        with open(glob.glob(place.path("runs/order-%s/*/summary.json" % shuffle))[0]) as file:
            summary = json.load(file)
        ids = []
        for epoch in ("0", "1"):
            ids += [one["index"] for one in lines(place.run("data", "cat", "--order", "--epoch", epoch, "-f", job, shards))]
        crc = crc32c(b"".join(struct.pack("<Q", one) for one in ids))
        check(place, "--order is training's, shuffle = %s" % shuffle, "%08x" % crc == summary["order_crc32c"] and
              sorted(ids[:SAMPLES]) == list(range(SAMPLES)), [summary["order_crc32c"], "%08x" % crc, ids[:10]])
        flags = lines(place.run("data", "cat", "--order", "--seed", "5", "--shuffle=" + shuffle, "--batch-size", "48", "--limit", "20", shards))
        check(place, "the same by flags", [one["index"] for one in flags] == ids[:20])


def test_bench(place):
    url = place.url("packed/train-{000000..000001}.tar")
    found = json.loads(place.run("data", "bench", "--json", "--seconds", "1", "--need", "1 MB/s", url).stdout)
    check(place, "bench measures store and loader", found["store"]["bytes_per_s"] > 0 and found["loader"]["samples_per_s"] > 0 and
          found["workers"] == int(found["store"]["bytes_per_s"] / 1e6), found)
    text = place.run("data", "bench", "--seconds", "1", "--need-samples", "10", url).stdout
    check(place, "and says it in words", b"workers that need 10 samples/s each" in text, text)


def test_mistakes(place):
    for words, text in ((["data", "lss"], b"did you mean 'data ls'?"), (["data", "cat"], b"usage: trainrun data cat"),
                        (["data", "ls", "--limit", "2", "x"], b"'data ls' takes no --limit"),
                        (["data", "cat", "--index", "99999", place.url("packed/")], b"there is no sample 99999")):
        done = place.run(*words, code=2)
        check(place, "%s is refused" % " ".join(words[:3]), text in done.stderr, done.stderr)
    done = place.run("data", "tokenize", "x", code=69)
    check(place, "tokenize is planned", b"planned, not in this version" in done.stderr)
    for verb in ("ls", "cat", "index", "lock", "verify", "pack", "bench"):
        text = place.run("data", verb, "--help").stdout
        check(place, "data %s --help has an example" % verb, b"Example" in text and b"trainrun data %s " % verb.encode() in text)
    done = place.run("data", "ls", place.scratch + "/", code=None)
    check(place, "a folder of IDX files asks for a prefix", b"name their prefix" in done.stderr or b"holds" in done.stderr, done.stderr)


def test_fashion(place):
    """The real files, once."""
    if not os.path.isdir(places.FASHION):
        tap.skip("Fashion-MNIST", "dataset-fashion-mnist is not installed")
        return
    truth = read_idx(places.FASHION + "/t10k")
    place.run("data", "pack", "--shard-size", "4MiB", places.FASHION + "/t10k", place.url("fashion/t10k"))
    cat = lines(place.run("data", "cat", place.url("fashion/")))
    check(place, "Fashion-MNIST packed: every label", [one["cls"] for one in cat] == [label for _, label in truth])
    raw = place.run("data", "cat", "--raw", "png", "--limit", "60", place.url("fashion/")).stdout
    images = [b"\x89PNG\r\n" + part for part in raw.split(b"\x89PNG\r\n")[1:]]
    check(place, "and the images", [read_png(image) for image in images] == [pixels for pixels, _ in truth[:60]])
    sizes = [len(place.content("fashion/" + key)) for key in place.keys("fashion") if key.endswith(".tar")]
    check(place, "no shard is larger than asked for", len(sizes) > 3 and max(sizes) <= 4 << 20, sizes)


for place in places.all_places(tap):
    with place:
        for part in (test_pack_idx, test_pack_again, test_interrupted_pack, test_tables, test_folders, test_order, test_bench):
            part(place)
        if place.name == "file":
            for part in (test_bad_samples, test_mistakes, test_fashion):
                part(place)
tap.end()
