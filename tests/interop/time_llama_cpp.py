"""llama.cpp's speed at the texts that `cargo bench -p covey-trainer --bench generate` times, through PyPI's xllamacpp,
which has llama.cpp as a wheel (llama-cpp-python is there as source only).

    pip install xllamacpp
    python tests/interop/time_llama_cpp.py MODEL.gguf [THREADS]...

MODEL.gguf is SmolLM2-135M in f32. Best of three, tokens a second: a prompt of 512, single tokens after 16 and after 512.
"""

import sys

import xllamacpp

SINGLE, TIMES = 48, 3


def speeds(server, length: int) -> tuple[float, float]:
    best = (0.0, 0.0)
    for attempt in range(TIMES):
        # Another prompt each time, so that nothing of it is remembered.
        prompt = [100 + (7 * at + attempt) % 40_000 for at in range(length)]
        request = {"prompt": prompt, "max_tokens": SINGLE, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
        timings = server.handle_completions(request)["timings"]
        best = tuple(map(max, best, (timings["prompt_per_second"], timings["predicted_per_second"])))
    return best


def main(path: str, threads: list[int]) -> None:
    for count in threads:
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.verbosity = path, 2048, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = count
        server = xllamacpp.Server(params)
        (_, short), (prompt, long) = speeds(server, 16), speeds(server, 512)
        print(f"{count} threads: prompt of 512 {prompt:.1f} tok/s, after 16 {short:.1f}, after 512 {long:.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [int(count) for count in sys.argv[2:]] or [1, 2])
