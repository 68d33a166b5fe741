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
  return low === high ? [0, 1] : d3.nice(low, high, 4);
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

/** Return the marks of the states that stand under the months of a chart. */
function stateMarks(months, dy) {
  return ["final", "in progress", "restated", "open"].flatMap((state) =>
    pieces(state).map(({ draw, fill, stroke }) =>
      Plot.dot(
        months.filter((m) => bill.month_states[m] === state),
        {
          x: (m) => m,
          frameAnchor: "bottom",
          dy,
          r: 5,
          fill: fill ?? "none",
          stroke: stroke ?? "none",
          strokeWidth: 1.5,
          symbol: { draw: (path) => draw(path, 5) },
        },
      ),
    ),
  );
}

/** Return the key of the states that the months have. */
function stateKey() {
  const words = { restated: "Restated after it had closed", open: "Over, but not final yet" };
  return el(
    "ul",
    { class: "key" },
    Object.keys(STATES)
      .filter((state) => bill.month_states.includes(state))
      .map((state) => el("li", {}, mark(state), words[state] ?? STATES[state])),
  );
}

/** Draw the months as stacked bars. Series: {name, months: [amount]}, the first at the bottom. */
function monthsChart(width, series) {
  const months = d3.range(bill.months.length);
  const bars = series.flatMap(({ months: amounts }, s) =>
    months.map((m) => ({
      m,
      s,
      value: drawn(amounts[m]),
      text: `${monthAndYear(m)}, ${series[s].name}: ${money(amounts[m])}`,
    })),
  );
  const sum = (m, sign) => d3.sum(bars, (bar) => (bar.m === m && bar.value * sign > 0 ? bar.value : 0));
  const tops = months.map((m) => sum(m, 1));
  const y = domain([...tops, ...months.map((m) => sum(m, -1))]);
  const unit = unitOf(Math.max(...tops, 0));
  const right = 16 + Math.max(...series.map(({ name }) => textWidth(name, 600)));
  const height = tall(300, 212);
  const band = (width - 40 - right) / months.length;
  const inset = Math.max(0, (band * 0.72 - 72) / 2);
  const near = (m) => (choice.month - m) % Math.ceil(30 / band) === 0;
  const isHatched = (m) => bill.month_states[m] === "in progress";
  return plot(width, {
    height,
    marginLeft: 40,
    marginRight: right,
    marginTop: 20,
    marginBottom: 56,
    x: { type: "band", domain: months, padding: 0.28, axis: null },
    y: { domain: y, axis: null },
    marks: [
      grid(y, unit),
      Plot.barY(bars, {
        x: "m",
        y: "value",
        z: "s",
        title: "text",
        insetLeft: inset,
        insetRight: inset,
        fill: ({ m, s }) => (isHatched(m) ? hatch(s) : SERIES[s]),
        stroke: ({ m, s }) => (isHatched(m) ? SERIES[s] : "var(--paper)"),
        strokeWidth: 1,
      }),
      Plot.ruleY([0], { stroke: "var(--axis)" }),
      chosenBold(
        months.filter((m) => band >= 34 || m === choice.month),
        {
          x: (m) => m,
          y: (m) => tops[m],
          dy: -10,
          text: (m) => unit.text(d3.sum(bars, (bar) => (bar.m === m ? bar.value : 0))),
        },
      ),
      endNames(
        series,
        bars.filter((bar) => bar.m === months.length - 1),
        y,
        height - 76,
      ),
      chosenBold(months.filter(near), { x: (m) => m, frameAnchor: "bottom", dy: 16, text: shortMonth }),
      stateMarks(months, 31),
      Plot.text(
        months.filter((m) => m === 0 || (monthNumber(m) === 1 && band * m > 36)),
        {
          x: (m) => m,
          frameAnchor: "bottom",
          dy: 47,
          text: year,
          fill: "var(--second)",
        },
      ),
    ],
  });
}

/** Write a text at months, the chosen one's in bold. */
function chosenBold(months, options) {
  const isChosen = (m) => m === choice.month;
  return [
    Plot.text(
      months.filter((m) => !isChosen(m)),
      { ...options, fill: "var(--second)" },
    ),
    Plot.text(months.filter(isChosen), { ...options, fill: "var(--ink)", fontWeight: 600 }),
  ];
}

