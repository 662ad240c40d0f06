"use strict";

const about = JSON.parse(document.querySelector('script[type="application/json"]').textContent);
const at = (id) => document.getElementById(id);
const main = document.querySelector("main");
const FIRST = 6; // captions on the page until more are asked for
let picked = null; // { image: number } or { file: File, url: string }
let running = null;
let shown = null; // the answer on the page
let pinned = null; // the word that stays when the mouse leaves

function make(name, attributes = {}, ...content) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...content);
  return element;
}

function say(text) { at("status").textContent = text; }

function fail(text) {
  at("error").textContent = text;
  at("error").hidden = !text;
}

function busy(on) {
  at("busy").hidden = !on;
  main.setAttribute("aria-busy", String(on));
  // Where nothing is shown yet, empty cards keep its place until the answer is there.
  const list = at("images").querySelector("ol");
  if (!on) for (const each of list.querySelectorAll(".waiting")) each.remove();
  else if (!list.children.length) {
    const card = () => make("li", { class: "waiting", "aria-hidden": "true" }, make("span"), make("i"), make("i"));
    list.append(...Array.from({ length: 12 }, card));
  }
}

const plural = (count, what) => `${count.toLocaleString("en-US")} ${what}${count === 1 ? "" : "s"}`;

// ---- asking the server

async function ask(url, options = {}) {
  running?.abort();
  const own = (running = new AbortController());
  busy(true);
  fail("");
  try {
    const answer = await fetch(url, { ...options, signal: own.signal });
    let body = null;
    try { body = await answer.json(); } catch (error) { if (error.name === "AbortError") throw error; }
    if (!answer.ok || body === null) throw new Error(body?.error ?? `the server answered ${answer.status}`);
    return body;
  } catch (error) {
    if (error.name === "AbortError") return null;
    const lost = error instanceof TypeError;
    fail(lost ? "The server does not answer: does it still run in its terminal?" : `Cannot search: ${error.message}.`);
    say("");
    return null;
  } finally {
    if (running === own) busy(false);
  }
}

async function search() {
  const text = at("text").value.trim();
  if (!text && !picked) return browse(0);
  const k = Number(at("k").value);
  say("Searching…");
  const query = new URLSearchParams({ text, k });
  const answer = await (picked?.file
    ? ask(`/api/search?${query}`, { method: "POST", headers: { "Content-Type": picked.file.type }, body: picked.file })
    : ask("/api/search", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ text, image: picked?.image ?? null, k }),
      }));
  if (answer) show(answer, text);
}

async function browse(start) {
  const answer = await ask(`/api/gallery?start=${start}&count=24`);
  if (!answer) return;
  if (!start) clear();
  const list = at("images").querySelector("ol");
  const first = list.children.length;
  list.append(...answer.images.map((item) => hit(item, null)));
  at("images").querySelector("h2").textContent = "Gallery";
  at("images").querySelector(".note").textContent =
    `${list.children.length.toLocaleString("en-US")} of ${plural(answer.total, "image")}. Click one to search with it.`;
  at("more").hidden = list.children.length >= answer.total;
  if (start) list.children[first]?.querySelector("button").focus();
}

// ---- drawing answers

function clear() {
  shown = null;
  pinned = null;
  say("");
  for (const id of ["images", "captions"]) at(id).querySelector("ol").replaceChildren();
  at("captions").hidden = true;
  for (const id of ["more", "all", "words", "words-note"]) if (at(id)) at(id).hidden = true;
}

