#!/usr/bin/env python3
"""S3 servers for tests: MinIO and versitygw, as scripts/servers built them, on free loopback ports.

    with servers.minio() as server:
        server.make_bucket("data")
        server.put("data", "a/b", b"bytes")
        subprocess.run([...], env={**os.environ, **server.environment()})
        server.kill(); server.start()         # kill -9, then again on the same port and data

A server dies with whoever started it, however that ends; its folder goes with the `with`. As a program,
`servers.py minio|versitygw [--tls] [BUCKET ...]` prints one line of JSON (endpoint, access_key, secret_key, region,
folder, pid, ca_file) and serves until its standard input ends.

The client in here is small and our own (SigV4 over the standard library), so that what the store is tested against is
not the store. Only one thread may use a server's client at a time.
"""
import ctypes
import datetime
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import xml.etree.ElementTree

BIN = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "trainrun", "bin")
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def missing(name):
    """Why there is no such server, or None: what a test says when it skips."""
    return None if os.access(os.path.join(BIN, name), os.X_OK) else "no %s here; scripts/servers builds it" % name


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def die_with_parent(parent=os.getpid()):
    """For preexec_fn. The check afterwards is for a parent that died before."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def spawn(command, **options):
    """A child in a group of its own that is killed when this process ends."""
    parent = os.getpid()
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True,
                            preexec_fn=lambda: die_with_parent(parent), **options)


class S3Error(Exception):
    def __init__(self, status, body):
        super().__init__("HTTP %d: %s" % (status, body[:300].decode(errors="replace")))
        self.status, self.body = status, body


def signature(keys, request, now, scope):
    """Of a canonical request."""
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + keys.secret_key).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def authorization(keys, method, path, query, headers):
    """SigV4's header for all of `headers` (names in small letters, x-amz-date and x-amz-content-sha256 among them). Path
    and query are as they are sent, the query's parts sorted; keys has access_key, secret_key and region."""
    names, now = sorted(headers), headers["x-amz-date"]
    request = "\n".join([method, path, query, *("%s:%s" % (name, headers[name]) for name in names), "", ";".join(names),
                         headers["x-amz-content-sha256"]])
    scope = "%s/%s/s3/aws4_request" % (now[:8], keys.region)
    return "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
        keys.access_key, scope, ";".join(names), signature(keys, request, now, scope))


