// Looks up one image at a time and shows what the service answers; everything comes from where this file came from.

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const LEVEL = /^far=/; // beside them, thresholds say how many pairs there were
const FIRST = 8; // numbers of an embedding that are shown

let model = null;
let last = null; // the image that was looked for last
let entries = []; // what was found for it, the best first, as hits and list items
let asking = new AbortController();

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { ...options, headers }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("the service does not answer");
  });
  if (response.status === 401) part.access.hidden = false;
  if (!response.ok) {
    const { error } = await response.json().catch(() => ({})); // a proxy's page is no JSON
    throw new Error(error ?? `the service, or a proxy before it, answered ${response.status}`);
  }
  return response;
}

function say(status, error = "") {
  part.status.textContent = status;
  part.error.textContent = error;
}

function made(tag, text, name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = name;
  return element;
}

async function start() {
  try {
    model = await (await ask("v1/model")).json();
  } catch (error) {
    return say("", error.message);
  }
  part.access.hidden = true;
  part.model.textContent = `${model.name}: ${model.gallery ? "search by image" : "embeddings of images"}`;
  part.choices.hidden = !model.gallery;
  part.threshold.replaceChildren(part.threshold.options[0], ...levels().map(option));
  part.threshold.value = levels().find(([, level]) => "threshold" in level)?.[0] ?? "";
  part.facts.replaceChildren(...facts().flatMap(([name, value]) => [made("dt", name), made("dd", value)]));
  say("");
}

function levels() {
  return Object.entries(model.thresholds ?? {}).filter(([name]) => LEVEL.test(name));
}

function option([name, level]) {
  const told = "threshold" in level;
  const choice = made("option", told ? `${name}: from ${level.threshold.toFixed(3)}` : `${name}: ${lacking(level)}`);
  choice.value = name;
  choice.disabled = !told;
  return choice;
}

function lacking(level) {
  return `needs ${level.needs.toLocaleString("en")} impostor pairs, has ${level.has.toLocaleString("en")}`;
}

function facts() {
  const { gallery } = model;
  const metrics = Object.entries(model.metrics ?? {}).map(([name, value]) => `${name} ${Number(value.toFixed(4))}`);
  const shown = [
    ["Input", `${model.height} × ${model.width} pixels`],
    ["Embedding", `${model.dim} numbers`],
    ["Precision", model.precision],
    ["Epoch", model.epoch],
    ["Measured", metrics.join(", ")],
    ["Gallery", gallery && `${gallery.count} images, ${gallery.cameras.length} cameras, ${gallery.tags.length} tags`],
    ["Fingerprint", model.fingerprint?.slice(0, 12)],
    ["Kiln", model.kiln_version],
    ...levels().map(([name, level]) => [name, "threshold" in level
      ? `accepts from ${level.threshold.toFixed(3)} on, and then ${(100 * level.tar).toFixed(1)} % of the right ones`
      : lacking(level)]),
  ];
  return shown.filter(([, value]) => value !== null && value !== undefined && value !== "");
}

async function look(file) {
  await starting;
  if (!file || !model) return;
  last = file;
  entries = [];
  asking.abort();
  const { signal } = (asking = new AbortController());
  part.preview.src = URL.createObjectURL(file);
  part.found.hidden = true;
  say("Looking …");
  const form = new FormData();
  form.append("images", file);
  if (model.gallery) form.append("k", part.k.value);
  try {
    const path = model.gallery ? "v1/search" : "v1/embeddings";
    const answer = await (await ask(path, { method: "POST", body: form, signal })).json();
    if (model.gallery) showHits(answer.results[0]);
    else showEmbedding(answer.embeddings[0]);
    part.found.hidden = false;
  } catch (error) {
    if (!signal.aborted) say("", error.message);
  }
}

function showEmbedding(numbers) {
  const length = Math.hypot(...numbers);
  part["found-title"].textContent = "Embedding";
  part.embedding.textContent = `${numbers.length} numbers of length ${length.toFixed(4)}, `
    + `which begin ${numbers.slice(0, FIRST).map((number) => number.toFixed(4)).join(", ")}`;
  say("Done");
}

function showHits(hits) {
  part["found-title"].textContent = "Nearest in the gallery";
  entries = hits.map((hit) => ({ hit, item: listed(hit) }));
  draw();
}

function draw() {
  const least = model.thresholds?.[part.threshold.value]?.threshold ?? -Infinity;
  const below = entries.filter(({ hit }) => hit.similarity < least);
  const accepted = entries.length - below.length;
  part.hits.replaceChildren(...entries.map(({ item }) => item));
  for (const { hit, item } of entries) item.classList.toggle("below", hit.similarity < least);
  if (below.length) below[0].item.before(made("li", `below threshold ${least.toFixed(3)}`, "line"));
  say(part.threshold.value ? `${accepted} of ${entries.length} reach the threshold` : `${entries.length} found`);
}

function listed(hit) {
  const item = made("li", "");
  const seen = [hit.camera === -1 ? "" : `camera ${hit.camera}`, hit.tag].filter(Boolean).join(", ");
  if (model.images) item.append(picture(hit.name));
  item.append(made("span", hit.similarity.toFixed(3), "score"), made("span", hit.name, "name"),
    made("span", seen, "seen"));
  return item;
}

function picture(name) {
  const image = new Image();
  image.alt = ""; // its name stands below it
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  load(image, name).catch(() => image.remove());
  return image;
}

async function load(image, name) {
  // Fetched, not linked: an image element sends no token. A name that is no Unicode has no address, and throws.
  const response = await ask(`v1/gallery/images/${name.split("/").map(encodeURIComponent).join("/")}`);
  image.src = URL.createObjectURL(await response.blob());
}

part.file.addEventListener("change", () => look(part.file.files[0]));
part.file.addEventListener("click", () => { part.file.value = ""; }); // the same file again is a change, too
part.k.addEventListener("change", () => look(last));
part.threshold.addEventListener("change", () => { if (entries.length) draw(); });
part.preview.addEventListener("load", () => { part.preview.hidden = false; URL.revokeObjectURL(part.preview.src); });
part.preview.addEventListener("error", () => { part.preview.hidden = true; });
part.access.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", part.token.value.trim());
  starting = start();
});
document.addEventListener("paste", (event) => look(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => { event.preventDefault(); part.drop.classList.add("over"); });
document.addEventListener("dragleave", () => part.drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  part.drop.classList.remove("over");
  look(event.dataTransfer.files[0]);
});
let starting = start();