function show(answer, text) {
  clear();
  shown = answer;
  const { images, captions, query } = answer;
  say(summary(answer, text));
  const part = at("images");
  part.querySelector("h2").textContent = picked ? (text ? "Images like picture and sentence" : "Images") : "Images";
  part.querySelector(".note").textContent = scale(images, picked && text ? "mean of both scores" : "score");
  part.querySelector("ol").append(...images.results.map((item) => hit(item, images)));
  if (!images.results.length) part.querySelector(".note").textContent = "There is no other image in this gallery.";
  at("captions").hidden = !captions;
  if (captions) {
    at("captions").querySelector(".note").textContent = scale(captions, "score");
    const lines = captions.results.map((item) => line(item, captions));
    lines.forEach((each, i) => { each.hidden = i >= FIRST; });
    at("captions").querySelector("ol").append(...lines);
    at("all").hidden = lines.length <= FIRST;
    at("all").textContent = `Show all ${lines.length} captions`;
  }
  const spoken = images.results.some((item) => item.match);
  if (at("words") && spoken) {
    at("words").hidden = at("words-note").hidden = false;
    fillWords(at("words").querySelector(".words"), query.words, {
      show: (word) => lightAll(word),
      pin: (word) => { pinned = word; lightAll(word); },
    });
  }
}

function summary({ images, captions, query, ms }, text) {
  const parts = [`${plural(images.results.length, "image")} of ${images.total.toLocaleString("en-US")} in ${ms} ms.`];
  const places = (known) => known.map(({ rank }) => rank.toLocaleString("en-US")).join(", ");
  if (images.known.length) {
    const one = images.known.length === 1;
    parts.push(`The true ${one ? "image" : "images"} of this caption ${one ? "is" : "are"} at rank ${places(images.known)}.`);
  }
  if (captions?.known.length) {
    const one = captions.known.length === 1;
    parts.push(`Its own ${one ? "caption is" : "captions are"} at rank ${places(captions.known)} of ${captions.total.toLocaleString("en-US")}.`);
  }
  if (query.cut) parts.push(`${plural(query.cut, "token")} at the end did not fit and went unread.`);
  const plain = (x) => x.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();
  if (text && plain(query.read_as) !== plain(text)) parts.push(`The model reads “${query.read_as}”.`);
  return parts.join(" ");
}

function scale({ lowest, results }, what) {
  if (!results.length) return "";
  return `Bars: ${what}, from the gallery's lowest (${lowest.toFixed(3)}) to the highest (${results[0].score.toFixed(3)}).`;
}

function score(item, ranking) {
  const highest = ranking.results[0].score;
  const share = highest > ranking.lowest ? (item.score - ranking.lowest) / (highest - ranking.lowest) : 1;
  const length = make("i");
  length.style.width = `${(100 * share).toFixed(1)}%`;
  return make("div", { class: "score" },
    make("span", { class: "rank" }, `${item.rank}.`),
    make("span", { class: "bar", "aria-hidden": "true" }, length),
    make("span", {}, make("span", { class: "value" }, item.score.toFixed(3))));
}

function picture(image, alt) {
  const img = make("img", { src: `/image/${image}`, alt });
  img.addEventListener("load", () => { img.classList.add("there"); img.classList.toggle("small", img.naturalWidth < 160); });
  img.addEventListener("error", () => { img.classList.add("lost"); img.alt = "This image cannot be shown."; });
  return img;
}

function hit(item, ranking) {
  const name = item.captions[0] ?? item.key;
  const button = make("button",
    { type: "button", class: "picture", "aria-label": `Search with image ${item.key}: ${name}`, onclick: () => pickStored(item) },
    picture(item.image, name));
  const card = make("li", { class: item.own ? "hit own" : "hit" }, button);
  if (ranking) card.append(score(item, ranking));
  if (item.own) card.append(make("p", { class: "badge" }, "true image"));
  if (item.captions.length) {
    card.append(make("p", { class: "said", title: item.captions.join("\n") }, name));
    if (item.captions.length > 1) card.append(make("p", { class: "key" }, `and ${plural(item.captions.length - 1, "caption")} more`));
  }
  card.append(make("p", { class: "key" }, item.key));
  if (item.match) {
    const text = at("text").value.trim();
    const open = () => openMatch({ src: `/image/${item.image}`, name, text, words: shown.query.words, match: item.match });
    card.append(make("p", { class: "foot" }, make("button", { type: "button", class: "look", onclick: open, "aria-label": `Patches and words of image ${item.rank}` }, "Patches")));
    card.match = item.match;
  }
  return card;
}

