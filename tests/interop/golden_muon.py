"""Makes tests/data/golden_muon.json: five steps of Muon on two matrices, by PyTorch.

`f32` is the formula of trainer/src/cpu/muon.rs in PyTorch's f32; `torch` is `torch.optim.Muon` itself, which makes the momentum
orthogonal in bfloat16. A test in muon.rs compares our steps with both: to the rounding of f32, and to that of bfloat16.

    python3 -m venv venv && venv/bin/pip install torch
    venv/bin/python tests/interop/golden_muon.py && cargo test -p covey-trainer --lib muon
"""

import json
import math
import pathlib

import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/data/golden_muon.json"
RATE, MOMENTUM, DECAY, STEPS = 0.02, 0.95, 0.1, 5
SHAPES = [(24, 40), (40, 24)]


def numbers(rows, columns, step):
    """The same in Python and in Rust: every quotient is rounded once."""
    values = [((31 * i * i + 7919 * i + 104729 * step) % 2003) / 1001.0 - 1.0 for i in range(rows * columns)]
    return torch.tensor(values, dtype=torch.float64).float().reshape(rows, columns)


def orthogonal(x):
    """Newton-Schulz in f32, on the smaller side."""
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if is_tall else x


def by_formula(theta, gradients):
    momentum = torch.zeros_like(theta)
    for gradient in gradients:
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        step = orthogonal((1 - MOMENTUM) * gradient + MOMENTUM * momentum)
        theta = theta * (1 - RATE * DECAY) - RATE * 0.2 * math.sqrt(max(theta.shape)) * step
        yield theta


def by_torch(theta, gradients):
    theta = torch.nn.Parameter(theta.clone())
    settings = {"lr": RATE, "weight_decay": DECAY, "momentum": MOMENTUM, "nesterov": True, "ns_steps": 5}
    optimizer = torch.optim.Muon([theta], adjust_lr_fn="match_rms_adamw", **settings)
    for gradient in gradients:
        theta.grad = gradient.clone()
        optimizer.step()
        yield theta.detach().clone()


def some(matrix):
    """Every fifth element, as short as an f32 can be said."""
    return [float(f"{value:.9g}") for value in matrix.flatten()[::5].tolist()]


def golden(rows, columns):
    start = numbers(rows, columns, 100)
    gradients = [numbers(rows, columns, step) for step in range(STEPS)]
    f32, of_torch = list(by_formula(start, gradients)), list(by_torch(start, gradients))
    moved = (f32[-1] - start).norm()
    print(f"{rows} x {columns}: torch.optim.Muon is off by {((f32[-1] - of_torch[-1]).norm() / moved).item():.4f} of the way")
    return {
        "rows": rows,
        "columns": columns,
        "f32": {"first": some(f32[0]), "last": some(f32[-1])},
        "torch": {"first": some(of_torch[0]), "last": some(of_torch[-1])},
    }


torch.set_num_threads(1)
settings = {"rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY, "steps": STEPS}
OUT.write_text(json.dumps({"torch": torch.__version__, **settings, "matrices": [golden(*shape) for shape in SHAPES]}) + "\n")
