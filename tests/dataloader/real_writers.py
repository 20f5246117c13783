"""Data sets written by the packages that other people write theirs with, webdataset and mosaicml-streaming, and what is in
them. Run as a program it makes the fixtures: `PEERS_PYTHON tests/dataloader/real_writers.py tests/dataloader/fixtures`.

A data set is a folder NAME or a tar NAME.tar, and NAME.jsonl: a line a sample as show_data prints what is stored.
"""
import decimal
import io
import json
import os
import sys

CRC_TABLE = []
for number in range(256):
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    CRC_TABLE.append(number)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def stored(data):
    return {"bytes": len(data), "crc32c": "%08x" % crc32c(data)}


COLUMNS = {
    "a_bytes": "bytes", "a_str": "str", "an_int": "int", "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
    "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "f16": "float16", "f32": "float32", "f64": "float64",
    "s_int": "str_int", "s_float": "str_float", "s_decimal": "str_decimal", "a_json": "json", "a_jpeg": "jpeg",
    "a_png": "png", "a_pil": "pil", "nd": "ndarray", "nd_type": "ndarray:int16", "nd_shape": "ndarray:float16:2,3",
    "jpegs": "jpegarray", "more_jpegs": "jpeg_array", "pils": "list[pil]", "list_jpegs": "list[jpeg]",
    "pngs": "list[png]",
}
NUMBERS = ("an_int", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64")
REALS = {"f16": "float16", "f32": "float32", "f64": "float64"}


def jpeg_bytes(image):
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=80)
    return out.getvalue()


def mds_sample(random, number):
    """A value of every column; the shapes of a_jpeg, a_png, a_pil and nd_type are the same in all samples."""
    import numpy as np
    from PIL import Image

    def image(height, width, grey=False):
        pixels = random.integers(0, 256, (height, width) if grey else (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)

    def integer(bits, signed):
        low = -(1 << bits - 1) if signed else 0
        if number < 2:
            return low if number == 0 else low + (1 << bits) - 1
        return int(random.integers(0, 1000)) % (1 << bits - 1)

    jpegs = [jpeg_bytes(image(5, 4)) for _ in range(1 + number % 3)]
    images = [image(3, 2 + i) for i in range(number % 3)]
    return {
        "a_bytes": random.bytes(number % 5), "a_str": "sample %d \u00fc\u4e2d\"\\" % number, "an_int": integer(64, True),
        "u8": integer(8, False), "u16": integer(16, False), "u32": integer(32, False), "u64": integer(64, False),
        "i8": integer(8, True), "i16": integer(16, True), "i32": integer(32, True), "i64": integer(64, True),
        "f16": float(random.normal()), "f32": float(random.normal()), "f64": float(random.normal()),
        "s_int": number - 1, "s_float": float(random.normal()), "s_decimal": decimal.Decimal(number) / 4,
        "a_json": {"box": [number, 0.5], "deep": [{"n": number}], "text": "\u00fc"},
        "a_jpeg": image(6, 7), "a_png": image(4, 5, grey=True), "a_pil": image(3, 4),
        "nd": random.normal(size=(2, 1 + number % 2)).astype(np.float64 if number % 2 else np.float32),
        "nd_type": random.integers(-9, 9, (3, 2)).astype(np.int16),
        "nd_shape": random.normal(size=(2, 3)).astype(np.float16),
        "jpegs": jpegs, "more_jpegs": jpegs, "pils": images, "list_jpegs": images, "pngs": images,
    }


def mds_expected(sample):
    import numpy as np
    from streaming.base.format.mds.encodings import mds_encode
    fields = {}
    for name, encoding in COLUMNS.items():
        value = sample[name]
        if name in NUMBERS or name in ("s_int", "s_float", "a_str", "a_json"):
            fields[name] = value
        elif name in REALS:
            fields[name] = float(np.dtype(REALS[name]).type(value))
        elif name == "s_decimal":
            fields[name] = json.loads(str(value))
        else:
            fields[name] = stored(mds_encode(encoding, value))
    return fields


def write_lines(path, samples):
    with open(path, "w") as file:
        for index, (key, fields) in enumerate(samples):
            file.write(json.dumps({"index": index, "key": key, "fields": fields}, sort_keys=True) + "\n")


def write_mds(folder, name, count, seed, compression=None, size_limit=1 << 26, hashes=None):
    import numpy as np
    from streaming import MDSWriter
    random = np.random.default_rng(seed)
    out = os.path.join(folder, name)
    samples = [mds_sample(random, number) for number in range(count)]
    with MDSWriter(out=out, columns=COLUMNS, compression=compression, hashes=hashes, size_limit=size_limit) as writer:
        for sample in samples:
            writer.write(sample)
    with open(os.path.join(out, "index.json")) as file:
        shards = json.load(file)["shards"]
    keys = [str(i) for shard in shards for i in range(shard["samples"])]
    write_lines(out + ".jsonl", zip(keys, map(mds_expected, samples)))


def write_webdataset(folder, name, count, seed):
    import numpy as np
    import webdataset
    from PIL import Image
    random = np.random.default_rng(seed)
    path = os.path.join(folder, name + ".tar")
    samples = []
    with webdataset.TarWriter(path) as writer:
        for number in range(count):
            key = "part%d/sample-%04d" % (number % 3, number)
            out = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(out, format="PNG")
            array = io.BytesIO()
            np.save(array, random.normal(size=(2, 2)).astype(np.float32))
            text, record = "words \u00fc %d" % number, {"n": number, "box": [0.5, 1]}
            sample = {"png": out.getvalue(), "cls": number % 10, "txt": text, "json": record, "npy": array.getvalue(),
                      "seg.bin": random.bytes(1 + number % 7)}
            writer.write(dict(sample, __key__=key))
            fields = {k: stored(v) if isinstance(v, bytes) else v for k, v in sample.items()}
            samples.append((key, fields))
    write_lines(os.path.join(folder, name + ".jsonl"), samples)


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    write_mds(folder, "mds-raw", 5, 1, hashes=["sha1", "xxh64"])
    write_mds(folder, "mds-zstd", 5, 2, compression="zstd:7", size_limit=12000)
    write_webdataset(folder, "webdataset", 3, 3)


if __name__ == "__main__":
    main()
