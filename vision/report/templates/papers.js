// Cards are chosen by words, a tag and an outcome.
for (const box of document.querySelectorAll("[data-papers]")) {
  const controls = box.querySelector(".filters");
  const search = controls.querySelector("[data-words]");
  const [tag, outcome] = ["tag", "outcome"].map((name) => controls.querySelector(`[data-by="${name}"]`));
  const count = controls.querySelector("output");
  const cards = [...box.querySelectorAll("article")];
  const buttons = [...box.querySelectorAll("[data-tag]")];

  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const fits = words.every((word) => card.dataset.words.includes(word))
        && (!tag.value || card.dataset.tags.split(" ").includes(tag.value))
        && (!outcome.value || card.dataset.outcome === outcome.value);
      card.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === cards.length ? `${shown} papers` : `${shown} of ${cards.length} papers`;
    box.querySelector("[data-none]").hidden = shown > 0;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.tag === tag.value));
  }

  function reset() {
    search.value = tag.value = outcome.value = "";
    apply();
  }

  controls.hidden = false;
  controls.addEventListener("input", apply);
  controls.querySelector("[data-reset]").addEventListener("click", reset);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      tag.value = tag.value === button.dataset.tag ? "" : button.dataset.tag;
      apply();
      button.scrollIntoView({ block: "nearest" });
    });
  }
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select, textarea")) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && event.target === search) {
      reset();
    }
  });
  // A browser may keep what was chosen before the page was loaded again.
  apply();
}
