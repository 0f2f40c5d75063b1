// What the page holds: models, their checkpoints and places, and series of numbers that are read when asked for.

const study = JSON.parse(document.getElementById("head").textContent);
const chunks = new Map(); // number of a chunk → its numbers, once they were asked for

const SITE_NAMES = { embedding: "embedding", final_norm: "final norm", output: "output" };

function modelOf(name) {
  return study.models.find((model) => model.name === name);
}

function chunkNumber(model, dataset) {
  return study.chunks.findIndex((chunk) => chunk.model === model && chunk.dataset === dataset);
}

/** Datasets on which a model was measured, in the study's order. */
function datasetsOf(model) {
  return study.datasets.filter((dataset) => chunkNumber(model, dataset) >= 0);
}

/** The series (rows, metric, places) of a model on a dataset. */
function seriesOf(model, dataset) {
  const number = chunkNumber(model, dataset);
  return number < 0 ? [] : study.chunks[number].series;
}

function metricsOf(model, dataset) {
  const measured = new Set(seriesOf(model, dataset).map(([, metric]) => metric));
  return Object.keys(study.metrics).filter((metric) => measured.has(metric));
}

function rowsOf(model, dataset, metric) {
  const found = new Set(seriesOf(model, dataset).filter((one) => one[1] === metric).map(([rows]) => rows));
  return Object.keys(study.rows).filter((rows) => found.has(rows));
}

/** What was measured of a model on a dataset, read once. */
function chunkOf(number) {
  if (!chunks.has(number)) chunks.set(number, parseChunk(document.getElementById(`chunk-${number}`).textContent));
  return chunks.get(number);
}

/** A series, ready to give its numbers; null where it was not measured. */
function findSeries({ model: name, dataset, rows, metric }) {
  const number = chunkNumber(name, dataset);
  if (number < 0) return null;
  const model = modelOf(name);
  let first = 0;
  for (const [itsRows, itsMetric, places] of study.chunks[number].series) {
    if (itsRows === rows && itsMetric === metric) {
      return { model, dataset, rows, metric, places, chunk: chunkOf(number), first };
    }
    first += places.length * model.checkpoints.length;
  }
  return null;
}

/** The number of a series at a checkpoint and a place, both by their numbers in the model's lists. */
function numberOf(series, checkpoint, place) {
  const row = series.places.indexOf(place);
  if (row < 0) return { value: NaN, low: NaN, high: NaN, decimals: 0, flag: "", absent: true };
  const at = series.first + row * series.model.checkpoints.length + checkpoint;
  return numberAt(series.chunk, at, study.flags);
}

/** Why a number is not there. */
function reasonOf(number) {
  return number.flag || (number.absent ? "not in the study's table" : "no reason given");
}

/** Checkpoints that a curve over training goes through: trusted, of a known step, the last of each step. */
function timelineOf(model) {
  const byStep = new Map();
  model.checkpoints.forEach((checkpoint, number) => {
    if (checkpoint.step >= 0 && !checkpoint.distrusted) byStep.set(checkpoint.step, number);
  });
  return [...byStep.values()];
}

/** Number of the last checkpoint of a known step that can be trusted; of the last one where there is none. */
function lastCheckpoint(model) {
  return timelineOf(model).at(-1) ?? model.checkpoints.length - 1;
}

/** A metric in words; tables and links have its name. */
function metricWords(metric) {
  return study.metrics[metric].words;
}

function placeName(model, place) {
  const [site, layer] = model.places[place];
  return SITE_NAMES[site] ?? `block ${layer}`;
}

/** Number of a place as a link spells it, block-3 or embedding; -1 where the model has none. */
function findPlace(model, name) {
  return model.places.findIndex((_, place) => placeKey(model, place) === name);
}

function placeKey(model, place) {
  const [site, layer] = model.places[place];
  return site === "block" ? `block-${layer}` : site;
}

function stepName(step) {
  if (step < 0) return "unknown";
  if (step >= 1e6 && step % 1e5 === 0) return `${step / 1e6}M`;
  return step >= 10000 && step % 1000 === 0 ? `${step / 1000}k` : String(step);
}
