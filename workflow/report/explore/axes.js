// Where steps and layers stand on their axes, and how far the axis of values goes.

const ZERO_TO_ONE = 0.5; // decades between step 0 and step 1, as in the figures

/** Steps on a logarithmic axis that has a place for step 0. */
function stepPosition(step) {
  return step > 0 ? ZERO_TO_ONE + Math.log10(step) : 0;
}

/** Steps to name: 0, powers of ten, and the last step where it stands apart. */
function stepTicks(steps) {
  if (!steps.length) return [];
  const first = Math.min(...steps), last = Math.max(...steps);
  const powers = [];
  for (let power = 1; power <= last; power *= 10) if (power >= first) powers.push(power);
  const apart = last > 0 && (!powers.length || last > 2.5 * powers[powers.length - 1]);
  return [...(first === 0 ? [0] : []), ...powers, ...(apart ? [last] : [])];
}

function stepAxis(steps) {
  const ticks = stepTicks(steps);
  const positions = steps.map(stepPosition);
  return {
    tickvals: ticks.map(stepPosition),
    ticktext: ticks.map(stepName),
    range: [Math.min(...positions) - 0.15, Math.max(...positions) + 0.15],
    title: { text: "training step (log scale)" },
  };
}

/** Room that sets embedding and final norm apart from the blocks, in layers. */
function gapOf(blocks) {
  return Math.max(0.4, blocks / 30);
}

/** Where a place of a model stands on an axis of `blocks` layers: at the same relative depth as in its own model. */
function placePosition(model, place, blocks) {
  const [site, layer] = model.places[place];
  if (site === "embedding") return -gapOf(blocks);
  if (site === "block") return (layer * blocks) / Math.max(model.blocks, 1);
  return blocks + 1 + gapOf(blocks);
}

function placeAxis(model, places) {
  const every = Math.max(1, Math.ceil(model.blocks / 12));
  const short = { embedding: "emb.", final_norm: "norm", output: "out" };
  const named = places.filter((place) => {
    const [site, layer] = model.places[place];
    return site !== "block" || layer % every === 0;
  });
  const positions = places.map((place) => placePosition(model, place, model.blocks));
  return {
    tickvals: named.map((place) => placePosition(model, place, model.blocks)),
    ticktext: named.map((place) => short[model.places[place][0]] ?? String(model.places[place][1])),
    range: [Math.min(...positions) - 0.6, Math.max(...positions) + 0.6],
  };
}

/** Least and greatest of some numbers, however many. */
function extentOf(numbers) {
  return [numbers.reduce((a, b) => Math.min(a, b)), numbers.reduce((a, b) => Math.max(a, b))];
}

/** Ends of an axis that shows these numbers, null where there is none; "linear" begins at 0 where that is not far. */
function valueRange(numbers, scale) {
  const shown = numbers.filter((number) => Number.isFinite(number) && (scale !== "log" || number > 0));
  if (!shown.length) return null;
  let [low, high] = extentOf(shown);
  if (scale === "log") {
    const room = 0.04 * Math.log10(high / low) || 0.1;
    return [Math.log10(low) - room, Math.log10(high) + room];
  }
  if (scale === "linear" && low >= 0 && low < 0.4 * high) low = 0;
  const room = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low === 0 ? -0.3 * room : low - room, high + room];
}

/** Plain numbers for a logarithmic axis between two powers of ten: 1, 2, 5, or powers alone where these are many. */
function logTicks([low, high]) {
  const digits = high - low > 4 ? [1] : high - low > 0.6 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9];
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    ticks.push(...digits.map((digit) => digit * 10 ** power));
  }
  const within = ticks.filter((tick) => Math.log10(tick) >= low && Math.log10(tick) <= high);
  return { tickvals: within, ticktext: within.map((tick) => shortly(tick)) };
}

/** A number of few digits: 0.05, 2, 5000, 1e+6. */
function shortly(number) {
  const plainly = Number(number.toPrecision(2));
  return plainly >= 1e6 || plainly < 1e-4 ? plainly.toExponential().replace("-", "−") : String(plainly);
}

/** Edges of cells around positions that rise: halfway to the next, and as far beyond the ends, but not `most`. */
function edgesOf(positions, most = 0.4) {
  const middle = positions.slice(1).map((position, i) => (positions[i] + position) / 2);
  const last = positions.length - 1;
  const beyond = (from, to) => Math.min(most, to === undefined ? most : Math.abs(to - from));
  return [positions[0] - beyond(positions[0], middle[0]), ...middle,
    positions[last] + beyond(positions[last], middle[last - 1])];
}
