/* The bill as nested cells. */

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
  const series = (node) => node.ancestors().at(-2).data.colour;
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
