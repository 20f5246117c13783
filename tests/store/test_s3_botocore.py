#!/usr/bin/env python3
"""Every request that the S3 store sends, and every URL that it signs, has the signature that botocore computes for it.

A small server that is no S3 takes the requests of libtrainrun.so and signs each again with botocore, from the bytes that
came over the wire."""
import ctypes
import http.server
import os
import re
import subprocess
import sys
import threading
import urllib.parse

try:
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials
except ImportError:
    print("no botocore here (python3-botocore)")
    sys.exit(77)

BUILD = os.environ.get("TRAINRUN_BUILD_DIR", "build")
if not os.path.exists(os.path.join(BUILD, "libtrainrun.so")):
    print("no libtrainrun.so in " + BUILD)
    sys.exit(77)
if re.search("lib[at]san", subprocess.run(["ldd", os.path.join(BUILD, "libtrainrun.so")], capture_output=True, text=True).stdout):
    print("a library with a sanitizer is not loaded by a plain Python")
    sys.exit(77)
LIBRARY = ctypes.CDLL(os.path.join(BUILD, "libtrainrun.so"))

KEYS = ["plain", "a b", "a+b", "a%b", "a%20b", "a&b=c", "what?", "sharp#1", "ä/日本語/é", "(x)!*'", "a;b,c:d@e$f", "~-._",
        "...", "..a/b..", "'\"<>\\^`{|}", "tab\there", "a=b", "x" * 300, "[1]", "€", "a/b/c/d/e", " lead", "trail "]
ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


class Credentials(ctypes.Structure):
    _fields_ = [("access_key", ctypes.c_char * 256), ("secret_key", ctypes.c_char * 256),
                ("session_token", ctypes.c_char * 4096), ("expires_ns", ctypes.c_int64)]


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("rank", ctypes.c_int32), ("message", ctypes.c_char * 500)]


GET = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_bool, ctypes.POINTER(Credentials), ctypes.c_void_p)


class Source(ctypes.Structure):
    _fields_ = [("get", GET), ("destroy", ctypes.c_void_p), ("self", ctypes.c_void_p)]


class Options(ctypes.Structure):
    _fields_ = [("struct_bytes", ctypes.c_size_t), ("allocator", ctypes.c_void_p), ("clock", ctypes.c_void_p),
                ("log", ctypes.c_void_p), ("bucket", ctypes.c_char_p), ("endpoint", ctypes.c_char_p),
                ("region", ctypes.c_char_p), ("ca_file", ctypes.c_char_p), ("path_style", ctypes.c_bool),
                ("connections", ctypes.c_uint32), ("attempts", ctypes.c_uint32), ("persistent", ctypes.c_bool),
                ("stall_timeout_ms", ctypes.c_uint32), ("credentials", Source)]


class Store:
    """A bucket as the library has it."""

    def __init__(self, endpoint, token=""):
        @GET
        def get(_self, _renew, out, _error):
            out[0].access_key, out[0].secret_key = ACCESS.encode(), SECRET.encode()
            out[0].session_token, out[0].expires_ns = token.encode(), 0
            return 0
        self.get_function, self.store, self.error = get, ctypes.c_void_p(), Error()
        options = Options(bucket=b"buck.et", endpoint=endpoint.encode(), region=b"eu-west-3", path_style=True,
                          credentials=Source(get=get))
        options.struct_bytes = ctypes.sizeof(Options)
        self.check(LIBRARY.tr_store_s3_open(ctypes.byref(options), ctypes.byref(self.store), ctypes.byref(self.error)))

    def check(self, status):
        if status != 0:
            raise Exception(self.error.message.decode())

    def call(self, name, *arguments):
        self.check(getattr(LIBRARY, name)(self.store, *arguments, ctypes.byref(self.error)))

    def presign(self, key, seconds):
        url = ctypes.create_string_buffer(16384)
        self.call("tr_store_s3_presign", key.encode(), ctypes.c_uint32(seconds), url, ctypes.c_size_t(len(url)))
        return url.value.decode()

    def close(self):
        LIBRARY.tr_store_destroy(self.store)


VISIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)


def key_of(token):
    return botocore.credentials.Credentials(ACCESS, SECRET, token or None)


def expected(token, method, url, headers):
    """(what came, what botocore makes of it)"""
    found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=([0-9a-f]{64})",
                         headers.get("authorization", ""))
    if not found:
        return "no signature", headers.get("authorization", "none")
    signed = {name: headers.get(name, "") for name in found.group(2).split(";")}
    needed = {"host"} | {name.lower() for name in headers.keys() if name.lower().startswith("x-amz-")}
    if not needed <= set(signed):
        return "not signed", sorted(needed - set(signed))
    request = botocore.awsrequest.AWSRequest(method, url, headers=signed)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = botocore.auth.S3SigV4Auth(key_of(token), "s3", "eu-west-3")
    text = auth.string_to_sign(request, auth.canonical_request(request))
    scope = "%s/%s/eu-west-3/s3/aws4_request" % (ACCESS, headers["x-amz-date"][:8])
    return (found.group(1), found.group(3)), (scope, auth.signature(text, request))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        url = "http://%s%s" % (self.headers["host"], self.path)
        self.server.seen.append((self.command, self.path) + expected(self.server.token, self.command, url, self.headers))
        body, status = b"", 200
        if self.command == "GET" and "list-type=2" in self.path:
            body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        elif self.command == "GET":
            body, status = b"x", 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", "bytes 0-0/1")
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.token = [], ""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def requests_agree(token):
    server = serve()
    server.token = token
    store = Store("http://127.0.0.1:%d" % server.server_address[1], token)
    buffer = ctypes.create_string_buffer(16)
    for key in KEYS:
        name = key.encode()
        store.call("tr_store_put", name, b"hello", ctypes.c_size_t(5), ctypes.c_bool(True))
        store.call("tr_store_get", name, ctypes.c_uint64(0), buffer, ctypes.c_size_t(1), None)
        store.call("tr_store_head", name, ctypes.create_string_buffer(128))
        store.call("tr_store_delete", name)
        visit = VISIT(lambda *_: 0)
        store.call("tr_store_walk", name, visit, None)
    store.close()
    server.shutdown()
    if len(server.seen) != 5 * len(KEYS):
        yield "%d requests came, not %d" % (len(server.seen), 5 * len(KEYS))
    for method, path, got, wanted in server.seen:
        if got != wanted:
            yield "%s %s: %s is not %s" % (method, path, got, wanted)


def urls_agree(token):
    store = Store("https://minio.example:9000", token)
    for key in KEYS:
        url = store.presign(key, 3600)
        bare, signature = url.rsplit("&X-Amz-Signature=", 1)
        parts = urllib.parse.urlsplit(url)
        if urllib.parse.unquote(parts.path) != "/buck.et/" + key:
            yield "%r is not in %s" % (key, url)
        request = botocore.awsrequest.AWSRequest("GET", bare, headers={"host": parts.netloc})
        request.context["timestamp"] = dict(urllib.parse.parse_qsl(parts.query))["X-Amz-Date"]
        auth = botocore.auth.S3SigV4QueryAuth(key_of(token), "s3", "eu-west-3", expires=3600)
        wanted = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        if signature != wanted:
            yield "%r: %s is not %s" % (key, signature, wanted)
    store.close()


TESTS = [("requests of awkward keys are signed as botocore signs them", lambda: requests_agree("")),
         ("so they are with a session token", lambda: requests_agree("token/with+odd=letters==")),
         ("so are URLs", lambda: urls_agree("")), ("so are URLs with a session token", lambda: urls_agree("to/k+en=="))]

print("TAP version 13\n1..%d" % len(TESTS))
failed = False
for number, (name, test) in enumerate(TESTS, 1):
    findings = list(test())
    failed = failed or bool(findings)
    print("%s %d - %s" % ("not ok" if findings else "ok", number, name))
    for finding in findings[:20]:
        print("#   " + finding)
sys.exit(1 if failed else 0)
