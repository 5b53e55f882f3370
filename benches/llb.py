"""Just enough of LLB's protobuf to write a large definition."""
import hashlib


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    # Negative numbers are 64 bits wide.
    return varint(field << 3) + varint(value % (1 << 64))


def blob(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def op(inputs, body):
    return b"".join(blob(1, blob(1, name) + number(2, 0)) for name in inputs) + body


def mkdir(path, has_input):
    """`pb.FileOp` of one directory to be made."""
    directory = blob(1, path.encode()) + number(2, 0o755) + number(3, 1) + number(5, -1)
    return blob(4, blob(2, number(1, 0 if has_input else -1) + number(2, -1) + number(3, 0) + blob(6, directory)))


def wide_graph(vertices):
    """Chains of 100 file ops each, merged at the end."""
    ops, ends = [], []
    for index in range(vertices - 1):
        is_first = index % 100 == 0
        inputs = [] if is_first else [last]
        ops.append(op(inputs, mkdir("/d%d/e%d" % (index // 100, index % 100), not is_first)))
        last = digest(ops[-1])
        if index % 100 == 99 or index == vertices - 2:
            ends.append(last)
    merge = b"".join(blob(1, number(1, index)) for index in range(len(ends)))
    ops.append(op(ends, blob(6, merge)))
    ops.append(op([digest(ops[-1])], b""))
    return b"".join(blob(1, data) for data in ops)


def digest(data):
    return b"sha256:" + hashlib.sha256(data).hexdigest().encode()
