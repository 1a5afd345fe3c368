"use strict";
// The page of melpatch: plain browser code. Texts of files and people are only ever set as text.

const at = (id) => document.getElementById(id);
const state = { cards: [], focus: 0, figures: null, labels: [], thresholds: {}, map: null, stats: {} };
const audio = new Audio();

function say(text, error = false) {
  at("notice").textContent = text;
  at("notice").className = error ? "error" : "";
}

async function ask(path, values) {
  const how = values === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(values),
  };
  const answer = await fetch(path, how);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

// Whatever fails is said where people look, and nothing else stops.
const safely = (act) => async (...values) => {
  try { await act(...values); } catch (error) { say(error.message, true); }
};

const who = () => at("who").value.trim();
const label = () => at("label").value.trim();
const number = (id) => Number(at(id).value);

const CHOSEN = {
  likely: "the most likely first", unsure: "the least sure first", far: "the farthest from all answers first",
  random: "drawn at random", test: "drawn at random from the test set", alike: "the most alike to what has the label first",
};

// Cards

function draw(canvas, picture) {
  const { mels, frames, bytes, step } = picture;
  canvas.width = frames;
  canvas.height = mels;
  const context = canvas.getContext("2d");
  const image = context.createImageData(frames, mels);
  const top = 255 * step - number("gain");
  const bottom = top - number("range");
  const off = number("background") / 100;
  for (let mel = 0; mel < mels; mel++) {
    const row = bytes.subarray(mel * frames, (mel + 1) * frames);
    const background = off ? off * (Uint8Array.from(row).sort()[frames >> 1] * step - bottom) : 0;
    for (let frame = 0; frame < frames; frame++) {
      const level = (row[frame] * step - Math.max(0, background) - bottom) / (top - bottom);
      const grey = 255 * Math.min(1, Math.max(0, level));
      const pixel = 4 * ((mels - 1 - mel) * frames + frame);
      image.data.set([grey, grey, grey, 255], pixel);
    }
  }
  context.putImageData(image, 0, 0);
}

async function load(card) {
  const answer = await fetch(`api/spectrogram/${card.row}?around=${number("around")}`);
  if (!answer.ok) throw new Error((await answer.json()).error);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const head = (name) => Number(answer.headers.get(`x-${name}`));
  card.picture = {
    mels: head("mels"), frames: bytes.length / head("mels"), bytes, step: head("step"),
    start: head("start"), hop: head("hop"),
  };
  draw(card.canvas, card.picture);
}

function element(kind, text, parent, name) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  parent.append(made);
  return made;
}

function answerOf(card) { return card.answers[label()] || ""; }

function showAnswer(card) {
  card.box.dataset.answer = answerOf(card);
  const all = Object.entries(card.answers).map(([name, answer]) => `${name}: ${answer}`);
  card.says.textContent = all.join(", ");
}

function show(cards, chosen) {
  state.cards = cards;
  at("chosen").textContent = `${cards.length} clips, ${chosen}`;
  at("cards").replaceChildren();
  cards.forEach((card, place) => {
    card.box = element("article", "", at("cards"), "card");
    card.box.tabIndex = 0;
    card.box.dataset.row = card.row;
    card.canvas = element("canvas", "", card.box);
    const name = card.path.split("/").pop();
    const score = card.score === null ? "" : `, ${card.score.toFixed(3)}`;
    const test = card.test ? ", test" : "";
    element("p", `${name}, ${card.start.toFixed(2)} to ${card.end.toFixed(2)} s${score}${test}`, card.box);
    card.says = element("p", "", card.box, "answer");
    card.box.setAttribute("aria-label", `clip ${place + 1}: ${name} at ${card.start.toFixed(2)} s`);
    card.box.title = card.path;
    card.box.addEventListener("focus", () => { state.focus = place; });
    card.canvas.addEventListener("dblclick", () => play(card));
    drags(card);
    showAnswer(card);
    load(card).catch((error) => { card.says.textContent = error.message; });
  });
  if (cards.length) focus(0); else say("no such clip is left");
}

