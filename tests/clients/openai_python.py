#!/usr/bin/env python3
"""The unmodified Python client of OpenAI against the gateway: only its base URL and its key are ours.

    pip install openai
    python3 tests/clients/openai_python.py [path of the tallybox binary]

Starts an upstream of its own, a server on a directory of its own, and asks everything an application asks.
"""

import time

import openai

from fake import SILENT, Upstream, try_client


def check(box):
    client = openai.OpenAI(base_url=f"http://{box.address}/v1", api_key=box.token)
    hello = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How are you today?"}], "max_tokens": 20}

    said = client.chat.completions.create(**hello)
    assert (said.choices[0].message.content, said.usage.total_tokens) == ("Well then.", 19)
    assert Upstream.asked[-1][1]["authorization"] == "Bearer sk-operator"
    assert box.used() == 19

    chunks = list(client.chat.completions.create(**hello, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Well then."
    assert all(chunk.usage is None for chunk in chunks)
    chunks = list(client.chat.completions.create(**hello, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens == 19
    assert box.used() == 3 * 19

    with client.chat.completions.stream(**{name: value for name, value in hello.items()}) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Well then."
    cut = list(client.chat.completions.create(**{**hello, "max_tokens": 16}, stream=True, user="long"))
    assert cut[-1].choices[0].finish_reason == "length", cut[-1]

    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}}
    said = client.chat.completions.create(**hello, tools=[tool])
    assert said.choices[0].message.tool_calls[0].function.arguments == '{"place":"here"}'

    assert client.responses.create(model="gpt-4o", input="How are you?", max_output_tokens=20).output_text == "Well then."
    kinds = [event.type for event in client.responses.create(model="gpt-4o", input="How are you?", max_output_tokens=20, stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds

    assert client.embeddings.create(model="text-embedding-3-small", input="word", encoding_format="float").data[0].embedding == [0.5, 0.5]
    assert len(client.embeddings.create(model="all-minilm-l6-v2", input="word").data[0].embedding) == 384
    assert [model.id for model in client.models.list()] == ["all-minilm-l6-v2"]

    for wrong, kind in [
        (lambda: openai.OpenAI(base_url=client.base_url, api_key="tbx_wrong").models.list(), openai.AuthenticationError),
        (lambda: client.chat.completions.create(**{**hello, "model": "claude"}), openai.NotFoundError),
        (lambda: client.chat.completions.create(**{**hello, "max_tokens": -1}), openai.UnprocessableEntityError),
        (lambda: client.responses.create(model="gpt-4o", input="x", previous_response_id="resp_1"), openai.BadRequestError),
    ]:
        try:
            wrong()
        except kind:
            pass
        else:
            raise AssertionError(kind)

    # A client that gives up over a real connection is settled within a second.
    before = box.used()
    try:
        client.with_options(timeout=0.5, max_retries=0).chat.completions.create(**hello, user="silent")
    except openai.APITimeoutError:
        pass
    time.sleep(1)
    standing = box.ask("/usage/tokens")
    assert standing["reserved"] == 0 and standing["used"] > before, standing
    SILENT.set()

    # And at the limit it stops, without asking again.
    asked = len(Upstream.asked)
    try:
        for _ in range(100):
            client.chat.completions.create(**hello)
    except openai.RateLimitError as error:
        assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota"), error
        assert error.response.headers["x-should-retry"] == "false" or int(error.response.headers["retry-after"]) <= 60
    else:
        raise AssertionError("it was never stopped")
    assert len(Upstream.asked) > asked
    assert box.used() <= 1000


try_client(check)
print(f"openai {openai.__version__} for Python: all well")
