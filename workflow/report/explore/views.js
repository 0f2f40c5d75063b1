// What the three pictures show of a choice: curves and a grid of numbers, before any drawing.

/** The lines of a view: the chosen one, then what stands beside it. What was not measured is left out. */
function linesOf(state) {
  const names = state.compare ? [state[state.compare], ...state.others] : [state.model];
  return names
    .map((name, index) => lineOf(state.compare ? { ...state, [state.compare]: name } : state, state, name, index))
    .filter((line) => line.series);
}

/** One line: its series, and the checkpoint and place of its model that match the chosen ones. */
function lineOf(choice, state, name, index) {
  const base = modelOf(state.model), model = modelOf(choice.model), series = findSeries(choice);
  const chosen = base.checkpoints.findIndex((checkpoint) => checkpoint.name === state.checkpoint);
  const checkpoint = model === base ? chosen : nearestCheckpoint(model, base.checkpoints[chosen].step);
  const place = findPlace(base, state.place);
  return {
    index, series, model, checkpoint, base,
    name: state.compare === "rows" ? study.rows[name] : name,
    place: series && (model === base ? place : matchingPlace(base, place, series)),
    reference: findSeries({ ...choice, metric: study.metrics[choice.metric].reference }),
  };
}

/** The place of a series at the same site, and of blocks the one at the nearest relative depth; -1 where none is. */
function matchingPlace(base, place, series) {
  const [site, layer] = base.places[place];
  const alike = series.places.filter((one) => series.model.places[one][0] === site);
  const wanted = (layer * series.model.blocks) / Math.max(base.blocks, 1);
  const distance = (one) => Math.abs(series.model.places[one][1] - wanted);
  return alike.reduce((best, one) => (best < 0 || distance(one) < distance(best) ? one : best), -1);
}

function pointOf(line, series, checkpoint, place, x) {
  return { x, checkpoint, place, series, line, number: numberOf(series, checkpoint, place) };
}

/** A curve over the places of a series at one checkpoint. */
function profileOf(line, series = line.series, checkpoint = line.checkpoint) {
  return series.places.map((place) =>
    pointOf(line, series, checkpoint, place, placePosition(line.model, place, line.base.blocks)));
}

/** A curve over training at one place. */
function trajectoryOf(line, series = line.series, place = line.place) {
  return timelineOf(line.model).map((checkpoint) =>
    pointOf(line, series, checkpoint, place, stepPosition(line.model.checkpoints[checkpoint].step)));
}

/** Checkpoints of a line that have a step and are not trusted: they are named at the edge of the picture alone. */
function distrustedOf(line) {
  return line.model.checkpoints.flatMap((checkpoint, number) => {
    if (!checkpoint.distrusted || checkpoint.step < 0) return [];
    const point = pointOf(line, line.series, number, line.place, stepPosition(checkpoint.step));
    const flag = `not trusted: ${study.verdicts[checkpoint.verdict]}`;
    return [{ ...point, number: { ...point.number, value: NaN, flag } }];
  });
}

function isBlock(point) {
  return point.series.model.places[point.place][0] === "block";
}

/** All points of a series, one row per place from the embedding upward, one column per checkpoint of the timeline. */
function gridOf(line) {
  return line.series.places.map((place) => trajectoryOf(line, line.series, place));
}

/** Every number that a line may come to show as step and layer change, for an axis that stands still; where there are
 * blocks, without the embedding: of its few distinct rows a dimension would be far from all others. */
function numbersOf(line, { withNull }) {
  const all = line.model.checkpoints.map((_, checkpoint) => checkpoint);
  const series = [line.series, ...(withNull && line.reference ? [line.reference] : [])];
  const isEmbedding = (place) => line.model.places[place][0] === "embedding";
  const hasBlocks = line.series.places.some((place) => line.model.places[place][0] === "block");
  return series.flatMap((one) => one.places.filter((place) => !(hasBlocks && isEmbedding(place)))
    .flatMap((place) => all.map((checkpoint) => numberOf(one, checkpoint, place))));
}

/** Where a point is, in words. */
function whereIs(point) {
  const { model } = point.series;
  return `${stepWords(model.checkpoints[point.checkpoint])}, ${placeName(model, point.place)}`;
}

function stepWords(checkpoint) {
  return checkpoint.step < 0 ? checkpoint.name : `step ${stepName(checkpoint.step)}`;
}
