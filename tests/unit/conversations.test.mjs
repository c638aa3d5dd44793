// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";
import { createConversations } from "../../extension/offscreen/conversations.js";

/** @typedef {import("../../extension/offscreen/conversations.js").Conversation} Conversation */

/** Lets every settled promise run its continuations. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** @param {Conversation[]} [initial] */
function memoryStore(initial = []) {
  const records = new Map(initial.map((conversation) => [conversation.id, structuredClone(conversation)]));
  return {
    records,
    puts: 0,
    load: async () => structuredClone([...records.values()]),
    /** @param {Conversation} conversation */
    async put(conversation) {
      this.puts += 1;
      records.set(conversation.id, structuredClone(conversation));
    },
    /** @param {string} id */
    async delete(id) {
      records.delete(id);
    },
  };
}

/** An engine that answers when the test says so. */
function scriptedEngine() {
  /** @typedef {{params: any, resume: any, say: (text: string, ...tokens: number[]) => void, last: (fields: object) => void, end: () => void, fail: (error: object) => void, signal: AbortSignal}} Call */
  /** @type {Call[]} */
  const calls = [];
  return {
    calls,
    /** @returns {Call} */
    latest() {
      const call = calls.at(-1);
      assert.ok(call, "the engine was asked");
      return call;
    },
    /** @param {string} method @param {any} params @param {(chunk: any, part?: any) => void} onChunk @param {AbortSignal} signal @param {any} [resume] */
    request(method, params, onChunk, signal, resume) {
      assert.equal(method, "chat.completions");
      return new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        calls.push({
          params,
          signal,
          resume,
          say: (text, ...tokens) => onChunk(
            { id: "x", created: 7, model: "spark", choices: [{ index: 0, delta: { content: text } }] }, { model: 3, tokens }),
          last: (fields) => onChunk({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }], ...fields }),
          end: () => resolve({}),
          fail: reject,
        });
      });
    },
  };
}

/** @param {Conversation[]} [initial] */
function setUp(initial) {
  const store = memoryStore(initial);
  const engine = scriptedEngine();
  /** @type {any[]} */
  const events = [];
  let time = 1000;
  const { handle, stop } = createConversations({
    request: engine.request,
    broadcast: (event, detail) => events.push(structuredClone(detail)),
    store,
    now: () => (time += 1),
  });
  /** @param {string} [id] */
  const get = async (id) => (await handle("conversations.get", { id })).conversation;
  return { store, engine, events, handle, stop, get };
}

/**
 * What a popup shows that opened with `snapshot` and has applied `events` by the rule of extension/protocol/src/conversations.rs.
 *
 * @param {any} snapshot @param {any[]} events
 */
function replay(snapshot, events) {
  const view = structuredClone(snapshot);
  for (const event of events.filter(({ id }) => id === view.id)) {
    if (event.seq <= view.seq) continue;
    assert.equal(event.seq, view.seq + 1, "no event is missing");
    view.seq = event.seq;
    if (event.type === "delta") {
      const last = view.messages.at(-1);
      last.content += event.text;
      if (event.thinking) last.thinking = (last.thinking ?? "") + event.thinking;
    } else if (event.type === "message") {
      view.messages.splice(event.index, Infinity, event.message);
    }
  }
  return view.messages;
}

test("a question is answered, announced and stored", async () => {
  const { store, engine, events, handle, get } = setUp();
  const { id } = await handle("conversations.send", { text: "  What is\n WebGPU? " });
  const call = engine.latest();
  assert.deepEqual(call.params.messages, [{ role: "user", content: "  What is\n WebGPU? " }]);
  assert.equal(call.params.stream, true);
  call.say("A graphics ");
  call.say("API.");
  call.last({ timings: { first_token_ms: 12, decode_tokens_per_second: 80 } });
  call.end();
  await settle();

  const snapshot = await get(id);
  const { data: [summary] } = await handle("conversations.list", {});
  assert.deepEqual([summary.title, summary.busy], ["What is WebGPU?", false]);
  const [question, answer] = snapshot.messages;
  assert.equal(question.role, "user");
  assert.deepEqual(
    { ...answer, id: "" },
    {
      id: "",
      role: "assistant",
      content: "A graphics API.",
      state: "done",
      model: "spark",
      finish: "stop",
      stats: { first_token_ms: 12, decode_tokens_per_second: 80 },
    },
  );
  assert.deepEqual(store.records.get(id)?.messages, snapshot.messages);
  assert.deepEqual(replay({ id, seq: 0, messages: [] }, events), snapshot.messages);
});

