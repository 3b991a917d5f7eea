"use strict";
// Sort a table by a click on the head of a column, and leave out rows that do not have the words asked for.

const value = cell => parseFloat(cell.textContent.replaceAll(",", "").trim());

for (const table of document.querySelectorAll("main table:not(.confusion)")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (heads.length < 3 || body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows], numbers = rows.some(row => !isNaN(value(row.cells[column])));
      const sorted = head.getAttribute("aria-sort"), down = sorted ? sorted === "ascending" : numbers; // of numbers the largest first
      rows.sort((one, other) => {
        const [a, b] = [one.cells[column], other.cells[column]];
        if (!numbers) return (down ? -1 : 1) * a.textContent.localeCompare(b.textContent);
        if (isNaN(value(a)) || isNaN(value(b))) return isNaN(value(a)) - isNaN(value(b)); // what is none comes last
        return (down ? -1 : 1) * (value(a) - value(b));
      });
      heads.forEach(one => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}

const sections = [...document.querySelectorAll("main section section")].map(section => [
  section,
  [...section.querySelectorAll(":scope > .scroll > table > tbody > tr, .dots > .row, :scope > details.run")],
]).filter(([, rows]) => rows.length);

if (sections.length) {
  const field = document.createElement("input"), label = document.createElement("label"), box = document.createElement("p");
  field.type = "search";
  label.append("Show only what has ", field);
  box.className = "find";
  box.append(label);
  document.querySelector("main").prepend(box);
  const named = one => [...one.children].filter(child => /^(H[1-6]|SUMMARY)$/.test(child.tagName));
  const words = (row, section) => [
    ...(row.matches("details") ? named(row) : [row]), ...named(section), ...named(section.parentElement),
  ].map(one => one.textContent).join(" ").toLowerCase();
  field.addEventListener("input", () => {
    const wanted = field.value.toLowerCase().split(/\s+/);
    for (const [section, rows] of sections) {
      for (const row of rows) row.hidden = !wanted.every(word => words(row, section).includes(word));
      section.hidden = rows.every(row => row.hidden);
    }
    for (const parent of new Set(sections.map(([section]) => section.parentElement)))
      parent.hidden = ![...parent.querySelectorAll(":scope > section")].some(one => !one.hidden);
  });
}
