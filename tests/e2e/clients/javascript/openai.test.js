// OpenAI's official client against a running gateway: all that changed for it is `baseURL`.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { GATEWAY, REAL, MOCK, EMBEDDING } = process.env;
const client = new OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: "unused", maxRetries: 0, timeout: 120_000 });

const question = [{ role: "user", content: "Explain gravity in one sentence." }];
const sum = z.object({ a: z.number().int(), b: z.number().int() });
const addition = 'call add {"a": 2, "b": 40}';

test("a chat is the same plain and streamed", async () => {
  const asked = { model: REAL, messages: question, temperature: 0, max_tokens: 12 };
  const plain = await client.chat.completions.create(asked);
  assert.match(plain.choices[0].message.content, /ravity/);
  let text = "";
  let usage;
  for await (const chunk of await client.chat.completions.create({
    ...asked,
    stream: true,
    stream_options: { include_usage: true },
  })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, plain.choices[0].message.content);
  assert.equal(usage.total_tokens, plain.usage.total_tokens);
});

test("a chat runs tools until it has its answer", async () => {
  const tool = zodFunction({ name: "add", parameters: sum, function: ({ a, b }) => String(a + b) });
  for (const stream of [false, true]) {
    const messages = [{ role: "user", content: addition }];
    const runner = client.chat.completions.runTools({ model: MOCK, messages, tools: [tool], stream });
    assert.equal(await runner.finalContent(), "add gave: 42");
  }
});

test("a chat is parsed by its schema", async () => {
  const form = z.object({ name: z.string(), tags: z.array(z.string()) });
  const asked = { model: MOCK, messages: question, response_format: zodResponseFormat(form, "thing") };
  const parsed = (await client.chat.completions.parse(asked)).choices[0].message.parsed;
  assert.deepEqual(form.parse(parsed), parsed);
  const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, parsed);
});

test("a response is the same plain and streamed", async () => {
  const asked = { model: MOCK, input: question };
  const plain = await client.responses.create(asked);
  assert.ok(plain.output_text);
  const streamed = await client.responses.stream(asked).finalResponse();
  assert.equal(streamed.output_text, plain.output_text);
  assert.equal(streamed.usage.total_tokens, plain.usage.total_tokens);
});

test("a response calls tools and is told what they gave", async () => {
  const tools = [{ type: "function", name: "add", parameters: z.toJSONSchema(sum), strict: true }];
  const input = [{ role: "user", content: addition }];
  const called = await client.responses.stream({ model: MOCK, input, tools }).finalResponse();
  const [call] = called.output;
  assert.deepEqual([call.type, call.name, JSON.parse(call.arguments)], ["function_call", "add", { a: 2, b: 40 }]);
  input.push(...called.output, { type: "function_call_output", call_id: call.call_id, output: "42" });
  assert.equal((await client.responses.create({ model: MOCK, input, tools })).output_text, "add gave: 42");
});

test("a response is parsed by its schema", async () => {
  const form = z.object({ name: z.string(), size: z.number().int() });
  const asked = { model: MOCK, input: question, text: { format: zodTextFormat(form, "thing") } };
  const { output_parsed: parsed } = await client.responses.parse(asked);
  assert.deepEqual(form.parse(parsed), parsed);
});

test("a text is completed plain and streamed", async () => {
  const asked = { model: MOCK, prompt: "Once upon a time", max_tokens: 8 };
  const plain = (await client.completions.create(asked)).choices[0].text;
  assert.ok(plain);
  let text = "";
  for await (const chunk of await client.completions.create({ ...asked, stream: true })) {
    text += chunk.choices[0]?.text ?? "";
  }
  assert.equal(text, plain);
});

test("texts are embedded, and models listed", async () => {
  const asked = { model: EMBEDDING, input: ["one", "two"] };
  const usual = (await client.embeddings.create(asked)).data.map((item) => item.embedding); // base64, by this client
  const floats = (await client.embeddings.create({ ...asked, encoding_format: "float" })).data;
  assert.deepEqual(usual, floats.map((item) => item.embedding));
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes(REAL) && names.includes(MOCK));
});

test("errors are of the classes that programs catch", async () => {
  const asked = { model: "no-such-model", messages: question };
  await assert.rejects(client.chat.completions.create(asked), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ ...asked, model: MOCK, n: 0 }), OpenAI.BadRequestError);
});
