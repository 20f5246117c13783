"""Exported weights read by nothing of ours: safetensors files, alone or with an index, and the CRC32C of what is in them."""
import json
import os
import struct

TABLE = []
for byte in range(256):
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    TABLE.append(byte)


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def read_file(data):
    """{name: (dtype, shape, bytes)} of one file; every byte must belong to a tensor."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        assert begin == end, "%s leaves a hole" % name
        elements = 1
        for size in entry["shape"]:
            elements *= size
        assert entry["dtype"] == "F32" and stop - begin == 4 * elements, name
        tensors[name] = (entry["dtype"], entry["shape"], data[8 + length + begin:8 + length + stop])
        end = stop
    assert 8 + length + end == len(data), "bytes behind the last tensor"
    return tensors


def read_folder(folder):
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        return read_file(file.read())


def params_crc32c(tensors):
    """As summary.json has it: names sorted bytewise."""
    crc = 0
    for name in sorted(tensors, key=str.encode):
        crc = crc32c(tensors[name][2], crc)
    return "%08x" % crc
