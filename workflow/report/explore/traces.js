// From curves to what plotly.js draws: line, band, open markers, numbers that stand apart or are missing.

const MOST_MARKERS = 30; // of more points than this only the flagged ones are marked
const HOVER = "%{text}<extra></extra>";
const MISSING_HEIGHT = 0.035; // of the picture

/** Names come from files and may hold anything; plotly.js reads tags in its texts. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Long flags in lines of about 60 letters. */
function wrapped(text) {
  return plain(text).replace(/(.{45,60}?)\s/g, "$1<br>");
}

/** What is said of a point on hover. */
function hoverText(point) {
  const { number, series } = point;
  const head = `<b>${plain(series.model.name)}</b>, ${plain(series.dataset)}, ${plain(series.rows)}`;
  const said = Number.isNaN(number.value)
    ? `no ${plain(metricWords(series.metric))}<br>${wrapped(reasonOf(number))}`
    : `${plain(metricWords(series.metric))} ${writtenWithInterval(number)}${number.flag ? `<br>${wrapped(number.flag)}` : ""}`;
  return `${head}<br>${plain(whereIs(point))}<br>${said}`;
}

/** What points say on hover, and which number each of them is, for a click. */
function spoken(points) {
  return { text: points.map(hoverText), hovertemplate: HOVER, customdata: points.map(identityOf) };
}

function identityOf({ series, checkpoint, place }) {
  return [series.model.name, checkpoint, place];
}

function columnsOf(points) {
  return { x: points.map((point) => point.x), y: points.map((point) => point.number.value) };
}

/** A curve with its band: blocks joined, what is not a block apart; `joined` says which. */
function curveTraces(points, look, { joined = isBlock, name, dash = "solid" }) {
  const inside = points.filter(joined), outside = points.filter((point) => !joined(point));
  return [
    bandTrace(inside, look),
    lineTrace(inside, look, { name, dash }),
    apartTrace(outside, look, name),
    missingTrace(points, look),
  ];
}

function lineTrace(points, look, { name, dash }) {
  const isGap = (point) => !point || Number.isNaN(point.number.value);
  const isAlone = (_, i) => isGap(points[i - 1]) && isGap(points[i + 1]);
  const isMarked = ({ number }) => points.length <= MOST_MARKERS || number.flag !== "";
  return {
    ...columnsOf(points), name, type: "scatter", mode: "lines+markers", connectgaps: false,
    line: { color: look.color, width: look.width, dash },
    marker: { ...markersOf(points, look), size: look.size, opacity: points.map((point) => Number(isMarked(point))) },
    error_y: errorBars(points, look, isAlone),
    ...spoken(points),
  };
}

/** Numbers that no line joins, each with its interval as a bar. */
function apartTrace(points, look, name) {
  return {
    ...columnsOf(points), name: `${name}, apart`, type: "scatter", mode: "markers",
    marker: { ...markersOf(points, look), size: look.size + 2 },
    error_y: errorBars(points, look, () => true),
    ...spoken(points),
  };
}

/** Filled, or open where the number has a flag. */
function markersOf(points, look) {
  return {
    color: look.color,
    symbol: points.map(({ number }) => (number.flag ? `${look.symbol}-open` : look.symbol)),
    line: { color: look.color, width: 1.5 },
  };
}

function errorBars(points, look, isBarred) {
  const length = (from, to) => points.map(({ number }, i) =>
    (isBarred(points[i], i) && Number.isFinite(number[from]) ? number[to] - number[from] : null));
  return {
    type: "data", symmetric: false, array: length("value", "high"), arrayminus: length("low", "value"),
    color: look.color, thickness: 1.3, width: 3,
  };
}

/** The intervals of neighbors that have one as a filled shape, one for each unbroken stretch. */
function bandTrace(points, look) {
  const x = [], y = [];
  for (const run of runsOf(points, ({ number }) => Number.isFinite(number.low))) {
    x.push(...run.map((point) => point.x), ...run.map((point) => point.x).reverse(), null);
    y.push(...run.map(({ number }) => number.high), ...run.map(({ number }) => number.low).reverse(), null);
  }
  return {
    x, y, type: "scatter", mode: "lines", fill: "toself", fillcolor: pale(look.color, 0.22),
    line: { width: 0 }, hoverinfo: "skip",
  };
}

function runsOf(points, belongs) {
  const runs = [[]];
  for (const point of points) {
    if (belongs(point)) runs[runs.length - 1].push(point);
    else runs.push([]);
  }
  return runs.filter((run) => run.length > 1);
}

/** A cross at the lower edge for each number that is not there. */
function missingTrace(points, look) {
  const missing = points.filter(({ number }) => Number.isNaN(number.value));
  return {
    x: missing.map((point) => point.x), y: missing.map(() => MISSING_HEIGHT), yaxis: "y2",
    type: "scatter", mode: "markers", name: "no number",
    marker: { symbol: "x-thin", size: 8, color: look.color, line: { color: look.color, width: 2 } },
    ...spoken(missing),
  };
}

/** What rows without structure read, dashed. */
function referenceTrace(points, color) {
  const joined = points.filter(({ number }) => Number.isFinite(number.value));
  return {
    ...columnsOf(joined), type: "scatter", mode: joined.length === 1 ? "markers" : "lines", name: "null",
    line: { color, width: 1.5, dash: "dash" }, marker: { color, symbol: "line-ew-open", size: 14 },
    ...spoken(joined),
  };
}

/** Many curves, thin, as few traces: those of one color in one, with gaps between them. */
function contextTraces(curves, colors) {
  const bins = colors.map(() => ({ x: [], y: [] }));
  curves.forEach((points, i) => {
    const bin = bins[Math.round((i * (colors.length - 1)) / Math.max(curves.length - 1, 1))];
    const { x, y } = columnsOf(points);
    bin.x.push(...x, null);
    bin.y.push(...y, null);
  });
  return bins.flatMap((bin, i) => (bin.x.length === 0 ? [] : [{
    ...bin, type: "scatter", mode: "lines", connectgaps: false, hoverinfo: "skip", name: "others", opacity: 0.55,
    line: { color: colors[i], width: 1 },
  }]));
}
