"""Makes tests/data/golden_model.json: what PyTorch's LlamaForCausalLM computes from Covey's export.

trainer/tests/golden.rs exports two small models; this script loads them as any user of transformers would (no key may be
missing, unexpected or misshapen), and writes loss, logits, gradients and a greedy continuation, which the same Rust test
then compares with the CPU backend's. Before that it computes the initial weights from the words of trainer/src/genesis.rs
and compares them bit for bit.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors numpy blake3
    venv/bin/python tests/interop/golden_model.py && cargo test -p covey-trainer --test golden
"""

import json
import math
import os
import pathlib
import struct
import subprocess
import tempfile

import blake3
import numpy
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/data/golden_model.json"
PROMPT, ADDED = "w3 w14 w15 w9 w2", 16


def export(folder):
    command = ["cargo", "test", "-p", "covey-trainer", "--test", "golden", "--", "--ignored", "--exact"]
    command.append("exports_what_transformers_is_to_judge")
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "COVEY_GOLDEN_DIR": str(folder)})


def check_genesis(path, model):
    """The initial state, tensor by tensor in byte order of names, from the description in genesis.rs."""
    given = path.read_bytes()
    seed, given = given[:8], given[8:]
    plain = 0.02 / math.sqrt(4294967295.0 / 3.0)
    residual = plain / math.sqrt(2.0 * model.config.num_hidden_layers)
    state = b""
    for name, tensor in sorted(model.named_parameters(), key=lambda item: item[0].encode()):
        if tensor.dim() == 1:
            state += numpy.ones(tensor.numel(), "<f4").tobytes()
            continue
        stream = blake3.blake3(seed + name.encode(), derive_key_context="covey/1/init").digest(length=8 * tensor.numel())
        sums = numpy.frombuffer(stream, "<u2").reshape(-1, 4).astype(numpy.int64).sum(axis=1) - 131070
        ends = ("o_proj.weight", "down_proj.weight")
        factor = numpy.float32(residual if name.endswith(ends) else plain)
        state += (sums.astype(numpy.float32) * factor).astype("<f4").tobytes()
    assert state == given, f"{path.name}: the initial state differs from its description"
    print(f"{path.name}: seed {struct.unpack('<Q', seed)[0]}, {len(state) // 4} initial weights agree")


def golden(folder, genesis):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    check_genesis(genesis, model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary, length = model.config.vocab_size, model.config.max_position_embeddings
    rows = numpy.random.default_rng(7).integers(vocabulary, size=(3, length + 1))
    tokens = torch.tensor(rows)

    logits = model(tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        flat = parameter.grad.flatten()
        at = sorted({int(i) for i in numpy.random.default_rng(3).integers(flat.numel(), size=12)})
        gradients[name] = {"norm": flat.double().norm().item(), "at": at, "values": flat[at].tolist()}

    encoded = tokenizer(PROMPT, return_tensors="pt")
    added = model.generate(**encoded, max_new_tokens=ADDED, do_sample=False)[0, encoded.input_ids.shape[1] :]
    return {
        "tokens": rows.flatten().tolist(),
        "loss": loss.item(),
        "logits": {str(p): logits[0, p].tolist() for p in (0, 1, 33, length - 1)},
        "gradients": gradients,
        "generation": {"prompt": PROMPT, "tokens": ADDED, "text": tokenizer.decode(added, skip_special_tokens=True)},
    }


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        export(folder)
        names = ("tied", "untied")
        result = {name: golden(folder / name, folder / f"{name}-genesis") for name in names}
    result["made_by"] = f"tests/interop/golden_model.py, torch {torch.__version__}, transformers {transformers.__version__}"
    for name in names:
        print(name, "loss", result[name]["loss"], "continues", repr(result[name]["generation"]["text"]))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
