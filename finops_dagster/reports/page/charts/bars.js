/* Charts of bars and steps: what moved, what was restated, what was saved. */

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
function versionsChart(width, points, unit) {
  const values = points.map(({ amount }) => drawn(amount));
  const [low, high] = d3.extent(values);
  const pad = (high - low || 1) * 0.25;
  const y = [low - pad, high + pad];
  const ticks = ticksOf(y);
  const steps = points.flatMap((_, n) => [
    [n, values[n]],
    [n + 1, values[n]],
  ]);
  return plot(width, {
    height: 220,
    marginLeft: marginOf(y, unit),
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
