// The form: it shows the state, and a change of it asks for another.

function fillSelect(id, options, chosen) {
  const select = document.getElementById(id);
  const wanted = JSON.stringify(options);
  if (select.dataset.options !== wanted) {
    select.replaceChildren(...grouped(options));
    select.dataset.options = wanted;
  }
  select.value = chosen;
}

/** Options with a group in groups of their own, in the order in which the groups come. */
function grouped(options) {
  const groups = new Map();
  for (const { value, text, group } of options) {
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(element("option", text, { value }));
  }
  return [...groups].flatMap(([label, made]) => (label ? [element("optgroup", made, { label })] : made));
}

function fillControls(state) {
  const model = modelOf(state.model);
  fillSelect("model", study.models.map(({ name, kind }) => ({ value: name, text: `${name} (${kind})` })), state.model);
  fillSelect("dataset", datasetsOf(state.model).map((name) => ({ value: name, text: name })), state.dataset);
  fillSelect("metric", metricsOf(state.model, state.dataset).map((name) =>
    ({ value: name, text: metricWords(name), group: study.metrics[name].family })), state.metric);
  fillSelect("rows", rowsOf(state.model, state.dataset, state.metric).map((name) =>
    ({ value: name, text: study.rows[name] })), state.rows);
  document.getElementById("scale").value = state.scale;
  document.getElementById("compare").value = state.compare;
  fillOthers(state);
  fillStep(model, state);
  fillPlace(model, state);
}

/** Checkboxes for what may stand beside the chosen one. */
function fillOthers(state) {
  const fieldset = document.getElementById("others");
  fieldset.hidden = !state.compare;
  const names = state.compare ? comparable(state) : [];
  const wanted = JSON.stringify([state.compare, names]);
  if (fieldset.dataset.options !== wanted) {
    fieldset.dataset.options = wanted;
    fieldset.querySelector("div").replaceChildren(...names.map((name) => checkbox(name, state)));
    if (state.compare && !names.length) fieldset.querySelector("div").append("nothing else has this metric");
  }
  fieldset.querySelectorAll("input").forEach((box) => { box.checked = state.others.includes(box.value); });
}

function checkbox(name, state) {
  const box = element("input", "", { type: "checkbox", value: name, name: "beside" });
  return element("label", [box, ` ${state.compare === "rows" ? study.rows[name] : name}`]);
}

function fillStep(model, state) {
  const slider = document.getElementById("step");
  const number = model.checkpoints.findIndex(({ name }) => name === state.checkpoint);
  slider.max = model.checkpoints.length - 1;
  slider.value = number;
  slider.disabled = model.checkpoints.length === 1;
  document.getElementById("play").disabled = slider.disabled;
  const checkpoint = model.checkpoints[number];
  const tokens = checkpoint.tokens === null ? "" : `, ${checkpoint.tokens.toLocaleString("en")} tokens`;
  const step = checkpoint.step < 0 ? "step unknown" : stepWords(checkpoint);
  const text = `${step}${tokens}${checkpoint.distrusted ? ", not trusted" : ""}`;
  put("step-text", `${text} (${number + 1} of ${model.checkpoints.length})`);
  slider.setAttribute("aria-valuetext", text);
}

/** The places where the metric has numbers, from the embedding upward. */
function placesOf(state) {
  const isChosen = ([rows, metric]) => rows === state.rows && metric === state.metric;
  return seriesOf(state.model, state.dataset).find(isChosen)[2];
}

function fillPlace(model, state) {
  const slider = document.getElementById("place");
  const places = placesOf(state);
  const place = findPlace(model, state.place);
  slider.max = places.length - 1;
  slider.value = places.indexOf(place);
  slider.disabled = places.length === 1;
  put("place-text", placeName(model, place));
  slider.setAttribute("aria-valuetext", placeName(model, place));
}

/** Ask for another view when the form changes; `read` gives the present one. */
function listenToControls(read, change) {
  for (const id of ["model", "dataset", "rows", "scale"]) {
    document.getElementById(id).addEventListener("change", (event) => change({ [id]: event.target.value }));
  }
  document.getElementById("metric").addEventListener("change", (event) =>
    change({ metric: event.target.value, scale: undefined }));
  document.getElementById("compare").addEventListener("change", ({ target: { value } }) =>
    change({ compare: value, others: value ? comparable({ ...read(), compare: value }).slice(0, 3) : [] }));
  document.getElementById("others").addEventListener("change", () =>
    change({ others: [...document.querySelectorAll("#others input:checked")].map((box) => box.value) }));
  document.getElementById("step").addEventListener("input", (event) =>
    change({ checkpoint: modelOf(read().model).checkpoints[event.target.value].name }));
  document.getElementById("place").addEventListener("input", (event) =>
    change({ place: placeKey(modelOf(read().model), placesOf(read())[event.target.value]) }));
}
