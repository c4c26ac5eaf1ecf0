// Tables sort on a click, or on Enter, of a header; alternatives become tabs. Without this script
// everything is still there to be read.
"use strict";

function value(row, column) {
  const cell = row.cells[column];
  const number = cell.dataset.sort;
  return number === undefined ? cell.textContent.trim() : Number(number);
}

function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

function sort(table, column) {
  const headers = [...table.tHead.rows[0].cells];
  const ascending = headers[column].getAttribute("aria-sort") !== "ascending";
  const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
  // Places without a number stay at the end, whichever way numbers go.
  const flip = (a, b) => (typeof a === typeof b && !ascending ? -1 : 1);
  rows.sort(([a], [b]) => flip(a, b) * compare(a, b));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  headers.forEach((header, i) => {
    if (i === column) header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    else header.removeAttribute("aria-sort");
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, column));
  });
}

for (const tabs of document.querySelectorAll(".tabs")) {
  const panels = [...tabs.children];
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  const buttons = panels.map((panel, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.id = `${panel.id}-tab`;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", panel.id);
    button.textContent = panel.querySelector(".label").textContent;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", button.id);
    button.addEventListener("click", () => choose(i));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) choose((i + step + panels.length) % panels.length).focus();
    });
    return button;
  });
  function choose(chosen) {
    panels.forEach((panel, i) => {
      panel.hidden = i !== chosen;
      buttons[i].setAttribute("aria-selected", String(i === chosen));
      buttons[i].tabIndex = i === chosen ? 0 : -1;
    });
    return buttons[chosen];
  }
  list.append(...buttons);
  tabs.prepend(list);
  tabs.classList.add("live");
  choose(0);
}