test("a popup that opens in mid-answer neither loses nor doubles text", async () => {
  const { engine, events, handle, get } = setUp();
  const { id } = await handle("conversations.send", { text: "Count." });
  const call = engine.latest();
  for (const [index, word] of ["one ", "two ", "three ", "four "].entries()) {
    call.say(word);
    if (index === 1) {
      const opening = get();
      call.say("two and a half ");
      const snapshot = await opening;
      assert.equal(snapshot.id, id);
      assert.equal((await handle("conversations.list", {})).data[0].busy, true);
      queueMicrotask(() => call.say("two and three quarters "));
      await settle();
      call.say("and then ");
      // Popups are told once a frame.
      await new Promise((resolve) => setTimeout(resolve, 50));
      const messages = replay(snapshot, events);
      assert.equal(messages[1].content, "one two two and a half two and three quarters and then ");
    }
  }
});

test("popups are told of new text once a frame, however many tokens there are", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { engine, events, handle } = setUp();
  const { id } = await handle("conversations.send", { text: "Count." });
  const call = engine.latest();
  const deltas = () => events.filter(({ type }) => type === "delta");
  call.say("0 ");
  assert.equal(deltas().length, 1, "the first text is not held back");
  for (let frame = 1; frame <= 10; frame += 1) {
    for (let token = 0; token < 50; token += 1) call.say(`${frame} `);
    context.mock.timers.tick(16);
  }
  assert.equal(deltas().length, 11);
  for (let token = 0; token < 3; token += 1) call.say("end ");
  call.end();
  await settle();
  const { conversation } = await handle("conversations.get", { id });
  assert.deepEqual(replay({ id, seq: 0, messages: [] }, events), conversation.messages);
  assert.ok(conversation.messages[1].content.endsWith("10 end end end "));
});

test("thoughts are kept apart from the answer, in pieces of any size, and not sent back", async () => {
  for (const text of ["<think>\nHm, 1 < 2.\n</think>\n\nYes.", "[THINK]Hm, 1 < 2.[/THINK]Yes.", "Hm, 1 < 2.\n</think>\n\nYes."]) {
    for (const size of [1, 3, 100]) {
      const { engine, events, handle, get } = setUp();
      const { id } = await handle("conversations.send", { text: "Is it?" });
      for (let at = 0; at < text.length; at += size) engine.latest().say(text.slice(at, at + size));
      engine.latest().end();
      await settle();
      const { messages } = await get(id);
      assert.deepEqual([messages[1].thinking, messages[1].content], ["Hm, 1 < 2.", "Yes."], `${text} by ${size}`);
      assert.equal(typeof messages[1].thinking_ms, "number");
      assert.deepEqual(replay({ id, seq: 0, messages: [] }, events), messages);
      await handle("conversations.send", { id, text: "Sure?" });
      assert.deepEqual(engine.latest().params.messages.map((/** @type {any} */ { content }) => content), ["Is it?", "Yes.", "Sure?"]);
    }
  }
});

test("a thought that is cut off is no answer, and what only mentions the marks is no thought", async () => {
  const { engine, handle, get } = setUp();
  const { id } = await handle("conversations.send", { text: "A" });
  engine.latest().say("<think>Hm");
  await handle("conversations.stop", { id });
  await settle();
  const { messages } = await get(id);
  assert.deepEqual([messages[1].thinking, messages[1].content], ["Hm", ""]);
  await handle("conversations.regenerate", { id });
  for (const piece of ["The mark `<th", "ink>` begins a thought, `</think>` ends it."]) engine.latest().say(piece);
  engine.latest().end();
  await settle();
  const answer = (await get(id)).messages[1];
  assert.deepEqual([answer.thinking, answer.content], [undefined, "The mark `<think>` begins a thought, `</think>` ends it."]);
});

test("stored answers with their thoughts in them are taken apart", async () => {
  const messages = [{ id: "q", role: "user", content: "A", state: "done" }, { id: "a", role: "assistant", content: "<think>B</think>C", state: "done" }];
  const { get } = setUp([/** @type {any} */ ({ id: "c", title: "A", created: 1, updated: 2, messages })]);
  const [, answer] = (await get()).messages;
  assert.deepEqual([answer.thinking, answer.content], ["B", "C"]);
});

