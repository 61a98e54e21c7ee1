// A client for slow requests and long streams behind wsgi-timeout: one ES module, without dependencies,
// for browsers and Node 18 or newer. Copy it into your project.
//
//   import { get, post, stream } from "./wsgi_timeout_client.mjs";
//
//   const report = await get("/reports/2025", { progress: (status) => show(status.progress) });
//   for await (const event of stream("/chat", { method: "POST", json: { prompt: "Hello" } })) show(event.data);
//
// fetch() follows twenty redirects and then fails: here a call is waited for as long as it runs. A connection
// that breaks is made again, and waits for the same run. A server that knows nothing of wsgi-timeout is asked
// as by any other client.
//
// Options of all three:
//   headers    sent with each request (an object)
//   signal     an AbortSignal: when it aborts, the call is cancelled on the server too
//   progress   called with the call's status every two seconds while it runs: state, position, progress, ...;
//              what it throws cancels the call, and is thrown here
//   patience   milliseconds without any answer after which a broken network is given up; 300000 by default
//   fetch      used in place of the global fetch
// and everything else that fetch() takes, as `credentials`. post() and stream() take `json` or `body` too.

// Who accepts this is answered 202 in place of a redirect: a browser shows a script no redirect.
const PENDING = "application/vnd.wsgi-timeout+json";
const CALL = "__wsgi_timeout_call=";
const STATUS_MS = 2000;
// Repeats of a GET that failed before anything is known of a call.
const REPEATS = 2;
const MAX_RETRY_MS = 300000;

/** The run that gave a stream has ended before its end: its worker died, it timed out, or it failed. */
export class StreamLost extends Error {}

/** Ask for `url`, wait however long it takes, and return the whole response: a `Response`. */
export async function get(url, options = {}) {
  return whole(new Call("GET", url, options));
}

/** Send `body` (anything that fetch sends), or `options.json`, once; return the whole `Response`. */
export async function post(url, body, options = {}) {
  return whole(new Call("POST", url, { body, ...options }));
}

/**
 * Iterate over a response while it comes: `{ data, event, id }` of a text/event-stream, else `Uint8Array`s.
 * A connection that breaks is made again where the server can go on; each event or byte comes once. Leaving
 * the loop early cancels the call. Throws `StreamLost` when the server cannot go on.
 */
export async function* stream(url, options = {}) {
  const call = new Call(options.method ?? "GET", url, options);
  let ended = false;
  try {
    let response = await call.open();
    if (!response.ok) throw Object.assign(new Error(`HTTP status ${response.status}`), { response });
    const place = new Place(call, response);
    while (response) {
      let error = null;
      try {
        yield* place.read(response);
        // Some networks end a body early without an error; a resumable stream of events says by 204 that it is over.
        if (!place.byId || !place.resumable) break;
        await call.sleep(place.events.retry);
      } catch (broken) {
        if (broken instanceof StreamLost) throw broken;
        error = broken;
      }
      if (error) await call.failed(error, place.known);
      response = await place.reopen();
    }
    ended = true;
  } catch (error) {
    ended = error instanceof StreamLost;
    throw error;
  } finally {
    if (!ended) call.cancel();
    call.end();
  }
}

async function whole(call) {
  try {
    for (;;) {
      const response = await call.open();
      try {
        const body = await response.arrayBuffer();
        const empty = [101, 204, 205, 304].includes(response.status);
        const { status, statusText, headers } = response;
        const copy = new Response(empty ? null : body, { status, statusText, headers });
        return Object.defineProperty(copy, "url", { value: response.url });
      } catch (error) {
        await call.failed(error);
      }
    }
  } finally {
    if (call.signal.aborted) call.cancel();
    call.end();
  }
}

