"""Others open what Covey exports: transformers a folder in shards and each GGUF file, llama.cpp's own reader the files.

trainer/tests/gguf.rs writes small models, their tokenizer and the logits that Covey computes; this script loads them as any
user would, and compares tokens and logits. What is rounded is compared, to the byte, with what PyPI's gguf rounds it to.
With a folder of a real model and `covey export` of it in each format, the same is done for that:

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors accelerate numpy gguf
    venv/bin/python tests/interop/open_exports.py
    venv/bin/python tests/interop/open_exports.py MODEL_FOLDER FILE.gguf ...      logits of each beside the folder's
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = "The members of the swarm won't agree at 12:30, says   she; naïve 🦀🦀 — 2026!\n\tIt's over."
# Of the largest logit: f32 computed in another order, then bf16's eight bits, then q8_0's.
RELATIVE_MAX = {"f32": 1e-4, "bf16": 3e-2, "q8_0": 1e-1}


def export(folder):
    command = ["cargo", "test", "-p", "covey-trainer", "--test", "gguf", "--", "--ignored", "--exact"]
    command.append("files_for_others_to_read")
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "COVEY_GOLDEN_DIR": str(folder)})


def load_folder(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model


def load_gguf(path):
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@torch.no_grad()
def logits(model, tokens):
    return model(torch.tensor([tokens])).logits[0].numpy()


def compare(what, got, expected, kind):
    relative = numpy.abs(got - expected).max() / numpy.abs(expected).max()
    same = (got.argmax(axis=1) == expected.argmax(axis=1)).mean()
    print(f"{what}: {relative:.1e} of the largest logit, likeliest token the same in {same:.1%}")
    assert relative < RELATIVE_MAX[kind], what
    return same


def check_rounding(path, exact):
    """Every tensor of the file is what gguf makes of the f32 file's."""
    names = {tensor.name: tensor for tensor in gguf.GGUFReader(exact).tensors}
    count = 0
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.tensor_type != gguf.GGMLQuantizationType.F32:
            values = numpy.array(names[tensor.name].data, dtype=numpy.float32)
            assert gguf.quants.quantize(values, tensor.tensor_type).tobytes() == tensor.data.tobytes(), tensor.name
            count += 1
    assert count > 5
    print(f"{path.name}: {count} tensors are what gguf rounds to")


def kind_of(path):
    return next((kind for kind in ("q8_0", "bf16") if kind in path.name), "f32")


def small(folder):
    export(folder)
    for name in sorted(path.name.removesuffix("-logits.f32") for path in folder.glob("*-logits.f32")):
        tokens = numpy.fromfile(folder / f"{name}-tokens.u32", "<u4").tolist()
        ours = numpy.fromfile(folder / f"{name}-logits.f32", "<f4").reshape(len(tokens), -1)
        compare(f"{name}, folder", logits(load_folder(folder / name), tokens), ours, "f32")
        theirs = AutoTokenizer.from_pretrained(folder / name)
        for path in sorted(folder.glob(f"{name}-*.gguf")):
            model, tokenizer = load_gguf(path)
            compare(path.name, logits(model, tokens), ours, kind_of(path))
            assert tokenizer(TEXT).input_ids == theirs(TEXT).input_ids, path.name
        for kind in ("bf16", "q8_0"):
            check_rounding(folder / f"{name}-{kind}.gguf", folder / f"{name}-f32.gguf")


def real(folder, files):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXT).input_ids
    expected = logits(load_folder(folder), tokens)
    for path in files:
        model, theirs = load_gguf(path)
        assert theirs(TEXT).input_ids == tokens, path.name
        compare(path.name, logits(model, tokens), expected, kind_of(path))


def main():
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        return real(pathlib.Path(sys.argv[1]), [pathlib.Path(path) for path in sys.argv[2:]])
    with tempfile.TemporaryDirectory() as folder:
        small(pathlib.Path(folder))


if __name__ == "__main__":
    main()