test("all answers are stopped at once", async () => {
  const { handle, stop, get } = setUp();
  const ids = await Promise.all(["a", "b"].map((text) => handle("conversations.send", { text }).then(({ id }) => id)));
  stop();
  await settle();
  const states = await Promise.all(ids.map((id) => get(id).then(({ messages }) => messages[1].state)));
  assert.deepEqual(states, ["stopped", "stopped"]);
});

test("stop keeps the answer so far and ignores what still arrives", async () => {
  const { engine, events, handle, get } = setUp();
  const { id } = await handle("conversations.send", { text: "Count." });
  const call = engine.latest();
  call.say("one");
  await handle("conversations.stop", { id });
  assert.equal(call.signal.aborted, true);
  call.say(" two");
  await settle();
  const { messages } = await get(id);
  assert.equal((await handle("conversations.list", {})).data[0].busy, false);
  assert.deepEqual([messages[1].content, messages[1].state], ["one", "stopped"]);
  assert.deepEqual(replay({ id, seq: 0, messages: [] }, events), messages);
  await handle("conversations.stop", { id });
});

test("regenerate replaces the last answer and asks the same question", async () => {
  const { engine, events, handle, get } = setUp();
  const { id } = await handle("conversations.send", { text: "Hi" });
  engine.latest().say("Hello.");
  engine.latest().end();
  await settle();
  await handle("conversations.regenerate", { id });
  assert.equal(engine.calls.length, 2);
  assert.deepEqual(engine.latest().params.messages, [{ role: "user", content: "Hi" }]);
  assert.notEqual(engine.latest().params.temperature, engine.calls[0]?.params.temperature);
  engine.latest().say("Good day.");
  engine.latest().end();
  await settle();
  const { messages } = await get(id);
  assert.deepEqual(messages.map((/** @type {any} */ message) => message.content), ["Hi", "Good day."]);
  assert.deepEqual(replay({ id, seq: 0, messages: [] }, events), messages);
});

test("a failed answer says why, can be tried again, and is not part of what the engine is asked next", async () => {
  const { engine, handle, get } = setUp();
  const { id } = await handle("conversations.send", { text: "First" });
  const failure = { name: "QuotaExceededError", message: "Too long.", code: "context_length_exceeded", data: { requested: 9, quota: 8 } };
  engine.latest().fail(failure);
  await settle();
  const failed = (await get(id)).messages[1];
  assert.equal(failed.state, "failed");
  assert.deepEqual(failed.error, failure);

  await handle("conversations.send", { id, text: "Second" });
  assert.deepEqual(engine.latest().params.messages, [{ role: "user", content: "Second" }]);
  engine.latest().fail(new Error("the engine died"));
  await settle();
  await handle("conversations.regenerate", { id });
  assert.deepEqual(engine.latest().params.messages, [{ role: "user", content: "Second" }]);
  assert.equal(engine.latest().params.temperature, undefined, "as the first time");
});

test("one answer at a time in a conversation, several in several", async () => {
  const { engine, handle, get } = setUp();
  const { id } = await handle("conversations.send", { text: "A" });
  await assert.rejects(handle("conversations.send", { id, text: "B" }), { name: "InvalidStateError" });
  await assert.rejects(handle("conversations.regenerate", { id }), { name: "InvalidStateError" });
  const other = await handle("conversations.send", { text: "C" });
  engine.calls[0]?.say("for A");
  engine.calls[1]?.say("for C");
  assert.equal((await get(id)).messages[1].content, "for A");
  assert.equal((await get(other.id)).messages[1].content, "for C");
  const { data } = await handle("conversations.list", {});
  assert.equal((await get()).id, other.id);
  assert.deepEqual(data.map((/** @type {any} */ { title, busy }) => [title, busy]), [["C", true], ["A", true]]);
});

test("new forgets which conversation is current; delete ends its answer and its record", async () => {
  const { store, engine, events, handle, get } = setUp();
  const { id } = await handle("conversations.send", { text: "A" });
  engine.latest().say("text");
  await handle("conversations.new", {});
  assert.equal(await get(), null);
  await handle("conversations.delete", { id });
  assert.equal(engine.latest().signal.aborted, true);
  await settle();
  assert.equal(store.records.size, 0);
  assert.equal(events.at(-1)?.type, "deleted");
  assert.deepEqual((await handle("conversations.list", {})).data, []);
  await assert.rejects(handle("conversations.get", { id }), { name: "NotFoundError" });
});