/** Name the series at the end of the last bar, each beside its part, none over another. */
function endNames(series, last, y, height) {
  const perPixel = (y[1] - y[0]) / height;
  let [above, below] = [0, 0];
  const places = last
    .map(({ s, value }) => {
      const middle = (value >= 0 ? above : below) + value / 2;
      if (value >= 0) above += value;
      else below += value;
      return { s, middle };
    })
    .sort((a, b) => a.middle - b.middle);
  places.forEach((place, n) => {
    if (n) place.middle = Math.max(place.middle, places[n - 1].middle + 16 * perPixel);
  });
  return Plot.text(places, {
    y: "middle",
    text: ({ s }) => series[s].name,
    textAnchor: "start",
    frameAnchor: "right",
    dx: 8,
    fill: ({ s }) => `var(--series-text-${s + 1})`,
    fontWeight: 600,
  });
}

/** Draw running totals by day. Each: {name, totals: [amount of day 1, …]}; the first is in front. */
function runningChart(width, front, back) {
  const lines = [back, front].filter(Boolean);
  const points = ({ totals }) => totals.map((amount, d) => [d + 1, drawn(amount)]);
  const y = domain(lines.flatMap((line) => points(line).map(([, value]) => value)));
  const unit = unitOf(Math.max(...y.map(Math.abs)));
  const last = Math.max(...lines.map(({ totals }) => totals.length), 28);
  const day = front.totals.length;
  const same = back?.totals[day - 1];
  const isPart = back && day < back.totals.length;
  const point = (totals, d) => [[d, drawn(totals[d - 1])]];
  const label = (at, text, options) =>
    Plot.text(at, { x: "0", y: "1", text: () => text, ...HALO, ...options });
  const higher = same !== undefined && front.totals[day - 1] < same;
  const beside = isPart && day < last - 9 ? { textAnchor: "start", dx: 8 } : { textAnchor: "end", dx: -8 };
  return plot(width, {
    height: Math.max(tall(240, 200), Math.min(420, width * 0.75, 29 * bill.months.length + 24)),
    marginLeft: 40,
    marginRight: 92,
    marginTop: 12,
    marginBottom: 28,
    x: { type: "linear", domain: [1, last], axis: null },
    y: { domain: y, axis: null },
    marks: [
      grid(y, unit),
      Plot.text([1, 8, 16, 24, last], { x: (d) => d, frameAnchor: "bottom", dy: 16, text: String }),
      isPart ? Plot.ruleX([day], { stroke: "var(--axis)", strokeDasharray: "2,2" }) : null,
      back ? Plot.line(points(back), { stroke: "var(--past-line)", strokeWidth: 1.5 }) : null,
      Plot.line(points(front), { stroke: "var(--series-1)", strokeWidth: 2 }),
      Plot.dot(point(front.totals, day), { fill: "var(--series-1)", r: 4 }),
      back ? Plot.dot(point(back.totals, back.totals.length), { fill: "var(--past-line)", r: 3.5 }) : null,
      isPart ? Plot.dot(point(back.totals, day), { fill: "var(--past-line)", r: 3.5 }) : null,
      label(
        point(front.totals, day),
        `${front.name} ${unit.text(drawn(front.totals[day - 1]))}`,
        isPart
          ? {
              textAnchor: "end",
              dx: -8,
              dy: higher ? 16 : -12,
              fill: "var(--series-text-1)",
              fontWeight: 600,
            }
          : {
              textAnchor: "start",
              dx: 8,
              dy: back && !higher ? -8 : 8,
              fill: "var(--series-text-1)",
              fontWeight: 600,
            },
      ),
      isPart
        ? label(point(back.totals, day), `${back.name}, day ${day}: ${unit.text(drawn(same))}`, {
            ...beside,
            dy: higher ? -14 : 16,
            fill: "var(--second)",
          })
        : null,
      back
        ? label(
            point(back.totals, back.totals.length),
            `${back.name} ${unit.text(drawn(back.totals.at(-1)))}`,
            { textAnchor: "start", dx: 8, dy: isPart || higher ? -8 : 8, fill: "var(--second)" },
          )
        : null,
    ],
  });
}

/** Draw a row's months as tiny columns on a scale of their own. */
function tinyMonths(amounts, months) {
  const values = months.map((m) => drawn(amounts[m]));
  const y = domain(values);
  return tiny(
    plot(Math.min(64, 8 * months.length), {
      height: 18,
      x: { type: "band", domain: months, padding: 0.2, axis: null },
      y: { domain: y, axis: null },
      marks: [
        Plot.barY(months, {
          x: (m) => m,
          y: (_, n) => values[n],
          fill: (m) => (m === choice.month ? "var(--series-1)" : "var(--past)"),
        }),
      ],
    }),
  );
}

