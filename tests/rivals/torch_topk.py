"""PyTorch's way through a compression: error feedback, top-k, signs and a scale a chunk, indices of 12 bits, residual.

Usage: torch_topk.py FILE COPIES BETA K. FILE holds e, then delta, as f32; both are repeated COPIES times and taken as rows
of 4,096 that lie together, which spares PyTorch the gathering of tiles. Prints its version; then, for each line with a
number of threads, does the work once and prints the seconds.
"""

import sys
import time

try:
    import numpy
    import torch
except ImportError:
    sys.exit(1)

CHUNK = 4096


def load(name, copies):
    both = torch.from_numpy(numpy.fromfile(name, dtype=numpy.float32)).reshape(2, -1)
    usable = both.shape[1] * copies // CHUNK * CHUNK
    return [part.repeat(copies)[:usable].reshape(-1, CHUNK).clone() for part in both]


def compress(e, delta, beta, k):
    """Returns the wire's parts, and leaves the new feedback in delta."""
    a = delta.add_(e, alpha=beta)
    indices = torch.topk(a.abs(), k, dim=1, sorted=False).indices
    values = a.gather(1, indices)
    scales = values.abs().mean(1, keepdim=True).bfloat16()
    signs = values < 0
    decoded = torch.where(signs, -scales.float(), scales.float())
    a.scatter_add_(1, indices, -decoded)
    even, odd = indices[:, 0::2].int(), indices[:, 1::2].int()
    packed = torch.stack([even, even >> 8 | (odd & 15) << 4, odd >> 4], dim=-1).to(torch.uint8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8)
    sign_bits = (signs.reshape(-1, 8).to(torch.uint8) * weights).sum(1, dtype=torch.uint8)
    return packed, sign_bits, scales


def main():
    name, copies, beta, k = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    e, delta = load(name, copies)
    work = delta.clone()
    print("PyTorch", torch.__version__, flush=True)
    for line in sys.stdin:
        torch.set_num_threads(int(line))
        work.copy_(delta)
        start = time.perf_counter()
        compress(e, work, beta, k)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