function line(item, ranking) {
  const use = () => { at("text").value = item.text; drop(); search(); };
  const buttons = make("span", {});
  if (item.match) {
    const src = picked.url ?? `/image/${picked.image}`;
    const open = () => openMatch({ src, name: "the picture searched with", text: item.text, words: item.words, match: item.match });
    buttons.append(make("button", { type: "button", class: "look", onclick: open, "aria-label": `Patches and words of caption ${item.rank}` }, "Patches"), " ");
  }
  buttons.append(make("button", { type: "button", class: "use", onclick: use, "aria-label": `Search with caption ${item.rank}` }, "Search"));
  const said = make("p", { class: "said" });
  if (item.own) said.append(make("span", { class: "badge" }, "true caption: "));
  said.append(item.text);
  return make("li", { class: item.own ? "own" : "" }, said, buttons, score(item, ranking));
}

// ---- patches and words

const SVG = "http://www.w3.org/2000/svg";

function canvas() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${about.grid[1]} ${about.grid[0]}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

function cell(svg, patch, kind, inset, opacity) {
  const rect = document.createElementNS(SVG, "rect");
  const [x, y] = [patch % about.grid[1], Math.floor(patch / about.grid[1])];
  for (const [key, value] of [["x", x + inset], ["y", y + inset], ["width", 1 - 2 * inset], ["height", 1 - 2 * inset]]) {
    rect.setAttribute(key, value);
  }
  rect.setAttribute("class", kind);
  if (opacity !== undefined) rect.setAttribute("opacity", opacity.toFixed(3));
  svg.append(rect);
}

// The three best patches of a word are framed; what is no nearer than the median patch is in shade.
function light(holder, cosines, all = cosines) {
  holder.querySelector("svg")?.remove();
  if (!cosines) return;
  const svg = canvas();
  const sorted = [...all].sort((a, b) => a - b);
  const [low, high] = [sorted[sorted.length >> 1], sorted[sorted.length - 1]];
  cosines.forEach((value, patch) => {
    const bright = high > low ? Math.max(0, (value - low) / (high - low)) : 0;
    cell(svg, patch, "shade", 0, 0.68 * (1 - bright));
  });
  const best = [...cosines.keys()].sort((a, b) => cosines[b] - cosines[a] || a - b).slice(0, 3);
  for (const patch of best) {
    cell(svg, patch, "frame under", 0.08);
    cell(svg, patch, "frame", 0.08);
  }
  holder.append(svg);
}

function lightAll(word) {
  const cards = [...at("images").querySelectorAll(".hit")];
  const rows = cards.map((card) => (word === null ? null : card.match?.[word]));
  const all = rows.filter(Boolean).flat();
  cards.forEach((card, i) => light(card.querySelector(".picture"), rows[i], all));
}

function fillWords(holder, words, { show: showWord, pin }) {
  const buttons = words.map((word, i) => {
    const special = /^[[<]/.test(word);
    const button = make("button", { type: "button", "aria-pressed": "false", class: special ? "special" : "" }, word);
    const rest = () => showWord(current());
    button.addEventListener("mouseenter", () => showWord(i));
    button.addEventListener("mouseleave", rest);
    button.addEventListener("focus", () => showWord(i));
    button.addEventListener("blur", rest);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of buttons) other.setAttribute("aria-pressed", String(on && other === button));
      pin(on ? i : null);
    });
    return button;
  });
  const current = () => {
    const place = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
    return place < 0 ? null : place;
  };
  holder.replaceChildren(...buttons);
}

let match = null;

function openMatch(given) {
  match = { ...given, patch: null };
  const dialog = at("match");
  const img = dialog.querySelector("img");
  img.src = given.src;
  img.alt = given.name;
  img.onload = () => img.classList.toggle("small", img.naturalWidth < 400);
  at("match-text").textContent = "Point at a word to see its patches, at a patch to see its word.";
  fillWords(dialog.querySelector(".words"), given.words, { show: showWord, pin: showWord });
  showWord(null);
  dialog.showModal();
}

function readout(text) { at("match").querySelector(".readout").textContent = text; }

