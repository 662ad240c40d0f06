"use strict";

for (const chart of document.querySelectorAll("[data-chart]")) {
  const data = JSON.parse(chart.querySelector('script[type="application/json"]').textContent);
  const area = chart.querySelector(".area");
  const cursor = chart.querySelector(".cursor");
  const readout = chart.querySelector(".readout");
  const resting = readout.textContent;
  const longest = data.lines.reduce((a, b) => (b.x.length > a.x.length ? b : a));
  let log = false;
  let at = null;

  // Index of the point of a line that is nearest to x; its points are in ascending order.
  function nearest(xs, x) {
    let low = 0, high = xs.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
  }

  function write(value, line) {
    if (value === null || value === undefined) return "not finite";
    if (line.share) return (100 * value).toFixed(2) + "%";
    if (Number.isInteger(value) && Math.abs(value) < 1e9) return value.toLocaleString("en-US");
    return String(Number(value.toPrecision(4)));
  }

  function height(value) {
    const [low, high] = data.y[log ? 1 : 0];
    if (value === null || (log && value <= 0)) return null;
    return log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  }

  function show(x) {
    at = x;
    const [low, high] = data.x;
    const texts = [], dots = [];
    data.lines.forEach((line, i) => {
      const j = nearest(line.x, x);
      if (Math.abs(line.x[j] - x) > (high - low) / 50) return;
      const where = line.x[j] === x ? "" : ` (at ${write(line.x[j], {})})`;
      const mean = line.window ? `, mean of ${line.window}: ${write(line.y[j], line)}` : "";
      texts.push(`${line.name} ${write((line.raw || line.y)[j], line)}${mean}${where}`);
      const up = height(line.y[j]);
      if (up !== null) {
        const dot = document.createElement("span");
        dot.className = "c" + (i % 6);
        dot.style.bottom = 100 * up + "%";
        dots.push(dot);
      }
    });
    cursor.replaceChildren(...dots);
    cursor.style.left = (100 * (x - low)) / (high - low) + "%";
    cursor.hidden = false;
    readout.textContent = `${data.xLabel} ${write(x, {})}: ${texts.join("; ")}`;
  }

  function rest() {
    at = null;
    cursor.hidden = true;
    readout.textContent = resting;
  }

  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const x = data.x[0] + part * (data.x[1] - data.x[0]);
    show(longest.x[nearest(longest.x, x)]);
  });
  area.addEventListener("pointerleave", rest);
  area.addEventListener("blur", rest);
  area.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
    if (event.key === "Escape") rest();
    if (!(event.key in steps)) return;
    event.preventDefault();
    const last = longest.x.length - 1;
    const from = at === null ? last : nearest(longest.x, at);
    show(longest.x[Math.min(last, Math.max(0, from + (at === null ? 0 : steps[event.key])))]);
  });

  const button = chart.querySelector(".switch");
  if (button) {
    button.addEventListener("click", () => {
      log = !log;
      button.setAttribute("aria-pressed", String(log));
      for (const part of chart.querySelectorAll("svg.linear, .ticks.y.linear")) part.classList.toggle("off", log);
      for (const part of chart.querySelectorAll("svg.log, .ticks.y.log")) part.classList.toggle("off", !log);
      if (at !== null) show(at);
    });
  }
}

// Only what can be scrolled is a stop of the keyboard.
const scrollers = new ResizeObserver((seen) => {
  for (const { target } of seen) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".scroll")) scrollers.observe(box);

for (const button of document.querySelectorAll("[data-open-all]")) {
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Close all" : "Open all";
    for (const part of button.parentElement.querySelectorAll("details")) part.open = open;
  });
}

// Paper cannot be clicked: everything is open while it prints.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of opened) part.open = false;
});

// A click on a heading sorts a table, a second one the other way; what is missing stays last.
const ABSENT = new Set(["", "-", "–", "nan"]);

function sortKey(cell) {
  const exact = cell.querySelector("data");
  if (exact) return exact.value === "" ? null : Number(exact.value.replace(/inf$/, "Infinity"));
  const text = cell.textContent.trim();
  if (ABSENT.has(text)) return null;
  const value = Number(text.replace(/[,%\s]/g, "").replace(/^−/, "-").replace(/inf$/, "Infinity"));
  return Number.isNaN(value) ? text : value;
}

for (const table of document.querySelectorAll("table[data-sort]")) {
  table.classList.add("sorts");
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keys = new Map(rows.map((row) => [row, sortKey(row.cells[column])]));
      const numeric = [...keys.values()].every((key) => key === null || typeof key === "number");
      const compare = (a, b) =>
        numeric ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      const known = rows.filter((row) => keys.get(row) !== null);
      known.sort((a, b) => (down ? -1 : 1) * compare(keys.get(a), keys.get(b)));
      table.tBodies[0].append(...known, ...rows.filter((row) => keys.get(row) === null));
    });
  });
}