function focus(place) {
  if (!state.cards.length) return;
  state.focus = Math.min(Math.max(0, place), state.cards.length - 1);
  state.cards[state.focus].box.focus();
}

function drags(card) {
  let from = null;
  const second = (event) => {
    const box = card.canvas.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return card.picture.start + share * card.picture.frames * card.picture.hop;
  };
  card.canvas.addEventListener("pointerdown", (event) => {
    if (!card.picture) return;
    from = second(event);
    card.canvas.setPointerCapture(event.pointerId);
  });
  card.canvas.addEventListener("pointerup", safely(async (event) => {
    if (from === null) return;
    const [start, end] = [from, second(event)].sort((a, b) => a - b);
    from = null;
    if (end - start < 0.05) { play(card); return; }
    const clips = await ask("api/search", { row: card.row, start, end });
    show(clips.cards, `like ${start.toFixed(2)} to ${end.toFixed(2)} s of ${card.path.split("/").pop()}`);
  }));
}

function play(card) {
  audio.src = `api/sound/${card.row}?around=${number("around")}`;
  audio.play().catch((error) => say(`cannot be played: ${error.message}`, true));
}

// Answers

async function answer(said, name = label()) {
  const card = state.cards[state.focus];
  if (!card) return;
  if (!name) { say("give a label first", true); at("label").focus(); return; }
  const result = await ask("api/answer", { row: card.row, label: name, answer: said, who: who() });
  card.answers[name] = said;
  showAnswer(card);
  showCounts(result.counts);
  if (name === label()) showFigures(result.figures);
  say(`${said}: ${name}`);
  onward();
}

function onward() {
  if (state.focus + 1 < state.cards.length) focus(state.focus + 1);
  else next().catch((error) => say(error.message, true));
}

async function undo() {
  const result = await ask("api/undo", { who: who() });
  if (result.row === null) { say("nothing to undo"); return; }
  showCounts(result.counts);
  const place = state.cards.findIndex((card) => card.row === result.row);
  const again = await ask("api/rows", { rows: [result.row] });
  if (place < 0) show(again.cards, "undone");
  else {
    state.cards[place].answers = again.cards[0].answers;
    showAnswer(state.cards[place]);
    focus(place);
  }
  say("undone");
  await refreshFigures();
}

async function next() {
  if (!label()) { say("give a label first", true); at("label").focus(); return; }
  const clips = await ask("api/next", { label: label(), by: at("by").value, who: who() });
  show(clips.cards, CHOSEN[clips.chosen]);
  await refreshFigures();
}

async function likeLabel() {
  show((await ask("api/search", { label: label() })).cards, `like ${label()}`);
}

async function likeCard() {
  const card = state.cards[state.focus];
  if (!card) return;
  show((await ask("api/search", { row: card.row })).cards, `like ${card.path.split("/").pop()}`);
}

async function wrong() {
  show((await ask("api/wrong", { label: label() })).cards, "that the head gets wrong, the worst first");
}

// Labels and figures

function showCounts(counts) {
  state.labels = Object.keys(counts);
  at("labels").replaceChildren();
  at("counts").replaceChildren();
  state.labels.forEach((name, place) => {
    element("option", "", at("labels")).value = name;
    const row = element("tr", "", at("counts"));
    const own = counts[name];
    const cells = [place < 9 ? place + 1 : "", name, own.yes || 0, own.no || 0, own.unsure || 0, own.test || 0];
    cells.forEach((cell) => element("td", String(cell), row));
  });
}

const percent = (share) => share.value === null ? "unknown"
  : `${(100 * share.value).toFixed(0)} % (${(100 * share.low).toFixed(0)} to ${(100 * share.high).toFixed(0)})`;

