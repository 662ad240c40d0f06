
// Points lie in the order of the tree: those below a node are data.start[node] and the next
// data.count[node] ones, so that sums over a node are differences of running sums.
(() => {
  const at = (id) => document.getElementById(id);
  const box = at("treemap");
  const data = JSON.parse(document.querySelector('.dendromap script[type="application/json"]').textContent);
  const total = data.keys.length;
  const top = 2 * data.leaves - 2;
  const last = (node) => data.start[node] + data.count[node];
  const name = (label) => (label < 0 ? "no class" : data.names[label] ?? String(label));
  const write = (value) => value.toLocaleString("en-US");
  const parents = new Int32Array(top + 1).fill(-1);
  data.children.forEach((pair, i) => pair.forEach((child) => { parents[child] = data.leaves + i; }));

  // Points without a class (-1) are neither right nor wrong, and no class of their own.
  const wrong = new Int32Array(total + 1), labelled = new Int32Array(total + 1);
  for (let i = 0; i < total; i++) {
    const has = data.labels !== null && data.labels[i] >= 0;
    labelled[i + 1] = labelled[i] + has;
    wrong[i + 1] = wrong[i] + (has && data.predictions !== null && data.predictions[i] !== data.labels[i]);
  }
  const errors = (node) => wrong[last(node)] - wrong[data.start[node]];
  const known = (node) => labelled[last(node)] - labelled[data.start[node]];
  const LABEL_PX = 19, FRAME_PX = 6;  // as in the style
  let root = top;
  let hits = null;  // running sum of what was found

  function cut() {
    const k = Number(at("cells").value), by = at("by").value, open = [root], done = [];
    const inner = (node) => (node < data.leaves ? 0 : data.distance[node - data.leaves]);
    const rank = { breadth: () => 0, min_merging_distance: inner, max_node_count: (node) => data.count[node] }[by];
    while (open.length && open.length + done.length < k) {
      let best = 0;
      for (let i = 1; i < open.length; i++) if (rank(open[i]) > rank(open[best])) best = i;
      const [node] = open.splice(best, 1);
      if (node < data.leaves) done.push(node);
      else open.push(...data.children[node - data.leaves]);
    }
    return new Set([...open, ...done]);
  }

  function place(nodes) {
    const found = [], waiting = [[root, 0, 0, box.clientWidth, box.clientHeight]];
    while (waiting.length) {
      const [node, x, y, w, h] = waiting.pop();
      if (nodes.has(node)) { found.push([node, x, y, w, h]); continue; }
      const [a, b] = data.children[node - data.leaves];
      const part = data.count[a] / data.count[node];
      if (w >= h) waiting.push([a, x, y, w * part, h], [b, x + w * part, y, w * (1 - part), h]);
      else waiting.push([a, x, y, w, h * part], [b, x, y + h * part, w, h * (1 - part)]);
    }
    return found;
  }

  // First place among the thumbnails that is not before a point.
  function firstSample(point) {
    let low = 0, high = data.sample.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (data.sample[middle] < point) low = middle + 1; else high = middle;
    }
    return low;
  }

  // How many thumbnails stand in each row of a box so that they fill it with one shape, near to a
  // square: a row of fewer is a higher row, and even rows are preferred.
  function rowsOf(count, w, h) {
    let best = { cost: Infinity };
    for (let rows = 1; rows <= count; rows++) {
      const few = Math.floor(count / rows), more = count % rows;
      const aspect = (w / h) * (more / (few + 1) + (rows - more) / few);
      const cost = Math.abs(Math.log(aspect)) + (more ? 0.2 : 0);
      if (cost < best.cost) best = { cost, aspect, rows, few, more };
    }
    return [best.aspect, Array.from({ length: best.rows }, (_, i) => best.few + (i < best.more))];
  }

  // A thumbnail of w x h pixels, cut to that shape at its centre.
  function thumb(i, w, h) {
    const span = document.createElement("span");
    const inside = i % data.perSheet, point = data.sample[i], side = Math.max(w, h);
    span.className = `thumb sheet${Math.floor(i / data.perSheet)}`;
    const left = side * (inside % data.columns) + (side - w) / 2;
    const above = side * Math.floor(inside / data.columns) + (side - h) / 2;
    span.style.cssText = `width:${w}px;height:${h}px;background-size:${side * data.columns}px auto;`
      + `background-position:${-left}px ${-above}px`;
    span.title = said(point);
    if (wrong[point + 1] > wrong[point]) span.classList.add("mistake");
    return span;
  }

  // Thumbnails of the samples in [from, to) that fill a box, but for a frame of its colour.
  function fill(from, to, w, h) {
    if (w < 12 || h < 12 || to <= from) return null;
    const room = Math.max(1, Math.floor(w / data.side) * Math.floor(h / data.side));
    const shown = Math.min(room, to - from);
    const grid = document.createElement("span");
    grid.className = "grid";
    const [aspect, rows] = rowsOf(shown, w, h);
    // Ends in whole pixels, so that no seam shows.
    let i = 0, below = 0;
    for (const count of rows) {
      const top = Math.round(below);
      below += w / count / aspect;
      const high = Math.round(below) - top;
      for (let k = 0; k < count; k++, i++) {
        const wide = Math.round(((k + 1) * w) / count) - Math.round((k * w) / count);
        grid.append(thumb(from + Math.floor((i * (to - from)) / shown), wide, high));
      }
    }
    return grid;
  }

  function said(point) {
    const parts = [data.keys[point]];
    if (data.labels) parts.push(name(data.labels[point]));
    if (data.predictions) parts.push(`predicted ${name(data.predictions[point])}`);
    return parts.join(", ");
  }

  function main(node) {
    if (!data.labels || !known(node)) return null;
    const counts = new Map();
    for (let i = data.start[node]; i < last(node); i++) {
      if (data.labels[i] >= 0) counts.set(data.labels[i], (counts.get(data.labels[i]) ?? 0) + 1);
    }
    return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a));
  }

  // The longest first; a cell shows the first that fits. Each begins the one before, which a cell is called.
  function forms(node) {
    const count = data.count[node], most = main(node);
    const images = `${write(count)} image${count === 1 ? "" : "s"}`;
    const often = most ? `, most often ${name(most[0])} (${Math.round((100 * most[1]) / known(node))}%)` : "";
    const wrongs = data.predictions ? `, ${write(errors(node))} wrong` : "";
    const found = hits ? `, ${write(hits[last(node)] - hits[data.start[node]])} found` : "";
    return [images + often + wrongs + found, images + often, images, write(count), ""];
  }

  const describe = (node) => forms(node)[0];

  const ruler = document.createElement("canvas").getContext("2d");
  function fitting(node, width) {
    const style = getComputedStyle(box);
    ruler.font = `${0.72 * parseFloat(getComputedStyle(document.documentElement).fontSize)}px ${style.fontFamily}`;
    return forms(node).find((text) => ruler.measureText(text).width <= width);
  }

  function colour(node) {
    const shade = at("shade").value;
    if (shade === "error") return `rgb(var(--wrong) / ${Math.min(1, 2 * errors(node) / Math.max(1, known(node))).toFixed(3)})`;
    if (shade !== "class") return "";
    const most = main(node);
    if (!most) return "";
    return `hsl(${(most[0] * 137.508) % 360} 65% 50% / ${(0.2 + 0.7 * most[1] / known(node)).toFixed(3)})`;
  }

  function draw() {
    const cells = place(cut()).map(([node, x, y, w, h]) => {
      const cell = document.createElement("button");
      cell.type = "button";
      cell.className = "cell";
      cell.dataset.node = node;
      cell.style.cssText = `left:${x}px;top:${y}px;width:${w}px;height:${h}px`;
      cell.style.backgroundColor = colour(node);
      cell.title = cell.ariaLabel = describe(node);
      if (hits && hits[last(node)] > hits[data.start[node]]) cell.classList.add("hit");
      const text = h > 24 ? fitting(node, w - 14) : "";
      if (text) {
        const label = document.createElement("span");
        label.className = "label";
        label.textContent = text;
        cell.append(label);
      }
      const over = text ? LABEL_PX : 0, frame = at("shade").value ? FRAME_PX : 0;
      const [from, to] = [firstSample(data.start[node]), firstSample(last(node))];
      const grid = fill(from, to, Math.ceil(w - 2 - 2 * frame), Math.ceil(h - 2 - over - frame));
      if (grid) cell.append(grid);
      return cell;
    });
    box.replaceChildren(...cells);
    box.classList.toggle("shaded", at("shade").value !== "");
    const path = [];
    for (let node = root; node !== -1; node = parents[node]) path.unshift(node);
    const kept = path.length > 8 ? [path[0], ...path.slice(-7)] : path;
    at("path").replaceChildren(...kept.map((node, i) => {
      const step = document.createElement("button");
      step.type = "button";
      step.dataset.node = node;
      step.textContent = i === 0 ? `all ${write(total)}` : write(data.count[node]);
      if (node === root) step.setAttribute("aria-current", "true");
      return step;
    }));
    at("status").textContent = `${cells.length} cells: ${describe(root)}`;
    members();
  }

  function members() {
    const shown = [];
    for (let i = data.start[root]; i < last(root) && shown.length < 200; i++) {
      if (hits && hits[i + 1] === hits[i]) continue;
      const span = document.createElement("span");
      span.textContent = said(i);
      if (wrong[i + 1] > wrong[i]) span.className = "wrong";
      shown.push(span);
    }
    at("members").replaceChildren(...(hits || data.count[root] <= 200 ? shown : []));
  }

  function go(node) {
    root = node;
    draw();
    (box.querySelector("button") ?? box).focus({ preventScroll: true });
  }

  box.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-node]");
    if (cell) go(Number(cell.dataset.node));
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && parents[root] !== -1) go(parents[root]);
  });
  at("path").addEventListener("click", (event) => {
    const step = event.target.closest("[data-node]");
    if (step) go(Number(step.dataset.node));
  });
  at("cells").addEventListener("input", () => {
    at("cells").nextElementSibling.textContent = at("cells").value;
    draw();
  });
  for (const id of ["by", "shade"]) at(id).addEventListener("change", draw);
  at("find").addEventListener("input", () => {
    const text = at("find").value.trim().toLowerCase();
    hits = null;
    if (text) {
      hits = new Int32Array(total + 1);
      for (let i = 0; i < total; i++) {
        const found = data.keys[i].toLowerCase().includes(text) || (data.labels && name(data.labels[i]).toLowerCase() === text);
        hits[i + 1] = hits[i] + (found ? 1 : 0);
      }
    }
    draw();
  });
  at("worst")?.addEventListener("click", () => go(data.worst));
  addEventListener("resize", draw);
  draw();
})();
