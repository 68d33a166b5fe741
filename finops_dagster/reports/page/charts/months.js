/* Charts of months: the bill's, the small multiples, percentages. */

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
function monthsChart(width, series, unit) {
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
  const right = 16 + Math.max(0, ...series.map(({ name }) => textWidth(name, 600)));
  const left = marginOf(y, unit);
  const height = tall(300, 212);
  const band = (width - left - right) / (months.length + 0.28);
  const inset = Math.max(0, (band * 0.72 - 72) / 2);
  const near = (m) => (choice.month - m) % Math.ceil(30 / band) === 0;
  const isHatched = (m) => bill.month_states[m] === "in progress";
  return plot(width, {
    height,
    marginLeft: left,
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
        fill: ({ m, s }) => (isHatched(m) ? hatch(series[s].colour) : SERIES[series[s].colour]),
        stroke: ({ m, s }) => (isHatched(m) ? SERIES[series[s].colour] : "var(--paper)"),
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
    fill: ({ s }) => `var(--series-text-${series[s].colour + 1})`,
    fontWeight: 600,
  });
}

/** Draw one of several multiples of months, all on the scale `y`. */
function multipleChart(width, amounts, y, unit) {
  const months = d3.range(bill.months.length);
  const colour = (m) =>
    bill.month_states[m] === "in progress"
      ? hatch(0)
      : m === choice.month
        ? "var(--series-1)"
        : "var(--past)";
  return plot(width, {
    height: 130,
    marginLeft: marginOf(y, unit),
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
