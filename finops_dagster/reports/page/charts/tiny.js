/* Tiny charts in the rows of tables; each repeats what the numbers of its row say. */

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
