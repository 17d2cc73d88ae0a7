// What somebody with a TypeScript backend or front end does with Python tasks, by the SDK as it is published.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  auth,
  batch,
  configure,
  envvars,
  idempotencyKeys,
  queues,
  runs,
  schedules,
  tasks,
  TriggerClient,
  wait,
} from "@trigger.dev/sdk";

const baseURL = process.env.TRIGGER_API_URL;
configure({ baseURL, accessToken: process.env.TRIGGER_SECRET_KEY });
const ONCE = { retry: { maxAttempts: 1 } };
const asHolder = (accessToken) => new TriggerClient({ baseURL, accessToken, requestOptions: ONCE });

async function refused(promise, status) {
  const error = await promise.then(
    () => assert.fail(`expected ${status}`),
    (caught) => caught.apiError ?? caught
  );
  assert.equal(error.status, status, error.message);
  return error;
}

test("a Python task gets rich values and answers", async () => {
  const when = new Date("2026-11-24T12:00:00.000Z");
  const handle = await tasks.trigger("echo", { when, big: 12n, set: new Set([1]), text: "é 你" }, { tags: ["b", "a"], ttl: "10m" });
  const run = await runs.poll(handle.id, { pollIntervalMs: 50 });
  assert.equal(run.status, "COMPLETED");
  assert.deepEqual(run.tags, ["a", "b"]);
  assert.equal(run.output.when, when.toISOString());
  assert.equal(Number(run.output.big), 12);
  assert.deepEqual(run.output.set, [1]);
  assert.equal(run.output.text, "é 你");
});

test("a failure is told with its Python traceback", async () => {
  const { id } = await tasks.trigger("fail", {});
  const run = await runs.poll(id, { pollIntervalMs: 50 });
  assert.equal(run.status, "FAILED");
  assert.equal(run.error.name, "ValueError");
  assert.match(run.error.stackTrace, /Traceback/);
});

test("a batch of runs, streamed, and its results in order", async () => {
  const { batchId } = await tasks.batchTrigger("echo", [1, 2, 3].map((payload) => ({ payload })));
  let found = await batch.retrieve(batchId);
  while (found.status === "PENDING" || found.status === "PROCESSING") {
    await new Promise((done) => setTimeout(done, 50));
    found = await batch.retrieve(batchId);
  }
  assert.equal(found.status, "COMPLETED");
  const outputs = await Promise.all(found.runs.map(async (id) => (await runs.retrieve(id)).output));
  assert.deepEqual(outputs, [1, 2, 3]);
});

test("an idempotency key makes one run, and can be reset", async () => {
  const key = await idempotencyKeys.create(`order-${Date.now()}`);
  const first = await tasks.trigger("echo", 1, { idempotencyKey: key });
  const again = await tasks.trigger("echo", 2, { idempotencyKey: key });
  assert.deepEqual([again.id, again.isCached], [first.id, true]);
  await idempotencyKeys.reset("echo", key);
  assert.notEqual((await tasks.trigger("echo", 3, { idempotencyKey: key })).id, first.id);
});

test("lists are paged in both directions", async () => {
  const tag = `page-${Date.now()}`;
  const ids = [];
  for (let n = 0; n < 3; n++) ids.unshift((await tasks.trigger("echo", n, { tags: [tag], delay: "1h" })).id);
  const seen = [];
  for await (const run of runs.list({ tag, limit: 2 })) seen.push(run.id);
  assert.deepEqual(seen, ids);
  const second = await (await runs.list({ tag, limit: 2 })).getNextPage();
  const first = await second.getPreviousPage();
  const again = [];
  for await (const run of first) again.push(run.id);
  assert.deepEqual(again, ids, "a page that was reached backwards leads forth");
});

test("a run waits for a token that a browser completes", async () => {
  const token = await wait.createToken({ timeout: "10m" });
  const { id } = await tasks.trigger("wait-for-token", { tokenId: token.id });
  await wait.completeToken(token, { ok: true });
  assert.deepEqual((await runs.poll(id, { pollIntervalMs: 50 })).output, { ok: true });
});

test("public tokens reach what they name and nothing else", async () => {
  const mine = await tasks.trigger("echo", 1);
  const other = await tasks.trigger("echo", 2);
  const holder = asHolder(await auth.createPublicToken({ scopes: { read: { runs: [mine.id] } } }));
  assert.equal((await holder.runs.retrieve(mine.id)).id, mine.id);
  await refused(holder.runs.retrieve(other.id), 403);
  await refused(asHolder("tr_dev_unknown000000000000").runs.list(), 401);
  const once = asHolder(await auth.createTriggerPublicToken("echo"));
  assert.match((await once.tasks.trigger("echo", 3)).id, /^run_/);
  await refused(once.tasks.trigger("echo", 4), 422);
});

test("payloads and outputs too large for one request go through the object store", async () => {
  const text = "x".repeat(300_000);
  const { id } = await tasks.trigger("echo", { text });
  const run = await runs.poll(id, { pollIntervalMs: 50 });
  assert.deepEqual(run.payload, { text });
  assert.deepEqual(run.output, { text });
  const big = await tasks.trigger("big-output", { bytes: 1_000_000 });
  assert.equal((await runs.poll(big.id, { pollIntervalMs: 50 })).output.length, 1_000_000);
});

