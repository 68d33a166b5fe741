/* The running total of a month by day, beside that of another. */

/** Draw running totals by day. Each: {name, totals: [amount of day 1, …]}; the first is in front. */
function runningChart(width, front, back, unit) {
  const lines = [back, front].filter(Boolean);
  const points = ({ totals }) => totals.map((amount, d) => [d + 1, drawn(amount)]);
  const y = domain(lines.flatMap((line) => points(line).map(([, value]) => value)));
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
    marginLeft: marginOf(y, unit),
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
