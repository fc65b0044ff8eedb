"""OpenAI's own Python client against `covey serve`: models, completions, chat, streams, stop strings, errors.

    pip install openai
    covey serve --model FOLDER --listen 127.0.0.1:8000        # a model with a chat template: SmolLM2-135M, say
    python tests/interop/openai_client.py http://127.0.0.1:8000/v1

Ends with "all as expected", or with the first thing that is not.
"""

import sys

import openai


def main(base_url: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model

    prompt = {"model": model, "prompt": "The capital of France is", "max_tokens": 12}
    whole = client.completions.create(**prompt, temperature=0)
    text = whole.choices[0].text
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert client.completions.create(**prompt, temperature=0).choices[0].text == text
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**prompt, temperature=0, stream=True)]
    assert "".join(pieces) == text and len(pieces) > 3, pieces
    drawn = [client.completions.create(**prompt, temperature=1.2, seed=3).choices[0].text for _ in range(2)]
    assert drawn[0] == drawn[1], drawn
    stop = text.split()[2]
    stopped = client.completions.create(**prompt, temperature=0, stop=[stop]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.text == text[: text.index(stop)], stopped

    chat = {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "max_completion_tokens": 40,
    }
    answer = client.chat.completions.create(**chat)
    said = answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant" and said
    chunks = list(client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == said
    assert chunks[-1].usage == answer.usage and chunks[-2].choices[0].finish_reason == answer.choices[0].finish_reason

    refused = [
        (openai.NotFoundError, {**prompt, "model": "gpt-4"}, "model_not_found"),
        (openai.BadRequestError, {**prompt, "n": 2}, "unsupported_parameter"),
        (openai.BadRequestError, {**prompt, "temperature": -1}, None),
        (openai.BadRequestError, {**prompt, "prompt": [0] * 1_000_000}, "context_length_exceeded"),
    ]
    for kind, request, code in refused:
        try:
            client.completions.create(**request)
        except kind as error:
            assert error.code == code, error
        else:
            raise AssertionError(f"{request} was answered")
    print(f"{model}: {text!r}; {said!r}\nall as expected")


if __name__ == "__main__":
    main(sys.argv[1])