/** Draw a row's change as a bar to the left or right of zero; `largest` is the scale of all rows. */
function tinyChange(amount, largest) {
  const most = Math.max(drawn(largest), 0.01);
  return tiny(
    plot(84, {
      height: 18,
      marginTop: 4,
      marginBottom: 4,
      x: { domain: [-most, most], axis: null },
      marks: [
        Plot.barX([drawn(amount)], {
          x: (d) => d,
          inset: 0,
          fill: (d) => (d > 0 ? "var(--rise)" : "var(--fall)"),
        }),
        Plot.ruleX([0], { stroke: "var(--axis)" }),
      ],
    }),
  );
}

/** Draw a share from nothing to all, the rest in grey or as an outline. */
function tinyShare(tenths, colour = "var(--series-1)", isOutlined = false) {
  const share = Math.max(0, Math.min(1000, tenths ?? 0));
  return tiny(
    plot(64, {
      height: 18,
      marginTop: 4,
      marginBottom: 4,
      x: { domain: [0, 1000], axis: null },
      marks: [
        Plot.barX([1000], {
          x: (d) => d,
          inset: isOutlined ? 0.5 : 0,
          stroke: isOutlined ? colour : "none",
          fill: isOutlined ? "none" : "var(--grid)",
        }),
        Plot.barX([share], { x: (d) => d, fill: colour }),
      ],
    }),
  );
}

/** Draw the change from one month to another in steps: {name, count, amount, kind}. */
function stepsChart(width, steps, net) {
  let at = 0;
  const bars = steps.map((step) => {
    const from = at;
    at += drawn(step.amount);
    return { ...step, from, to: at };
  });
  bars.push({ name: "Net", from: 0, to: drawn(net), amount: net, kind: "net" });
  const values = bars.flatMap(({ from, to }) => [from, to]);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const colours = { rise: "var(--rise)", fall: "var(--fall)", net: "var(--ink)" };
  const isRight = ({ from, to }) => Math.max(from, to) <= low + (high - low) * 0.72;
  const isLeft = (bar) => !isRight(bar) && Math.min(bar.from, bar.to) > low + (high - low) * 0.28;
  const value = (filter, options) =>
    Plot.text(bars.filter(filter), {
      y: "name",
      text: ({ amount }) => signed(amount),
      fill: "var(--ink)",
      fontWeight: 600,
      ...options,
    });
  return plot(width, {
    height: tall(52, 44) * bars.length,
    marginLeft: 84,
    marginRight: 84,
    marginTop: 0,
    marginBottom: 0,
    x: { domain: low === high ? [0, 1] : [low, high], axis: null },
    y: { type: "band", domain: bars.map(({ name }) => name), padding: 0.5, axis: null },
    marks: [
      Plot.ruleX([0], { stroke: "var(--axis)" }),
      Plot.link(bars.slice(0, -1), {
        x1: "to",
        x2: "to",
        y1: "name",
        y2: (_, n) => bars[n + 1].name,
        stroke: "var(--axis)",
        strokeDasharray: "2,2",
      }),
      Plot.barX(bars, { x1: "from", x2: "to", y: "name", fill: ({ kind }) => colours[kind] }),
      value(isRight, { ...HALO, x: ({ from, to }) => Math.max(from, to), textAnchor: "start", dx: 8 }),
      value(isLeft, { ...HALO, x: ({ from, to }) => Math.min(from, to), textAnchor: "end", dx: -8 }),
      value((bar) => !isRight(bar) && !isLeft(bar), {
        fill: "var(--paper)",
        x: ({ from, to }) => Math.max(from, to),
        textAnchor: "end",
        dx: -8,
      }),
      Plot.text(bars, {
        y: "name",
        frameAnchor: "left",
        dx: -84,
        dy: -8,
        textAnchor: "start",
        text: "name",
        fill: "var(--ink)",
        fontWeight: 600,
      }),
      Plot.text(
        bars.filter(({ count }) => count !== undefined),
        {
          y: "name",
          frameAnchor: "left",
          dx: -84,
          dy: 9,
          textAnchor: "start",
          text: ({ count }) => counted(count, "line"),
        },
      ),
    ],
  });
}

