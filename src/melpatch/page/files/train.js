"use strict";
// What is made of the answers: a run of the heads, or an encoder that is trained further.

async function keep() {
  const kept = await ask("api/keep", { name: at("name").value, thresholds: state.thresholds });
  at("kept").replaceChildren();
  element("code", kept.predict, at("kept"));
  say(`kept: ${kept.run}`);
}

let asked = null; // the timer of the next look at a training

const ENDED = { done: "finished", stopped: "stopped", failed: "failed" };

function showTraining(training) {
  const runs = training.state === "running";
  at("finetune").textContent = training.command;
  at("train").disabled = runs;
  at("stop").disabled = !runs;
  at("progress").hidden = !runs;
  const [, done, all] = training.line.match(/ (\d+)\/(\d+) steps/) || [];
  if (all) { at("progress").max = Number(all); at("progress").value = Number(done); }
  else at("progress").removeAttribute("value");
  const word = runs ? "training" : ENDED[training.state];
  at("training").textContent = word ? `${word}: ${training.line}` : "";
  clearTimeout(asked);
  if (runs) asked = setTimeout(safely(look), 2000);
}

async function look() { showTraining(await ask("api/training")); }
async function train() { showTraining(await ask("api/train", {})); }
async function stop() { showTraining(await ask("api/stop", {})); }

// A sound file of one's own as a query: sent to this server, which keeps none of it.

async function likeFile(file) {
  say(`looking for what sounds like ${file.name}`);
  // Of a folder, or a file that is gone, sending would say only that it failed.
  await file.slice(0, 1).arrayBuffer().catch(() => {
    throw new Error(`${file.name}: cannot be read; give one sound file`);
  });
  const response = await fetch(`api/query?name=${encodeURIComponent(file.name)}`, {
    method: "POST", headers: { "content-type": "application/octet-stream" }, body: file,
  });
  const hits = await answerOf(response);
  const part = hits.whole ? "" : `the first ${hits.seconds.toFixed(0)} s of `;
  show(hits.cards, `like ${part}${file.name}`);
  say("");
}

function drops() {
  const over = (is) => document.body.classList.toggle("dropping", is);
  document.addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false); });
  document.addEventListener("drop", safely(async (event) => {
    event.preventDefault();
    over(false);
    if (event.dataTransfer.files.length) await likeFile(event.dataTransfer.files[0]);
  }));
  at("file").addEventListener("change", safely(async () => {
    if (at("file").files.length) await likeFile(at("file").files[0]);
  }));
}
