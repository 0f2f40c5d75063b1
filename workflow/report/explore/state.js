// What the reader has chosen; the address's fragment says the same, so that a link restores it.

const DEFAULT_METRIC = "anisotropy";
const COMPARABLE = ["model", "dataset", "rows"];

/** The view of a page that was opened without a choice: the first model at its last checkpoint. */
function firstView() {
  const model = study.models[0];
  const { name } = model.checkpoints[lastCheckpoint(model)];
  return { model: model.name, checkpoint: name, compare: "", others: [] };
}

/** The choice that an address's fragment names; what it leaves out is undefined. */
function readFragment(fragment) {
  const words = new URLSearchParams(fragment.replace(/^#/, ""));
  const named = {};
  for (const key of ["model", "dataset", "metric", "rows", "checkpoint", "place", "scale", "compare"]) {
    if (words.has(key)) named[key] = words.get(key);
  }
  return words.has("beside") ? { ...named, others: words.getAll("beside") } : named;
}

function writeFragment(state) {
  const words = new URLSearchParams();
  for (const key of ["model", "dataset", "metric", "rows", "checkpoint", "place"]) words.set(key, state[key]);
  if (state.scale !== study.metrics[state.metric].scale) words.set("scale", state.scale);
  if (state.compare) words.set("compare", state.compare);
  if (state.compare) state.others.forEach((name) => words.append("beside", name));
  return `#${words}`;
}

/** Make of a choice one that exists: each name that the study does not have gives way to the nearest thing it has. */
function settle(wanted) {
  const state = { ...firstView(), ...wanted };
  state.model = oneOf(state.model, study.models.map((model) => model.name));
  const model = modelOf(state.model);
  state.dataset = oneOf(state.dataset, datasetsOf(state.model));
  const metrics = metricsOf(state.model, state.dataset);
  state.metric = oneOf(state.metric, metrics, metrics.includes(DEFAULT_METRIC) ? DEFAULT_METRIC : metrics[0]);
  state.rows = oneOf(state.rows, rowsOf(state.model, state.dataset, state.metric));
  state.checkpoint = settleCheckpoint(model, state);
  state.place = settlePlace(model, state);
  state.scale = oneOf(state.scale, ["linear", "close", "log"], study.metrics[state.metric].scale);
  state.compare = oneOf(state.compare, ["", ...COMPARABLE]);
  const possible = state.compare ? comparable(state) : [];
  state.others = possible.filter((name) => state.others.includes(name));
  return state;
}

/** Names of a link that the study does not have, for the reader to know. */
function unknownNames(wanted, state) {
  const keys = ["model", "dataset", "metric", "rows", "checkpoint", "place"];
  const isUnknown = (key) => wanted[key] !== undefined && wanted[key] !== state[key];
  return keys.filter(isUnknown).map((key) => `${key} ${wanted[key]}`);
}

function oneOf(value, names, otherwise = names[0]) {
  return names.includes(value) ? value : otherwise;
}

/** The checkpoint of that name, else the one of the nearest step to that of the model shown before, else the last. */
function settleCheckpoint(model, state) {
  if (model.checkpoints.some((checkpoint) => checkpoint.name === state.checkpoint)) return state.checkpoint;
  const before = study.models.flatMap((one) => one.checkpoints).find((one) => one.name === state.checkpoint);
  return model.checkpoints[nearestCheckpoint(model, before ? before.step : -1)].name;
}

/** Number of the checkpoint whose step is nearest in log(1 + step); the last for an unknown step. */
function nearestCheckpoint(model, step) {
  const timeline = timelineOf(model);
  if (!timeline.length || step < 0) return lastCheckpoint(model);
  const distance = (number) => Math.abs(Math.log1p(model.checkpoints[number].step) - Math.log1p(step));
  return timeline.reduce((best, number) => (distance(number) < distance(best) ? number : best));
}

/** The place of that name if the metric has a number there, else the middle one of those where it has. */
function settlePlace(model, state) {
  const [, , places] = seriesOf(state.model, state.dataset).find(
    ([rows, metric]) => rows === state.rows && metric === state.metric,
  );
  const number = findPlace(model, state.place);
  if (places.includes(number)) return state.place;
  return placeKey(model, places[Math.floor((places.length - 1) / 2)]);
}

/** Names that may stand beside the chosen one in what is compared: those that have this metric. */
function comparable(state) {
  const models = study.models.map((model) => model.name);
  const names = { model: models, dataset: study.datasets, rows: Object.keys(study.rows) };
  return names[state.compare].filter((name) => {
    const other = { ...state, [state.compare]: name };
    return name !== state[state.compare] && rowsOf(other.model, other.dataset, other.metric).includes(other.rows);
  });
}
