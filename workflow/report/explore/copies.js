// Copies: a picture's numbers as the rows of the study's table, and the view's address.

const TABLE_COLUMNS = ["model", "checkpoint", "step", "dataset", "site", "layer", "rows", "metric", "value", "ci_low",
  "ci_high", "flag", "verdict"];

/** The numbers of a picture, those of its dashed lines behind them. */
function pointsOf(picture, lines) {
  if (picture === "heatmap") return gridOf(lines[0]).flat();
  const curveOf = { profile: profileOf, trajectory: trajectoryOf }[picture];
  const nulls = lines.filter((line) => line.reference).flatMap((line) => curveOf(line, line.reference));
  return [...lines.flatMap((line) => curveOf(line)), ...nulls];
}

/** Points as CSV; what the study's table does not hold is left out. */
function csvOf(points) {
  const rows = points.filter(({ number }) => !number.absent).map(rowOf);
  return [TABLE_COLUMNS, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

function rowOf({ series, checkpoint, place, number }) {
  const { name, step, verdict } = series.model.checkpoints[checkpoint];
  const numbers = [number.value, number.low, number.high].map(exact);
  return [series.model.name, name, step, series.dataset, ...series.model.places[place], series.rows, series.metric,
    ...numbers, number.flag, verdict];
}

function quoted(value) {
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Put a text on the clipboard; where the browser does not let us, show it for the reader to copy. */
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied ${what}.`);
  } catch {
    const dialog = document.getElementById("by-hand");
    const area = dialog.querySelector("textarea");
    area.value = text;
    dialog.showModal();
    area.select();
  }
}

let silence = 0;

/** A sentence at the edge of the page, for some seconds, which screen readers speak. */
function say(sentence) {
  put("status", sentence);
  clearTimeout(silence);
  silence = setTimeout(() => put("status"), 8000);
}
