// What the theme leaves out: its hidden inputs for light and dark are no stops of the keyboard, the
// dialog of the search has a name, and the keyboard scrolls a table that is wider than the page.
for (const input of document.querySelectorAll(".md-option")) input.tabIndex = -1;
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
for (const table of document.querySelectorAll(".md-typeset table")) {
  for (const box of [table, table.closest(".md-typeset__scrollwrap")]) {
    if (box && box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}
