// Colors: those of the page from its style sheet, those of the lines from Okabe and Ito, made for the color-blind.

const LINES_ON_LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"];
const LINES_ON_DARK = ["#56B4E9", "#E69F00", "#2CC59A", "#CC79A7", "#F0E442", "#E8743B", "#FFFFFF"];
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "star"];
// Viridis from early to late: dark is late on a light page, and light on a dark one.
const VIRIDIS = ["#d8e219", "#8fd744", "#35b779", "#1f9e89", "#2d708e", "#39558c", "#453781", "#440154"];
const VIRIDIS_ON_DARK = ["#5d4fb0", "#4a6cb5", "#3d85b0", "#2fa08f", "#4fc27a", "#8fd744", "#cde11d", "#fde725"];

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemIsDark.matches;
}

/** What the pictures take from the page. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: named("ink"), soft: named("soft"), line: named("line"), paper: named("paper"), shade: named("shade"),
    accent: named("accent"), warn: named("warn"),
    lines: isDark() ? LINES_ON_DARK : LINES_ON_LIGHT,
    steps: isDark() ? VIRIDIS_ON_DARK : VIRIDIS,
  };
}

/** How the line of the nth of several is drawn; colors and symbols cycle with different lengths of the cycle. */
function lookOf(index, colors) {
  const cycle = Math.floor(index / colors.lines.length);
  return { color: colors.lines[index % colors.lines.length], symbol: SYMBOLS[(index + cycle) % SYMBOLS.length] };
}

/** The look of a line that so many others may cover: they lie on it as stripes. */
function widened(look, above) {
  return { ...look, width: 2 + 1.5 * Math.min(above, 4), size: 7 + 2 * Math.min(above, 4) };
}

/** A color with an opacity, as plotly.js takes it. */
function pale(color, opacity) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return `rgba(${red},${green},${blue},${opacity})`;
}
