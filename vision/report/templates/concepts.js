// Concepts that are switched off: the answer is what is left of the logits.
for (const box of document.querySelectorAll(".concepts")) {
  const data = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
  const boxes = [...box.querySelectorAll("[data-concept]")];
  const answer = box.querySelector("[data-answer]");

  function update() {
    const logits = data.rest.slice();
    for (const each of boxes) {
      if (each.checked) data.terms[each.dataset.concept].forEach((term, k) => { logits[k] += term; });
    }
    const top = Math.max(...logits);
    const odds = logits.map((x) => Math.exp(x - top));
    const sum = odds.reduce((a, b) => a + b, 0);
    const order = odds.map((x, k) => k).sort((a, b) => odds[b] - odds[a]).slice(0, 3);
    const off = boxes.filter((each) => !each.checked).length;
    answer.textContent = order.map((k) => `${data.classes[k]} ${(100 * odds[k] / sum).toFixed(1)}%`).join(", ")
      + (off ? ` without ${off} concept${off > 1 ? "s" : ""}` : "");
  }

  for (const each of boxes) each.addEventListener("change", update);
  update(); // a browser may remember switches
}