/** One request, and the call that it may turn out to be. */
class Call {
  constructor(method, url, options) {
    const { json, body, headers, signal, progress, patience = 300000, fetch: own, ...rest } = options;
    Object.assign(this, { method, progress, patience, rest, resultUrl: "", statusUrl: "" });
    // Aborted by the caller's signal, or by what its progress has thrown.
    this.stop = new AbortController();
    this.signal = this.stop.signal;
    this.abort = () => this.stop.abort(signal.reason);
    this.callers = signal;
    if (signal?.aborted) this.abort();
    signal?.addEventListener("abort", this.abort);
    this.fetch = own ?? ((...words) => globalThis.fetch(...words));
    this.url = this.firstUrl = new URL(url, globalThis.location?.href).href;
    this.origin = new URL(this.url).origin;
    this.headers = new Headers(headers);
    if (json !== undefined && !this.headers.has("Content-Type")) this.headers.set("Content-Type", "application/json");
    this.headers.set("Accept", `${this.headers.get("Accept") ?? "*/*"}, ${PENDING};q=0.1`);
    this.body = json === undefined ? body : JSON.stringify(json);
    // Since something new was received; when the first of them was.
    this.failures = 0;
    this.since = 0;
    this.over = new AbortController();
  }

  /** Return the response once it has begun. */
  async open(more = {}) {
    for (;;) {
      try {
        const response = await this.send(more);
        const location = response.headers.get("Location");
        if (response.status === 202 && location?.includes(CALL)) {
          await response.arrayBuffer();
          this.failures = 0;
          this.follow(new URL(location, response.url).href);
          continue;
        }
        if (!(await this.isProxys(response))) {
          this.note(response);
          return response;
        }
        await response.body?.cancel();
      } catch (error) {
        await this.failed(error);
        continue;
      }
      await this.failed(new Error("a proxy answered in place of the server"));
    }
  }

  async send(more) {
    const headers = new Headers(this.headers);
    if (new URL(this.url).origin !== this.origin) for (const name of ["Authorization", "Cookie"]) headers.delete(name);
    for (const [name, value] of Object.entries(more)) headers.set(name, value);
    const { method, body, signal } = this;
    return this.fetch(this.url, { cache: "no-store", ...this.rest, method, body, headers, signal });
  }

  follow(url) {
    this.know(url);
    this.url = url;
    this.method = this.method === "HEAD" ? "HEAD" : "GET";
    this.body = undefined;
    this.headers.delete("Content-Type");
  }

  know(resultUrl) {
    this.resultUrl = resultUrl;
    this.statusUrl = resultUrl.replace(/&__wsgi_timeout_hop=\d+/, "").replace(CALL, "__wsgi_timeout_status=");
    this.watch();
  }

  note(response) {
    for (const [, url] of (response.headers.get("Link") ?? "").matchAll(/<([^<>]*)>\s*;\s*rel="?self"?/g))
      if (url.includes(CALL)) this.know(new URL(url, response.url).href);
    // A redirect that fetch has followed by itself.
    if (!this.resultUrl && response.url.includes(CALL)) this.know(response.url);
  }

  /** Whether a gateway's error stands on a result URL, and not what the app or wsgi-timeout answers. */
  async isProxys(response) {
    if (!this.resultUrl || ![502, 503, 504].includes(response.status)) return false;
    const problem = response.headers.get("Content-Type")?.startsWith("application/problem+json");
    if (problem && response.status !== 503) return false;
    return !(await this.status())?.delivered;
  }

  /** Pause before a repeat; throws where none is allowed (any more). */
  async failed(error, again = true) {
    this.signal.throwIfAborted();
    this.failures += 1;
    if (this.failures === 1) this.since = Date.now();
    const over = this.resultUrl
      ? Date.now() - this.since > this.patience || (this.failures > 1 && (await this.hasFailed()))
      : !["GET", "HEAD"].includes(this.method) || this.failures > REPEATS;
    if (over || !again) throw error;
    await this.sleep(Math.min(5000, 250 * 2 ** Math.min(this.failures, 8)));
  }

  /** Whether the call has ended without a whole response, so that its body will break off again. */
  async hasFailed() {
    return ![undefined, null, "done"].includes((await this.status())?.outcome);
  }

  async sleep(ms) {
    await pause(ms, this.signal);
    this.signal.throwIfAborted();
  }

  async status(method = "GET", more = {}) {
    if (!this.statusUrl) return null;
    try {
      const headers = new Headers(this.headers);
      headers.delete("Content-Type");
      headers.set("Accept", "application/json");
      const { credentials } = this.rest;
      const answer = await this.fetch(this.statusUrl, { method, headers, ...(credentials && { credentials }), ...more });
      return await answer.json();
    } catch {
      return null;
    }
  }

