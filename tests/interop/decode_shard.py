#!/usr/bin/env python3
"""Decodes contribution shards and takes outer steps as the documents say (docs: shard codec, version 1), with the
standard library alone and no code of ours, and checks tests/data/sparseloco_vectors.json.

    python3 tests/interop/decode_shard.py [VECTORS.json]
"""
import json
import math
import pathlib
import struct
import sys

GROUP, SLOTS, ESCAPE, LEAST = 64, 1 << 15, 31, 1 << 31
SCALE_MIN, SCALE_MAX = 0x2180, 0x4980


class Refused(Exception):
    pass


def need(holds, why):
    if not holds:
        raise Refused(why)


def f32(number):
    """Rounded to the nearest f32. After one + - * / of two f32 in f64 this is the f32 operation itself."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


def tensors(shapes):
    """(first element, chunks) of each tensor, by name; a chunk is the list of its elements' offsets in the state."""
    offset = 0
    for _, shape in sorted(shapes, key=lambda entry: entry[0].encode()):
        rows, columns = shape if len(shape) == 2 else (1, math.prod(shape))
        height, width = (64, 64) if len(shape) == 2 else (1, 4096)
        yield [[offset + row * columns + column
                for row in range(top, min(top + height, rows)) for column in range(left, min(left + width, columns))]
               for top in range(0, rows, height) for left in range(0, columns, width)]
        offset += rows * columns


def table(n, k):
    """Shift and the 33 first slots of the classes, for n positions and k values left."""
    mean = 16 * (n + 1) // (k + 1)
    octave = mean.bit_length() - 1
    middle = (2 * (8 + (mean >> (octave - 3)) % 8) + 1) << (octave - 3)
    shift = max(0, octave - 7)
    ratio = ((middle - 32) << 32) // middle
    for _ in range(shift):
        ratio = ratio * ratio >> 32
    start, beyond = [], 1 << 32
    for t in range(32):
        start.append((((1 << 32) - beyond) * (SLOTS - 32) >> 32) + t)
        beyond = beyond * ratio >> 32
    return shift, start + [SLOTS]


class Stream:
    def __init__(self, data):
        need(len(data) >= 8, "no state")
        self.x, self.words = int.from_bytes(data[:8], "little"), data[8:]
        need(LEAST <= self.x < LEAST << 32, "state out of range")

    def bits(self, width):
        bits, self.x = self.x % (1 << width), self.x >> width
        return bits

    def symbol(self, start):
        slot = self.x % SLOTS
        t = max(t for t in range(32) if start[t] <= slot)
        self.x = (start[t + 1] - start[t]) * (self.x >> 15) + slot - start[t]
        return t

    def refill(self):
        if self.x < LEAST:
            need(len(self.words) >= 4, "cut short")
            self.x, self.words = self.x << 32 | int.from_bytes(self.words[:4], "little"), self.words[4:]


def read_book(data, quantiser):
    """The bits of the values that symbols stand for, the sets of symbols of which each must be used, and what follows."""
    if quantiser == "templar":
        need(data and data[0] <= 4 and len(data) > 4 * data[0], "no values")
        book, data = struct.unpack(f"<{data[0]}I", data[1:4 * data[0] + 1]), data[4 * data[0] + 1:]
        values = [struct.unpack("<f", struct.pack("<I", bits))[0] for bits in book]
        need(all(bits == 0 or 2.0**-60 <= abs(value) <= 2.0**20 for bits, value in zip(book, values)), "value out of range")
        need(all(low < high for low, high in zip(values, values[1:])), "values do not rise")
        return book, [{symbol} for symbol in range(len(book))], data
    count = {"sign": 1, "two-magnitudes": 2}[quantiser]
    need(len(data) >= 2 * count, "no scales")
    scales, data = struct.unpack(f"<{count}H", data[:2 * count]), data[2 * count:]
    low, high = scales[0], scales[-1]
    need(low == high == 0 or SCALE_MIN <= low <= high <= SCALE_MAX, "scale out of range")
    book = [scale << 16 | sign << 31 for scale in sorted({low, high}) for sign in (0, 1)]
    return (book if high else []), ([{0, 1}, {2, 3}] if low < high else []), data


def decode_chunk(stream, n, k, book, used):
    indices, values, p = [], [], 0
    v = {1: 0, 2: 1, 3: 2, 4: 2}[len(book)]
    while k:
        if n == k:
            g, bits = 0, stream.bits(v)
        else:
            shift, start = table(n, k)
            t = stream.symbol(start)
            if t == ESCAPE:
                skipped = ESCAPE << shift
                need(n - skipped >= k, "index past the end")
                stream.refill()
                n, p = n - skipped, p + skipped
                continue
            bits = stream.bits(shift + v)
            g = (t << shift) + (bits >> v)
            need(g <= n - k, "index past the end")
        stream.refill()
        indices.append(p + g)
        symbol = bits % (1 << v)
        need(symbol < len(book), "a symbol that stands for no value")
        used.add(symbol)
        values.append(book[symbol])
        p, n, k = p + g + 1, n - g - 1, k - 1
    return indices, values