test("a streaming answer is stored at most about once a second", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { store, engine, handle } = setUp();
  const { id } = await handle("conversations.send", { text: "A" });
  await settle();
  const before = store.puts;
  for (let index = 0; index < 100; index += 1) engine.latest().say("x");
  assert.equal(store.puts, before);
  context.mock.timers.tick(1000);
  await settle();
  assert.equal(store.puts, before + 1);
  assert.equal(store.records.get(id)?.messages[1]?.content, "x".repeat(100));
});

test("an answer that ends, or whose conversation is deleted, is not stored again when its timer would have fired", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const { store, engine, handle } = setUp();
  const { id } = await handle("conversations.send", { text: "A" });
  await settle();
  engine.latest().say("x");
  engine.latest().end();
  await settle();
  const before = store.puts;
  context.mock.timers.tick(1000);
  await settle();
  assert.equal(store.puts, before);

  await handle("conversations.send", { id, text: "B" });
  await settle();
  engine.latest().say("y");
  await handle("conversations.delete", { id });
  await settle();
  context.mock.timers.tick(1000);
  await settle();
  assert.equal(store.records.size, 0);
});

test("an answer cut off by the end of the document is kept and marked", async () => {
  const stored = /** @type {Conversation} */ ({
    id: "c",
    title: "Old",
    created: 1,
    updated: 2,
    messages: [
      { id: "q", role: "user", content: "Tell me.", state: "done" },
      { id: "a", role: "assistant", content: "Once upon", state: "streaming" },
    ],
  });
  const { store, engine, handle, get } = setUp([stored]);
  const { messages, id } = await get();
  assert.equal(id, "c");
  assert.deepEqual([messages[1].content, messages[1].state], ["Once upon", "interrupted"]);
  assert.equal(store.records.get("c")?.messages[1]?.state, "interrupted");
  await handle("conversations.regenerate", { id });
  assert.deepEqual(engine.latest().params.messages, [{ role: "user", content: "Tell me." }]);
});

test("an answer that streamed when the document ended goes on behind its tokens, however little of its text was stored", async () => {
  const { store, engine, handle } = setUp();
  await handle("conversations.send", { text: "Tell me." });
  engine.latest().say("<think>Hm", 1, 2);
  engine.latest().say("m</think>Once ", 3);
  await new Promise((resolve) => setTimeout(resolve, 900));
  const [stored] = store.records.values();
  assert.ok(stored);

  const next = setUp([stored]);
  const before = await next.get();
  assert.deepEqual([before.messages[1].content, before.messages[1].state], ["Once ", "streaming"]);
  const { params, resume } = next.engine.latest();
  assert.deepEqual(params.messages, [{ role: "user", content: "Tell me." }]);
  assert.equal(params.model, "spark", "whatever was chosen meanwhile");
  assert.deepEqual(resume, { id: "x", created: 7, model: 3, tokens: [1, 2, 3], retell: true });
  next.engine.latest().say("<think>Hmm</think>Once ");
  next.engine.latest().say("upon", 4);
  next.engine.latest().end();
  await settle();
  const { messages } = await next.get();
  assert.deepEqual(replay(before, next.events), messages);
  assert.deepEqual([messages[1].thinking, messages[1].content, messages[1].state], ["Hmm", "Once upon", "done"]);
  assert.equal(next.store.records.get(stored.id)?.asked, undefined);
});

test("an answer that is stopped before its text is told again keeps the text, and the time of its thought is kept in any case", async () => {
  const stored = (/** @type {object} */ message) => /** @type {Conversation} */ ({
    id: "c", title: "Old", created: 1, updated: 2,
    messages: [
      { id: "q", role: "user", content: "Tell me.", state: "done" },
      { id: "a", role: "assistant", content: "Once ", thinking: "Hm", thinking_ms: 12000, state: "streaming", ...message },
    ],
    asked: { sampling: {}, tries: 1, time: 2, resume: { id: "x", created: 7, model: 3, tokens: [1, 2] } },
  });
  const { engine, stop, get } = setUp([stored({})]);
  await get();
  const { say } = engine.latest();
  stop();
  say("<think>Hm</think>Once ");
  await settle();
  const [, stopped] = (await get()).messages;
  assert.deepEqual([stopped.content, stopped.thinking, stopped.thinking_ms, stopped.state], ["Once ", "Hm", 12000, "stopped"]);

  const next = setUp([stored({})]);
  await next.get();
  next.engine.latest().say("<think>Hm</think>Once ");
  next.engine.latest().end();
  await settle();
  const [, told] = (await next.get()).messages;
  assert.deepEqual([told.content, told.thinking, told.thinking_ms, told.state], ["Once ", "Hm", 12000, "done"]);
});

