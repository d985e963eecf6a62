// Asks everything an application asks: only the base URL and the key of the client are ours.
//
//     node openai_npm.cjs ADDRESS TOKEN

const assert = require("node:assert/strict");
const { OpenAI, ...kinds } = require("openai");
const { VERSION } = require("openai/version");

const [address, token] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: token });
const hello = { model: "gpt-4o", messages: [{ role: "user", content: "How are you today?" }], max_tokens: 20 };

async function standing() {
  const answer = await fetch(`${address}/usage/tokens`, { headers: { authorization: `Bearer ${token}` } });
  assert.equal(answer.status, 200);
  return answer.json();
}

async function all(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
}

async function chats() {
  const { data: said, response } = await client.chat.completions.create(hello).withResponse();
  assert.equal(said.choices[0].message.content, "Well then.");
  assert.equal(said.usage.total_tokens, 19);
  assert.equal(response.headers.get("x-ratelimit-limit-tokens"), "1000");
  assert.equal((await standing()).used, 19);

  const two = await client.chat.completions.create({ ...hello, n: 2 });
  assert.deepEqual(two.choices.map((choice) => choice.index), [0, 1]);

  const tools = [{ type: "function", function: { name: "look", parameters: { type: "object", properties: { place: { type: "string" } } } } }];
  const called = await client.chat.completions.create({ ...hello, tools });
  assert.equal(called.choices[0].message.tool_calls[0].function.arguments, '{"place":"here"}');
  assert.equal((await standing()).used, 3 * 19);
}

async function streams() {
  const before = (await standing()).used;
  const plain = await all(client.chat.completions.create({ ...hello, stream: true }));
  assert.equal(plain.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), "Well then.");
  assert.ok(plain.every((chunk) => !chunk.usage));
  const counted = await all(client.chat.completions.create({ ...hello, stream: true, stream_options: { include_usage: true } }));
  assert.equal(counted.at(-1).usage.total_tokens, 19);
  assert.equal((await standing()).used, before + 2 * 19);
  const gathered = await client.chat.completions.stream(hello).finalChatCompletion();
  assert.equal(gathered.choices[0].message.content, "Well then.");
  const cut = await all(client.chat.completions.create({ ...hello, max_tokens: 16, stream: true, user: "long" }));
  assert.equal(cut.at(-1).choices[0].finish_reason, "length");
}

async function responses() {
  const ask = { model: "gpt-4o", input: "How are you?", max_output_tokens: 20 };
  assert.equal((await client.responses.create(ask)).output_text, "Well then.");
  const events = await all(client.responses.create({ ...ask, stream: true }));
  assert.equal(events[0].type, "response.created");
  assert.equal(events.at(-1).type, "response.completed");
}

async function others() {
  const given = await client.embeddings.create({ model: "text-embedding-3-small", input: "word", encoding_format: "float" });
  assert.deepEqual(given.data[0].embedding, [0.5, 0.5]);
  // The client asks for base64 by itself, and reads it.
  const inside = await client.embeddings.create({ model: "all-minilm-l6-v2", input: "word" });
  assert.equal(inside.data[0].embedding.length, 384);
  assert.ok(Math.abs(Math.hypot(...inside.data[0].embedding) - 1) < 1e-3);
  assert.deepEqual((await all(client.models.list())).map((model) => model.id), ["all-minilm-l6-v2"]);
}

async function errors() {
  const stranger = new OpenAI({ baseURL: client.baseURL, apiKey: "tbx_wrong" });
  const before = (await standing()).used;
  await assert.rejects(stranger.models.list(), kinds.AuthenticationError);
  await assert.rejects(client.chat.completions.create({ ...hello, model: "claude" }), (error) => {
    assert.ok(error instanceof kinds.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(client.chat.completions.create({ ...hello, max_tokens: -1 }), kinds.UnprocessableEntityError);
  await assert.rejects(client.responses.create({ model: "gpt-4o", input: "x", previous_response_id: "resp_1" }), kinds.BadRequestError);
  assert.equal((await standing()).used, before);
}

// Whoever hangs up pays for the prompt, and nothing stays held.
async function hangs_up() {
  const before = (await standing()).used;
  const waiting = client.chat.completions.create({ ...hello, user: "silent" }, { timeout: 500, maxRetries: 0 });
  await assert.rejects(waiting, kinds.APIConnectionTimeoutError);
  let now = await standing();
  for (let tries = 0; now.reserved !== 0 && tries < 50; tries += 1) {
    await new Promise((wake) => setTimeout(wake, 20));
    now = await standing();
  }
  assert.equal(now.reserved, 0);
  assert.ok(now.used > before);
}

// At the limit it is stopped, and the client does not ask again by itself.
async function is_stopped() {
  await assert.rejects(async () => {
    for (let call = 0; call < 100; call += 1) await client.chat.completions.create(hello);
  }, (error) => {
    assert.ok(error instanceof kinds.RateLimitError, String(error));
    assert.equal(error.code, "insufficient_quota");
    assert.equal(error.type, "insufficient_quota");
    assert.ok(error.headers.get("x-should-retry") === "false" || Number(error.headers.get("retry-after")) <= 60);
    return true;
  });
  const now = await standing();
  assert.ok(now.used <= 1000 && now.reserved === 0, JSON.stringify(now));
}

async function main() {
  for (const part of [chats, streams, responses, others, errors, hangs_up, is_stopped]) await part();
  console.log(`openai ${VERSION} for Node: all well`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
