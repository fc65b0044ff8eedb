"""PyTorch's way through a training step: a LLaMA-style model, cross-entropy, clipping, fused AdamW, in f32.

Usage: torch_train.py KIND VOCABULARY WIDTH LAYERS HEADS KV_HEADS FEED_FORWARD LENGTH TIED SEQUENCES, where KIND is eager or
compile and TIED 0 or 1. RMSNorm, rotary positions, grouped-query attention through scaled_dot_product_attention, SwiGLU.
Prints its version; then, for each line with a number of threads, makes one step and prints the seconds. Steps that compile, and
the first after a change of threads, warm up before the clock starts.
"""

import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError:
    sys.exit(1)


class Layer(nn.Module):
    def __init__(self, width, heads, kv_heads, feed_forward):
        super().__init__()
        self.heads, self.kv_heads, self.head = heads, kv_heads, width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.head, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * feed_forward, bias=False)
        self.down = nn.Linear(feed_forward, width, bias=False)

    def rotate(self, x, cos, sin):
        low, high = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-high, low), dim=-1) * sin

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, -1, self.head).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, vocabulary, width, layers, heads, kv_heads, feed_forward, length, tied):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, heads, kv_heads, feed_forward) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        size = width // heads
        angles = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, size, 2) / size)[None]
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    kind = sys.argv[1]
    vocabulary, width, layers, heads, kv_heads, feed_forward, length, tied, sequences = map(int, sys.argv[2:])
    torch.manual_seed(1)
    model = Model(vocabulary, width, layers, heads, kv_heads, feed_forward, length, tied)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    rows = torch.randint(vocabulary, (sequences, length + 1))
    inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    run = torch.compile(model) if kind == "compile" else model

    def step():
        optimizer.zero_grad(set_to_none=False)
        run(inputs, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    print("PyTorch", torch.__version__, flush=True)
    last = None
    for line in sys.stdin:
        threads = int(line)
        if threads != last:
            torch.set_num_threads(threads)
            step()
            last = threads
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
