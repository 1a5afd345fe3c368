"use strict";
// Keys, and how the page starts.

const KEYS = {
  y: () => answer("yes"), n: () => answer("no"), u: () => answer("unsure"), s: onward, z: undo,
  " ": () => play(state.cards[state.focus]), f: likeCard, l: likeLabel, w: wrong, Enter: next,
  x: () => likeStretch(state.cards[state.focus]), Backspace: () => mark(state.cards[state.focus], null),
  "/": () => at("label").focus(),
  m: () => { at("by").selectedIndex = (at("by").selectedIndex + 1) % at("by").length; say(`next: ${at("by").selectedOptions[0].textContent}`); },
  ArrowRight: () => focus(state.focus + 1), ArrowLeft: () => focus(state.focus - 1),
};
const NARROWER = { ArrowRight: [0.05, 0], ArrowLeft: [0, 0.05] };

async function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape") { focus(state.focus); return; }
  const field = event.target.closest("input, select, button, summary");
  if (field && event.key === "Enter" && field.id === "label") { event.preventDefault(); await next(); return; }
  if (field) return;
  if (event.target.id === "map" && (MOVES[event.key] || event.key === "Enter")) {
    event.preventDefault();
    await mapKey(event.key);
    return;
  }
  const digit = Number(event.key);
  if (digit >= 1 && digit <= state.labels.length) { await answer("yes", state.labels[digit - 1]); return; }
  const narrower = event.shiftKey && NARROWER[event.key];
  const act = narrower ? () => narrow(...narrower) : KEYS[event.key];
  if (act) { event.preventDefault(); await act(); }
}

// What a slider is set to is written beside it.
function showValue(slider) {
  const output = at(`${slider.id}-value`);
  const value = slider.id === "threshold" ? ((Number(slider.value) + 1) / 50).toFixed(2) : slider.value;
  output.textContent = output.dataset.unit ? `${value} ${output.dataset.unit}` : value;
}

async function start() {
  document.querySelectorAll("input[type=range]").forEach((slider) => {
    showValue(slider);
    slider.addEventListener("input", () => showValue(slider));
  });
  document.addEventListener("keydown", safely(onKey));
  at("who").value = localStorage.getItem("who") || "";
  at("who").addEventListener("change", () => localStorage.setItem("who", who()));
  const facts = await ask("api/state");
  at("about").textContent = `${facts.windows.toLocaleString("en")} clips of ${facts.window} s from ${facts.recordings.toLocaleString("en")} recordings`;
  showCounts(facts.counts);
  const acts = { next, undo, "like-label": likeLabel, wrong, keep, train, stop };
  Object.entries(acts).forEach(([id, act]) => at(id).addEventListener("click", safely(act)));
  const redraw = () => state.cards.filter((card) => card.picture).forEach((card) => draw(card.canvas, card.picture));
  ["range", "gain", "background"].forEach((id) => at(id).addEventListener("input", redraw));
  at("around").addEventListener("change", () => state.cards.forEach(safely(load)));
  at("threshold").addEventListener("input", () => showFigures(state.figures));
  at("label").addEventListener("change", safely(async () => { state.cards.forEach(showAnswer); await refreshFigures(); }));
  at("map-by").addEventListener("change", safely(loadMap));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawMap());
  drops();
  mapMouse();
  await look();
  await loadMap();
}

safely(start)();