function showFigures(figures) {
  state.figures = figures;
  if (!figures) {
    at("figures").textContent = "Not known yet: it takes a yes, a no, and answers to clips of the test set.";
    return;
  }
  const point = figures[number("threshold")];
  state.thresholds[label()] = point.threshold;
  at("figures").textContent = `From ${point.threshold.toFixed(2)} on: precision ${percent(point.precision)}, `
    + `recall ${percent(point.recall)}, with 95 % intervals by recordings.`;
}

async function refreshFigures() {
  if (label()) showFigures((await ask("api/figures", { label: label() })).figures);
}

async function keep() {
  const kept = await ask("api/keep", { name: at("name").value, thresholds: state.thresholds });
  at("kept").replaceChildren();
  element("code", kept.predict, at("kept"));
  say(`kept: ${kept.run}`);
}

// Map

function drawMap(lasso = []) {
  const canvas = at("map");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "rgb(0 60 130 / 50%)";
  state.map.places.forEach(([x, y]) => context.fillRect(...spot(x, y), 2, 2));
  context.beginPath();
  lasso.forEach(([x, y]) => context.lineTo(x, y));
  context.stroke();
}

const spot = (x, y) => [160 + 155 * x, 160 - 155 * y];

function lassoes() {
  const canvas = at("map");
  let lasso = null;
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  canvas.addEventListener("pointerdown", (event) => {
    lasso = [point(event)];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (lasso && state.map) { lasso.push(point(event)); drawMap(lasso); }
  });
  canvas.addEventListener("pointerup", safely(async () => {
    const path = new Path2D();
    lasso.forEach(([x, y]) => path.lineTo(x, y));
    lasso = null;
    const context = canvas.getContext("2d");
    const rows = state.map.rows.filter((_, n) => context.isPointInPath(path, ...spot(...state.map.places[n])));
    if (rows.length) show((await ask("api/rows", { rows })).cards, `of ${rows.length} on the map`);
  }));
}

// Keys

const KEYS = {
  y: () => answer("yes"), n: () => answer("no"), u: () => answer("unsure"), s: onward, z: undo,
  " ": () => play(state.cards[state.focus]), f: likeCard, l: likeLabel, w: wrong, Enter: next,
  "/": () => at("label").focus(),
  m: () => { at("by").selectedIndex = (at("by").selectedIndex + 1) % at("by").length; say(at("by").selectedOptions[0].textContent); },
  ArrowRight: () => focus(state.focus + 1), ArrowLeft: () => focus(state.focus - 1),
};

document.addEventListener("keydown", safely(async (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const field = event.target.closest("input, select, button");
  if (event.key === "Escape") { focus(state.focus); return; }
  if (field && event.key === "Enter" && field.id === "label") { event.preventDefault(); await next(); return; }
  if (field) return;
  const digit = Number(event.key);
  if (digit >= 1 && digit <= state.labels.length) { await answer("yes", state.labels[digit - 1]); return; }
  const act = KEYS[event.key];
  if (act) { event.preventDefault(); await act(); }
}));

async function start() {
  at("who").value = localStorage.getItem("who") || "";
  at("who").addEventListener("change", () => localStorage.setItem("who", who()));
  const facts = await ask("api/state");
  at("about").textContent = `${facts.windows} clips of ${facts.window} s from ${facts.recordings} recordings`;
  at("finetune").textContent = facts.finetune;
  showCounts(facts.counts);
  const acts = { next, undo, "like-label": likeLabel, wrong, keep };
  Object.entries(acts).forEach(([id, act]) => at(id).addEventListener("click", safely(act)));
  ["range", "gain", "background"].forEach((id) => at(id).addEventListener("input", () => {
    state.cards.filter((card) => card.picture).forEach((card) => draw(card.canvas, card.picture));
  }));
  at("around").addEventListener("change", () => state.cards.forEach(safely(load)));
  at("threshold").addEventListener("input", () => showFigures(state.figures));
  at("label").addEventListener("change", safely(async () => { state.cards.forEach(showAnswer); await refreshFigures(); }));
  state.map = await ask("api/map");
  lassoes();
  drawMap();
}

safely(start)();
