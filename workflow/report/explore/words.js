// What the view says in words: for those who read, and for those who do not see the pictures.

const SYMBOL_LETTERS = "●■▲◆▼⬟★"; // of SYMBOLS

/** An element with a text, or with others in it. */
function element(tag, content = "", attributes = {}) {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  if (Array.isArray(content)) made.append(...content);
  else made.textContent = content;
  return made;
}

function put(id, ...content) {
  document.getElementById(id).replaceChildren(...content);
}

function writeWords(state, lines) {
  writeKey(lines);
  writeReading(state, lines);
  writeMeaning(state);
  writeTitles(state, lines);
  writeNotes(state, lines);
  if (document.getElementById("table").open) writeTables(state, lines);
}

/** Which line is which: a swatch drawn as the line is. */
function writeKey(lines) {
  const colors = palette();
  const entries = lines.map((line) => keyEntry(lineName(line), lookOf(line.index, colors)));
  const reference = lines.find((line) => line.reference)?.reference.metric;
  if (reference) entries.push(keyEntry(metricWords(reference), { color: colors.soft, symbol: "" }));
  put("key", ...entries);
}

function keyEntry(name, { color, symbol }) {
  const drawn = symbol ? `━${SYMBOL_LETTERS[SYMBOLS.indexOf(symbol)]}━` : "╌╌";
  const swatch = element("span", drawn, { class: "swatch", "aria-hidden": "true" });
  swatch.style.color = color;
  return element("li", [swatch, ` ${name}`]);
}

/** The name of a line, with its step where that is not the chosen one. */
function lineName(line) {
  const step = line.model.checkpoints[line.checkpoint];
  return line.model === line.base ? line.name : `${line.name} at ${stepWords(step)}`;
}

function writeReading(state, lines) {
  const [first] = lines;
  const checkpoint = first.model.checkpoints[first.checkpoint];
  const common = COMPARABLE.filter((key) => key !== state.compare).map((key) => study.rows[state[key]] ?? state[key]);
  const head = element("p", `${common.join(", ")}: ${stepWords(checkpoint)}, ${placeName(first.model, first.place)}`);
  const warning = doubtOf(checkpoint);
  const rows = lines.map((line) => readingRow(state, line));
  const columns = [state.compare || "metric", "value", "95 % interval", "null", ""];
  const table = element("table", [
    element("thead", [element("tr", columns.map((name) => element("th", name, { scope: "col" })))]),
    element("tbody", rows),
  ]);
  put("reading", head, ...(warning ? [element("p", warning, { class: "warning" })] : []), table);
}

function doubtOf({ verdict, note, distrusted }) {
  if (!verdict || verdict === "ok") return "";
  const consequence = distrusted ? " It is left out of the curves over training." : "";
  return `This checkpoint: ${study.verdicts[verdict]}${note ? ` (${note})` : ""}.${consequence}`;
}

function readingRow(state, line) {
  const { number } = pointOf(line, line.series, line.checkpoint, line.place, 0);
  const nothing = Number.isNaN(number.value);
  const reference = line.reference && numberOf(line.reference, line.checkpoint, line.place);
  return element("tr", [
    element("th", state.compare ? lineName(line) : metricWords(state.metric), { scope: "row" }),
    element("td", written(number.value, number.decimals), { class: "number" }),
    element("td", intervalOf(number), { class: "number" }),
    element("td", reference ? written(reference.value, reference.decimals) : "–", { class: "number" }),
    element("td", nothing ? reasonOf(number) : number.flag, { class: "flag" }),
  ]);
}

function intervalOf({ low, high, decimals }) {
  return Number.isNaN(low) ? "–" : `${written(low, decimals)} to ${written(high, decimals)}`;
}

