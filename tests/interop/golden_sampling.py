"""What transformers leaves of logits before it draws, as tests/data/golden_sampling.json: run by hand, needs torch and
transformers.

    python tests/interop/golden_sampling.py

The processors are applied in the order of transformers' own generate(), which the script asks for
(`_get_logits_processor`); trainer/src/generate/sampler.rs is held to what they leave.
"""

import json
import math
import pathlib

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LogitsProcessorList

OUT = pathlib.Path(__file__).parent.parent / "data" / "golden_sampling.json"
CASES = [
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 0.5, "top_p": 0.3},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 2.0, "min_p": 0.3},
    {"temperature": 1.0, "repetition_penalty": 1.4},
    {"temperature": 0.9, "repetition_penalty": 0.8, "top_k": 20},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    {"temperature": 1.5, "top_k": 30, "top_p": 0.6},
]


def main() -> None:
    torch.manual_seed(7)
    logits = (torch.randn(40) * 1.2).tolist()
    seen = [3, 17, 3, 39, 0]
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=40, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    cases = []
    for case in CASES:
        config = GenerationConfig(do_sample=True, **({"top_k": 0} | case))
        model._prepare_special_tokens(config, device="cpu")
        processors = model._get_logits_processor(config, len(seen), torch.tensor([seen]), None, LogitsProcessorList())
        scores = processors(torch.tensor([seen]), torch.tensor([logits]))[0].tolist()
        left = {str(token): score for token, score in enumerate(scores) if not math.isinf(score)}
        cases.append({"sampling": case, "order": [type(processor).__name__ for processor in processors], "left": left})
    golden = {"transformers": transformers.__version__, "logits": logits, "seen": seen, "cases": cases}
    OUT.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{OUT}: {len(cases)} cases")


if __name__ == "__main__":
    main()