class Client:
    """Requests to one endpoint, path-style, signed with SigV4."""

    def __init__(self, endpoint, access_key, secret_key, region="us-east-1", ca_file=None):
        self.endpoint, self.access_key, self.secret_key = endpoint, access_key, secret_key
        self.region, self.ca_file = region, ca_file
        self.connection = None

    def sign(self, method, path, query, headers, payload_hash):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers.update({"x-amz-date": now, "x-amz-content-sha256": payload_hash})
        headers["authorization"] = authorization(self, method, path, query, headers)

    def connect(self):
        url = urllib.parse.urlsplit(self.endpoint)
        if url.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca_file)
            return http.client.HTTPSConnection(url.hostname, url.port, timeout=60, context=context)
        return http.client.HTTPConnection(url.hostname, url.port, timeout=60)

    def request(self, method, bucket="", key="", query=(), body=b"", headers=()):
        """(status, headers, body); raises S3Error from 300 on."""
        path = urllib.parse.quote("/" + bucket + ("/" + key if key else ""), safe="/-_.~")
        text = "&".join(sorted("%s=%s" % (urllib.parse.quote(str(name), safe="-_.~"),
                                          urllib.parse.quote(str(value), safe="-_.~")) for name, value in dict(query).items()))
        signed = {name.lower(): value for name, value in dict(headers).items()}
        signed["host"] = urllib.parse.urlsplit(self.endpoint).netloc
        self.sign(method, path, text, signed, hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256)
        for last in (False, True):
            self.connection = self.connection or self.connect()
            try:
                self.connection.request(method, path + ("?" + text if text else ""), body or None, signed)
                answer = self.connection.getresponse()
                data = answer.read()
                break
            except (http.client.HTTPException, OSError):
                # A kept connection may have been closed meanwhile; a fresh one must work.
                self.connection.close()
                self.connection = None
                if last:
                    raise
        if answer.status >= 300:
            raise S3Error(answer.status, data)
        return answer.status, answer.headers, data

    def make_bucket(self, bucket):
        try:
            self.request("PUT", bucket)
        except S3Error as error:
            if error.status != 409:
                raise

    def put(self, bucket, key, body):
        """The ETag."""
        return self.request("PUT", bucket, key, body=bytes(body))[1].get("ETag", "").strip('"')

    def put_file(self, bucket, key, path):
        with open(path, "rb") as file:
            return self.put(bucket, key, file.read())

    def get(self, bucket, key):
        return self.request("GET", bucket, key)[2]

    def exists(self, bucket, key):
        try:
            self.request("HEAD", bucket, key)
            return True
        except S3Error as error:
            if error.status != 404:
                raise
            return False

    def delete(self, bucket, key):
        self.request("DELETE", bucket, key)

    def presign(self, bucket, key, seconds=3600):
        """A URL that anyone may GET for so long."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = "%s/%s/s3/aws4_request" % (now[:8], self.region)
        path = urllib.parse.quote("/" + bucket + "/" + key, safe="/-_.~")
        query = urllib.parse.urlencode(sorted({
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": self.access_key + "/" + scope, "X-Amz-Date": now,
            "X-Amz-Expires": str(seconds), "X-Amz-SignedHeaders": "host"}.items()), quote_via=urllib.parse.quote, safe="")
        host = urllib.parse.urlsplit(self.endpoint).netloc
        request = "\n".join(["GET", path, query, "host:" + host, "", "host", "UNSIGNED-PAYLOAD"])
        return "%s%s?%s&X-Amz-Signature=%s" % (self.endpoint, path, query, signature(self, request, now, scope))

    def list(self, bucket, prefix=""):
        """Keys that begin with prefix, in order."""
        keys, token = [], None
        while True:
            query = {"list-type": 2, "prefix": prefix, **({"continuation-token": token} if token else {})}
            root = xml.etree.ElementTree.fromstring(self.request("GET", bucket, query=query)[2])
            space = root.tag[:root.tag.index("}") + 1] if root.tag.startswith("{") else ""
            keys += [entry.findtext(space + "Key") for entry in root.iter(space + "Contents")]
            token = root.findtext(space + "NextContinuationToken")
            if root.findtext(space + "IsTruncated") != "true" or not token:
                return keys

    def uploads(self, bucket):
        """Keys of multipart uploads that were begun and neither completed nor aborted."""
        root = xml.etree.ElementTree.fromstring(self.request("GET", bucket, query={"uploads": ""})[2])
        space = root.tag[:root.tag.index("}") + 1] if root.tag.startswith("{") else ""
        return [entry.findtext(space + "Key") for entry in root.iter(space + "Upload")]


class Server(Client):
    """A server of our own in a folder of its own. Subclasses say how it is started."""
    name = ""

    def __init__(self, tls=False):
        self.folder = tempfile.mkdtemp(prefix="trainrun-%s-" % self.name)
        self.data = os.path.join(self.folder, "data")
        os.mkdir(self.data)
        self.port, self.process, self.log = free_port(), None, os.path.join(self.folder, "log")
        super().__init__("%s://127.0.0.1:%d" % ("https" if tls else "http", self.port), "trainrun-test-key",
                         "trainrun-test-secret")
        if tls:
            self.make_certificate()

    def make_certificate(self):
        """A certificate that is its own authority."""
        self.certificates = os.path.join(self.folder, "certs")
        os.mkdir(self.certificates)
        self.ca_file = os.path.join(self.certificates, "public.crt")
        self.key_file = os.path.join(self.certificates, "private.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=trainrun test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                        "-keyout", self.key_file, "-out", self.ca_file], check=True, capture_output=True)

    def command(self):
        raise NotImplementedError

    def start(self, seconds=60):
        """Starts it, again on the same port and data after a stop or a kill, and waits until it answers."""
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        environment.update(self.variables())
        with open(self.log, "ab") as log:
            self.process = spawn(self.command(), env=environment, cwd=self.folder, stdout=log, stderr=log)
        end = time.monotonic() + seconds
        while True:
            try:
                self.request("GET")
                return self
            except (OSError, http.client.HTTPException, S3Error) as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.kill()
                    with open(self.log, errors="replace") as file:
                        raise RuntimeError("%s does not answer (%s):\n%s" % (self.name, error, file.read()[-3000:])) from error
                time.sleep(0.05)

    def signal(self, number):
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass

    def stop(self):
        self.signal(signal.SIGTERM)
        try:
            if self.process is not None:
                self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self):
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.process = None
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    def environment(self, endpoint=None):
        """AWS's variables for a child; endpoint: another one, such as a proxy's in front of it."""
        found = {"AWS_ENDPOINT_URL": endpoint or self.endpoint, "AWS_ACCESS_KEY_ID": self.access_key,
                 "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region,
                 "AWS_EC2_METADATA_DISABLED": "true"}
        if self.ca_file:
            found["AWS_CA_BUNDLE"] = self.ca_file
        return found

    def describe(self):
        return {"name": self.name, "endpoint": self.endpoint, "access_key": self.access_key,
                "secret_key": self.secret_key, "region": self.region, "folder": self.data, "pid": self.process.pid,
                "ca_file": self.ca_file}


class Minio(Server):
    name = "minio"

    def variables(self):
        # CI_CD: it may live on the disk of the system.
        return {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key, "MINIO_BROWSER": "off",
                "MINIO_UPDATE": "off", "MINIO_CI_CD": "on"}

    def command(self):
        # Without a folder of certificates of its own it would look into the home folder.
        return [os.path.join(BIN, "minio"), "server", "--quiet", "--address", "127.0.0.1:%d" % self.port, "--certs-dir",
                os.path.join(self.folder, "certs"), self.data]


class Versitygw(Server):
    name = "versitygw"

    def variables(self):
        return {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}

    def command(self):
        iam = os.path.join(self.folder, "iam")
        os.makedirs(iam, exist_ok=True)
        tls = ["--cert", self.ca_file, "--key", self.key_file] if self.ca_file else []
        return [os.path.join(BIN, "versitygw"), "--port", "127.0.0.1:%d" % self.port, "--iam-dir", iam, "--quiet",
                "--keep-alive", *tls, "posix", self.data]


def minio(tls=False):
    return Minio(tls)


def versitygw(tls=False):
    return Versitygw(tls)


SERVERS = {"minio": minio, "versitygw": versitygw}


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--tls"]
    if not arguments or arguments[0] not in SERVERS:
        print("usage: servers.py minio|versitygw [--tls] [BUCKET ...]", file=sys.stderr)
        return 2
    why = missing(arguments[0])
    if why is not None:
        print(why, file=sys.stderr)
        return 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with SERVERS[arguments[0]]("--tls" in sys.argv) as server:
        for bucket in arguments[1:]:
            server.make_bucket(bucket)
        print(json.dumps(server.describe()), flush=True)
        while sys.stdin.buffer.read(4096):
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
