// The page: one state, shown in the form, the pictures, the words and the address.

const MILLISECONDS_A_STEP = 700; // of the play button
const MILLISECONDS_TO_ADDRESS = 200; // browsers allow about three changes of it a second

let current = null;
let player = 0;
let requested = 0;
let drawings = 0;
let addressing = 0;

/** Show another view with the screen's next frame; of several wishes before it, the last. */
function show(wanted) {
  current = settle(wanted);
  requested ||= requestAnimationFrame(draw);
}

function draw() {
  requested = 0;
  const lines = linesOf(current);
  fillControls(current);
  drawPanels(current, lines);
  writeWords(current, lines);
  clearTimeout(addressing);
  addressing = setTimeout(writeAddress, MILLISECONDS_TO_ADDRESS);
  if (drawings === 0) performance.mark("drawn");
  document.documentElement.dataset.drawings = drawings += 1; // for those who wait for it
}

/** Let the address say what is shown, without a step back for each step of a slider. */
function writeAddress() {
  history.replaceState(null, "", writeFragment(current));
}

/** Change a part of the view. */
function change(part) {
  show({ ...current, ...part });
}

function showFragment() {
  const wanted = readFragment(location.hash);
  show(wanted);
  const unknown = unknownNames(wanted, current);
  if (unknown.length) say(`Not in this study: ${unknown.join(", ")}. Shown is the view nearest to the link's.`);
}

function play() {
  const button = document.getElementById("play");
  const { checkpoints } = modelOf(current.model);
  const at = checkpoints.findIndex(({ name }) => name === current.checkpoint);
  if (player) return stopPlaying(button);
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop";
  if (at === checkpoints.length - 1) change({ checkpoint: checkpoints[0].name });
  player = setInterval(() => playOn(button), MILLISECONDS_A_STEP);
}

function playOn(button) {
  const { checkpoints } = modelOf(current.model);
  const at = checkpoints.findIndex(({ name }) => name === current.checkpoint);
  if (at === checkpoints.length - 1) stopPlaying(button);
  else change({ checkpoint: checkpoints[at + 1].name });
}

function stopPlaying(button) {
  clearInterval(player);
  player = 0;
  button.setAttribute("aria-pressed", "false");
  button.textContent = "Play";
}

function listenToCopies() {
  for (const picture of ["profile", "trajectory", "heatmap"]) {
    document.getElementById(`copy-${picture}`).addEventListener("click", () => {
      const text = csvOf(pointsOf(picture, linesOf(current)));
      copy(text, `${text.split("\n").length - 2} rows as CSV`);
    });
  }
  document.getElementById("copy-link").addEventListener("click", () => {
    writeAddress();
    copy(location.href, "the link to this view");
  });
}

function listen() {
  listenToControls(() => current, change);
  listenToCopies();
  document.getElementById("play").addEventListener("click", play);
  document.getElementById("theme").addEventListener("change", (event) => {
    setTheme(event.target.value);
    change({});
  });
  systemIsDark.addEventListener("change", () => change({}));
  document.getElementById("table").addEventListener("toggle", () => change({}));
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", showFragment);
  listenToClicks((model, part) => { if (model === current.model) change(part); });
}

function start() {
  showFragment();
  requestAnimationFrame(listen); // behind the first drawing: clicks are heard on pictures that are there
}

// The form is there while the browser still reads plotly.js.
writeSummary();
current = settle(readFragment(location.hash));
fillControls(current);
addEventListener("DOMContentLoaded", start);