/** Draw a total by version: points {text, amount}; the axis does not start at zero. */
function versionsChart(width, points) {
  const values = points.map(({ amount }) => drawn(amount));
  const [low, high] = d3.extent(values);
  const pad = (high - low || 1) * 0.25;
  const y = [low - pad, high + pad];
  const unit = unitOf(Math.max(...values.map(Math.abs)));
  const ticks = ticksOf(y);
  const steps = points.flatMap((_, n) => [
    [n, values[n]],
    [n + 1, values[n]],
  ]);
  return plot(width, {
    height: 220,
    marginLeft: 64,
    marginRight: 8,
    marginTop: 12,
    marginBottom: 44,
    x: { type: "linear", domain: [0, points.length], axis: null },
    y: { domain: y, axis: null },
    marks: [
      Plot.ruleY(ticks, { stroke: "var(--grid)" }),
      Plot.text(ticks, {
        y: (d) => d,
        frameAnchor: "left",
        dx: -8,
        textAnchor: "end",
        text: unit.ticks(ticks),
      }),
      Plot.line(steps, { stroke: "var(--series-1)", strokeWidth: 2 }),
      pieces("restated").map(({ draw, stroke }) =>
        Plot.dot(points.slice(1), {
          x: (_, n) => n + 1,
          y: (_, n) => values[n + 1],
          stroke,
          strokeWidth: 1.5,
          fill: "var(--paper)",
          symbol: { draw: (path) => draw(path, 6) },
        }),
      ),
      Plot.text(points, {
        x: (_, n) => n + 0.5,
        y: (_, n) => values[n],
        dy: -12,
        fill: "var(--ink)",
        fontWeight: 600,
        text: ({ amount }) => money(amount),
        ...HALO,
      }),
      Plot.text(points, { x: (_, n) => n + 0.5, frameAnchor: "bottom", dy: 18, text: "text" }),
    ],
  });
}

/** Draw usage at three prices: {name, amount, saved: [{text, amount}]}. */
function pricesChart(width, prices) {
  const most = Math.max(
    ...prices.map(({ amount, saved }) => drawn(amount + total(saved.map((s) => s.amount)))),
    0.01,
  );
  const parts = prices.flatMap(({ name, amount, saved, kind }) => {
    let at = drawn(amount);
    const bars = [{ name, from: 0, to: at, fill: kind === "now" ? "var(--series-1)" : "var(--past)" }];
    for (const piece of saved) {
      bars.push({ name, from: at, to: at + drawn(piece.amount), fill: "var(--fall)", saved: piece });
      at += drawn(piece.amount);
    }
    return bars;
  });
  const texts = parts.filter(({ saved }) => saved);
  return plot(width, {
    height: 36 * prices.length,
    marginLeft: 80,
    marginRight: 90,
    x: { domain: [0, most], axis: null },
    y: { type: "band", domain: prices.map(({ name }) => name), padding: 0.3, axis: null },
    marks: [
      Plot.barX(parts, { x1: "from", x2: "to", y: "name", fill: "fill", stroke: "var(--paper)" }),
      Plot.text(texts, {
        x: "from",
        y: "name",
        dx: -8,
        textAnchor: "end",
        text: ({ saved }) => saved.text,
        fill: ({ saved }) => saved.colour,
        fontWeight: 500,
      }),
      Plot.text(prices, {
        y: "name",
        frameAnchor: "left",
        dx: -80,
        textAnchor: "start",
        text: "name",
        fill: "var(--ink)",
        fontWeight: 600,
      }),
      Plot.text(prices, {
        y: "name",
        frameAnchor: "right",
        dx: 90,
        textAnchor: "end",
        text: ({ amount }) => money(amount),
        fill: "var(--ink)",
        fontWeight: 600,
      }),
    ],
  });
}

/** Draw a percentage by month, from zero; null where a month has none. */
function percentChart(width, tenths, most = null) {
  const months = d3.range(bill.months.length);
  const points = months.filter((m) => tenths[m] !== null).map((m) => [m, tenths[m] / 10]);
  const y = most ? [0, most] : domain(points.map(([, value]) => value * 1.1));
  const end = points.filter(([m]) => m === choice.month);
  return plot(width, {
    height: 120,
    marginLeft: 40,
    marginRight: 64,
    marginTop: 12,
    marginBottom: 28,
    x: { type: "linear", domain: [0, Math.max(1, months.length - 1)], axis: null },
    y: { domain: y, axis: null },
    marks: [
      grid(y, unitOf(1)),
      Plot.line(points, { stroke: "var(--series-1)", strokeWidth: 2 }),
      Plot.dot(end, { fill: "var(--series-1)", r: 4 }),
      Plot.text(end, {
        x: "0",
        y: "1",
        text: ([m]) => percent(tenths[m]),
        textAnchor: "start",
        dx: 8,
        dy: -10,
        fill: "var(--series-text-1)",
        fontWeight: 600,
        ...HALO,
      }),
      Plot.text(
        months.filter(
          (m) => (choice.month - m) % Math.ceil((months.length * 40) / Math.max(80, width - 104)) === 0,
        ),
        {
          x: (m) => m,
          frameAnchor: "bottom",
          dy: 16,
          text: shortMonth,
        },
      ),
    ],
  });
}

