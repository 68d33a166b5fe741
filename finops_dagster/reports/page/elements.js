/* The parts of a panel. Text of the bill only ever becomes a text node. */

/** Return an element with attributes, listeners (on…), and children: nodes or text. */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(key, value);
    }
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return the mark of a state; its word stands beside it, or in its label. */
function mark(state) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({
    class: "mark",
    width: 12,
    height: 12,
    viewBox: "-6 -6 12 12",
    "aria-hidden": "true",
  }))
    svg.setAttribute(key, value);
  svg.append(
    ...markPaths(state, 5).map((path) => {
      const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
      for (const [key, value] of Object.entries(path)) shape.setAttribute(key, value);
      return shape;
    }),
  );
  return svg;
}

/** Return a state's mark and word; a month without a file has none. */
function stateCell(state) {
  return state ? el("span", { class: "state" }, mark(state), STATES[state] ?? named(state)) : "No file";
}

/** Add a panel: its number, what it answers, a sentence made from the figures, a note. */
function panel(topic, sentence, note, ...rows) {
  const kind = topic.toLowerCase().replaceAll(" ", "-");
  const panels = document.getElementById("panels");
  const number = panels.children.length + 1;
  panels.append(
    el(
      "section",
      { class: `panel ${kind}`, "aria-labelledby": `panel-${number}` },
      el(
        "div",
        { class: "panel-head" },
        el("p", { class: "topic" }, el("b", {}, String(number)), ` ${topic}`),
        el("h2", { id: `panel-${number}` }, sentence),
        note ? el("p", { class: "note" }, note) : null,
      ),
      rows,
    ),
  );
}

const row = (...parts) => el("div", { class: "row" }, parts);
const part = (width, ...children) => el("div", { class: `part w${width}` }, children);

/** Return a table. Columns: [head, class]; rows: arrays of cells, with an optional class. */
function table(caption, columns, rows, attributes = {}) {
  const head = el(
    "tr",
    {},
    columns.map(([text, kind]) =>
      el("th", { scope: "col", class: kind }, text || el("span", { class: "unseen" }, "Drawn")),
    ),
  );
  const body = rows.map((cells) =>
    el(
      "tr",
      { class: cells.kind ?? null },
      cells.map((cell, n) =>
        el(n === 0 ? "th" : "td", { scope: n === 0 ? "row" : null, class: columns[n][1] }, cell),
      ),
    ),
  );
  return el("table", attributes, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, body));
}

const as = (kind, cells) => Object.assign(cells, { kind });

/** Return a name that is cut where its column ends, and whole when pointed at. */
function nameCell(name, second = null) {
  return el(
    "span",
    { class: "name", title: second ? `${name}, ${second}` : name },
    el("bdi", {}, name),
    second ? [" ", el("bdi", { class: "second" }, second)] : null,
  );
}

/** Return a name that leads to another choice. */
function link(name, changes, keep) {
  return el(
    "a",
    { class: "name", title: name, href: addressWith(changes), "data-keep": keep },
    el("bdi", {}, name),
  );
}

/** Return a chart with its title, and a table behind a button where none stands beside it.
 *
 * `draw` gets the width in pixels when the page is laid out, and again whenever that changes.
 */
function figure(title, label, draw, options = {}) {
  const place = el("div", { class: "drawing" });
  const chart = el(
    "figure",
    { class: "chart" },
    el(
      "figcaption",
      {},
      el("span", {}, title),
      options.switch ?? null,
      options.table ? tableButton(title, options.table) : null,
    ),
    options.under ? el("p", { class: "under" }, options.under) : null,
    place,
    options.key ?? null,
    options.table && choice.tables.has(title) ? options.table() : null,
  );
  chart.width = () => Math.floor(place.clientWidth);
  chart.draw = (width) => place.replaceChildren(labelled(draw(width), label));
  return chart;
}

function labelled(drawing, label) {
  const links = drawing.querySelector("a");
  // Plot names each group after its mark, which says nothing to a reader.
  for (const group of drawing.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
  drawing.setAttribute("role", links ? "group" : "img");
  drawing.setAttribute("aria-label", label);
  return drawing;
}

function tableButton(title, make) {
  const button = el(
    "button",
    {
      type: "button",
      class: "link",
      "aria-expanded": String(choice.tables.has(title)),
      "aria-label": `Table: ${title}`,
      "data-keep": `table-${title}`,
    },
    "Table",
  );
  button.addEventListener("click", () => {
    const chart = button.closest("figure");
    const open = !choice.tables.delete(title);
    if (open) choice.tables.add(title);
    button.setAttribute("aria-expanded", String(open));
    if (open) chart.append(make());
    else chart.querySelector("table").remove();
  });
  return button;
}

/** Return a row's tiny drawing, which repeats what the row's numbers say. */
function tiny(drawing) {
  drawing.setAttribute("aria-hidden", "true");
  return drawing;
}

/** Return the rows that fit, and one more for the others. */
function cut(list, most) {
  return list.length > most + 1 ? [list.slice(0, most), list.slice(most)] : [list, []];
}
