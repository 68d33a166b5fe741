/* The charts, all drawn by Observable Plot. Colours are roles of page.css, so that one drawing
   serves light, dark and print; text keeps its size, as a chart is drawn again for each width. */

const SERIES = [1, 2, 3, 4, 5, 6].map((n) => `var(--series-${n})`);
const ON_SERIES = [1, 2, 3, 4, 5, 6].map((n) => `var(--on-series-${n})`);
const hatch = (s) => `url(#hatch-${s + 1})`;
const HALO = { stroke: "var(--paper)", strokeWidth: 4, paintOrder: "stroke" };

/** Return a height on screen, or on paper, where pages are to be filled. */
const tall = (onScreen, onPaper) =>
  document.documentElement.classList.contains("paper") ? onPaper : onScreen;

function plot(width, options) {
  return Plot.plot({
    width,
    marginLeft: 0,
    marginRight: 0,
    marginTop: 0,
    marginBottom: 0,
    color: { type: "identity" },
    ...options,
    style: { fontSize: "12px", background: "none", color: "var(--second)", overflow: "visible" },
  });
}

/** Return round values of a scale, at most four beside zero. */
function ticksOf([low, high]) {
  return [4, 3, 2, 1].map((count) => d3.ticks(low, high, count)).find((ticks) => ticks.length < 6) ?? [0];
}

/** Return the margin that the values of a scale need at its left. */
function marginOf(scaleY, unit) {
  const ticks = ticksOf(scaleY);
  return Math.ceil(13 + Math.max(14, ...ticks.map((value) => textWidth(unit.ticks(ticks)(value), 400))));
}

/** Return gridlines with their values, behind the marks. */
function grid(scaleY, unit) {
  const ticks = ticksOf(scaleY);
  return [
    Plot.ruleY(ticks, { stroke: (y) => (y === 0 ? "var(--axis)" : "var(--grid)") }),
    Plot.text(ticks, {
      y: (y) => y,
      frameAnchor: "left",
      dx: -8,
      textAnchor: "end",
      text: unit.ticks(ticks),
      fill: "var(--second)",
    }),
  ];
}

const domain = (values, least = 0) => {
  const [low, high] = [Math.min(least, ...values), Math.max(least, ...values)];
  if (low === high) return [0, 1];
  const nice = d3.nice(low, high, 4);
  // A little below zero needs no gridline there.
  return low < 0 && -low < high / 10 ? [low * 1.1, nice[1]] : nice;
};

/** Return the pieces of a state's mark: how each is drawn within a radius, and its colours. */
function pieces(state) {
  const disc = (path, r) => {
    path.moveTo(r, 0);
    path.arc(0, 0, r, 0, 2 * Math.PI);
  };
  if (state === "final") {
    const tick = (path, r) => {
      path.moveTo(-r * 0.45, 0);
      path.lineTo(-r * 0.1, r * 0.38);
      path.lineTo(r * 0.5, -r * 0.35);
    };
    return [
      { draw: disc, fill: "var(--second)" },
      { draw: tick, stroke: "var(--paper)" },
    ];
  }
  if (state === "in progress") {
    const half = (path, r) => {
      path.moveTo(0, -r * 0.9);
      path.arc(0, 0, r * 0.9, -Math.PI / 2, Math.PI / 2);
      path.closePath();
    };
    return [
      { draw: (path, r) => disc(path, r * 0.9), stroke: "var(--series-1)" },
      { draw: half, fill: "var(--series-1)" },
    ];
  }
  if (state === "restated") {
    const diamond = (path, r) => {
      path.moveTo(0, -r);
      path.lineTo(r, 0);
      path.lineTo(0, r);
      path.lineTo(-r, 0);
      path.closePath();
    };
    const cross = (path, r) => {
      path.moveTo(-r * 0.4, 0);
      path.lineTo(r * 0.4, 0);
      path.moveTo(0, -r * 0.4);
      path.lineTo(0, r * 0.4);
    };
    return [
      { draw: diamond, stroke: "var(--rise)" },
      { draw: cross, stroke: "var(--rise)" },
    ];
  }
  return [{ draw: (path, r) => disc(path, r * 0.9), stroke: "var(--second)" }];
}

/** Return a state's mark as attributes of SVG paths. */
function markPaths(state, radius) {
  return pieces(state).map(({ draw, fill, stroke }) => {
    const path = d3.path();
    draw(path, radius);
    return {
      d: String(path),
      style: `fill:${fill ?? "none"};stroke:${stroke ?? "none"}`,
      "stroke-width": 1.5,
    };
  });
}

const pen = document.createElement("canvas").getContext("2d");

function textWidth(text, weight) {
  pen.font = `${weight} 12px Inter, system-ui, sans-serif`;
  return pen.measureText(text).width;
}

/** Return a text cut to a width in pixels; nothing where hardly a letter fits. */
function fitted(text, width, weight) {
  if (textWidth(text, weight) <= width) return text;
  const letters = Array.from(text);
  while (letters.length && textWidth(`${letters.join("")}\u2026`, weight) > width) letters.pop();
  return letters.length < 4 ? "" : `${letters.join("").trimEnd()}\u2026`;
}
