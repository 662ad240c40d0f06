"use strict";
const about = JSON.parse(document.querySelector('script[type="application/json"]').textContent);
const at = (id) => document.getElementById(id);
let file = null;
let shown = 0; // which picture is under way: answers to earlier ones are dropped

at("curl").textContent = at("curl").textContent.replace("ADDRESS", location.origin);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function fail(message) {
  at("error").textContent = message;
  at("error").hidden = !message;
  if (message) at("status").textContent = "";
}

async function ask(path, body) {
  let answer;
  try {
    const headers = { "Content-Type": body.type.startsWith("image/") ? body.type : "application/octet-stream" };
    answer = await fetch(path, { method: "POST", headers, body });
  } catch {
    throw new Error("The server does not answer: it was ended, or this machine sleeps.");
  }
  const found = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function percent(p) {
  return p > 0 && p < 0.001 ? "< 0.1%" : `${(100 * p).toFixed(1)}%`;
}

function row([name, p]) {
  const length = make("i");
  length.style.width = `${(100 * p).toFixed(1)}%`;
  let title = name;
  if (about.maps) {
    title = make("button", { type: "button", "aria-pressed": "false" }, name);
    title.dataset.name = name;
    title.addEventListener("click", () => where(name));
  }
  return make("tr", {},
    make("th", { scope: "row" }, title),
    make("td", { class: "n" }, percent(p)),
    make("td", {}, make("span", { class: "bar", "aria-hidden": "true" }, length)));
}

async function look(chosen) {
  if (chosen.size > about.limits.upload) {
    fail(`${chosen.name || "The picture"} has ${(chosen.size / 2 ** 20).toFixed(1)} MiB; a picture has at most ${about.limits.upload / 2 ** 20}.`);
    return;
  }
  file = chosen;
  const number = ++shown;
  fail("");
  at("status").textContent = "Asking the model …";
  at("answer").setAttribute("aria-busy", "true");
  try {
    const said = await ask(`/api/predict?top=${about.top}`, file);
    if (number !== shown) return;
    list(said);
    const name = file.name || "the picture";
    at("status").textContent = `${name}: answered in ${said.ms} ms.`;
    clear();
    const url = URL.createObjectURL(file);
    at("seen").onload = () => URL.revokeObjectURL(url);
    at("seen").src = url;
    at("seen").alt = name;
    at("answer").hidden = false;
    if (about.maps) await where(null, number);
  } catch (error) {
    if (number === shown) fail(error.message);
  } finally {
    if (number === shown) at("answer").setAttribute("aria-busy", "false");
  }
}

function list(said) {
  const rows = Object.entries(said.probabilities);
  at("classes").replaceChildren(...rows.map(row));
  at("all").hidden = rows.length >= about.count;
}

function clear() {
  at("heat").width = 0;
  at("where").textContent = "";
}

async function where(name, number = shown) {
  try {
    const path = name === null ? "/api/explain" : `/api/explain?class=${encodeURIComponent(name)}`;
    const found = await ask(path, file);
    if (number !== shown) return;
    for (const button of at("classes").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.name === found.class));
    }
    at("seen").onload = null;
    at("seen").src = found.image;
    at("seen").classList.toggle("small", found.width < 160);
    await paint(found);
    at("where").textContent = `Red: where the evidence for “${found.class}” (${percent(found.probability)}) lies, in the part of the picture that the model reads.`;
  } catch (error) {
    if (number === shown) fail(error.message);
  }
}

async function paint(found) {
  const heat = new Image();
  heat.src = found.heat;
  await heat.decode();
  const canvas = at("heat");
  canvas.width = found.width;
  canvas.height = found.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(heat, 0, 0);
  const pixels = context.getImageData(0, 0, found.width, found.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    pixels.data.set([255, 32, 0, pixels.data[i]], i);
  }
  context.putImageData(pixels, 0, 0);
  fade();
}

function fade() {
  at("heat").style.opacity = at("strength").value / 100;
}

if (about.maps) at("strength").addEventListener("input", fade);

at("all").addEventListener("click", async () => {
  const number = shown;
  try {
    const said = await ask("/api/predict?top=all", file);
    if (number === shown) list(said);
  } catch (error) {
    if (number === shown) fail(error.message);
  }
});

at("file").addEventListener("change", () => {
  const [chosen] = at("file").files;
  at("file").value = "";
  if (chosen) look(chosen);
});
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", type === "dragenter" || type === "dragover");
    if (type !== "drop") return;
    const files = [...event.dataTransfer.files];
    if (files.length > 1) fail("One picture at a time.");
    else if (files.length) look(files[0]);
  });
}
document.addEventListener("paste", (event) => {
  const pasted = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
  if (pasted) look(pasted);
});
