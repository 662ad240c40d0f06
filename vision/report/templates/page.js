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
