"""Whether `covey eval` answers as lm-eval does: the same items and texts, in the layouts of ARC, HellaSwag, PIQA and MMLU.

    pip install lm-eval torch transformers
    python tests/interop/eval_lm_eval.py COVEY MODEL TEXT [ITEMS] [THREADS]

COVEY is the program, MODEL a folder in Hugging Face's layout, TEXT a text of some hundred paragraphs: an item asks how one goes
on, with the ends of others to choose from. Tasks are lm-eval's own, with local files in the place of their data sets. Prints for
each file whether all choices are the same, the largest difference of a log-likelihood, and the seconds of both.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

TASKS = {
    "arc": {
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
    },
    "hellaswag": {
        "doc_to_text": "{{query}}",
        "doc_to_target": "{{label}}",
        "doc_to_choice": "choices",
        "process_docs": "!function utils.process_docs",
    },
    "piqa": {
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": "{{[sol1, sol2]}}",
    },
    "mmlu": {
        "description": "The following are multiple choice questions (with answers) about computer science.\n\n",
        "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
        "doc_to_target": "answer",
        "doc_to_choice": '["A", "B", "C", "D"]',
        "fewshot_split": "dev",
        "num_fewshot": "2",
        "fewshot_config": "\n  sampler: first_n",
    },
}


def halves(text):
    words = text.split(" ")
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def items(paragraphs, count):
    """Of each task `count` items; of MMLU two more, to be shown."""
    draw = random.Random(7)
    made = {name: [] for name in [*TASKS, "mmlu_dev"]}
    for number in range(count):
        begins, ends = halves(draw.choice(paragraphs))
        choices = [halves(draw.choice(paragraphs))[1] for _ in range(3)] + [ends]
        draw.shuffle(choices)
        gold = choices.index(ends)
        labels = list("ABCD" if number % 2 else "1234")
        made["arc"].append(
            {"question": begins, "choices": {"text": choices, "label": labels}, "answerKey": labels[gold]}
        )
        first, second = halves(begins)
        made["hellaswag"].append(
            {"activity_label": "Reading", "ctx_a": first, "ctx_b": second, "endings": choices, "label": str(gold)}
        )
        made["piqa"].append({"goal": begins, "sol1": choices[0], "sol2": choices[1], "label": gold % 2})
        short = [choice[:100] for choice in choices]
        made["mmlu"].append(
            {"question": begins, "choices": short, "answer": gold, "subject": "computer_science"}
        )
    made["mmlu_dev"] = made["mmlu"][:2]
    return made


def write_tasks(folder, made):
    for name, lines in made.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = Path(lm_eval.__file__).parent / "tasks" / "hellaswag" / "utils.py"
    (folder / "utils.py").write_text(source.read_text())
    for name, task in TASKS.items():
        files = {"test": str(folder / f"{name}.jsonl")}
        if name == "mmlu":
            files["dev"] = str(folder / "mmlu_dev.jsonl")
        head = {"task": f"local_{name}", "dataset_path": "json", "output_type": "multiple_choice", "test_split": "test"}
        lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
        lines.append(f"dataset_kwargs: {json.dumps({'data_files': files})}")
        for key, value in task.items():
            plain = value.startswith(("!", "\n")) or value.isdigit()
            lines.append(f"{key}: {value}" if plain else f"{key}: {json.dumps(value)}")
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")


def main():
    covey, model, text = sys.argv[1:4]
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 50
    threads = int(sys.argv[5]) if len(sys.argv) > 5 else 2
    paragraphs = re.split(r"\n\s*\n", Path(text).read_text(errors="ignore"))
    paragraphs = [re.sub(r"\s+", " ", part).strip() for part in paragraphs]
    paragraphs = [part for part in paragraphs if 150 < len(part) < 500]
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_tasks(folder, items(paragraphs, count))
        theirs = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=8)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        failed = False
        for name in TASKS:
            shots = ["--shots", "2", "--examples", str(folder / "mmlu_dev.jsonl")] if name == "mmlu" else []
            start = time.monotonic()
            command = [covey, "eval", "--model", model, "--threads", str(threads), "--out", str(folder / "out.json")]
            subprocess.run([*command, *shots, "--tasks", str(folder / f"{name}.jsonl")], check=True, stdout=subprocess.DEVNULL)
            ours = json.loads((folder / "out.json").read_text())["tasks"][0]["answers"]
            between = time.monotonic()
            found = lm_eval.simple_evaluate(model=theirs, tasks=[f"local_{name}"], task_manager=manager, bootstrap_iters=0)
            seconds = (between - start, time.monotonic() - between)
            samples = sorted(found["samples"][f"local_{name}"], key=lambda sample: sample["doc_id"])
            likelihoods = [[float(answer[0][0]) for answer in sample["resps"]] for sample in samples]
            pairs = list(zip(ours, likelihoods, samples, strict=True))
            furthest = max(abs(a - b) for mine, other, _ in pairs for a, b in zip(mine["log_likelihoods"], other, strict=True))
            same = sum(mine["choice"] == max(range(len(other)), key=lambda i: other[i]) for mine, other, _ in pairs)
            accs = sum((mine["choice"] == mine["gold"]) == bool(sample["acc"]) for mine, _, sample in pairs)
            norms = [(mine["choice_norm"] == mine["gold"]) == bool(s["acc_norm"]) for mine, _, s in pairs if "acc_norm" in s]
            print(
                f"{name}: {len(pairs)} items, the same choice in {same}, acc in {accs}, acc_norm in {sum(norms)} of {len(norms)};"
                f" log-likelihoods within {furthest:.1e}; covey {seconds[0]:.1f} s, lm-eval {seconds[1]:.1f} s",
                flush=True,
            )
            failed |= same < len(pairs) or accs < len(pairs) or sum(norms) < len(norms)
        sys.exit(failed)


if __name__ == "__main__":
    main()
