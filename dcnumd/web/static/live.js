// Keeps the live page up to date: the server sends the parts that have changed as HTML.
"use strict";

const SILENT_MS = 40000; // the server sends something at least every 15 s
const AGAIN_MS = 5000;

const link = document.getElementById("link");
let source = null;
let timer = 0;

function tell(state, text) {
  if (link.dataset.state !== state) {
    link.dataset.state = state;
    link.textContent = text;
  }
}

// Changes an element into another one, but leaves equal parts alone, to keep focus, selection and open details.
function become(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = fresh.nodeValue;
    return;
  }
  const opened = old.nodeName === "DETAILS";
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(opened && name === "open")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  becomeChildren(old, [...fresh.childNodes]);
}

function becomeChildren(parent, fresh) {
  const keyed = new Map();
  for (const child of parent.children) {
    if (child.dataset.key !== undefined) keyed.set(child.dataset.key, child);
  }
  let next = parent.firstChild;
  for (const child of fresh) {
    const key = child.dataset?.key;
    const known = key === undefined ? null : keyed.get(key);
    if (known) {
      keyed.delete(key);
      if (known === next) next = next.nextSibling;
      else parent.insertBefore(known, next);
      become(known, child);
    } else if (key !== undefined || next === null || next.dataset?.key !== undefined) {
      parent.insertBefore(child, next);
    } else {
      const after = next.nextSibling;
      become(next, child);
      next = after;
    }
  }
  while (next !== null) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

function show(parts) {
  for (const [name, html] of Object.entries(parts)) {
    const place = document.getElementById(`part-${name}`);
    if (place === null) continue;
    // Why not innerHTML: DOMParser runs no scripts.
    becomeChildren(place, [...new DOMParser().parseFromString(html, "text/html").body.childNodes]);
  }
  const title = document.querySelector("[data-title]");
  if (title !== null && document.title !== title.dataset.title) document.title = title.dataset.title;
}

function heard() {
  tell("live", "Live");
  clearTimeout(timer);
  timer = setTimeout(lose, SILENT_MS);
}

function lose() {
  tell("lost", "No answer from dcnumd; what you see may be old");
  clearTimeout(timer);
  source.close();
  timer = setTimeout(listen, AGAIN_MS);
}

function listen() {
  source = new EventSource("/events");
  source.addEventListener("snapshot", (event) => {
    heard();
    show(JSON.parse(event.data));
  });
  source.addEventListener("alive", heard);
  source.addEventListener("error", lose);
}

// A page that is restored from the browser's history connects again.
addEventListener("pagehide", () => {
  clearTimeout(timer);
  source.close();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) listen();
});

listen();
