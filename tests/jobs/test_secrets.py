#!/usr/bin/env python3
"""No secret in any log, argument, resolved job, trace, summary, manifest, `--dry-run` or error.

The main example trains from a bucket and checkpoints into it with keys from variables, files, a profile, a credential_process
and AWS's own variables. The keys are words that appear nowhere else; afterwards everything that a run wrote or said is
searched for them. Two runs go wrong on purpose: with a wrong key, and with a job file that holds one.
"""
import shutil
import stat
import threading
from jobs import *

sys.path.insert(0, os.path.join(SOURCE, "tests", "support"))
import servers

tap = Tap()
if servers.missing("minio"):
    tap.skip("no secret is left anywhere", servers.missing("minio"))
    tap.end()

folder = Folder(samples=240)
home = os.path.join(folder.path, "home")
os.makedirs(os.path.join(home, ".aws"))
server = servers.minio()
server.access_key, server.secret_key = "CANARYaccessCANARY", "CANARYsecretCANARY"
WRONG = "CANARYwrongCANARY"
BARE = {"HOME": home, "AWS_EC2_METADATA_DISABLED": "true"}


def write(path, text, mode=0o600):
    path = os.path.join(home, path)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def table(*lines):
    return "\n".join(["buckets = [\"data\", \"runs\"]", 'endpoint = "%s"' % server.endpoint, *lines])


def job(name, storage):
    path = folder.job(name, checkpoint='every = "4 steps"\nurl = "s3://runs/%s"' % name, train="steps = 12\nmicro-batch = 6",
                      **{"storage.lake": storage} if storage else {})
    with open(path) as file:
        text = file.read()
    for key in ("train", "valid"):
        text = text.replace('%s = "%s/' % (key, folder.path), '%s = "s3://data/' % key)
    with open(path, "w") as file:
        file.write(text)
    return path