test("queues pause and resume, runs are cancelled, moved and replayed", async () => {
  const queue = { type: "task", name: "sleep" };
  assert.equal((await queues.pause(queue)).paused, true);
  const held = await tasks.trigger("sleep", { seconds: 0 });
  assert.equal((await runs.retrieve(held.id)).status, "QUEUED");
  assert.equal((await queues.resume(queue)).paused, false);
  const done = await runs.poll(held.id, { pollIntervalMs: 50 });
  const copy = await runs.replay(done.id);
  assert.deepEqual((await runs.poll(copy.id, { pollIntervalMs: 50 })).payload, { seconds: 0 });
  const later = await tasks.trigger("echo", 1, { delay: "1h" });
  assert.equal((await runs.reschedule(later.id, { delay: "2h" })).status, "DELAYED");
  await runs.cancel(later.id);
  assert.equal((await runs.retrieve(later.id)).status, "CANCELED");
});

test("schedules are made for one task many times, listed over pages, paused and deleted", async () => {
  const made = [];
  for (const customer of ["a", "b", "c"]) {
    made.push(
      await schedules.create({
        task: "scheduled-echo",
        cron: "0 0 L * *",
        timezone: "Europe/Berlin",
        window: "30%",
        externalId: customer,
        deduplicationKey: `report-${customer}`,
      })
    );
  }
  const [first] = made;
  assert.ok(first.nextRun > new Date() && first.nextRunEffectiveAt >= first.nextRun);
  assert.deepEqual([first.window, first.externalId], ["30%", "a"]);
  const listed = [];
  for await (const one of schedules.list({ perPage: 2 })) listed.push(one.id);
  assert.deepEqual(new Set(listed), new Set(made.map((one) => one.id)));

  const changed = await schedules.update(first.id, { task: "scheduled-echo", cron: "0 9 * * 5L" });
  assert.deepEqual([changed.timezone, changed.window, changed.externalId], ["UTC", undefined, undefined]);
  const paused = await schedules.deactivate(first.id);
  assert.deepEqual([paused.active, paused.nextRun], [false, undefined]);
  assert.equal((await schedules.activate(first.id)).active, true);
  for await (const run of runs.list({ schedule: first.id })) assert.fail(`${run.id} came too early`);
  await refused(schedules.create({ task: "sleep", cron: "@never", deduplicationKey: "bad" }, ONCE), 422);
  await refused(schedules.create({ task: "echo", cron: "@daily", deduplicationKey: "" }, ONCE), 400);
  for (const { id } of made) assert.deepEqual(await schedules.del(id), { id });
  await refused(schedules.retrieve(first.id, ONCE), 404);
});

test("a replay takes another payload, with rich values or as a text", async () => {
  const first = await tasks.trigger("echo", 1, { tags: ["first"] });
  const when = new Date("2026-02-28T12:00:00Z");
  for (const [change, payload] of [
    [{ payload: { when } }, { when: when.toISOString() }],
    [{ payload: "{" }, "{"],
    [{ payload: "{", payloadType: "application/json" }, "{"],
    [{ tags: "second", ttl: 60, metadata: { n: 1 } }, 1],
  ]) {
    const { id } = await runs.replay(first.id, change);
    const run = await runs.poll(id, { pollIntervalMs: 50 });
    assert.deepEqual(run.payload, payload);
    assert.deepEqual(run.tags, [change.tags ?? "first"]);
  }
});

test("a key of long words, and a token that lives for years", async () => {
  const words = "word ".repeat(600);
  const made = await tasks.trigger("echo", 1, { idempotencyKey: words });
  assert.equal((await tasks.trigger("echo", 2, { idempotencyKey: words })).id, made.id);
  const token = await auth.createPublicToken({ scopes: { read: { runs: made.id } }, expirationTime: "2y" });
  assert.equal((await asHolder(token).runs.retrieve(made.id)).id, made.id);
});

test("environment variables", async () => {
  const whoami = await fetch(`${baseURL}/api/v1/whoami`, {
    headers: { authorization: `Bearer ${process.env.TRIGGER_SECRET_KEY}` },
  });
  const ref = (await whoami.json()).project.externalRef;
  await envvars.upload(ref, "dev", { variables: { COLOUR: "red" }, override: true });
  assert.equal((await envvars.retrieve(ref, "dev", "COLOUR")).value, "red");
  await envvars.del(ref, "dev", "COLOUR");
  await refused(envvars.retrieve(ref, "dev", "COLOUR", ONCE), 404);
});

test("cancel what a filter finds, in bulk", async () => {
  const tag = `bulk-${Date.now()}`;
  const { id: runId } = await tasks.trigger("echo", 1, { tags: [tag], delay: "1h" });
  const { id } = await runs.bulk.cancel({ filter: { tag } });
  const done = await runs.bulk.poll(id, { pollIntervalMs: 50 });
  assert.deepEqual(done.counts, { total: 1, success: 1, failure: 0 });
  assert.equal((await runs.retrieve(runId)).status, "CANCELED");
});
