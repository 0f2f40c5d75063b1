// The three pictures. Nothing in them is for the mouse alone: what a click chooses, the sliders choose as well.

const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false, showTips: false };
const FONT = 'system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif';
const MARGIN = { l: 64, r: 10, t: 8, b: 44 };

const NO_STEPS = "No checkpoint of a known step: nothing to follow over training.";

const remembered = new Map();

/** What is long to make and does not change with the sliders is made once. */
function remember(name, key, make) {
  if (remembered.get(name)?.key !== key) remembered.set(name, { key, made: make() });
  return remembered.get(name).made;
}

/** What of a view does not change with the sliders. */
function keyOf(state) {
  return JSON.stringify([{ ...state, checkpoint: "", place: "" }, isDark()]);
}

/** The ends of the axis of values of both curves. */
function rangeShown(state, lines) {
  return remember("range", keyOf(state), () => rangeOf(lines, state.scale));
}

function drawPanels(state, lines) {
  const colors = palette();
  const key = keyOf(state), range = rangeShown(state, lines);
  drawProfile(state, lines, { colors, key, range });
  drawTrajectory(state, lines, { colors, key, range });
  drawHeatmap(state, lines[0], { colors, key });
}

/** One range for both curves at every step and layer; close up, nulls may lie outside. */
function rangeOf(lines, scale) {
  const numbers = lines.flatMap((line) => numbersOf(line, { withNull: scale !== "close" }));
  return valueRange(numbers.flatMap(({ value, low, high }) => [value, low, high]), scale);
}

function drawProfile(state, lines, { colors, key, range }) {
  const [first] = lines;
  const others = timelineOf(first.model).filter((checkpoint) => checkpoint !== first.checkpoint);
  const blocksAt = (checkpoint) => profileOf(first, first.series, checkpoint).filter(isBlock);
  const context = lines.length > 1 ? [] : remember("steps", `${key}${state.checkpoint}`, () =>
    contextTraces(others.map(blocksAt), colors.steps));
  const axis = placeAxis(first.model, first.series.places);
  const layout = layoutOf(colors, { state, range, x: { ...axis, title: { text: "layer" } } });
  layout.shapes = [upright(placePosition(first.model, first.place, first.model.blocks), colors)];
  react("profile", [...context, ...linesWithNulls(lines, colors, profileOf, isBlock)], layout);
}

function drawTrajectory(state, lines, { colors, key, range }) {
  const [first] = lines;
  const steps = lines.flatMap((line) => timelineOf(line.model).map((number) => line.model.checkpoints[number].step));
  if (!steps.length) return sayInstead("trajectory", NO_STEPS, colors);
  const others = first.series.places.filter((place) => place !== first.place);
  const context = lines.length > 1 ? [] : remember("layers", `${key}${state.place}`, () =>
    contextTraces(others.map((place) => trajectoryOf(first, first.series, place)), colors.steps));
  const layout = layoutOf(colors, { state, range, x: stepAxis(steps) });
  const step = first.model.checkpoints[first.checkpoint].step;
  layout.shapes = step < 0 ? [] : [upright(stepPosition(step), colors)];
  const distrusted = lines.map((line) => missingTrace(distrustedOf(line), { color: colors.warn }));
  react("trajectory", [...context, ...linesWithNulls(lines, colors, trajectoryOf, () => true), ...distrusted], layout);
}

function linesWithNulls(lines, colors, curveOf, joined) {
  const nulls = lines.filter((line) => line.reference).map((line) =>
    referenceTrace(curveOf(line, line.reference).filter(joined), nullColor(line, lines, colors)));
  const curves = lines.map((line) => {
    const { distrusted } = line.model.checkpoints[line.checkpoint];
    const dash = curveOf === profileOf && distrusted ? "dot" : "solid";
    const look = widened(lookOf(line.index, colors), lines.length - 1 - lines.indexOf(line));
    return curveTraces(curveOf(line), look, { joined, name: line.name, dash });
  });
  return [...nulls, ...curves.flat()];
}

function nullColor(line, lines, colors) {
  return lines.length > 1 ? lookOf(line.index, colors).color : colors.soft;
}

function upright(x, colors) {
  return { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, layer: "below",
    line: { color: colors.accent, width: 8 }, opacity: 0.25 };
}

function layoutOf(colors, { state, range, x }) {
  const axis = { gridcolor: colors.line, linecolor: colors.soft, zeroline: false, fixedrange: true };
  return {
    autosize: true, margin: { ...MARGIN }, showlegend: false, dragmode: false, hovermode: "closest",
    hoverdistance: 30, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: FONT, size: 12.5, color: colors.ink },
    hoverlabel: { bgcolor: colors.shade, bordercolor: colors.soft, font: { family: FONT, size: 13, color: colors.ink },
      align: "left" },
    xaxis: { ...axis, ...x, showgrid: false, showline: true, ticks: "outside", tickcolor: colors.soft },
    yaxis: { ...axis, title: { text: state.metric ? plain(metricWords(state.metric)) : "" }, ...valueAxis(range, state.scale) },
    yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
  };
}

function valueAxis(range, scale) {
  if (!range) return {};
  return scale === "log" ? { type: "log", range, ...logTicks(range) } : { type: "linear", range };
}

/** A sentence in the place of a picture. */
function sayInstead(id, sentence, colors) {
  const layout = layoutOf(colors, { state: { scale: "linear", metric: "" }, range: null, x: { visible: false } });
  layout.yaxis.visible = false;
  const middle = { xref: "paper", yref: "paper", x: 0.5, y: 0.5 };
  layout.annotations = [{ ...middle, text: sentence, showarrow: false, font: { color: colors.soft } }];
  react(id, [], layout);
}

function react(id, traces, layout) {
  Plotly.react(document.getElementById(id), traces, layout, CONFIG);
}

/** Let a click on a picture choose what its axes tell: the layer, the step, or both. */
function listenToClicks(choose) {
  for (const id of ["profile", "trajectory", "heatmap"]) {
    document.getElementById(id).on("plotly_click", ({ points: [point] }) => {
      const [name, checkpoint, place] = point.customdata ?? [];
      const model = modelOf(name);
      if (!model) return;
      const step = { checkpoint: model.checkpoints[checkpoint].name }, layer = { place: placeKey(model, place) };
      choose(name, { profile: layer, trajectory: step, heatmap: { ...step, ...layer } }[id]);
    });
  }
}
