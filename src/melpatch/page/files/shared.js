"use strict";
// What all parts of the page share. Texts of files and people are only ever set as text.

const at = (id) => document.getElementById(id);
const state = { cards: [], focus: 0, figures: null, labels: [], thresholds: {}, map: null };

function say(text, error = false) {
  at("notice").textContent = text;
  at("notice").className = error ? "error" : "";
}

async function answerOf(response) {
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

async function ask(path, values) {
  const how = values === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(values),
  };
  return answerOf(await fetch(path, how));
}

// Whatever fails is said where people look, and nothing else stops.
const safely = (act) => async (...values) => {
  try { await act(...values); } catch (error) { say(error.message, true); }
};

const who = () => at("who").value.trim();
const label = () => at("label").value.trim();
const number = (id) => Number(at(id).value);
const seconds = (value) => `${value.toFixed(2)} s`;
const baseName = (path) => path.split("/").pop();
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function element(kind, text, parent, name) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (name) made.className = name;
  parent.append(made);
  return made;
}

function button(text, title, parent, act) {
  const made = element("button", text, parent);
  made.type = "button";
  made.title = title;
  // The card has keys for all of them; tabbing goes from card to card.
  made.tabIndex = -1;
  made.addEventListener("click", safely(act));
  return made;
}