function showWord(word) {
  const holder = at("match-picture");
  markNear(null);
  if (word === null) {
    light(holder, null);
    return readout("\u00a0");
  }
  const cosines = match.match[word];
  light(holder, cosines);
  const best = cosines.indexOf(Math.max(...cosines));
  readout(`“${match.words[word]}” is nearest to the patch in ${where(best)}: cosine ${(cosines[best] / 1000).toFixed(3)}`);
}

const where = (patch) => `row ${Math.floor(patch / about.grid[1]) + 1}, column ${(patch % about.grid[1]) + 1}`;

function markNear(word) {
  [...at("match").querySelectorAll(".words button")].forEach((button, i) => button.classList.toggle("near", i === word));
}

function showPatch(patch) {
  const values = match.match.map((cosines) => cosines[patch]);
  const word = values.indexOf(Math.max(...values));
  const cosines = match.match[word];
  const holder = at("match-picture");
  light(holder, cosines);
  const svg = holder.querySelector("svg");
  for (const rect of [...svg.querySelectorAll(".frame")]) rect.remove();
  cell(svg, patch, "chosen under", 0);
  cell(svg, patch, "chosen", 0);
  match.patch = patch;
  markNear(word);
  readout(`The patch in ${where(patch)} is nearest to “${match.words[word]}”: cosine ${(values[word] / 1000).toFixed(3)}`);
}

function patchAt(event) {
  const box = at("match-picture").getBoundingClientRect();
  const part = (value, low, size, count) => Math.min(count - 1, Math.max(0, Math.floor(((value - low) / size) * count)));
  const [rows, columns] = about.grid;
  return part(event.clientY, box.top, box.height, rows) * columns + part(event.clientX, box.left, box.width, columns);
}

if (at("match")) {
  const holder = at("match-picture");
  holder.addEventListener("pointermove", (event) => showPatch(patchAt(event)));
  holder.addEventListener("pointerdown", (event) => showPatch(patchAt(event)));
  holder.addEventListener("keydown", (event) => {
    const [rows, columns] = about.grid;
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    const from = match.patch ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    const row = Math.min(rows - 1, Math.max(0, Math.floor(from / columns) + move[0]));
    const column = Math.min(columns - 1, Math.max(0, (from % columns) + move[1]));
    showPatch(row * columns + column);
  });
  at("close").addEventListener("click", () => at("match").close());
  at("match").addEventListener("click", (event) => { if (event.target === at("match")) at("match").close(); });
}

// ---- choosing a picture

function drop() {
  if (picked?.url) URL.revokeObjectURL(picked.url);
  picked = null;
  at("file").value = "";
  at("picked").hidden = true;
  at("hint").hidden = false;
}

function pick(choice, src, name) {
  drop();
  picked = choice;
  at("picked-image").src = src;
  at("picked-name").textContent = name;
  at("picked").hidden = false;
  at("hint").hidden = true;
  search();
}

function pickStored(item) {
  at("text").value = "";
  pick({ image: item.image }, `/image/${item.image}`, item.key);
  scrollTo({ top: 0 });
}

function pickFile(file) {
  if (!["image/jpeg", "image/png"].includes(file.type)) return fail(`${file.name} is neither a JPEG nor a PNG file.`);
  if (file.size > about.limits.upload) {
    return fail(`${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MiB; at most ${about.limits.upload / 2 ** 20} MiB are taken.`);
  }
  const url = URL.createObjectURL(file);
  at("text").value = "";
  pick({ file, url }, url, file.name);
}

at("file").addEventListener("change", (event) => { if (event.target.files.length) pickFile(event.target.files[0]); });
at("remove").addEventListener("click", () => { drop(); at("text").focus(); search(); });
at("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
at("k").addEventListener("change", () => { if (shown) search(); });
at("all").addEventListener("click", () => {
  const lines = [...at("captions").querySelectorAll("li")];
  for (const each of lines) each.hidden = false;
  at("all").hidden = true;
  lines[FIRST].querySelector("button").focus();
});
at("more").addEventListener("click", () => browse(at("images").querySelectorAll(".hit").length));
for (const button of document.querySelectorAll(".example")) {
  button.addEventListener("click", () => { at("text").value = button.textContent; drop(); search(); });
}
browse(0);
