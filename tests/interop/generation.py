"""Greedy texts of `covey generate` against `transformers`' from the same folder: 64 tokens each, and a conversation.

    pip install torch transformers
    python tests/interop/generation.py FOLDER [COVEY]

FOLDER is a LLaMA model in Hugging Face's layout, SmolLM2-135M-Instruct, say; COVEY the binary, target/release/covey unless
named. Ends with "all the same", or with the first text that differs.
"""

import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ["The capital of France is", "Once upon a time, in a small village", "def fibonacci(n):", "Why is the sky blue? 🦀"]
MESSAGE = "What is the capital of France?"


def main(folder: str, covey: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def theirs(text: str, special: bool) -> str:
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=special)
        with torch.no_grad():
            added = model.generate(**ids, max_new_tokens=64, do_sample=False)[0][ids.input_ids.shape[1] :]
        return tokenizer.decode(added, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def ours(*arguments: str) -> str:
        command = [covey, "generate", "--model", folder, "--temperature", "0", "--tokens", "64", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.removesuffix("\n")

    for prompt in PROMPTS:
        expected, got = prompt + theirs(prompt, True), ours(prompt)
        assert got == expected, f"{got!r}, expected {expected!r}"
    messages = [{"role": "user", "content": MESSAGE}]
    if tokenizer.chat_template:
        expected = theirs(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), False)
        got = ours("--chat", "--message", MESSAGE)
        assert got == expected, f"{got!r}, expected {expected!r}"
    print(f"{len(PROMPTS)} texts: all the same")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "target/release/covey")
