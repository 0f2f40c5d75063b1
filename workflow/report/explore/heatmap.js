// The map of layers and training: a number a color, the chosen row and column in frames.

const HEAT = "Cividis"; // made for the color-blind, and even in grey
const COLOR_BAR = 70; // pixels at the right
const LEAST_FRAME = 11; // pixels: a frame narrower than its own lines would hide what it frames
const ROOM = 0.012; // of the picture; gaps between rows or columns narrower than that would hide their colors

function drawHeatmap(state, line, { colors, key }) {
  const timeline = timelineOf(line.model);
  if (!timeline.length) return sayInstead("heatmap", NO_STEPS, colors);
  const steps = timeline.map((number) => line.model.checkpoints[number].step);
  const x = edgesOf(steps.map(stepPosition)), y = bandsOf(line);
  const traces = remember("heat", key, () => heatTraces(state, line, { x, y, colors }));
  const axis = placeAxis(line.model, line.series.places);
  const layout = layoutOf(colors, { state, range: null, x: { ...stepAxis(steps), range: [x[0], x[x.length - 1]] } });
  layout.margin.r = COLOR_BAR;
  layout.xaxis.showgrid = false;
  layout.yaxis = { ...layout.yaxis, ...axis, type: "linear", title: { text: "layer" }, showgrid: false,
    range: [y[0][0], y[y.length - 1][1]] };
  const row = y[line.series.places.indexOf(line.place)];
  layout.shapes = crossing(x, timeline.indexOf(line.checkpoint), { row, ends: layout.yaxis.range });
  react("heatmap", traces, layout);
}

/** Lower and upper edge of the band of each place: layers are one high, and touch where they follow one another. */
function bandsOf(line) {
  return line.series.places.map((place) => {
    const middle = placePosition(line.model, place, line.model.blocks);
    return [middle - 0.5, middle + 0.5];
  });
}

/** The grid as colors, with a row without numbers in each gap between bands; a cross where a number is missing. */
function heatTraces(state, line, { x, y, colors }) {
  const grid = gridOf(line), edges = [y[0][0]], z = [], text = [], customdata = [];
  const shown = ({ value }) => (state.scale !== "log" ? value : value > 0 ? Math.log10(value) : NaN);
  grid.forEach((row, i) => {
    if (y[i][0] - edges[edges.length - 1] > 1e-9) {
      edges.push(y[i][0]);
      [z, text, customdata].forEach((column) => column.push(row.map(() => null)));
    }
    edges.push(y[i][1]);
    z.push(row.map(({ number }) => (Number.isFinite(shown(number)) ? shown(number) : null)));
    text.push(row.map(hoverText));
    customdata.push(row.map(identityOf));
  });
  const [zmin, zmax] = colorRange(grid, shown);
  const heat = {
    type: "heatmap", x, y: edges, z, text, customdata, hoverongaps: false, hovertemplate: HOVER,
    colorscale: HEAT, zmin, zmax, colorbar: colorBar(state, [zmin, zmax], colors),
    xgap: isRoomy(x) ? 1 : 0, ygap: isRoomy(edges) ? 1 : 0,
  };
  return [heat, crossesTrace(grid, y, colors)];
}

function isRoomy(edges) {
  const whole = edges[edges.length - 1] - edges[0];
  return edges.slice(1).every((edge, i) => edge - edges[i] > ROOM * whole);
}

function crossesTrace(grid, y, colors) {
  const missing = grid.flatMap((row, i) => row.map((point) => ({ point, at: (y[i][0] + y[i][1]) / 2 })))
    .filter(({ point }) => Number.isNaN(point.number.value));
  return {
    type: "scatter", mode: "markers", x: missing.map(({ point }) => point.x), y: missing.map(({ at }) => at),
    marker: { symbol: "x-thin", size: 6, line: { color: colors.soft, width: 1.2 } },
    ...spoken(missing.map(({ point }) => point)),
  };
}

/** Colors span the blocks: an embedding of a quite other value would leave them all alike. */
function colorRange(grid, shown) {
  const blocks = grid.filter(([point]) => isBlock(point));
  const values = (blocks.length ? blocks : grid).flat().map(({ number }) => shown(number)).filter(Number.isFinite);
  if (!values.length) return [0, 1];
  return extentOf(values);
}

function colorBar(state, range, colors) {
  const bar = { thickness: 12, outlinewidth: 0, tickfont: { color: colors.ink }, title: { text: "" }, xpad: 6 };
  if (state.scale !== "log") return bar;
  const { tickvals, ticktext } = logTicks(range);
  return { ...bar, tickvals: tickvals.map(Math.log10), ticktext };
}

/** Frames around the chosen column and row, dark within light, to be seen on any color. */
function crossing(x, column, { row, ends }) {
  const { clientWidth, clientHeight } = document.getElementById("heatmap");
  const sides = [x[0], x[x.length - 1]];
  const [y0, y1] = atLeast(row, ends, clientHeight - MARGIN.t - MARGIN.b);
  const boxes = [{ x0: sides[0], x1: sides[1], y0, y1 }];
  if (column >= 0) {
    const [x0, x1] = atLeast([x[column], x[column + 1]], sides, clientWidth - MARGIN.l - COLOR_BAR);
    boxes.push({ x0, x1, y0: ends[0], y1: ends[1] });
  }
  const frame = (color, width) => boxes.map((box) => ({ type: "rect", ...box, line: { color, width } }));
  return [...frame("#ffffff", 3.5), ...frame("#000000", 1.5)];
}

/** A stretch of an axis, widened about its middle where it is under LEAST_FRAME of the axis's pixels. */
function atLeast([from, to], [first, last], pixels) {
  const least = (LEAST_FRAME * (last - first)) / Math.max(pixels, 100);
  const half = Math.max(to - from, least) / 2, middle = (from + to) / 2;
  return [middle - half, middle + half];
}