def decode(chunks_of, k, quantiser, data):
    """Indices and the values' bits, chunk by chunk, of a shard; of its chunks, (tensor's number, elements) is given."""
    groups = -(-len(chunks_of) // GROUP)
    need(len(data) >= 4 * groups, "no table")
    lengths, rest = struct.unpack(f"<{groups}I", data[:4 * groups]), data[4 * groups:]
    need(sum(lengths) == len(rest), "table does not fit")
    chunks = []
    for group, length in enumerate(lengths):
        data, rest = rest[:length], rest[length:]
        runs, books = [], []
        for tensor, n in chunks_of[group * GROUP:(group + 1) * GROUP]:
            if quantiser == "templar" and runs and runs[-1][0] == tensor:
                runs[-1][1].append(n)
            else:
                runs.append((tensor, [n]))
        for _ in runs:
            book, sets, data = read_book(data, quantiser)
            books.append((book, sets))
        stream = Stream(data)
        for (_, members), (book, sets) in zip(runs, books):
            used = set()
            chunks += [decode_chunk(stream, n, -(-n * k // 4096), book, used) if book else ([], []) for n in members]
            need(all(used & symbols for symbols in sets), "a value that is not used")
        need(stream.x == LEAST and not stream.words, "does not end where it began")
    return chunks


def tree_sum(values):
    values = values + [0.0] * ((1 << (len(values) - 1).bit_length()) - len(values))
    while len(values) > 1:
        values = [values[at] + values[at + 1] for at in range(0, len(values), 2)]
    return values[0]


def norm(chunks):
    sums = []
    for _, values in chunks:
        total = 0.0
        for value in values:
            total += value * value
        sums.append(total)
    return math.sqrt(tree_sum(sums))


def outer_step(vector):
    """The state's bytes after the step."""
    layout = list(tensors(vector["shapes"]))
    chunks_of = [(number, len(chunk)) for number, chunks in enumerate(layout) for chunk in chunks]
    theta = [value for value, in struct.iter_unpack("<f", bytes.fromhex(vector["theta"]))]
    alpha, each = f32(vector["alpha"]), vector["shard_chunks"]
    peers = []
    for shards in vector["contributions"]:
        decoded = []
        for number, shard in enumerate(shards):
            decoded += decode(chunks_of[number * each:(number + 1) * each], vector["k"], vector["quantiser"], bytes.fromhex(shard))
        peers.append([(indices, [struct.unpack("<f", struct.pack("<I", bits))[0] for bits in values])
                      for indices, values in decoded])
    least, first = math.ceil(vector["rho"] * len(peers)), 0
    for chunks in layout:
        mine = [peer[first:first + len(chunks)] for peer in peers]
        norms = [norm(peer) for peer in mine]
        median = sorted(norms)[(len(norms) - 1) // 2]
        factors = [f32(min(1.0, median / each)) if each else 0.0 for each in norms]
        for at, elements in enumerate(chunks):
            sums, hits = [0.0] * len(elements), [0] * len(elements)
            for peer, factor in zip(mine, factors):
                if factor < 2.0**-20:
                    continue
                for index, value in zip(*peer[at]):
                    sums[index] = f32(sums[index] + f32(factor * value))
                    hits[index] += 1
            for where, total, hit in zip(elements, sums, hits):
                step = f32(alpha * f32(total / max(hit, least, 1)))
                moved = f32(theta[where] - step)
                theta[where] = moved if abs(moved) >= 2.0**-126 else 0.0
        first += len(chunks)
    return struct.pack(f"<{len(theta)}f", *theta)


def decode_vector(vector):
    layout = enumerate(tensors(vector["shapes"]))
    chunks_of = [(number, len(chunk)) for number, chunks in layout for chunk in chunks]
    first, end = vector["chunks"]
    return decode(chunks_of[first:end], vector["k"], vector["quantiser"], bytes.fromhex(vector["bytes"]))


def is_refused(vector):
    try:
        decode_vector(vector)
    except Refused:
        return True
    return False


def main():
    here = pathlib.Path(__file__).resolve().parent
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent / "data" / "sparseloco_vectors.json"
    vectors = json.loads(path.read_text())
    results = [("codec version", vectors["codec"] == 1)]
    for vector in vectors["shards"]:
        expected = list(zip(vector["indices"], vector["value_bits"]))
        results.append((vector["name"], decode_vector(vector) == expected))
    results += [(vector["name"], is_refused(vector)) for vector in vectors["refused"]]
    results += [(vector["name"], outer_step(vector).hex() == vector["stepped"]) for vector in vectors["outer"]]
    failed = [name for name, passed in results if not passed]
    for name in failed:
        print("failed:", name)
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
