// The player: a moment or a whole video, its moments on a time line, and labels for the moment.

export const $ = (id) => document.getElementById(id);

/** An element with a class and text; text is never read as HTML. */
export function make(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text) element.textContent = text;
  return element;
}

/** `5:07` or `1:05:07`. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${two(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

export const span = (moment) => `${clock(moment.start)}–${clock(moment.end)}`;

/** The server's answer; an Error with its line otherwise. */
export async function ask(path, values, options = {}) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== ""));
  let response;
  try {
    response = await fetch(`${path}?${query}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is mmpt serve still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `The server answers with status ${response.status}.`);
  return answer;
}

const PART = 30; // seconds of a whole video that the server converts at a time
const video = $("video");
let shown = null; // {video, start, end, whole}
let about = null; // the server's record of the video
let marks = [];
let offset = 0; // where in the file the video element's second 0 is
let until = 0; // where it ends, for converted parts
let converted = false;
let wanted = null; // the second of a click on the time line
let play = () => {};
let similar = () => {};

/** What to call with {video, start, end, whole} and with a moment. */
export function onPlayer(calls) {
  ({ play, similar } = calls);
}

/** Show the dialog and play; `moments` are those of the current search, of any video. */
export async function openPlayer(moment, moments) {
  const same = shown !== null && shown.video === moment.video && about !== null;
  shown = moment;
  marks = moments.filter((one) => one.video === moment.video);
  if (!marks.some((one) => one.start === moment.start) && moment.end > moment.start && !moment.whole) marks.push(moment);
  if (!same) about = null;
  if (!$("player").open) $("player").showModal();
  describe();
  try {
    const found = same ? about : await ask("/api/video", { video: moment.video });
    if (shown !== moment) return;
    about = found;
    if (!same) converted = !about.plays;
    describe();
    load(wanted ?? moment.start);
    wanted = null;
    video.focus();
  } catch (error) {
    if (shown === moment) note(error.message);
  }
}

export function closePlayer() {
  shown = about = null;
  video.removeAttribute("src");
  video.load();
  if ($("player").open) $("player").close();
}

function load(from) {
  const { video: id, end, whole } = shown;
  offset = converted ? from : 0;
  until = whole ? Math.min(from + PART, about.duration) : end;
  note(converted ? "Converting this part for the browser…" : "");
  const values = converted ? { video: id, start: from, end: until } : { video: id };
  const path = `${converted ? "/excerpt" : "/media"}?${new URLSearchParams(values)}`;
  video.src = converted ? path : `${path}#t=${from}${whole ? "" : `,${end}`}`;
  video.play().catch(() => {}); // a browser may want a click first
}

function note(text) {
  $("player-note").textContent = text;
  $("player-note").hidden = !text;
}

function describe() {
  const path = shown.video.split("/");
  $("player-title").textContent = path.pop();
  $("player-where").textContent = `${path.join("/")}${shown.whole ? "" : ` · ${span(shown)}`}`;
  $("player-moment").hidden = shown.end <= shown.start;
  $("player-moment").setAttribute("aria-pressed", String(!shown.whole));
  $("player-whole").setAttribute("aria-pressed", String(Boolean(shown.whole)));
  $("duration").textContent = about ? clock(about.duration) : "";
  $("labels").hidden = $("player-similar").hidden = shown.end <= shown.start;
  $("label-scores").replaceChildren();
  $("label-note").hidden = true;
  for (const old of $("rail").querySelectorAll("button")) old.remove();
  if (!about) return;
  for (const mark of [...marks].sort((one, other) => one.start - other.start)) {
    const button = make("button", mark.start === shown.start && !shown.whole ? "on" : "");
    button.type = "button";
    button.setAttribute("aria-label", `Play ${span(mark)}`);
    button.title = span(mark);
    button.style.left = `${(100 * mark.start) / about.duration}%`;
    button.style.width = `${(100 * (mark.end - mark.start)) / about.duration}%`;
    button.onclick = (event) => {
      event.stopPropagation();
      play({ video: mark.video, start: mark.start, end: mark.end, whole: false });
    };
    $("rail").append(button);
  }
}

video.addEventListener("timeupdate", () => {
  if (!about) return;
  const second = Math.min(offset + video.currentTime, about.duration);
  $("now").textContent = clock(second);
  $("position").style.left = `${(100 * second) / about.duration}%`;
});
video.addEventListener("loadeddata", () => note(""));
video.addEventListener("ended", () => {
  if (shown?.whole && converted && until < about.duration - 0.05) load(until);
});
video.addEventListener("error", async () => {
  if (!about || !video.getAttribute("src")) return;
  if (!converted) {
    converted = true; // this browser cannot play the file after all
    load(offset + video.currentTime || shown.start);
    return;
  }
  const values = { video: shown.video, start: offset, end: until };
  const answer = await ask("/excerpt", values).catch((error) => error);
  note(answer instanceof Error ? answer.message : "This browser can't play the video.");
});

$("rail").addEventListener("click", (event) => {
  if (!about) return;
  const box = $("rail").getBoundingClientRect();
  const second = (about.duration * (event.clientX - box.left)) / box.width;
  const loaded = converted ? second >= offset && second < until : true;
  if (shown.whole && loaded) video.currentTime = second - offset;
  else if (shown.whole) load(second);
  else {
    wanted = second;
    play({ ...shown, whole: true });
  }
});
$("player-moment").onclick = () => play({ ...shown, whole: false });
$("player-whole").onclick = () => play({ ...shown, whole: true });
$("player-similar").onclick = () => similar(shown);

/** The lines `label: sentence; sentence` as {label: [sentence]}. */
export function promptsOf(text) {
  const prompts = {};
  for (const line of text.split("\n")) {
    const [label, ...rest] = line.split(":");
    if (!label.trim()) continue;
    const sentences = rest.join(":").split(";").map((one) => one.trim()).filter(Boolean);
    prompts[label.trim()] = sentences.length ? sentences : [label.trim()];
  }
  return prompts;
}

$("prompts").value = localStorage.getItem("prompts") ?? "";
$("label-form").onsubmit = async (event) => {
  event.preventDefault();
  const moment = shown;
  localStorage.setItem("prompts", $("prompts").value);
  $("label-note").hidden = true;
  const body = JSON.stringify({ ...moment, prompts: promptsOf($("prompts").value) });
  try {
    const { labels } = await ask("/api/classify", {}, { method: "POST", body });
    if (shown === moment) showLabels(labels);
  } catch (error) {
    $("label-scores").replaceChildren();
    $("label-note").textContent = error.message;
    $("label-note").hidden = false;
  }
};

function showLabels(labels) {
  const scores = labels.map((one) => one.score);
  const [least, most] = [Math.min(...scores), Math.max(...scores)];
  const items = labels.map(({ label, score }) => {
    const item = make("li");
    const bar = make("span", "bar");
    bar.append(make("i"));
    bar.firstChild.style.width = `${most > least ? 5 + (95 * (score - least)) / (most - least) : 100}%`;
    item.append(make("span", "", label), bar, make("span", "", score.toFixed(2)));
    return item;
  });
  $("label-scores").replaceChildren(...items);
  $("label-scores").scrollIntoView({ block: "nearest" });
}
