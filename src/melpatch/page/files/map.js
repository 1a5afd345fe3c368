"use strict";
// The map of the collection: draw around points with the mouse, or move a circle with the keys.

const SIDE = 320;
const spot = ([x, y]) => [SIDE / 2 + (SIDE / 2 - 5) * x, SIDE / 2 - (SIDE / 2 - 5) * y];
let circle = null; // [x, y, radius] in pixels, once a key has moved it

function outline(points) {
  const path = new Path2D();
  points.forEach((point) => path.lineTo(...point));
  path.closePath();
  return path;
}

function round() {
  const path = new Path2D();
  path.arc(...circle, 0, 2 * Math.PI);
  return path;
}

function drawMap(path) {
  const context = at("map").getContext("2d");
  context.clearRect(0, 0, SIDE, SIDE);
  if (!state.map) return;
  context.globalAlpha = 0.55;
  context.fillStyle = colour("--accent");
  const size = state.map.places.length > 1000 ? 2 : 4;
  state.map.places.forEach((place) => {
    const [x, y] = spot(place);
    context.fillRect(x - size / 2, y - size / 2, size, size);
  });
  context.globalAlpha = 1;
  context.strokeStyle = colour("--text");
  context.lineWidth = 2;
  if (path) context.stroke(path);
}

async function showWithin(path) {
  const context = at("map").getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  const rows = state.map.rows.filter((_, n) => context.isPointInPath(path, ...spot(state.map.places[n])));
  if (!rows.length) { say("no clip is there"); return; }
  show((await ask("api/rows", { rows })).cards, `of ${rows.length} on the map`);
}

async function loadMap() {
  at("map").setAttribute("aria-busy", "true");
  if (at("map-by").value === "umap") say("drawing the map by UMAP; it takes a minute, once");
  try { state.map = await ask(`api/map?by=${at("map-by").value}`); }
  catch (error) { at("map-by").value = "pca"; throw error; }
  finally { at("map").removeAttribute("aria-busy"); }
  drawMap();
  say("");
}

function mapMouse() {
  const canvas = at("map");
  let lasso = null;
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = SIDE / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!state.map) return;
    lasso = [point(event)];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (lasso) { lasso.push(point(event)); drawMap(outline(lasso)); }
  });
  canvas.addEventListener("pointercancel", () => { lasso = null; drawMap(); });
  canvas.addEventListener("pointerup", safely(async () => {
    if (!lasso) return;
    const path = outline(lasso);
    lasso = null;
    await showWithin(path);
  }));
}

const MOVES = { ArrowLeft: [-10, 0, 0], ArrowRight: [10, 0, 0], ArrowUp: [0, -10, 0], ArrowDown: [0, 10, 0], "+": [0, 0, 10], "-": [0, 0, -10] };

// Returns whether the key was one of the map's.
async function mapKey(key) {
  if (!state.map || (key !== "Enter" && !MOVES[key])) return false;
  circle = circle || [SIDE / 2, SIDE / 2, SIDE / 6];
  if (key === "Enter") { await showWithin(round()); return true; }
  const inside = (value) => Math.min(SIDE, Math.max(0, value));
  const [x, y, radius] = MOVES[key].map((step, n) => circle[n] + step);
  circle = [inside(x), inside(y), Math.max(10, radius)];
  drawMap(round());
  return true;
}
