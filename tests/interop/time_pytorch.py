"""Tokens a second of a training step in PyTorch on the CPU: the rival of `cargo bench -p covey-trainer`.

The same shapes, batch and optimizer numbers as trainer/benches/step.rs: a LLaMA-style model (RMSNorm, rotary positions,
grouped-query attention through scaled_dot_product_attention, SwiGLU, tied output), cross-entropy, clipping, fused AdamW.

    python3 -m venv venv && venv/bin/pip install torch numpy
    venv/bin/python tests/interop/time_pytorch.py [--threads 1] [--compile]
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


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
    def __init__(self, vocabulary, width, layers, heads, kv_heads, feed_forward, length):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, heads, kv_heads, feed_forward) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        head = width // heads
        angles = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, head, 2) / head)[None]
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def report(name, count, repetitions, call):
    call(), call()
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    best, median = count / min(seconds), count / statistics.median(seconds)
    print(f"  {name:9} best {best:7.0f}  median {median:7.0f} tokens/s", flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--compile", action="store_true")
    arguments = arguments.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    for width, feed_forward, vocabulary in [(128, 256, 2048), (192, 512, 4096)]:
        model = Model(vocabulary, width, 4, 4, 2, feed_forward, 128)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        rows = torch.randint(vocabulary, (8, 129))
        inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
        run = torch.compile(model) if arguments.compile else model

        def step():
            optimizer.zero_grad(set_to_none=False)
            run(inputs, targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        def evaluate():
            with torch.no_grad():
                run(inputs, targets).item()

        count = sum(parameter.numel() for parameter in model.parameters())
        kind = "compiled" if arguments.compile else "eager"
        print(f"{count} parameters, {inputs.numel()} tokens a step, torch {torch.__version__} {kind}, {arguments.threads} thread(s)")
        report("step", inputs.numel(), 30, step)
        report("evaluate", inputs.numel(), 30, evaluate)


main()