// Cards are chosen by facets and by bounds of their score, in percent.
for (const box of document.querySelectorAll("[data-filter]")) {
  const controls = box.querySelector(".filters");
  const choices = [...controls.querySelectorAll("select")];
  const [from, to] = ["[data-from]", "[data-to]"].map((name) => controls.querySelector(name));
  const cards = [...box.querySelectorAll(".gallery > figure")];
  const count = controls.querySelector("output");

  // An option may stand for several values: those of a block of classes.
  function allowed(choice) {
    if (choice.selectedIndex <= 0) return null;
    const option = choice.selectedOptions[0];
    return new Set(option.dataset.values ? JSON.parse(option.dataset.values) : [option.value]);
  }

  function bound(input, otherwise) {
    return !input || input.value === "" ? otherwise : Number(input.value) / 100;
  }

  function apply() {
    const wanted = choices.map((choice) => [`f${choice.dataset.facet}`, allowed(choice)]);
    const [low, high] = [bound(from, -Infinity), bound(to, Infinity)];
    const bounded = low !== -Infinity || high !== Infinity;
    let shown = 0;
    for (const card of cards) {
      const score = "score" in card.dataset ? Number(card.dataset.score) : null;
      const fits = wanted.every(([name, values]) => !values || values.has(card.dataset[name]))
        && (!bounded || (score !== null && score >= low && score <= high));
      card.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === cards.length
      ? `${shown.toLocaleString("en-US")} shown`
      : `${shown.toLocaleString("en-US")} of ${cards.length.toLocaleString("en-US")} shown`;
    box.querySelector("[data-none]").hidden = shown > 0;
  }

  function reset() {
    for (const choice of choices) choice.selectedIndex = 0;
    for (const input of [from, to]) if (input) input.value = "";
    apply();
  }

  // Chooses one value of a facet, or several under a name of their own.
  function choose(name, label, values) {
    const choice = choices.find((each) => each.dataset.name === name);
    if (!choice) return;
    let option = [...choice.options].slice(1).find(
      (each) => (values.length === 1 && !each.dataset.values ? each.value === values[0] : each.label === label));
    if (!option) {
      option = new Option(label, label);
      option.dataset.values = JSON.stringify(values);
      choice.append(option);
    }
    option.selected = true;
  }

  controls.hidden = cards.length < 2;
  controls.addEventListener("input", apply);
  controls.querySelector("[data-reset]").addEventListener("click", reset);
  box.choose = (wanted) => {
    reset();
    for (const [name, label, values] of wanted) choose(name, label, values);
    apply();
  };
}

// A cell of a confusion matrix leads to the pictures of its pair; arrows go from cell to cell.
for (const table of document.querySelectorAll("table[data-matrix]")) {
  const gallery = table.closest("section").querySelector('[data-filter="mistakes"]');
  if (!gallery) continue;
  const { names, size } = JSON.parse(
    table.closest(".card").querySelector('script[type="application/json"]').textContent);
  const cells = [...table.querySelectorAll("td[data-pair]")];
  if (!cells.length) continue;
  table.setAttribute("role", "grid");
  table.classList.add("picks");
  for (const cell of cells) cell.tabIndex = -1;
  cells[0].tabIndex = 0;

  function block(i) {
    const values = names.slice(i * size, (i + 1) * size);
    return [values.length > 1 ? `classes ${i * size} to ${i * size + values.length - 1}` : values[0], values];
  }

  function pick(cell) {
    const [row, column] = cell.dataset.pair.split(" ").map(Number);
    gallery.choose([["true", ...block(row)], ["predicted", ...block(column)]]);
    const heading = gallery.parentElement.querySelector("h3");
    heading.scrollIntoView({ block: "start" });
    heading.focus({ preventScroll: true });
  }

  function move(cell, key) {
    const [row, column] = cell.dataset.pair.split(" ").map(Number);
    let best = null;
    for (const other of cells) {
      const [r, c] = other.dataset.pair.split(" ").map(Number);
      const [along, aside] = key === "ArrowLeft" || key === "ArrowRight" ? [c - column, r - row] : [r - row, c - column];
      const ahead = key === "ArrowLeft" || key === "ArrowUp" ? -along : along;
      if (ahead <= 0) continue;
      const cost = Math.abs(aside) * 1000 + ahead;
      if (best === null || cost < best.cost) best = { cost, other };
    }
    if (!best) return;
    cell.tabIndex = -1;
    best.other.tabIndex = 0;
    best.other.focus();
  }

  table.addEventListener("click", (event) => {
    const cell = event.target.closest("td[data-pair]");
    if (cell) pick(cell);
  });
  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td[data-pair]");
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") pick(cell);
    else if (event.key.startsWith("Arrow")) move(cell, event.key);
    else return;
    event.preventDefault();
  });
}