  /** Tell the progress until the end of this call. */
  async watch() {
    if (!this.progress || this.watching) return;
    this.watching = true;
    const { signal } = this.over;
    while (!signal.aborted) {
      const found = await this.status("GET", { signal });
      try {
        if (found && !signal.aborted) await this.progress(found);
      } catch (error) {
        return this.stop.abort(error);
      }
      await pause(STATUS_MS, signal);
    }
  }

  cancel() {
    // POST: cross-origin it needs no preflight. It outlives the page that sends it.
    return this.status("POST", { keepalive: true });
  }

  end() {
    this.over.abort();
    this.callers?.removeEventListener("abort", this.abort);
  }
}

/** Wait so many milliseconds, or until a signal is aborted. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, signal.aborted ? 0 : ms);
    signal.addEventListener("abort", done);
  });
}

/** How far a stream was read, and how to go on from there. */
class Place {
  constructor(call, response) {
    this.call = call;
    this.status = response.status;
    this.resumable = (response.headers.get("Link") ?? "").includes(CALL);
    this.events = response.headers.get("Content-Type")?.startsWith("text/event-stream") ? new Decoder() : null;
    this.received = 0;
    this.skip = 0;
  }

  get byId() {
    return Boolean(this.events?.id) && (this.resumable || this.call.method === "GET");
  }

  get known() {
    return Boolean(this.call.resultUrl) || this.byId;
  }

  async *read(response) {
    if (!response.body) return; // as of a 204
    const reader = response.body.getReader();
    try {
      for (;;) {
        let { done, value } = await reader.read();
        if (done) return;
        const skipped = Math.min(this.skip, value.length);
        this.skip -= skipped;
        value = value.subarray(skipped);
        if (!value.length) continue;
        this.received += value.length;
        this.call.failures = 0;
        if (!this.events) yield value;
        else
          for (const event of this.events.feed(value)) {
            if (event.event === "wsgi-timeout-lost") throw new StreamLost(event.data);
            yield event;
          }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  /** Return the response that goes on, null when there is no more. */
  async reopen() {
    const { call } = this;
    const more = {};
    call.url = this.resumable || !this.byId ? call.resultUrl : call.firstUrl;
    this.skip = 0;
    if (this.byId) {
      // A header's characters are bytes.
      more["Last-Event-ID"] = String.fromCharCode(...new TextEncoder().encode(this.events.id));
      this.events.reset();
    } else if (this.resumable && !this.events) call.url += `&__wsgi_timeout_offset=${this.received}`;
    else this.skip = this.received;
    Object.assign(call, { method: "GET", body: undefined });
    const response = await call.open(more);
    if (response.status === 204) return null;
    if (response.status !== this.status) throw new StreamLost(`its server answered ${response.status}`);
    return response;
  }
}

/** Takes an event stream apart, as the HTML standard says (section 9.2). */
class Decoder {
  constructor() {
    this.id = "";
    this.retry = 1000;
    this.reset();
  }

  /** Forget the event that was broken off. */
  reset() {
    // An id counts once its event has ended: else that would be missing after a break between the two.
    Object.assign(this, { text: new TextDecoder(), rest: "", data: [], event: "", nextId: this.id, afterCr: false });
  }

  *feed(piece) {
    const text = this.text.decode(piece, { stream: true });
    let start = this.afterCr && text.startsWith("\n") ? 1 : 0;
    if (text) this.afterCr = text.endsWith("\r");
    const ends = /\r\n|\r|\n/g;
    ends.lastIndex = start;
    for (let end; (end = ends.exec(text)); start = ends.lastIndex) {
      const line = this.rest + text.slice(start, end.index);
      this.rest = "";
      if (line) {
        this.field(line);
        continue;
      }
      this.id = this.nextId;
      if (this.data.length) yield { data: this.data.join("\n"), event: this.event || "message", id: this.id };
      Object.assign(this, { data: [], event: "" });
    }
    this.rest += text.slice(start);
  }

  field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.data.push(value);
    else if (name === "event") this.event = value;
    else if (name === "id" && !value.includes("\0")) this.nextId = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Math.min(Number(value), MAX_RETRY_MS);
  }
}
