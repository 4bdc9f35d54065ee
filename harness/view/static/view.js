// What a page can do beyond links: keys, the chart and the steps showing each other, and following a sweep.
"use strict";

const POLL_MS = 5000;
const SOON_MS = 700;

// The chart and the steps.

const calls = new Map([...document.querySelectorAll(".call")].map((call) => [call.dataset.call, call]));

function lit(number) {
  for (const [call, element] of calls) element.classList.toggle("on", call === number);
}

function choose(step, move = true) {
  document.querySelector(".step.at")?.classList.remove("at");
  step.classList.add("at");
  step.focus({ preventScroll: true });
  if (move) step.scrollIntoView({ block: "start" });
  lit(step.dataset.call);
  history.replaceState(null, "", `#${step.id}`);
}

function chosen() {
  return document.querySelector(".step.at");
}

for (const step of document.querySelectorAll(".step")) {
  step.addEventListener("mouseenter", () => lit(step.dataset.call));
  step.addEventListener("mouseleave", () => lit(chosen()?.dataset.call));
  step.addEventListener("focusin", () => lit(step.dataset.call));
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#step-'], a[href^='#call-']");
  const step = link && document.getElementById(link.getAttribute("href").replace("#call-", "#step-").slice(1));
  if (step) {
    event.preventDefault();
    choose(step, !link.matches(".number"));
    return;
  }
  if (event.target.closest("[data-keys]")) {
    event.preventDefault();
    document.getElementById("keys").showModal();
  }
});

const first = location.hash && document.getElementById(location.hash.slice(1));
if (first && first.matches(".step")) choose(first);

// Keys.

let before = "";

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const last = before;
  before = event.key;
  if (last === "g" && event.key === "s") return go(document.querySelector("[data-up]") ?? document.querySelector("a[rel=home]"), true);
  const act = { j: () => move(1), k: () => move(-1), n: () => go(document.querySelector("a[rel=next]")), p: () => go(document.querySelector("a[rel=prev]")), "/": search, "?": () => document.getElementById("keys").showModal(), Enter: open }[event.key];
  if (act && act() !== false) event.preventDefault();
});

function go(link, up = false) {
  if (!link) return false;
  location.href = (up && link.dataset.up) || link.href;
}

function search() {
  const field = document.querySelector("[data-search]");
  if (!field) return false;
  field.focus();
  field.select();
}

function move(by) {
  const places = [...document.querySelectorAll(".step, tr[data-row]")];
  if (!places.length) return false;
  const now = places.findIndex((place) => place.classList.contains("at"));
  const to = places[Math.min(Math.max(now < 0 ? (by > 0 ? 0 : places.length - 1) : now + by, 0), places.length - 1)];
  if (to.matches(".step")) return choose(to);
  document.querySelector("tr.at")?.classList.remove("at");
  to.classList.add("at");
  to.scrollIntoView({ block: "nearest" });
}

function open(event) {
  if (document.activeElement?.matches("a, button, summary")) return false;
  const row = document.querySelector("tr.at a[href]");
  if (row) return go(row);
  const folds = chosen()?.querySelectorAll("details");
  if (!folds?.length) return false;
  const opened = [...folds].every((fold) => fold.open);
  for (const fold of folds) fold.open = !opened;
}

// Following a sweep: nothing is asked for when it is over, or while nobody looks.

let waiting = 0;

function follow() {
  clearTimeout(waiting);
  const { live, soon } = main().dataset;
  if (live && !document.hidden) waiting = setTimeout(look, soon === undefined ? POLL_MS : SOON_MS);
}

function main() {
  return document.getElementById("main");
}

async function look() {
  try {
    const { version } = await (await fetch(main().dataset.live)).json();
    if (main().dataset.soon !== undefined || version !== main().dataset.version) await renew();
  } catch {
    // The server has ended, or is busy: the next look tells.
  }
  follow();
}

async function renew() {
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const row = document.querySelector("tr.at a[href]")?.getAttribute("href");
  for (const part of document.querySelectorAll("[data-part]")) {
    const made = page.getElementById(part.id);
    if (!made || made.innerHTML === part.innerHTML) continue;
    const opened = [...part.querySelectorAll("details")].map((fold) => fold.open);
    const aside = [...part.querySelectorAll(".wide")].map((box) => box.scrollLeft);
    part.replaceWith(document.adoptNode(made));
    [...made.querySelectorAll("details")].forEach((fold, number) => (fold.open = opened[number] ?? fold.open));
    [...made.querySelectorAll(".wide")].forEach((box, number) => (box.scrollLeft = aside[number] ?? 0));
  }
  if (row) document.querySelector(`tr[data-row] a[href="${CSS.escape(row)}"]`)?.closest("tr").classList.add("at");
  for (const name of ["live", "soon", "version"]) {
    const value = page.getElementById("main").dataset[name];
    if (value === undefined) delete main().dataset[name];
    else main().dataset[name] = value;
  }
}

document.addEventListener("visibilitychange", follow);
follow();