/** Draw one of several multiples of months, all on the scale `y`. */
function multipleChart(width, amounts, y) {
  const months = d3.range(bill.months.length);
  const unit = unitOf(Math.max(...y.map(Math.abs)));
  const colour = (m) =>
    bill.month_states[m] === "in progress"
      ? hatch(0)
      : m === choice.month
        ? "var(--series-1)"
        : "var(--past)";
  return plot(width, {
    height: 130,
    marginLeft: 52,
    marginRight: 0,
    marginTop: 8,
    marginBottom: 24,
    x: { type: "band", domain: months, padding: 0.2, axis: null },
    y: { domain: y, axis: null },
    marks: [
      grid(y, unit),
      Plot.barY(months, {
        x: (m) => m,
        y: (m) => drawn(amounts[m]),
        fill: colour,
        title: (m) => `${monthAndYear(m)}: ${money(amounts[m])}`,
      }),
      Plot.ruleY([0], { stroke: "var(--axis)" }),
      Plot.text([0], {
        frameAnchor: "bottom-left",
        dy: 20,
        text: (m) => `${shortMonth(m)} ${year(m).slice(2)}`,
      }),
      Plot.text(months.slice(1).slice(-1), {
        frameAnchor: "bottom-right",
        dy: 20,
        text: (m) => `${shortMonth(m)} ${year(m).slice(2)}`,
      }),
    ],
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

/** Draw provider, category and service as nested cells, whose area is the cost.
 *
 * `root` is a tree of {name, value or children, where}; a cell leads to what it holds.
 */
function treeChart(width, root, isChosen) {
  const height = tall(Math.max(320, Math.min(420, width * 0.55)), 260);
  const tree = d3
    .hierarchy(root)
    .sum(({ value }) => value ?? 0)
    .sort((a, b) => b.value - a.value);
  d3
    .treemap()
    .size([width, height])
    .round(true)
    .paddingInner((node) => (node.depth < 2 ? 8 : 2))
    .paddingTop((node) => (node.depth === 1 || node.depth === 2 ? 18 : 0))(tree);
  const nodes = tree.descendants().filter((node) => node.depth > 0);
  const providers = tree.children ?? [];
  const series = (node) => Math.min(providers.indexOf(node.ancestors().at(-2) ?? node), 5);
  const wide = (node) => node.x1 - node.x0;
  const services = nodes.filter((node) => node.depth === 3);
  const fit = (node, text, weight = 400) => fitted(text, wide(node) - 10, weight);
  const high = (node) => node.y1 - node.y0;
  const text = (data, dy, of, options) =>
    Plot.text(data, {
      x: "x0",
      y: "y0",
      dx: 6,
      dy,
      textAnchor: "start",
      text: of,
      pointerEvents: "none",
      ...options,
    });
  return plot(width, {
    height,
    x: { type: "identity", axis: null },
    y: { type: "identity", axis: null },
    marks: [
      Plot.rect(services, {
        x1: "x0",
        x2: "x1",
        y1: "y0",
        y2: "y1",
        fill: (node) => SERIES[series(node)],
        href: (node) => addressWith({ where: node.data.where }),
        title: (node) =>
          `${node
            .ancestors()
            .reverse()
            .slice(1)
            .map(({ data }) => data.name)
            .join(", ")}: ${node.data.text}`,
      }),
      Plot.rect(services.filter(isChosen), {
        x1: "x0",
        x2: "x1",
        y1: "y0",
        y2: "y1",
        inset: 3,
        fill: "none",
        stroke: "var(--paper)",
        strokeWidth: 1.5,
        pointerEvents: "none",
      }),
      text(
        services.filter((node) => high(node) >= 20),
        14,
        (node) => fit(node, node.data.name, 600),
        { fill: (node) => ON_SERIES[series(node)], fontWeight: 600 },
      ),
      text(
        services.filter((node) => high(node) >= 38 && fit(node, node.data.text) === node.data.text),
        30,
        ({ data }) => data.text,
        { fill: (node) => ON_SERIES[series(node)] },
      ),
      text(
        nodes.filter(({ depth }) => depth === 2),
        11,
        (node) => fit(node, node.data.name),
        { dx: 0 },
      ),
      text(
        nodes.filter(({ depth }) => depth === 1),
        9,
        (node) => fit(node, `${node.data.name}  ${node.data.text}`, 600),
        { dx: 0, fill: "var(--ink)", fontWeight: 600 },
      ),
    ],
  });
}
