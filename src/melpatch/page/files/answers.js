"use strict";
// Answers: what people say, what is learnt from it, and what comes next.

const CHOSEN = {
  likely: "the most likely first", unsure: "the least sure first", far: "the farthest from all answers first",
  random: "drawn at random", test: "drawn at random from the test set", alike: "the most alike to what has the label first",
};

async function answer(said, name = label()) {
  const card = state.cards[state.focus];
  if (!card) return;
  if (!name) { say("give a label first", true); at("label").focus(); return; }
  const result = await ask("api/answer", { row: card.row, label: name, answer: said, who: who() });
  card.answers[name] = said;
  showAnswer(card);
  showCounts(result.counts);
  if (name === label()) showFigures(result.figures);
  say(`${said} to ${name}`);
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
  show((await ask("api/search", { row: card.row })).cards, `like ${baseName(card.path)}`);
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

const percent = (share, why) => share.value === null ? `unknown (${why})`
  : `${(100 * share.value).toFixed(0)} % (${(100 * share.low).toFixed(0)} to ${(100 * share.high).toFixed(0)})`;

function showFigures(figures) {
  state.figures = figures;
  if (!figures) {
    at("figures").textContent = "Not known yet: it takes a yes, a no, and answers to clips of the test set.";
    return;
  }
  const point = figures[number("threshold")];
  state.thresholds[label()] = point.threshold;
  at("figures").textContent = `Precision ${percent(point.precision, "no test clip is above it")}, `
    + `recall ${percent(point.recall, "no test clip has the label")}; in brackets 95 % intervals by recordings.`;
}

async function refreshFigures() {
  if (label()) showFigures((await ask("api/figures", { label: label() })).figures);
}
