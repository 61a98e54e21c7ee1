// Run by test_javascript_client.py: node check.mjs CLIENT CASE URL; prints what it saw as JSON.
const [, , file, what, url] = process.argv;
const { get, post, stream, EventSource } = await import(file);
const seen = [];
const cases = {
  async get() {
    const answer = await get(url, { progress: (status) => seen.push(status.state) });
    return { status: answer.status, text: await answer.text(), states: [...new Set(seen)] };
  },
  async post() {
    return { json: await (await post(url, undefined, { json: { a: 1 } })).json() };
  },
  async cancel() {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 1500);
    try {
      await get(url, { signal: controller.signal });
      return { error: "none" };
    } catch (error) {
      return { error: error.name };
    }
  },
  async raises() {
    const progress = () => {
      throw new RangeError("shown no more");
    };
    try {
      await get(url, { progress });
    } catch (error) {
      return { error: error.name };
    }
  },
  async events() {
    for await (const event of stream(url)) seen.push(event.data);
    return { seen };
  },
  eventsource() {
    const source = new EventSource(url);
    source.addEventListener("token", (event) => seen.push(event.data));
    return new Promise((resolve) => {
      source.addEventListener("error", () => source.readyState === source.CLOSED && resolve({ seen }));
    });
  },
  async lines() {
    const parts = [];
    for await (const piece of stream(url, { method: "POST", body: "hi" })) parts.push(Buffer.from(piece));
    return { lines: Buffer.concat(parts).toString().split("\n").length - 1 };
  },
  async leave() {
    for await (const event of stream(url)) return { first: event.data };
  },
  async refused() {
    try {
      await post(url, "x");
    } catch (error) {
      return { error: error.name };
    }
  },
};
console.log(JSON.stringify(await cases[what]()));
