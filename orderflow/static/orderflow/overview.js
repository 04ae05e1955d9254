/*
 * Refreshes the overview. Without this script the page is complete, but as old as its last loading.
 *
 * It changes only what differs, in place, so that focus, selections and opened tables stay. It says aloud
 * only that the state of a part has changed, rests while the tab is hidden or the reader has paused it, and says
 * since when nothing could be read. Its requests do not prolong the session (orderflow.login.middleware).
 */
"use strict";
(() => {
  const overview = document.getElementById("of-overview");
  const bar = document.getElementById("of-refreshing");
  if (!overview || !bar) return;
  const said = document.getElementById("of-announced");
  const shown = document.getElementById("of-refreshed");
  const pause = document.getElementById("of-pause");
  const every = Number(overview.dataset.every) * 1000;
  const LONGEST = 10_000, SLOWEST = 60_000, KEPT_AS = "of-overview-paused";
  let timer = 0, running = null, failures = 0, ended = false;
  let paused = stored() === "1";

  function stored() {
    try { return sessionStorage.getItem(KEPT_AS); } catch { return null; }
  }

  function store(value) {
    try { sessionStorage.setItem(KEPT_AS, value); } catch { /* storage may be forbidden; the button still works */ }
  }

  function summary() {
    return document.getElementById("of-summary")?.textContent ?? "";
  }

  function say(text) {
    if (said.textContent !== text) said.textContent = text;
  }

  function state(text) {
    shown.textContent = text;
  }

  /* Make `old` like `fresh` without replacing elements that are the same. */
  function become(old, fresh) {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) return;
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      const isReaders = name === "open" && old.localName === "details";
      if (!fresh.hasAttribute(name) && !isReaders) old.removeAttribute(name);
    }
    becomeChildren(old, fresh);
  }

  function becomeChildren(old, fresh) {
    let place = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const known = counterpart(place, wanted);
      if (!known) {
        old.insertBefore(document.importNode(wanted, true), place);
        continue;
      }
      while (place !== known) place = dropped(place);
      become(known, wanted);
      place = known.nextSibling;
    }
    while (place) place = dropped(place);
  }

  /* The sibling that stands for the same thing: one with the same id, or the next one if neither has an id. */
  function counterpart(from, wanted) {
    if (wanted.nodeType !== Node.ELEMENT_NODE) return from?.nodeType === wanted.nodeType ? from : null;
    let each = from;
    if (wanted.id) {
      while (each && each.id !== wanted.id) each = each.nextSibling;
      return each;
    }
    while (each && each.nodeType !== Node.ELEMENT_NODE) each = each.nextSibling;
    return each && !each.id && each.nodeName === wanted.nodeName ? each : null;
  }

  function dropped(node) {
    const next = node.nextSibling;
    /* What holds the focus stays until the reader leaves it: focus must not jump to the top of the page. */
    if (!node.contains(document.activeElement)) node.remove();
    return next;
  }

  async function refresh() {
    clearTimeout(timer);
    if (running || paused || ended || document.hidden) return;
    const request = running = new AbortController();
    const limit = setTimeout(() => request.abort(), LONGEST);
    try {
      const answer = await fetch(overview.dataset.refreshedFrom, {
        signal: request.signal, redirect: "manual", credentials: "same-origin", cache: "no-store",
        headers: { "X-Automatic": "1" },
      });
      if (answer.type === "opaqueredirect" || answer.status === 403) return end();
      if (!answer.ok) throw new Error(answer.status === 503 ? "The database does not answer" : `The server answers ${answer.status}`);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
      if (paused || ended) return;
      const before = summary();
      becomeChildren(overview, fresh);
      failures = 0;
      overview.classList.remove("of-stale");
      state(`Refreshed every ${every / 1000} s.`);
      if (summary() !== before) say(summary());
      else if (said.dataset.isTrouble) say("The overview is refreshed again.");
      delete said.dataset.isTrouble;
    } catch (error) {
      failed(request.signal.aborted ? "The server does not answer" : error instanceof TypeError ? "The server cannot be reached" : error.message);
    } finally {
      clearTimeout(limit);
      running = null;
      if (!ended && !paused) timer = setTimeout(refresh, Math.min(every * 2 ** failures, Math.max(every, SLOWEST)));
    }
  }

  function failed(why) {
    failures = Math.min(failures + 1, 6);
    if (failures < 2) return;  // one lost request is not worth a word
    overview.classList.add("of-stale");
    const text = `${why}. What is shown is old.`;
    state(text);
    say(text);
    said.dataset.isTrouble = "1";
  }

  function end() {
    ended = true;
    overview.classList.add("of-stale");
    pause.hidden = true;
    state("You are logged out, and what is shown is old. Reload the page to log in.");
    say(shown.textContent);
  }

  function showPause() {
    pause.setAttribute("aria-pressed", String(paused));
    state(paused ? "Not refreshed." : `Refreshed every ${every / 1000} s.`);
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    store(paused ? "1" : "");
    showPause();
    if (paused) clearTimeout(timer);
    else refresh();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else refresh();
  });
  bar.hidden = false;
  showPause();
  timer = setTimeout(refresh, every);
})();
