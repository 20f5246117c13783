#!/usr/bin/env python3
"""Endpoint, region, authorities, style and key as botocore has them: the same environments and files given to both.

First a table of cases that people have, then 200 drawn from all variables and keys at once (the seed is fixed). Where we
mean to differ (AWS_REGION, which botocore does not know) no case asks.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
from urllib.parse import urlparse

BUILD = os.path.abspath(os.environ.get("TRAINRUN_BUILD_DIR") or os.path.join(os.path.dirname(__file__), "..", "..", "build"))
DRIVER = os.path.join(BUILD, "tests", "store", "s3_settings")
SEARCH = os.environ["PATH"]

try:
    import botocore.config
    import botocore.configprovider
    import botocore.exceptions
    import botocore.session
except ImportError:
    print("ok 1 - settings as botocore has them # SKIP there is no botocore (Debian: python3-botocore)\n1..1")
    sys.exit(0)

home = tempfile.mkdtemp(prefix="trainrun-botocore-")
os.mkdir(os.path.join(home, ".aws"))
PROCESS = os.path.join(home, "process")
with open(PROCESS, "w") as script:
    script.write("#!/bin/sh\necho '{\"Version\": 1, \"AccessKeyId\": \"PROCESS'$1'\", \"SecretAccessKey\": \"s\", \"SessionToken\": \"t\"}'\n")
os.chmod(PROCESS, 0o700)
failed, count = 0, 0


def check(good, name, detail=""):
    global failed, count
    count += 1
    failed += not good
    for line in [] if good else str(detail).splitlines():
        print("# " + line)
    print("%s %d - %s" % ("ok" if good else "not ok", count, name), flush=True)


def put(name, text):
    path = os.path.join(home, ".aws", name)
    if text is not None:
        with open(path, "w") as file:
            file.write(text)
    elif os.path.exists(path):
        os.remove(path)


def environment(case):
    env = {"HOME": home, "PATH": SEARCH, "AWS_EC2_METADATA_DISABLED": "true"}
    env.update(case.get("env", {}))
    return env


def ours(case):
    command = [DRIVER, case.get("bucket", "data")] + ([case["profile"]] if "profile" in case else [])
    done = subprocess.run(command, env=environment(case), capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def theirs(case, with_client):
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(case))
    try:
        session = botocore.session.Session(profile=case.get("profile"))
        provider = botocore.configprovider.ConfiguredEndpointProvider(
            full_config=session.full_config, scoped_config=session.get_scoped_config(), client_name="s3")
        ignore = session.get_config_variable("ignore_configured_endpoint_urls")
        keys = session.get_credentials()
        keys = keys.get_frozen_credentials() if keys else None
        found = {"endpoint": (None if ignore else provider.provide()) or "",
                 "region": session.get_config_variable("region") or "us-east-1",
                 "ca_file": session.get_config_variable("ca_bundle") or "",
                 "access_key": keys.access_key if keys else "",
                 "token": keys.token or "" if keys else ""}
        found["endpoint"] = found["endpoint"].rstrip("/")
        if with_client and keys and not found["ca_file"]:
            client = session.create_client("s3", region_name=found["region"])
            bucket = case.get("bucket", "data")
            url = urlparse(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}))
            found["path_style"] = url.path == "/%s/k" % bucket
        return found
    except botocore.exceptions.BotoCoreError as error:
        return {"error": type(error).__name__}
    finally:
        os.environ.clear()
        os.environ.update(before)


def agree(case, with_client=True):
    put("config", case.get("config"))
    put("credentials", case.get("credentials"))
    mine, other = ours(case), theirs(case, with_client)
    if "error" in other:
        return "error" in mine, "ours: %s\nbotocore: %s" % (mine, other)
    return all(mine.get(key) == value for key, value in other.items()), "ours: %s\nbotocore: %s\n%s" % (mine, other, case)


KEYS = {"AWS_ACCESS_KEY_ID": "ENVKEY", "AWS_SECRET_ACCESS_KEY": "s"}
TWO = "[default]\naws_access_key_id = D\naws_secret_access_key = s\n[lake]\naws_access_key_id = L\naws_secret_access_key = s\naws_session_token = T\n"
CASES = [
    ("nothing at all", {}),
    ("keys in variables", {"env": dict(KEYS, AWS_SESSION_TOKEN="t")}),
    ("half of the keys in variables", {"env": {"AWS_ACCESS_KEY_ID": "x"}}),
    ("the old name of the token", {"env": dict(KEYS, AWS_SECURITY_TOKEN="t")}),
    ("the default profile", {"credentials": TWO}),
    ("AWS_PROFILE", {"credentials": TWO, "env": {"AWS_PROFILE": "lake"}}),
    ("AWS_DEFAULT_PROFILE before AWS_PROFILE", {"credentials": TWO, "env": {"AWS_PROFILE": "default", "AWS_DEFAULT_PROFILE": "lake"}}),
    ("variables before AWS_PROFILE", {"credentials": TWO, "env": dict(KEYS, AWS_PROFILE="lake")}),
    ("a profile asked for by name before variables", {"credentials": TWO, "env": KEYS, "profile": "lake"}),
    ("a profile that is not there", {"credentials": TWO, "env": {"AWS_PROFILE": "ghost"}}),
    ("a profile asked for by name that is not there", {"credentials": TWO, "profile": "ghost"}),
    ("half of the keys in a profile", {"credentials": "[default]\naws_access_key_id = D\n"}),
    ("keys in the config file", {"config": "[profile p]\naws_access_key_id = C\naws_secret_access_key = s\n", "env": {"AWS_PROFILE": "p"}}),
    ("the credentials file before the config file", {"config": "[default]\naws_access_key_id = C\naws_secret_access_key = s\n", "credentials": TWO}),
    ("credential_process", {"config": "[default]\ncredential_process = %s 'ab' c\n" % PROCESS}),
    ("credential_process with quotes", {"config": "[default]\ncredential_process = \"%s\" \"7\"\n" % PROCESS}),
    ("the credentials file before credential_process", {"config": "[default]\ncredential_process = %s\n" % PROCESS, "credentials": TWO}),
    ("credential_process before the config file's keys",
     {"config": "[default]\ncredential_process = %s\naws_access_key_id = C\naws_secret_access_key = s\n" % PROCESS}),
    ("the region of a profile", {"config": "[default]\nregion = eu-west-1\n", "credentials": TWO}),
    ("AWS_DEFAULT_REGION before the profile's", {"config": "[default]\nregion = eu-west-1\n", "env": dict(KEYS, AWS_DEFAULT_REGION="eu-north-1")}),
    ("a region in the credentials file", {"credentials": TWO.replace("[lake]", "region = eu-south-1\n[lake]")}),
    ("AWS_ENDPOINT_URL", {"env": dict(KEYS, AWS_ENDPOINT_URL="http://minio:9000")}),
    ("AWS_ENDPOINT_URL_S3 before it", {"env": dict(KEYS, AWS_ENDPOINT_URL="http://a", AWS_ENDPOINT_URL_S3="http://b:1")}),
    ("a profile's endpoint_url", {"config": "[default]\nendpoint_url = http://p:9000\n", "env": KEYS}),
    ("a service's endpoint before it", {"config": "[default]\nendpoint_url = http://p\nservices = x\n[services x]\ns3 =\n  endpoint_url = http://q:9\n", "env": KEYS}),
    ("a services section that another service is in", {"config": "[default]\nservices = x\n[services x]\nec2 =\n  endpoint_url = http://q:9\n", "env": KEYS}),
    ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", {"env": dict(KEYS, AWS_ENDPOINT_URL="http://a", AWS_IGNORE_CONFIGURED_ENDPOINT_URLS="true")}),
    ("addressing_style = path", {"config": "[default]\ns3 =\n  addressing_style = path\n", "env": KEYS}),
    ("addressing_style = virtual", {"config": "[default]\ns3 =\n    addressing_style = virtual\n", "env": dict(KEYS, AWS_ENDPOINT_URL="http://minio:9000")}),
    ("a bucket with a dot", {"bucket": "my.data", "env": KEYS}),
    ("AWS_CA_BUNDLE", {"env": dict(KEYS, AWS_CA_BUNDLE="/ca.pem")}),
    ("a profile's ca_bundle", {"config": "[default]\nca_bundle = /p.pem\n", "env": KEYS}),
    ("a name in quotes", {"config": "[profile \"two words\"]\nregion = eu-west-2\naws_access_key_id = W\naws_secret_access_key = s\n", "profile": "two words"}),
    ("comments and blanks", {"config": "# one\n; two\n\n[default]\n  # three\n  region = eu-west-3\n\n  output = json\n", "env": KEYS}),
    ("no comment behind a value", {"config": "[default]\nregion=a-b-1\n", "credentials": "[default]\naws_access_key_id = a#b\naws_secret_access_key = s;t\n"}),
    ("files named by variables", {"env": {"AWS_CONFIG_FILE": "~/.aws/other", "AWS_SHARED_CREDENTIALS_FILE": os.path.join(home, ".aws", "keys")}}),
    ("a line that is none", {"config": "[default]\nregion\n"}),
    ("a section twice", {"config": "[default]\nregion = a-b-1\n[default]\noutput = json\n"}),
    ("a key twice", {"config": "[default]\nregion = a-b-1\nregion = c-d-2\n"}),
    ("a key before any section", {"config": "region = a-b-1\n"}),
]
put("other", "[default]\nregion = eu-other-1\n")
put("keys", "[default]\naws_access_key_id = OTHER\naws_secret_access_key = s\n")
for name, case in CASES:
    good, detail = agree(case)
    check(good, name, detail)


def draw(source):
    """A case in which everything that can disagree may."""
    def some(pairs, chance=0.4):
        return {key: value for key, value in pairs if source.random() < chance}
    profile_keys = [("region", "eu-p-1"), ("endpoint_url", "http://profile:1"), ("services", "x"), ("aws_access_key_id", "CFG"),
                    ("credential_process", PROCESS), ("ca_bundle", "/p.pem"), ("ignore_configured_endpoint_urls", "true")]
    config = "[services x]\ns3 =\n  endpoint_url = http://service:1\n"
    for section in ("[default]", "[profile lake]"):
        if source.random() < 0.8:
            keys = some(profile_keys, 0.3)
            if "aws_access_key_id" in keys:
                keys["aws_secret_access_key"] = "s"
            config += section + "\n" + "".join("%s = %s\n" % pair for pair in sorted(keys.items()))
    credentials = ""
    for section in ("default", "lake"):
        if source.random() < 0.5:
            keys = some([("aws_access_key_id", section), ("aws_session_token", "T"), ("region", "eu-c-1")], 0.6)
            if "aws_access_key_id" in keys:
                keys["aws_secret_access_key"] = "s"
            credentials += "[%s]\n" % section + "".join("%s = %s\n" % pair for pair in sorted(keys.items()))
    env = some([("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SESSION_TOKEN", "E"), ("AWS_PROFILE", "lake"), ("AWS_DEFAULT_REGION", "eu-e-1"),
                ("AWS_ENDPOINT_URL", "http://env:1"), ("AWS_ENDPOINT_URL_S3", "http://env-s3:1"), ("AWS_CA_BUNDLE", "/e.pem")], 0.35)
    if "AWS_ACCESS_KEY_ID" in env:
        env["AWS_SECRET_ACCESS_KEY"] = "s"
    case = {"config": config, "credentials": credentials, "env": env}
    if source.random() < 0.3:
        case["profile"] = source.choice(["default", "lake"])
    return case


source = random.Random(4)
bad = []
for number in range(200):
    good, detail = agree(draw(source), with_client=False)
    if not good:
        bad.append(detail)
check(not bad, "200 drawn cases", "\n".join(bad[:3]))
print("1..%d" % count)
sys.exit(1 if failed else 0)
