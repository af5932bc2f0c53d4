"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLUMNS = ["Verdict", "Missing", "CPUs", "Kernel", "Machine", "Host", "Mechanism", "Cause", "Certainty", "Crashed", "Dump"];
  const PATH = 10, ANSWER = 11, NEW = 12, REPORT = 13, AT_ONCE = 200;
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const size = (bytes) => {
    let unit = 0;
    while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
    return (unit && bytes < 9.95 ? bytes.toFixed(1) : Math.round(bytes)) + " " + units[unit];
  };
  const text = (row, column) => {
    const value = row[column];
    if (column === 0) return data.verdicts[value];
    if (column === 1) return value ? size(value) : "";
    if (column > 2 && column < 9) return data.names[value];
    if (column === 9) return value === null ? "" : new Date(value * 1000).toISOString().slice(0, 19).replace("T", " ");
    return String(value);
  };
  const words = data.rows.map((row) => COLUMNS.map((_, column) => text(row, column)).concat(row[ANSWER]).join("\n").toLowerCase());
  const head = document.querySelector("#rows thead tr"), body = document.querySelector("#rows tbody");
  const filter = document.getElementById("filter"), shown = document.getElementById("shown"), more = document.getElementById("more");
  let sorted = -1, falling = false, limit = AT_ONCE;

  const compare = (left, right) => {
    const a = data.rows[left], b = data.rows[right];
    const numeric = sorted < 2 || sorted === 9;
    const x = numeric ? a[sorted] : text(a, sorted), y = numeric ? b[sorted] : text(b, sorted);
    const order = x < y ? -1 : x > y ? 1 : left - right;
    return falling ? -order : order;
  };
  const cell = (row, content, className) => {
    const made = row.insertCell();
    if (className) made.className = className;
    made.append(content);
    return made;
  };
  const draw = () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (let index = 0; index < data.rows.length; index += 1) {
      if (wanted.every((word) => words[index].includes(word))) found.push(index);
    }
    if (sorted >= 0) found.sort(compare);
    body.replaceChildren();
    for (const index of found.slice(0, limit)) {
      const row = data.rows[index], line = body.insertRow();
      for (let column = 0; column < PATH; column += 1) {
        cell(line, text(row, column), column === 0 ? "v" + row[0] : "");
      }
      const name = document.createElement(row[REPORT] ? "a" : "code");
      if (row[REPORT]) name.href = row[REPORT];
      name.textContent = row[PATH];
      const place = cell(line, name, "path");
      if (row[NEW]) place.append(" (new)");
      if (row[ANSWER]) {
        const note = document.createElement("small");
        note.textContent = row[ANSWER];
        place.append(note);
      }
    }
    shown.textContent = found.length === data.rows.length ? data.rows.length + " dumps" : found.length + " of " + data.rows.length + " dumps";
    more.hidden = found.length <= limit;
  };
  COLUMNS.forEach((name, column) => {
    const made = document.createElement("th"), button = document.createElement("button");
    made.scope = "col";
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => {
      falling = sorted === column ? !falling : column === 1 || column === 9;
      sorted = column;
      for (const other of head.children) other.removeAttribute("aria-sort");
      made.setAttribute("aria-sort", falling ? "descending" : "ascending");
      draw();
    });
    made.append(button);
    head.append(made);
  });
  filter.addEventListener("input", () => { limit = AT_ONCE; draw(); });
  more.addEventListener("click", () => { limit += 5 * AT_ONCE; draw(); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== filter) { event.preventDefault(); filter.focus(); }
    if (event.key === "Escape" && document.activeElement === filter) { filter.value = ""; draw(); }
  });
  draw();
})();
