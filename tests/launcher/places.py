"""Where the tests of `trainrun store` and `trainrun data` keep things: a folder, and a bucket of each S3 server.

    for place in places.all_places(tap):   # a server that is not there is skipped by name
        with place: place.run("store", "ls", place.url("x"))
"""
import contextlib
import os
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("TRAINRUN_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("TRAINRUN_BUILD_DIR") or os.path.join(SOURCE, "build")
TRAINRUN = os.path.join(BUILD, "trainrun")
FASHION = "/usr/share/datasets/fashion-mnist"
sys.path[:0] = [os.path.join(SOURCE, "tests", "support"), os.path.join(SOURCE, "tests", "jobs")]
import servers  # noqa: E402


class Place:
    """A folder of this machine. `scratch` is always one."""

    def __init__(self):
        self.name, self.environment, self.closing = "file", {}, contextlib.ExitStack()

    def __enter__(self):
        self.scratch = self.closing.enter_context(tempfile.TemporaryDirectory(prefix="trainrun-commands-"))
        self.root = os.path.join(self.scratch, "place")
        os.mkdir(self.root)
        return self

    def __exit__(self, *_):
        self.closing.close()

    def url(self, name):
        return os.path.join(self.root, name)

    def path(self, name):
        """On this machine, whatever the place."""
        return os.path.join(self.scratch, name)

    def command(self, *words):
        env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TRAINRUN_"))}
        return [TRAINRUN, *words], dict(cwd=self.scratch, env={**env, **self.environment})

    def start(self, *words):
        command, options = self.command(*words)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def run(self, *words, data=b"", code=0):
        """The finished process with bytes; raises where it ends otherwise than with `code` (None: anything)."""
        command, options = self.command(*words)
        done = subprocess.run(command, input=data, capture_output=True, timeout=240, **options)
        if code is not None and done.returncode != code:
            raise AssertionError("%s ended with %d:\n%s%s" % (" ".join(words), done.returncode,
                                                              done.stdout[-2000:].decode(errors="replace"),
                                                              done.stderr[-2000:].decode(errors="replace")))
        return done

    def keys(self, name):
        """The objects below, as another program sees them; what a kill left of a put (docs/formats.md) is none."""
        found = []
        for folder, _, files in os.walk(os.path.join(self.root, name)):
            found += [os.path.relpath(os.path.join(folder, file), os.path.join(self.root, name)) for file in files
                      if not file.startswith(".tmp-")]
        return sorted(key for key in found if not key.startswith(".trainrun/"))

    def content(self, name):
        with open(os.path.join(self.root, name), "rb") as file:
            return file.read()

    def uploads(self):
        return []


class Bucket(Place):
    """A bucket of a server of our own."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def __enter__(self):
        super().__enter__()
        self.server = self.closing.enter_context(servers.SERVERS[self.name]())
        self.server.make_bucket("data")
        self.environment = self.server.environment()
        return self

    def url(self, name):
        return "s3://data/" + name

    def keys(self, name):
        prefix = name.rstrip("/") + "/"
        return sorted(key[len(prefix):] for key in self.server.list("data", prefix) if ".trainrun/" not in key)

    def content(self, name):
        return self.server.get("data", name)

    def uploads(self):
        return self.server.uploads("data")


def all_places(tap):
    yield Place()
    for name in servers.SERVERS:
        if servers.missing(name):
            tap.skip(name, servers.missing(name))
        else:
            yield Bucket(name)