function writeMeaning({ metric }) {
  const { definition, range, null: nothing, source, family } = study.metrics[metric];
  put("meaning-title", metricWords(metric));
  const reference = study.metrics[metric].reference;
  const dashed = reference ? [["dashed", `${metricWords(reference)}: ${study.metrics[reference].definition}`]] : [];
  const entries = [["definition", definition], ["range", range], ["null value", nothing], ...dashed,
    ["source", source], ["in tables", `${metric}, of the family ${family}`]];
  const known = definition ? entries : [["definition", "not described: this metric is none of the library's"]];
  document.querySelector("#meaning dl").replaceChildren(
    ...known.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}

function writeTitles(state, lines) {
  const [first] = lines;
  const step = stepWords(first.model.checkpoints[first.checkpoint]);
  const place = placeName(first.model, first.place);
  put("profile-title", `Over the layers at ${step}`);
  put("trajectory-title", `Over training at ${state.place.startsWith("block") ? place : `the ${place}`}`);
  put("heatmap-title", `Layers and training: ${state.model}`);
  describe("profile", `${metricWords(state.metric)} over the layers at ${step}.`, lines.map((line) => profileOf(line)));
  describe("trajectory", `${metricWords(state.metric)} over training at ${place}.`, lines.map((line) => trajectoryOf(line)));
  describe("heatmap", `${metricWords(state.metric)} of ${state.model} by layer and training step.`, [gridOf(first).flat()]);
}

function describe(id, title, curves) {
  const label = `${title} ${extremesOf(curves)} The numbers are in the table below and in the CSV.`;
  document.getElementById(id).setAttribute("aria-label", label);
}

/** Of each curve its first, least and greatest number, in a sentence. */
function extremesOf(curves) {
  return curves.map((points) => {
    const numbers = points.filter(({ number }) => Number.isFinite(number.value));
    if (!numbers.length) return "No numbers.";
    const by = (better) => numbers.reduce((a, b) => (better(b.number.value, a.number.value) ? b : a));
    const tell = (point) => `${written(point.number.value, point.number.decimals)} at ${whereIs(point)}`;
    return `${numbers[0].line.name}: least ${tell(by((a, b) => a < b))}, greatest ${tell(by((a, b) => a > b))}.`;
  }).join(" ");
}

function writeNotes(state, lines) {
  const [first] = lines;
  const alone = lines.length === 1;
  const thin = (what) => (alone && first.series.places.length > 1 ? `Thin lines: ${what}. ` : "");
  const [dull, bright] = isDark() ? ["dull", "bright"] : ["bright", "dark"];
  const depths = lines.some(({ model }) => model.blocks !== first.model.blocks)
    ? `Layers are those of ${first.model.name}; the others stand at the same relative depth. ` : "";
  const steps = thin(`the other checkpoints, from early (${dull}) to late (${bright})`);
  put("profile-note", steps + depths + (alone ? domeOf(state) : "") + outsideNote(state, lines));
  put("trajectory-note", thin(`the other layers, upward from ${dull} to ${bright}`) + distrustedNote(first)
    + scaleNote(state, lines));
  const hasBlocks = first.series.places.some((place) => first.model.places[place][0] === "block");
  put("heatmap-note", "Frames: the chosen step and layer; a click or a tap chooses another."
    + `${hasBlocks ? " Colors span the blocks." : ""}${alone ? "" : " Of the first line alone."}`);
}

function domeOf({ model, checkpoint, dataset, rows, metric }) {
  const key = [model, checkpoint, dataset, rows, metric];
  const found = study.domes.find((dome) => key.every((name, i) => dome[i] === name));
  if (!found || found[5] === null) return "";
  const [peak, index, low, high] = found.slice(5);
  return `Peak after block ${peak}; dome index ${index}${low === null ? "" : ` [${low}, ${high}]`}.`;
}

/** The embedding does not set the range of the axis; where it lies outside, its number is said. */
function outsideNote(state, lines) {
  const range = rangeShown(state, lines);
  if (!range) return "";
  const at = ({ number: { value } }) => (state.scale === "log" ? Math.log10(value) : value);
  const isOutside = (point) => point.series.model.places[point.place][0] === "embedding"
    && Number.isFinite(at(point)) && (at(point) < range[0] || at(point) > range[1]);
  const outside = lines.flatMap((line) => profileOf(line)).filter(isOutside);
  if (!outside.length) return "";
  const numbers = outside.map((point) => `${point.line.name} ${written(point.number.value, point.number.decimals)}`);
  return ` The embedding lies outside the axis: ${numbers.join(", ")}.`;
}

function scaleNote({ scale }, lines) {
  const points = lines.flatMap((line) => [...profileOf(line), ...trajectoryOf(line)]);
  const isLost = scale === "log" && points.some(({ number }) => number.value <= 0);
  return isLost ? "Numbers of 0 or less have no place on a logarithmic scale." : "";
}

function distrustedNote(line) {
  const count = line.model.checkpoints.filter((checkpoint) => checkpoint.distrusted).length;
  if (!count) return "";
  return `${count} of ${line.model.checkpoints.length} checkpoints are not trusted and left out (× at the edge). `;
}

/** Both curves as one table, for readers whom the pictures do not reach. */
function writeTables(state, lines) {
  const columns = [state.compare || "model", "step", "layer", metricWords(state.metric), "95 % interval", "flag"];
  const points = lines.flatMap((line) => [...profileOf(line), ...trajectoryOf(line)]);
  const rows = points.map((point) => element("tr", [
    element("th", point.line.name, { scope: "row" }),
    element("td", stepName(point.series.model.checkpoints[point.checkpoint].step), { class: "number" }),
    element("td", placeName(point.series.model, point.place)),
    element("td", written(point.number.value, point.number.decimals), { class: "number" }),
    element("td", intervalOf(point.number), { class: "number" }),
    element("td", Number.isNaN(point.number.value) ? reasonOf(point.number) : point.number.flag),
  ]));
  const head = element("tr", columns.map((name) => element("th", name, { scope: "col" })));
  document.querySelector("#table .scroll").replaceChildren(
    element("table", [element("thead", [head]), element("tbody", rows)]));
}

function writeSummary() {
  const checkpoints = study.models.reduce((sum, model) => sum + model.checkpoints.length, 0);
  const numbers = study.chunks.reduce((sum, chunk) => sum + chunk.count, 0);
  const count = (many, one) => `${many.toLocaleString("en")} ${one}${many === 1 ? "" : "s"}`;
  const counts = [count(study.models.length, "model"), count(checkpoints, "checkpoint"),
    count(study.datasets.length, "dataset"), count(numbers, "number")];
  put("summary", `${counts.join(", ")}. This page asks no server for anything.`);
  put("versions", `lmshape ${study.versions.lmshape}; pictures: plotly.js of plotly ${study.versions.plotly}.`);
}
