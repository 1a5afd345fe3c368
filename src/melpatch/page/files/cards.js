"use strict";
// Cards: a clip with its spectrogram, its sound, its answers and a stretch of it that is marked.

const audio = new Audio();
let playing = null; // the card whose sound was played last

// Magma: as even to the eye as grey, and faint sound stands out more.
const STOPS = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
const COLOURS = Array.from({ length: 256 }, (_, level) => {
  const place = (level / 255) * (STOPS.length - 1);
  const below = Math.min(STOPS.length - 2, Math.floor(place));
  return STOPS[below].map((value, n) => value + (place - below) * (STOPS[below + 1][n] - value));
});

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
      const shade = COLOURS[Math.round(255 * Math.min(1, Math.max(0, level)))];
      const pixel = 4 * ((mels - 1 - mel) * frames + frame);
      image.data.set([...shade, 255], pixel);
    }
  }
  context.putImageData(image, 0, 0);
}

async function load(card) {
  const answer = await fetch(`api/spectrogram/${card.row}?around=${number("around")}`);
  if (!answer.ok) throw new Error((await answer.json()).error);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const head = (name) => Number(answer.headers.get(`x-${name}`));
  const frames = bytes.length / head("mels");
  card.picture = { mels: head("mels"), frames, bytes, step: head("step"), start: head("start"), hop: head("hop") };
  const end = card.picture.start + frames * card.picture.hop;
  card.axis.replaceChildren();
  element("span", card.picture.start.toFixed(1), card.axis);
  element("span", `${(head("low") / 1000).toFixed(1)} to ${(head("high") / 1000).toFixed(1)} kHz`, card.axis);
  element("span", `${end.toFixed(1)} s`, card.axis);
  mark(card, null);
  draw(card.canvas, card.picture);
}

function showAnswer(card) {
  card.box.dataset.answer = card.answers[label()] || "";
  const all = Object.entries(card.answers).map(([name, answer]) => `${name}: ${answer}`);
  card.says.textContent = all.join(", ");
}

function show(cards, chosen) {
  state.cards = cards;
  at("chosen").textContent = `${cards.length} ${cards.length === 1 ? "clip" : "clips"}, ${chosen}`;
  at("cards").replaceChildren();
  cards.forEach((card, place) => build(card, place));
  if (cards.length) focus(0); else say("no such clip is left");
}

function build(card, place) {
  const name = baseName(card.path);
  card.box = element("article", "", at("cards"), "card");
  card.box.tabIndex = 0;
  card.box.dataset.row = card.row;
  card.box.title = card.path;
  card.box.setAttribute("aria-label", `clip ${place + 1}: ${name} at ${card.start.toFixed(2)} s`);
  const picture = element("div", "", card.box, "picture");
  card.canvas = element("canvas", "", picture);
  card.canvas.setAttribute("role", "img");
  card.canvas.setAttribute("aria-label", `spectrogram of ${name}`);
  card.mark = element("div", "", picture, "mark");
  card.cursor = element("div", "", picture, "cursor");
  card.mark.hidden = card.cursor.hidden = true;
  card.axis = element("p", "loading", card.box, "axis");
  element("p", name, card.box, "name");
  const score = card.score === null ? "" : `, score ${card.score.toFixed(3)}`;
  element("p", `${card.start.toFixed(2)} to ${seconds(card.end)}${score}${card.test ? ", test set" : ""}`, card.box, "about");
  card.says = element("p", "", card.box, "answer");
  const row = element("div", "", card.box, "buttons");
  const here = (act) => () => { focus(place); return act(); };
  button("Listen", "space", row, here(() => play(card)));
  button("Yes", "y", row, here(() => answer("yes")));
  button("No", "n", row, here(() => answer("no")));
  button("Unsure", "u", row, here(() => answer("unsure")));
  card.box.addEventListener("focus", () => { state.focus = place; });
  drags(card);
  showAnswer(card);
  load(card).catch((error) => { card.axis.textContent = ""; card.says.textContent = error.message; });
}

function focus(place) {
  if (!state.cards.length) return;
  state.focus = Math.min(Math.max(0, place), state.cards.length - 1);
  state.cards[state.focus].box.focus();
}

// A stretch, given as shares of the picture; null is all of it.

function mark(card, stretch) {
  card.marked = stretch;
  card.mark.hidden = stretch === null;
  if (!stretch) return;
  card.mark.style.left = `${100 * stretch[0]}%`;
  card.mark.style.width = `${100 * (stretch[1] - stretch[0])}%`;
}

const secondOf = (card, share) => card.picture.start + share * card.picture.frames * card.picture.hop;

function drags(card) {
  let from = null;
  const share = (event) => {
    const box = card.canvas.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const reach = (event) => [from, share(event)].sort((a, b) => a - b);
  card.canvas.addEventListener("pointerdown", (event) => {
    if (!card.picture) return;
    from = share(event);
    card.canvas.setPointerCapture(event.pointerId);
  });
  card.canvas.addEventListener("pointermove", (event) => { if (from !== null) mark(card, reach(event)); });
  card.canvas.addEventListener("pointercancel", () => { from = null; mark(card, null); });
  card.canvas.addEventListener("pointerup", safely(async (event) => {
    if (from === null) return;
    const stretch = reach(event);
    from = null;
    mark(card, stretch);
    if (secondOf(card, stretch[1]) - secondOf(card, stretch[0]) >= 0.05) { await likeStretch(card); return; }
    mark(card, null);
    play(card);
  }));
}

function narrow(left, right) {
  const card = state.cards[state.focus];
  if (!card || !card.picture) return;
  const [from, to] = card.marked || [0, 1];
  if (to - from > 0.15) mark(card, [from + left, to - right]);
  say(`marked ${card.marked.map((share) => seconds(secondOf(card, share))).join(" to ")}; x finds what is like it`);
}

async function likeStretch(card) {
  if (!card || !card.picture) return;
  const [start, end] = (card.marked || [0, 1]).map((share) => secondOf(card, share));
  const clips = await ask("api/search", { row: card.row, start, end });
  show(clips.cards, `like ${start.toFixed(2)} to ${seconds(end)} of ${baseName(card.path)}`);
}

function play(card) {
  if (!card) return;
  if (playing) playing.cursor.hidden = true;
  playing = card;
  audio.src = `api/sound/${card.row}?around=${number("around")}`;
  audio.play().then(follow).catch((error) => say(`cannot be played: ${error.message}`, true));
}

function follow() {
  if (!playing) return;
  playing.cursor.hidden = audio.ended;
  playing.cursor.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
  if (!audio.ended) requestAnimationFrame(follow);
}