test("a question whose answer had not begun when the document ended is asked again, at most twice, if it is fresh", async () => {
  const lost = (/** @type {object} */ asked) => /** @type {Conversation} */ ({
    id: "c", title: "Old", created: 1, updated: 2,
    messages: [
      { id: "q", role: "user", content: "Tell me.", state: "done" },
      { id: "a", role: "assistant", content: "", state: "streaming" },
    ],
    asked: { sampling: { temperature: 0.8 }, tries: 1, time: 2, ...asked },
  });
  const { engine, store, get } = setUp([lost({})]);
  await get();
  assert.equal(engine.latest().params.temperature, 0.8);
  assert.deepEqual(engine.latest().params.messages, [{ role: "user", content: "Tell me." }]);
  engine.latest().say("Once.");
  engine.latest().end();
  await settle();
  assert.deepEqual((await get()).messages.map((/** @type {any} */ { content, state }) => [content, state]), [["Tell me.", "done"], ["Once.", "done"]]);
  assert.equal(store.records.get("c")?.messages.length, 2);

  const thrice = setUp([lost({ tries: 3 })]);
  assert.equal((await thrice.get()).messages[1].state, "interrupted");
  assert.equal(thrice.engine.calls.length, 0);
  const old = setUp([lost({ time: -1e9 })]);
  assert.equal((await old.get()).messages[1].state, "interrupted");
  assert.equal(old.engine.calls.length, 0);
});

test("no room to store a conversation: the user is told once, nothing is lost, and it is stored when there is room", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  context.mock.method(console, "warn", () => {});
  const { store, engine, events, handle, get } = setUp();
  const put = store.put.bind(store);
  store.put = async () => { throw new DOMException("full", "QuotaExceededError"); };
  const { id } = await handle("conversations.send", { text: "A" });
  engine.latest().say("B");
  engine.latest().end();
  await settle();
  const told = () => events.filter((event) => "problem" in event).map(({ problem }) => problem);
  assert.equal(told().length, 1);
  assert.match(told()[0], /no room left on the disk/);
  assert.equal((await handle("conversations.list", {})).problem, told()[0]);
  assert.equal((await get(id)).messages[1].content, "B");
  assert.equal(store.records.size, 0);

  store.put = put;
  context.mock.timers.tick(60_000);
  await settle();
  assert.equal(store.records.get(id)?.messages[1]?.content, "B");
  assert.equal(told().at(-1), null);
  assert.equal((await handle("conversations.list", {})).problem, null);
});

test("deleting a conversation makes room for the others at once", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  context.mock.method(console, "warn", () => {});
  const { store, engine, handle } = setUp();
  const first = await handle("conversations.send", { text: "A" });
  engine.latest().end();
  await settle();
  const put = store.put.bind(store);
  store.put = async (conversation) => {
    if (store.records.size > 0) throw new DOMException("full", "QuotaExceededError");
    return put(conversation);
  };
  const { id } = await handle("conversations.send", { text: "B" });
  await settle();
  assert.ok(!store.records.has(id));
  await handle("conversations.delete", { id: first.id });
  await settle();
  assert.ok(store.records.has(id));
});

test("a store that cannot be read or written costs no answer", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  context.mock.method(console, "warn", () => {});
  const engine = scriptedEngine();
  const refuse = async () => {
    throw new DOMException("full", "QuotaExceededError");
  };
  const store = { load: refuse, put: refuse, delete: refuse };
  const { handle } = createConversations({ request: engine.request, broadcast: () => {}, store });
  const { id } = await handle("conversations.send", { text: "A" });
  engine.latest().say("B");
  engine.latest().end();
  await settle();
  assert.equal((await handle("conversations.get", { id })).conversation.messages[1].content, "B");
});

test("bad calls are refused", async () => {
  const { handle } = setUp();
  await assert.rejects(handle("conversations.send", { text: " " }), { name: "TypeError" });
  await assert.rejects(handle("conversations.send", { id: "none", text: "A" }), { name: "NotFoundError" });
  await assert.rejects(handle("conversations.toString", {}), { name: "TypeError" });
  await assert.rejects(handle("toString", {}), { name: "TypeError" });
});

test("titles are one short line of whole characters", async () => {
  const { handle } = setUp();
  await handle("conversations.send", { text: "🚀".repeat(80) });
  const { title } = (await handle("conversations.list", {})).data[0];
  assert.equal(title, `${"🚀".repeat(59)}…`);
});
