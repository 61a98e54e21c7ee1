"use strict";
(() => {
  const main = document.querySelector("main");
  const { status, result, keep, several, texts } = main.dataset;
  const say = JSON.parse(texts);
  const at = (id) => document.getElementById(id);
  const name = document.title.split(" · ").slice(1).join(" · ");
  const began = performance.now() - 1000 * main.dataset.elapsed;
  // Seconds between two looks: fewer looks while nothing changes.
  const SHORTEST = 2, LONGEST = 5, HIDDEN = 10;
  let pause = SHORTEST, before = "", looked = 0, timer = 0, left = false;

  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
    element.hidden = !text;
  };

  function clock() {
    const seconds = Math.max(0, Math.floor((performance.now() - began) / 1000));
    const two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor(seconds / 60) % 60;
    write(at("elapsed"), (hours ? hours + ":" + two(minutes) : minutes) + ":" + two(seconds % 60));
  }

  // The call that this tab waits for here: others of the same address may wait for other calls.
  const here = "wsgi-timeout " + location.pathname + location.search;
  function tab(own) {
    try {
      const before = sessionStorage.getItem(here);
      if (own) sessionStorage.setItem(here, own);
      else sessionStorage.removeItem(here);
      return before;
    } catch {
      return null;
    }
  }

  function go() {
    left = true;
    tab("");
    document.title = say.ready + " · " + name;
    write(at("title"), say.opening);
    write(at("aloud"), say.opening);
    location.replace(result);
    // The browser shows this page still where the answer could not be had.
    setTimeout(() => { left = false; later(); }, 20000);
  }

  function show(call) {
    const queued = call.state === "queued";
    const { done, total, message } = call.progress || {};
    const part = total > 0 ? Math.min(1, Math.max(0, done / total)) : null;
    const percent = part === null ? "" : Math.floor(100 * part) + " %";
    const title = call.suspended ? say.paused : queued ? say.queued : say.running;
    write(at("title"), title);
    document.title = (percent || title) + " · " + name;
    if (part === null) at("bar").removeAttribute("value");
    else at("bar").value = part;
    const place = queued && call.position ? say.place.replace("{n}", call.position) : "";
    write(at("message"), place || message || percent);
    // Said aloud in steps of ten per cent, not at each look.
    const step = part === null ? "" : 10 * Math.floor(10 * part) + " %";
    write(at("aloud"), [title, place || step].filter(Boolean).join(". "));
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(look, 1000 * (document.hidden ? HIDDEN : pause));
  }

  async function look() {
    if (left) return;
    looked = performance.now();
    try {
      const answer = await fetch(status, { headers: { Accept: "application/json" }, cache: "no-store" });
      if (answer.status === 404 || answer.status === 410) return go();
      if (!answer.ok) throw new Error(answer.status);
      const call = await answer.json();
      if (call.ready) return go();
      const now = JSON.stringify([call.state, call.suspended, call.position, call.progress]);
      pause = now === before ? Math.min(LONGEST, 1.3 * pause) : SHORTEST;
      before = now;
      show(call);
    } catch {
      write(at("message"), say.offline);
      pause = LONGEST;
    }
    later();
  }

  at("cancel")?.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await fetch(status, { method: "POST" });
      go();
    } catch {
      event.target.submit();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || left) return;
    clearTimeout(timer);
    timer = setTimeout(look, Math.max(0, 1000 * SHORTEST - (performance.now() - looked)));
  });
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  addEventListener("load", () => {
    // Ends the Refresh header, which is there for browsers without JavaScript.
    window.stop();
    if (keep) history.replaceState(null, "", result);
    const own = tab(result);
    // By its first hop: a later one is held up, for browsers without JavaScript.
    if (several && own && own !== result) location.replace(own.replace(/_hop=\d+/, "_hop=1"));
    else look();
  });
  setInterval(clock, 1000);
  clock();
})();