def files(top):
    for place, _, names in os.walk(top):
        for name in names:
            path = os.path.join(place, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    yield path, file.read()


def arguments(seen, stop):
    """What `ps` shows of every process of this test while it runs."""
    while not stop.is_set():
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as file:
                    command = file.read()
                if folder.path.encode() in command or os.readlink("/proc/%s/cwd" % pid) == folder.path:
                    seen.add(command)
            except OSError:
                pass
        stop.wait(0.02)


def canaries(named):
    return sorted({name for name, text in named if b"CANARY" in (text if isinstance(text, bytes) else text.encode())})


def searched(name, path, env):
    """Runs everything on one job; True when it worked. What was found goes to the second result."""
    seen, stop = set(), threading.Event()
    watcher = threading.Thread(target=arguments, args=(seen, stop))
    watcher.start()
    results = {"run": folder.run("--workers", 2, "--trace", path, env=env)}
    manifests = [key for key in server.list("runs", name + "/") if key.endswith("manifest.json")]
    run_url = "s3://runs/" + "/".join(manifests[0].split("/")[:3]) if manifests else "s3://runs"
    for words in (["--dry-run", "--workers", 2, path], ["check", "--explain", path], ["check", path],
                  ["store", "ls", "-f", path, "s3://runs/%s/" % name], ["store", "probe", "-f", path, "s3://runs/probe"],
                  ["ckpt", "ls", run_url, "-f", path], ["ckpt", "show", run_url, "-f", path], ["ckpt", "verify", run_url, "-f", path]):
        results[" ".join(map(str, words[:2]))] = folder.run(*words, env=env)
    stop.set()
    watcher.join()
    written = list(files(os.path.join(folder.path, "runs")))
    stored = [(key, server.get("runs", key)) for key in server.list("runs")]
    texts = [("output of " + words, result.output) for words, result in results.items()]
    found = canaries(written + stored + texts + [("arguments", command) for command in seen])
    worked = results["run"].code == 0 and any(key.endswith("manifest.json") for key, _ in stored)
    bad = {words: (result.code, result.output[-600:]) for words, result in results.items() if result.code != 0}
    # The searching itself must see something.
    looked = len(written) >= 5 and any(b"fashion_mnist" in command for command in seen)
    return worked and looked and not bad, found, "%s\n%d files, %d commands" % (bad, len(written), len(seen))


def try_keys(name, title, storage, env):
    path = job(name, storage)
    worked, found, detail = searched(name, path, dict(BARE, **env))
    tap.check(worked, "keys from %s: trains from a bucket into a bucket" % title, detail)
    tap.check(not found, "keys from %s: none is left anywhere" % title, "\n".join(found))


def fails(title, path, env, words, code=None):
    result = folder.run("--workers", 2, "--fresh", path, env=dict(BARE, **env))
    written = list(files(os.path.join(folder.path, "runs")))
    tap.check(result.code not in (0, 124) and (code is None or result.code == code) and words in result.output,
              "%s: says so" % title, "%d\n%s" % (result.code, result.output))
    found = canaries(written + [("output", result.output)])
    tap.check(not found, "%s: without the key" % title, "\n".join(found) + "\n" + result.output)


with server:
    for bucket in ("data", "runs"):
        server.make_bucket(bucket)
    for name in os.listdir(folder.path):
        if name.endswith(".gz"):
            server.put_file("data", name, os.path.join(folder.path, name))
    keys = {"MY_ACCESS": server.access_key, "MY_SECRET": server.secret_key}
    try_keys("env", "variables that a table names", table('access-key = { env = "MY_ACCESS" }', 'secret-key = { env = "MY_SECRET" }'), keys)
    try_keys("file", "files that a table names",
             table('access-key = { file = "%s" }' % os.path.relpath(write("access", server.access_key + "\n"), folder.path),
                   'secret-key = { file = "%s" }' % write("secret", server.secret_key + "\n")), {})
    try_keys("aws", "AWS's variables", None, server.environment())
    write(".aws/credentials", "[lake]\naws_access_key_id = %s\naws_secret_access_key = %s\n" % (server.access_key, server.secret_key))
    try_keys("profile", "a profile", table('profile = "lake"'), {})
    script = write("print-keys", '#!/bin/sh\necho \'{"Version": 1, "AccessKeyId": "%s", "SecretAccessKey": "%s"}\'\n'
                   % (server.access_key, server.secret_key), 0o700)
    write(".aws/config", "[profile tool]\ncredential_process = %s --quiet\n" % script)
    try_keys("process", "a credential_process", table('profile = "tool"'), {})
    os.remove(os.path.join(home, ".aws", "config"))
    result = folder.run("ckpt", "ls", "--endpoint-url", server.endpoint, "--profile", "lake", "s3://runs/none", env=BARE)
    tap.check("there is none" in result.output and "CANARY" not in result.output, "aws's flags reach ckpt", result.output)

    refs = table('access-key = { env = "MY_ACCESS" }', 'secret-key = { env = "MY_SECRET" }')
    fails("a wrong key", job("wrong", refs), dict(keys, MY_SECRET=WRONG), "refuses the signature")
    fails("a key nobody knows", job("nobody", refs), dict(keys, MY_ACCESS=WRONG), "does not know the access key")
    fails("a key with a blank", job("blank", refs), dict(keys, MY_SECRET=WRONG + " x"), "blanks")
    fails("a variable that is not set", job("unset", refs), {"MY_ACCESS": server.access_key}, "MY_SECRET is not set", 78)
    fails("a key in the job file", job("inline", table('access-key = "%s"' % WRONG, 'secret-key = "%s"' % WRONG)), {}, "access-key", 78)
    fails("a key in a URL", folder.job("url", checkpoint='url = "s3://x:%s@runs/x"' % WRONG), {}, "keys do not go into URLs")
    write(".aws/credentials", "[default]\naws_access_key_id %s\n" % WRONG)
    fails("a broken credentials file", job("broken", table()), {}, "credentials:2")
shutil.rmtree(home)
tap.end()
