"use strict";
(() => {
  const find = document.getElementById("find");
  const shown = document.getElementById("shown");
  const rows = [...document.querySelectorAll("tbody tr")];
  let texts = null;

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const light = document.querySelector("input[name=light]:checked").value;
    // Reading the text of all rows takes a moment, which opening the page need not.
    if (words.length) texts ??= rows.map((row) => row.textContent.toLowerCase());
    let count = 0;
    rows.forEach((row, i) => {
      const found = words.every((word) => texts[i].includes(word));
      if (row.hidden === found) row.hidden = !found;
      if (found && (light === "all" || light === row.dataset.light)) count += 1;
    });
    shown.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown.`;
  }

  document.querySelector(".find").hidden = false;
  document.querySelector(".tools").addEventListener("input", filter);
  document.querySelector(".tools").addEventListener("submit", (event) => event.preventDefault());
  // Going back to the page, a browser may fill in what was chosen before.
  addEventListener("pageshow", filter);
})();
