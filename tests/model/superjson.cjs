// Encodes values with the superjson of the official SDK: `node superjson.cjs <folder with node_modules> > superjson.json`.
// Beside each stands the JSON that Python code is to be given, as text: it may hold integers that JavaScript can not write.

const base = process.argv[2];
const superjson = require(base + "/node_modules/@trigger.dev/core/dist/commonjs/v3/imports/superjson.js").default;
const when = new Date("2026-11-24T00:00:00.000Z");
const shared = { a: 1 };
const circular = { name: "me" }; circular.self = circular;
const cases = {
  "plain": [{ a: [1, "two", null, true] }, { a: [1, "two", null, true] }],
  "a date": [when, "2026-11-24T00:00:00.000Z"],
  "dates inside": [{ a: { b: [when, { c: when }] } }, { a: { b: ["2026-11-24T00:00:00.000Z", { c: "2026-11-24T00:00:00.000Z" }] } }],
  "bigints": [{ n: [1n, -12345678901234567890n], m: 0n }, { n: [1, "INT:-12345678901234567890"], m: 0 }],
  "undefined": [{ u: undefined, v: [undefined, 1] }, { u: null, v: [null, 1] }],
  "undefined at the root": [undefined, null],
  "a set": [new Set([1, 2]), [1, 2]],
  "a set of sets of bigints": [new Set([new Set([1n]), new Set([2n, 3n])]), [[1], [2, 3]]],
  "a map with texts as keys": [new Map([["a", 1], ["b", 2]]), { a: 1, b: 2 }],
  "a map with other keys": [new Map([[1, "a"], ["b", 2]]), [[1, "a"], ["b", 2]]],
  "a map with dates as keys": [new Map([[when, 1n]]), { "2026-11-24T00:00:00.000Z": 1 }],
  "a map with bigints as keys": [new Map([[7n, "x"]]), [[7, "x"]]],
  "maps in maps": [{ m: new Map([["k", new Map([["n", 5n]])], ["l", new Set([when])]]) }, { m: { k: { n: 5 }, l: ["2026-11-24T00:00:00.000Z"] } }],
  "an empty map and set": [{ m: new Map(), s: new Set() }, { m: {}, s: [] }],
  "odd numbers": [{ n: NaN, i: Infinity, j: -Infinity, z: [-0] }, { n: "NaN", i: "Infinity", j: "-Infinity", z: ["NEGATIVE ZERO"] }],
  "an expression": [{ r: /a\/b.c/gi }, { r: "/a\\/b.c/gi" }],
  "an address": [{ u: new URL("https://example.com/a?b=c") }, { u: "https://example.com/a?b=c" }],
  "an error": [{ e: new TypeError("no") }, { e: { name: "TypeError", message: "no" } }],
  "typed arrays": [{ a: new Uint8Array([1, 255]), f: new Float64Array([0.5]), b: [new Int16Array([-3])] }, { a: [1, 255], f: [0.5], b: [[-3]] }],
  "a buffer": [Buffer.from("hi"), [104, 105]],
  "a dot in a key": [{ "k.l": 1n, other: { "m.n": 2n } }, { "k.l": 1, other: { "m.n": 2 } }],
  "dots in all keys": [{ "a.b": { "c.d": { "e.f.g": 3n } } }, { "a.b": { "c.d": { "e.f.g": 3 } } }],
  "a key that is also a path": [{ "a": { "b": 1n }, "a.c": 2n }, { "a": { "b": 1 }, "a.c": 2 }],
  "an empty key": [{ "": 1n, a: { "": 2n } }, { "": 1, a: { "": 2 } }],
  "a backslash in a key": [{ "a\\b": 1n, "c": { "d\\e": [2n] } }, { "a\\b": 1, "c": { "d\\e": [2] } }],
  "keys that are numbers": [{ "0": 1n, "list": [{ "1": 2n }] }, { "0": 1, "list": [{ "1": 2 }] }],
  "one object in two places": [{ x: shared, y: shared, d: when }, { x: { a: 1 }, y: { a: 1 }, d: "2026-11-24T00:00:00.000Z" }],
  "a circle": [circular, { name: "me", self: null }],
};
const out = [];
for (const [name, [value, python]] of Object.entries(cases)) {
  const expected = JSON.stringify(python).replace(/"INT:(-?\d+)"/g, "$1").replace('"NEGATIVE ZERO"', "-0.0");
  out.push({ name, text: superjson.stringify(value), python: expected });
}
console.log(JSON.stringify(out, null, 1));
